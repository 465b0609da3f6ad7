"""The rule of what a person may have: who decides in each scope, and which sessions count."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.allowances import Entitlement, Entry, Held, Limit, Reached, Scope, SiteRule, entitlement, reached

SITE = SiteRule(sessions=1)


def entitled(*entries: Entry, groups: tuple[str, ...] = ("staff", "bio"), site: SiteRule = SITE) -> Entitlement:
    """What somebody may have of jupyter on the cluster one."""
    return entitlement(entries, groups=groups, app="jupyter", cluster="one", site=site)


@pytest.mark.parametrize(
    ("entries", "sessions"),
    [
        ([], 1),
        ([Entry(sessions=3)], 3),
        ([Entry(sessions=0)], 0),
        ([Entry("staff", sessions=4)], 4),
        ([Entry("staff", sessions=0)], 0),
        ([Entry("students", sessions=9)], 1),
        ([Entry("staff", sessions=2), Entry("bio", sessions=5)], 5),
        ([Entry("staff", sessions=8), Entry(sessions=2)], 2),
        ([Entry(hours=3), Entry("staff", sessions=6)], 6),
        ([Entry(app="jupyter", sessions=7)], 1),
        ([Entry(cluster="one", sessions=7)], 1),
    ],
    ids=[
        "the site's number",
        "the person's",
        "nothing for the person",
        "their group's",
        "nothing for their group",
        "not another group's",
        "the most generous group's",
        "the person's before a larger one of a group",
        "the group's where the person's entry is about hours only",
        "not the one for an app",
        "not the one for a cluster",
    ],
)
def test_who_decides_about_all_sessions(entries: list[Entry], sessions: int) -> None:
    assert entitled(*entries).sessions(Scope.ALL) == sessions


@pytest.mark.parametrize(
    ("scope", "entry"),
    [
        (Scope.APP, Entry(app="jupyter", sessions=3)),
        (Scope.CLUSTER, Entry(cluster="one", sessions=3)),
        (Scope.APP_ON_CLUSTER, Entry(app="jupyter", cluster="one", sessions=3)),
    ],
)
def test_a_narrow_number_comes_on_top_of_the_wide_one(scope: Scope, entry: Entry) -> None:
    assert entitled(entry).limits == (Limit(scope, 3), Limit(Scope.ALL, 1))


@pytest.mark.parametrize(
    "entry",
    [
        Entry(app="rstudio", sessions=0, hours=1),
        Entry(cluster="two", sessions=0, hours=1),
        Entry(app="jupyter", cluster="two", sessions=0, hours=1),
    ],
)
def test_entries_for_another_app_or_cluster_say_nothing(entry: Entry) -> None:
    assert entitled(entry) == entitled()


def test_the_numbers_of_the_files_count_where_nobody_wrote_another() -> None:
    site = SiteRule(sessions=9, app_sessions=2, cluster_sessions=4)
    assert entitled(site=site).limits == (Limit(Scope.APP, 2), Limit(Scope.CLUSTER, 4), Limit(Scope.ALL, 9))
    assert entitled(Entry("bio", app="jupyter", sessions=6), site=site).sessions(Scope.APP) == 6


@pytest.mark.parametrize(
    ("entries", "of_site", "hours"),
    [
        ([], None, None),
        ([], 8, 8),
        ([Entry("staff", hours=24)], 8, 24),
        ([Entry("staff", hours=24), Entry(hours=2)], 8, 2),
        ([Entry("staff", hours=24), Entry("bio", hours=48)], None, 48),
        ([Entry(app="jupyter", hours=4)], None, 4),
        ([Entry(hours=12), Entry(cluster="one", hours=6), Entry(app="jupyter", cluster="one", hours=9)], 8, 6),
        ([Entry(app="jupyter", hours=12)], 8, 8),
    ],
)
def test_the_hours_are_the_least_of_what_the_scopes_say(
    entries: list[Entry], of_site: float | None, hours: float | None
) -> None:
    assert entitled(*entries, site=SiteRule(sessions=1, hours=of_site)).hours == hours


some_entries = st.lists(
    st.builds(
        Entry,
        group=st.sampled_from(["", "staff", "bio", "students"]),
        app=st.sampled_from(["", "jupyter", "rstudio"]),
        cluster=st.sampled_from(["", "one", "two"]),
        sessions=st.none() | st.integers(0, 9),
        hours=st.none() | st.floats(0.1, 99),
    ),
    max_size=8,
    unique_by=lambda entry: (entry.group, entry.app, entry.cluster),
)
some_sites = st.builds(
    SiteRule,
    sessions=st.integers(1, 9),
    app_sessions=st.none() | st.integers(0, 9),
    cluster_sessions=st.none() | st.integers(0, 9),
    hours=st.none() | st.floats(0.1, 99),
)


@given(some_entries, some_sites, st.sampled_from(Scope), st.integers(0, 5), st.floats(0, 50))
def test_allowing_a_person_more_never_lowers_anything(
    entries: list[Entry], site: SiteRule, scope: Scope, more_sessions: int, more_hours: float
) -> None:
    before = entitled(*entries, site=site)
    app, cluster = "jupyter" if scope.of_app else "", "one" if scope.on_cluster else ""
    own = next((entry for entry in entries if (entry.group, entry.app, entry.cluster) == ("", app, cluster)), Entry())
    of_groups = [
        entry.hours
        for entry in entries
        if entry.group in ("staff", "bio") and (entry.app, entry.cluster) == (app, cluster) and entry.hours is not None
    ]
    here = own.hours if own.hours is not None else max(of_groups, default=site.hours if scope is Scope.ALL else None)
    there = before.sessions(scope)
    larger = Entry(
        app=app,
        cluster=cluster,
        sessions=None if there is None else there + more_sessions,
        hours=None if here is None else here + more_hours,
    )
    others = [entry for entry in entries if entry != own]
    after = entitled(*others, larger, site=site)
    for each in Scope:
        assert (after.sessions(each) is None) == (before.sessions(each) is None)
        assert (after.sessions(each) or 0) >= (before.sessions(each) or 0)
    assert (after.hours is None) == (before.hours is None)
    assert (after.hours or 0) >= (before.hours or 0)


@given(some_entries, some_sites, st.randoms())
def test_the_order_of_the_entries_does_not_matter(entries: list[Entry], site: SiteRule, dice: object) -> None:
    shuffled = list(entries)
    dice.shuffle(shuffled)  # type: ignore[attr-defined]  # a random.Random
    assert entitled(*shuffled, site=site) == entitled(*entries, site=site)


# ---- which sessions count -------------------------------------------------------------------------------------------


def held(*sessions: tuple[str, str, str] | tuple[str, str, str, str]) -> list[Held]:
    """Live sessions, newest first."""
    return [Held(*session) for session in sessions]


def broken(limits: dict[Scope, int], sessions: list[Held], continuing: str = "") -> Reached | None:
    """What a launch of jupyter on the cluster one would break."""
    entitled = Entitlement(tuple(Limit(scope, limits[scope]) for scope in Scope if scope in limits), None)
    return reached(entitled, sessions, app="jupyter", cluster="one", continuing=continuing)


MIXED = held(("d", "rstudio", "two"), ("c", "jupyter", "two"), ("b", "rstudio", "one"), ("a", "jupyter", "one"))


@pytest.mark.parametrize(
    ("scope", "count", "in_the_way"),
    [(Scope.ALL, 4, "d"), (Scope.APP, 2, "c"), (Scope.CLUSTER, 2, "b"), (Scope.APP_ON_CLUSTER, 1, "a")],
)
def test_each_limit_counts_its_own_sessions_and_names_the_newest(scope: Scope, count: int, in_the_way: str) -> None:
    assert broken({scope: count}, MIXED) == Reached(Limit(scope, count), held=count, in_the_way=in_the_way)
    assert broken({scope: count + 1}, MIXED) is None


def test_of_several_limits_the_narrowest_is_named() -> None:
    found = broken({Scope.ALL: 4, Scope.CLUSTER: 2, Scope.APP: 2}, MIXED)
    assert found is not None
    assert found.limit.scope is Scope.APP


def test_where_nothing_is_allowed_no_session_is_in_the_way() -> None:
    assert broken({Scope.ALL: 2, Scope.APP: 0}, MIXED) == Reached(Limit(Scope.APP, 0), held=2, in_the_way="")


def test_nothing_at_all_is_named_before_nothing_of_the_app() -> None:
    found = broken({Scope.ALL: 0, Scope.APP: 0}, [])
    assert found is not None
    assert found.limit.scope is Scope.ALL


A = ("a", "jupyter", "one")
B_CONTINUES_A = ("b", "jupyter", "one", "a")
C = ("c", "jupyter", "one")
C_CONTINUES_B = ("c", "jupyter", "one", "b")
D_CONTINUES_C = ("d", "jupyter", "one", "c")


@pytest.mark.parametrize(
    ("sessions", "most", "continuing", "refused"),
    [
        (held(A), 1, "a", False),
        (held(A), 1, "", True),
        (held(A), 1, "not-live", True),
        (held(B_CONTINUES_A, A), 1, "a", True),
        (held(B_CONTINUES_A, A), 1, "b", True),
        (held(B_CONTINUES_A, A), 2, "", True),
        (held(B_CONTINUES_A), 1, "b", False),
        (held(C_CONTINUES_B, B_CONTINUES_A), 1, "c", True),
        (held(C, B_CONTINUES_A, A), 2, "c", False),
        (held(C, B_CONTINUES_A, A), 2, "", True),
        (held(C, B_CONTINUES_A, A), 2, "a", True),
        (held(D_CONTINUES_C, C, B_CONTINUES_A, A), 2, "c", True),
        (held(C, A), 1, "a", True),
    ],
    ids=[
        "a continuation stands beside its predecessor",
        "a launch of its own does not",
        "what does not run gives no place",
        "not two continuations of one session",
        "no chain while the first still runs",
        "a launch of its own counts both of a pair",
        "a continuation can be continued after its predecessor's end",
        "again no chain",
        "each session may have its continuation",
        "with a continuation the others still count",
        "the continued one is not continued twice",
        "nor where all are continued",
        "other sessions stand in a continuation's way",
    ],
)
def test_what_a_continuation_may_stand_beside(sessions: list[Held], most: int, continuing: str, refused: bool) -> None:
    assert (broken({Scope.ALL: most}, sessions, continuing) is not None) == refused


def test_the_session_that_is_continued_is_never_the_one_in_the_way() -> None:
    found = broken({Scope.ALL: 1}, held(A, C), continuing="a")
    assert found is not None
    assert found.in_the_way == "c"


def test_nothing_allowed_means_no_continuation_either() -> None:
    assert broken({Scope.ALL: 0}, held(A), continuing="a") is not None


@given(st.integers(1, 4), st.lists(st.tuples(st.booleans(), st.integers(0, 9)), max_size=30))
def test_no_order_of_launches_gives_more_than_one_continuation_beside_each_session(
    most: int, tries: list[tuple[bool, int]]
) -> None:
    """However somebody launches and continues: without the continuations there are never more than allowed."""
    sessions: list[Held] = []
    for number, (continues, which) in enumerate(tries):
        wanted = sessions[which % len(sessions)].id if continues and sessions else ""
        if broken({Scope.ALL: most}, sessions, wanted) is None:
            sessions.insert(0, Held(str(number), "jupyter", "one", wanted))
    assert len(sessions) <= 2 * most
