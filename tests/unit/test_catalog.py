"""Apps as data, and the check of what a person asks for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.catalog import (
    App,
    CatalogError,
    ChoicesRefused,
    LaunchChoices,
    check_choices,
    default_choices,
    limits,
    load_apps,
)
from launcher.clusters import Cluster

APPS = Path(__file__).parents[2] / "apps"
CLUSTER = Cluster.model_validate(
    {
        "id": "one",
        "name": "One",
        "login_hosts": ["login"],
        "host_keys": ["ssh-ed25519 A"],
        "modules": ["anaconda/5.3.0", "r/4"],
        "queues": [
            {"name": "workq", "max_cores": 8, "max_memory": "16gb", "max_hours": 24},
            {"name": "gpu", "label": "With a GPU", "max_cores": 4, "max_memory": "8gb", "max_hours": 2, "max_gpus": 2},
        ],
    }
)
SHIPPED = load_apps([APPS])
JUPYTER, CONTAINER = SHIPPED["jupyter"], SHIPPED["jupyter-container"]
IMAGE = "/apps/containers/base.sif"


def check(**raw: object) -> LaunchChoices:
    """Choices for the Jupyter app."""
    return check_choices(JUPYTER, CLUSTER, raw)


def refused(app: App = JUPYTER, /, **raw: object) -> list[tuple[str, str, Mapping[str, object]]]:
    """The mistakes in ``raw``."""
    with pytest.raises(ChoicesRefused) as caught:
        check_choices(app, CLUSTER, raw)
    return [(mistake.field, mistake.code, mistake.params) for mistake in caught.value.mistakes]


# ---- apps -----------------------------------------------------------------------------------------------------------


def app_folder(root: Path, toml: str, script: str = "#!/bin/bash\n", name: str = "tool") -> Path:
    """A folder of apps with one app in it."""
    folder = root / name
    folder.mkdir()
    (folder / "app.toml").write_text(toml, encoding="utf-8")
    (folder / "script.sh.j2").write_text(script, encoding="utf-8")
    return root


LEAST = """
name = "Tool"
description = "A tool"
server = "jupyter"
start = ["jupyter-lab"]
fields = [
  { kind = "cores", label = "Cores", default = 1 },
  { kind = "memory", label = "Memory", default = "1gb" },
  { kind = "hours", label = "Hours", default = 1 },
]
"""


def mistakes_in(root: Path) -> str:
    """What the error says."""
    with pytest.raises(CatalogError) as caught:
        load_apps([root])
    return caught.value.detail


def test_the_shipped_apps_load_in_english_and_chinese() -> None:
    assert list(SHIPPED) == ["jupyter", "jupyter-container"]
    for app in SHIPPED.values():
        texts = [app.name, app.description, *(field.label for field in app.fields)]
        texts += [field.help for field in app.fields if field.help["en"]]
        assert all(set(text) == {"en", "zh-hans"} for text in texts)


def test_the_shipped_icons_are_svg() -> None:
    assert all(app.icon and app.icon.startswith(b"<svg ") for app in SHIPPED.values())


def test_a_plain_text_is_english(tmp_path: Path) -> None:
    assert load_apps([app_folder(tmp_path, LEAST)])["tool"].name == {"en": "Tool"}


def test_an_app_of_a_later_folder_replaces_one_of_the_same_name(tmp_path: Path) -> None:
    app_folder(tmp_path, LEAST, name="jupyter")
    apps = load_apps([APPS, tmp_path])
    assert apps["jupyter"].name == {"en": "Tool"}
    assert "jupyter-container" in apps


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('name = "Tool"', "", "name"),
        ('name = "Tool"', 'name = { de = "Werkzeug" }', "English"),
        ('name = "Tool"', 'name = "Tool"\nid = "other"', "id: unknown key"),
        ('name = "Tool"', 'name = "Tool"\nscript = "x"', "script: unknown key"),
        ('name = "Tool"', 'name = "Tool"\ncolour = 1', "colour"),
        ('server = "jupyter"', 'server = "vnc"', "server"),
        ('["jupyter-lab"]', "[]", "start"),
        ('["jupyter-lab"]', '["jupyter lab"]', "name of a command"),
        ('["jupyter-lab"]', '["../x"]', "name of a command"),
        ('kind = "cores"', 'kind = "colour"', "fields.0.kind"),
        ('kind = "cores"', 'kind = "hours"', "more than one field of the kind hours"),
        ('{ kind = "hours", label = "Hours", default = 1 },', "", "no field of the kind hours"),
        ('default = "1gb"', 'default = "1xb"', "not an amount of memory"),
        ('label = "Cores", default = 1', 'label = "Cores", default = 1.5', "no number of cores"),
        ('label = "Cores", default = 1', 'label = "Cores", default = 9, max = 4', "in this order"),
        ('label = "Cores", default = 1', 'label = "Cores", default = 0, min = 1', "in this order"),
        ('label = "Hours", default = 1', 'label = "Hours", default = nan', "no number of hours"),
        ('label = "Hours", default = 1', 'label = "Hours", default = "x"', "fields.2"),
        ("fields = [", "container = true\nfields = [", "image field"),
        ("fields = [", 'fields = [{ kind = "image", label = "Image" },', "image field"),
        ("fields = [", 'fields = [{ kind = "title", label = "T", max = 3 },', "no min or max"),
        ("fields = [", "idle_stop_seconds = -1\nfields = [", "idle_stop_seconds"),
        ("fields = [", 'modules = ["a b"]\nfields = [', "name of a module"),
    ],
)
def test_a_mistake_in_an_app_is_named(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in LEAST
    detail = mistakes_in(app_folder(tmp_path, LEAST.replace(old, new)))
    assert "app.toml" in detail
    assert said in detail


def test_a_folder_with_a_bad_name_is_no_app(tmp_path: Path) -> None:
    assert "id: " in mistakes_in(app_folder(tmp_path, LEAST, name="My App"))


def test_mistakes_of_all_apps_are_reported_at_once(tmp_path: Path) -> None:
    app_folder(tmp_path, "x = ", name="first")
    app_folder(tmp_path, LEAST, script="#PBS -q fast\n", name="second")
    detail = mistakes_in(tmp_path)
    assert "first" in detail
    assert "second/script.sh.j2: line 1: scheduler directives" in detail


def test_an_app_without_a_script_is_a_mistake(tmp_path: Path) -> None:
    (app_folder(tmp_path, LEAST) / "tool" / "script.sh.j2").unlink()
    assert "script.sh.j2: No such file" in mistakes_in(tmp_path)


def test_a_missing_folder_of_apps_is_a_mistake(tmp_path: Path) -> None:
    assert "No such file" in mistakes_in(tmp_path / "apps")


# ---- choices --------------------------------------------------------------------------------------------------------


def test_nothing_sent_means_the_defaults() -> None:
    assert check() == LaunchChoices(2, 4096, 4 * 3600, queue="workq")


def test_text_of_a_form_and_numbers_of_json_mean_the_same() -> None:
    texts = check(cores="4", memory="2", hours="1.5", gpus="0")
    assert texts == check(cores=4, memory=2, hours=1.5, gpus=0) == check(cores=4.0, memory=2.0, hours=1.5)
    assert (texts.cores, texts.memory_mib, texts.walltime_seconds) == (4, 2048, 5400)


def test_choices_survive_json() -> None:
    choices = check(title="it's “mine” 🎉", environment="module:r/4", folder="data")
    assert LaunchChoices.from_dict(json.loads(json.dumps(choices.as_dict()))) == choices


def test_keys_of_another_release_are_left_out() -> None:
    assert LaunchChoices.from_dict({**check().as_dict(), "colour": "red"}) == check()


@pytest.mark.parametrize("data", [{}, {"cores": "2"}, {"cores": 1, "memory_mib": 1, "walltime_seconds": True}])
def test_what_are_no_stored_choices_is_a_value_error(data: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="no launch choices"):
        LaunchChoices.from_dict(data)


@pytest.mark.parametrize(
    ("field", "value", "code", "params"),
    [
        ("cores", 0, "cores.too_few", {"min": 1}),
        ("cores", "-3", "cores.too_few", {"min": 1}),
        ("cores", 10**6, "cores.too_many", {"max": 8}),
        ("cores", "9" * 390, "cores.too_many", {"max": 8}),
        ("cores", 10**400, "cores.too_many", {"max": 8}),
        ("cores", "two", "cores.not_a_number", {}),
        ("cores", "٣x", "cores.not_a_number", {}),
        ("cores", "1e3", "cores.not_a_number", {}),
        ("cores", True, "cores.not_a_number", {}),
        ("cores", [2], "cores.not_a_number", {}),
        ("cores", "", "cores.required", {}),
        ("cores", "2.5", "cores.not_whole", {}),
        ("memory", "1.5x", "memory.not_an_amount", {}),
        ("memory", float("nan"), "memory.not_an_amount", {}),
        ("memory", {"gb": 4}, "memory.not_an_amount", {}),
        ("memory", " ", "memory.required", {}),
        ("memory", "1tb", "memory.too_much", {"max": 16 * 1024}),
        ("memory", 10**400, "memory.too_much", {"max": 16 * 1024}),
        ("memory", "100mb", "memory.too_little", {"min": 512}),
        ("hours", 0, "hours.too_few", {"min": 0.05}),
        ("hours", 25, "hours.over_queue_limit", {"max": 24, "queue": "workq"}),
        ("hours", float("nan"), "hours.not_a_number", {}),
        ("hours", float("inf"), "hours.not_a_number", {}),
        ("hours", "inf", "hours.not_a_number", {}),
        ("hours", "", "hours.required", {}),
        ("gpus", 1, "gpus.none", {"queue": "workq"}),
        ("gpus", -1, "gpus.too_few", {"min": 0}),
        ("queue", "fast", "queue.unknown", {}),
        ("queue", 7, "queue.not_text", {}),
        ("environment", "module:matlab/9", "environment.unknown_module", {"value": "matlab/9"}),
        ("environment", "module:", "environment.unknown_module", {"value": ""}),
        ("environment", "nonsense", "environment.unknown_module", {"value": "nonsense"}),
        ("environment", "path", "environment.path_required", {}),
        ("environment", "path:envs/x", "environment.not_absolute", {}),
        ("environment", "~bob/env", "environment.not_absolute", {}),
        ("environment", {"kind": "module"}, "environment.not_text", {}),
        ("environment", "/env\n#PBS -q fast", "environment.control_characters", {}),
        ("folder", "a\nb", "folder.control_characters", {}),
        ("folder", "x" * 1025, "folder.too_long", {"max": 1024}),
        ("folder", 3, "folder.not_text", {}),
        ("title", "x" * 81, "title.too_long", {"max": 80}),
        ("title", "x" * 10_000, "title.too_long", {"max": 80}),
        ("title", "two\nlines", "title.control_characters", {}),
        ("title", "line end\n", "title.control_characters", {}),
        ("title", "null\x00", "title.control_characters", {}),
        ("title", "two\u2028lines", "title.control_characters", {}),
        ("title", "\ud800", "title.control_characters", {}),
        ("title", "evil\u202egpj", "title.control_characters", {}),
        ("title", 12, "title.not_text", {}),
    ],
)
def test_a_wrong_value_is_refused_with_its_code(
    field: str, value: object, code: str, params: Mapping[str, object]
) -> None:
    assert refused(**{field: value}) == [(field, code, params)]


@pytest.mark.parametrize("image", ["", "path", "  "])
def test_an_image_is_required(image: str) -> None:
    assert refused(CONTAINER, image=image) == [("image", "image.required", {})]


@pytest.mark.parametrize("image", ["base.sif", "~/base.sif", "docker://python", "../x.sif"])
def test_an_image_is_a_whole_path(image: str) -> None:
    assert refused(CONTAINER, image=image) == [("image", "image.not_absolute", {})]


def test_all_mistakes_are_told_at_once() -> None:
    codes = [code for _, code, _ in refused(cores=0, memory="x", hours="", title="\n\x01")]
    assert codes == ["cores.too_few", "memory.not_an_amount", "hours.required", "title.control_characters"]


def test_a_wrong_queue_alone_makes_no_other_value_wrong() -> None:
    assert [code for _, code, _ in refused(queue="fast", cores=500, hours=100, gpus=1)] == ["queue.unknown"]


def test_the_limits_are_those_of_the_chosen_queue() -> None:
    assert check(queue="gpu", gpus=2, cores=4, hours=2).queue == "gpu"
    assert refused(queue="gpu", gpus=3, cores=5, hours=3) == [
        ("cores", "cores.too_many", {"max": 4}),
        ("hours", "hours.over_queue_limit", {"max": 2, "queue": "With a GPU"}),
        ("gpus", "gpus.too_many", {"max": 2}),
    ]


def test_an_app_may_allow_less_than_the_queue() -> None:
    fields = [f.model_copy(update={"max": 3.0}) if f.kind in ("cores", "hours") else f for f in JUPYTER.fields]
    app = JUPYTER.model_copy(update={"fields": tuple(fields)})
    assert refused(app, cores=4, hours=4) == [
        ("cores", "cores.too_many", {"max": 3}),
        ("hours", "hours.too_many", {"max": 3}),
    ]


@pytest.mark.parametrize(
    ("raw", "kind", "value"),
    [
        ({"environment": ""}, "default", ""),
        ({"environment": "default", "environment_path": "/left/over"}, "default", ""),
        ({"environment": "module:anaconda/5.3.0"}, "module", "anaconda/5.3.0"),
        ({"environment": "r/4"}, "module", "r/4"),
        ({"environment": "path:~/envs/a b"}, "path", "~/envs/a b"),
        ({"environment": "/opt/env"}, "path", "/opt/env"),
        ({"environment": "path", "environment_path": " /opt/it's "}, "path", "/opt/it's"),
        ({"environment": "", "environment_path": "/opt/env"}, "path", "/opt/env"),
    ],
)
def test_an_environment_can_be_named_in_several_ways(raw: dict[str, object], kind: str, value: str) -> None:
    choices = check(**raw)
    assert (choices.environment_kind, choices.environment_value) == (kind, value)


@pytest.mark.parametrize("raw", [{"image": IMAGE}, {"image": "path", "image_path": IMAGE}, {"image_path": IMAGE}])
def test_an_image_is_chosen_or_typed(raw: dict[str, object]) -> None:
    assert check_choices(CONTAINER, CLUSTER, raw).image == IMAGE


@pytest.mark.parametrize(
    ("folder", "kept"),
    [("", ""), ("~", ""), ("~/", ""), ("~/data", "data"), ("data/x", "data/x"), ("/scratch/a b", "/scratch/a b")],
)
def test_a_folder_is_absolute_or_below_home(folder: str, kept: str) -> None:
    assert check(folder=folder).folder == kept


@pytest.mark.parametrize("title", ["🎉 party", 'it\'s "mine"', "$(id) `x` \\", "研究", "👩‍💻", "<b>&"])
def test_a_title_keeps_quotes_and_emoji(title: str) -> None:
    assert check(title=f"  {title} ").title == title


@pytest.mark.parametrize("key", ["colour", "image", "image_path", "", "csrf" * 40])
def test_a_field_that_the_app_does_not_have_is_refused(key: str) -> None:
    assert refused(**{key: "x"}) == [(key[:64], "choices.unknown_field", {})]


def test_what_is_no_object_is_refused() -> None:
    with pytest.raises(ChoicesRefused) as caught:
        check_choices(JUPYTER, CLUSTER, [1])  # type: ignore[arg-type]  # JSON can be anything
    assert caught.value.mistakes[0].code == "choices.not_an_object"


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["path", "4gb", "module:r/4"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
_KEYS = ["environment", "environment_path", "cores", "memory", "hours", "gpus", "queue", "folder", "title", "image"]


@given(st.sampled_from([JUPYTER, CONTAINER]), st.dictionaries(st.sampled_from(_KEYS) | st.text(), _JSON, max_size=8))
def test_any_json_is_granted_within_the_limits_or_refused(app: App, raw: dict[str, object]) -> None:
    try:
        choices = check_choices(app, CLUSTER, raw)
    except ChoicesRefused as error:
        assert error.mistakes  # noqa: PT017 - both outcomes are right
        return
    queue = CLUSTER.queue(choices.queue)
    assert queue is not None
    assert 1 <= choices.cores <= queue.max_cores
    assert 512 <= choices.memory_mib <= queue.max_memory_mib
    assert 180 <= choices.walltime_seconds <= queue.max_hours * 3600
    assert 0 <= choices.gpus <= queue.max_gpus
    assert "\n" not in choices.title + choices.folder + choices.image + choices.environment_value


def test_default_values_are_lowered_to_what_the_cluster_allows() -> None:
    small = CLUSTER.model_copy(
        update={
            "queues": (CLUSTER.queues[0].model_copy(update={"max_cores": 1, "max_memory_mib": 2048, "max_hours": 1}),)
        }
    )
    values = default_choices(JUPYTER, small)
    assert (values["cores"], values["memory"], values["hours"]) == (1, "2048 MiB", 1)
    assert check_choices(JUPYTER, small, {}).memory_mib == 2048


def test_the_default_values_of_a_form_are_accepted() -> None:
    assert check_choices(JUPYTER, CLUSTER, default_choices(JUPYTER, CLUSTER)) == check()


def test_a_default_module_that_the_cluster_lacks_becomes_the_sites_default() -> None:
    fields = [
        f.model_copy(update={"default": "module:matlab/9"}) if f.kind == "environment" else f for f in JUPYTER.fields
    ]
    app = JUPYTER.model_copy(update={"fields": tuple(fields)})
    assert check_choices(app, CLUSTER, {}).environment_kind == "default"


def test_limits_take_the_tighter_of_app_and_queue() -> None:
    bounds = limits(JUPYTER, CLUSTER.queues[1])
    assert (bounds.min_memory_mib, bounds.max_memory_mib, bounds.max_cores, bounds.max_gpus) == (512, 8192, 4, 2)


# ---- what a person may have -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("most_hours", "hours", "mistake"),
    [
        (3, "4", ("hours", "hours.over_allowance", {"max": 3})),
        (3, "0", ("hours", "hours.too_few", {"min": 0.05})),
        (100, "25", ("hours", "hours.over_queue_limit", {"max": 24, "queue": "workq"})),
        (0.01, "1", ("hours", "hours.none_allowed", {"min": 0.05, "max": 0.01})),
    ],
)
def test_hours_beyond_what_the_person_may_have_are_refused(
    most_hours: float, hours: str, mistake: tuple[str, str, Mapping[str, object]]
) -> None:
    with pytest.raises(ChoicesRefused) as caught:
        check_choices(JUPYTER, CLUSTER, {"hours": hours}, most_hours=most_hours)
    assert [(one.field, one.code, one.params) for one in caught.value.mistakes] == [mistake]


def test_the_default_hours_are_never_more_than_the_person_may_have() -> None:
    assert default_choices(JUPYTER, CLUSTER, most_hours=0.5)["hours"] == 0.5
    assert check_choices(JUPYTER, CLUSTER, {}, most_hours=0.5).walltime_seconds == 1800


def test_an_app_says_how_many_of_it_a_person_may_have(tmp_path: Path) -> None:
    app = load_apps([app_folder(tmp_path, "sessions_per_user = 2\n" + LEAST)])["tool"]
    assert app.sessions_per_user == 2
