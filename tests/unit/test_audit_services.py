"""Recording, and what the check of the chain finds after somebody was at the database."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable

import pytest
from django.conf import LazySettings
from django.core.management import call_command
from django.db import connection, transaction
from django.db.transaction import TransactionManagementError

from portal.audit import chain, selectors
from portal.audit.chain import Break, Flaw, Link, Tip
from portal.audit.events import SessionLaunched, SessionSubmitted, UserSignedOut, UserSignInRefused
from portal.audit.models import AuditEvent, AuditHead, ImmutableError
from portal.audit.services import record, record_once

pytestmark = pytest.mark.django_db


COPY = """INSERT INTO audit_auditevent
    SELECT %d, at, name, version, actor, address, session_id, data_json, previous_hash, hash
    FROM audit_auditevent WHERE sequence = %d"""


def record_some(count: int) -> None:
    """``count`` events."""
    for number in range(count):
        record(SessionSubmitted(job_id=f"{number}.pbs01"), actor="alice", session_id="abcdefghjkmn")


def sql(statement: str, *values: object) -> None:
    """What somebody with the database's password does."""
    with connection.cursor() as cursor:
        cursor.execute(statement, values)


def broken() -> Break | None:
    """What a check of the whole chain finds."""
    return selectors.verify().broken


def recompute_from(sequence: int) -> None:
    """What somebody does who has read the code, but has no key."""
    previous = AuditEvent.objects.get(sequence=sequence - 1).hash if sequence > 1 else chain.GENESIS
    for event in AuditEvent.objects.filter(sequence__gte=sequence).order_by("sequence"):
        event.previous_hash = previous
        link = Link(**{field.name: getattr(event, field.name) for field in dataclasses.fields(Link)})
        previous = chain.row_hash(link)
        sql(
            "UPDATE audit_auditevent SET previous_hash = %s, hash = %s WHERE sequence = %s",
            event.previous_hash,
            previous,
            event.sequence,
        )
    sql("UPDATE audit_audithead SET hash = %s, count = (SELECT MAX(sequence) FROM audit_auditevent)", previous)


def test_event_is_stored_whole() -> None:
    event = SessionLaunched(
        app="jupyter",
        cluster="demo",
        title="分析 “1”\n",
        cores=4,
        memory_mib=8192,
        walltime_seconds=3600,
        gpus=0,
        queue="",
    )
    record(event, actor="alice", address="192.0.2.7", session_id="abcdefghjkmn")
    row = AuditEvent.objects.get()
    assert (row.sequence, row.name, row.version) == (1, "session.launched", 1)
    assert (row.actor, row.address, row.session_id) == ("alice", "192.0.2.7", "abcdefghjkmn")
    assert row.data["title"] == "分析 “1”\n"
    assert row.data["cores"] == 4


@pytest.mark.django_db(transaction=True)
def test_recording_needs_a_transaction() -> None:
    with pytest.raises(TransactionManagementError):
        record(UserSignedOut(), actor="alice")


@pytest.mark.django_db(transaction=True)
def test_rolled_back_event_leaves_no_trace() -> None:
    with transaction.atomic():
        record_some(2)
    with transaction.atomic():
        record_some(3)
        transaction.set_rollback(True)
    with transaction.atomic():
        record_some(1)
    assert selectors.last_sequence() == 3
    assert broken() is None


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("x" * 10_000, "x" * 63 + "…"),
        ("eve\r\nfake line", "eve\ufffd\ufffdfake line"),
        ("nul\0", "nul\ufffd"),
        ("half\ud800", "half\ufffd"),
        ("line\u2028break\u2029", "line\ufffdbreak\ufffd"),
    ],
)
def test_hostile_actor_is_made_harmless(given: str, kept: str) -> None:
    record(UserSignInRefused(way="cluster", cause="password"), actor=given)
    assert AuditEvent.objects.get().actor == kept
    assert broken() is None


def test_hostile_values_are_stored_and_still_verify() -> None:
    record(SessionSubmitted(job_id="nul\0 half\ud800 emoji😀 " + "x" * 10_000), actor="alice")
    stored = AuditEvent.objects.get().data["job_id"]
    assert stored.startswith("nul\ufffd half? emoji😀 ")
    assert len(stored) == 2000
    assert broken() is None


def test_recorded_event_cannot_be_saved_again() -> None:
    record_some(1)
    row = AuditEvent.objects.get()
    row.actor = "bob"
    with pytest.raises(ImmutableError):
        row.save()


@pytest.mark.parametrize(
    "attempt",
    [
        lambda: AuditEvent.objects.get().delete(),
        lambda: AuditEvent.objects.all().delete(),
        lambda: AuditEvent.objects.update(actor="bob"),
        lambda: AuditEvent.objects.bulk_create([]),
        lambda: AuditEvent.objects.bulk_update([], ["actor"]),
    ],
)
def test_code_cannot_change_the_log(attempt: Callable[[], object]) -> None:
    record_some(1)
    with pytest.raises(ImmutableError):
        attempt()
    assert AuditEvent.objects.get().actor == "alice"


def test_repeated_attempt_is_recorded_once() -> None:
    refusal = UserSignInRefused(way="token", cause="expired")
    assert record_once(refusal, actor="alice") is not None
    assert record_once(refusal, actor="alice") is None
    assert record_once(refusal, actor="bob") is not None
    assert record_once(refusal, actor="alice", session_id="abcdefghjkmn") is not None
    assert record_once(UserSignInRefused(way="token", cause="revoked"), actor="alice") is not None


def test_of_each_network_a_repeated_event_is_recorded_once() -> None:
    event = UserSignInRefused(way="token", cause="expired")
    seen = ["192.0.2.1", "192.0.2.2", "192.0.2.1", "2001:db8::1", "2001:db8::ffff:2", "2001:db8:0:1::1", "", "unix", ""]
    written = [record_once(event, actor="alice", address=address, of_each_network=True) for address in seen]
    assert [row.address for row in written if row is not None] == [
        "192.0.2.1",
        "192.0.2.2",
        "2001:db8::1",
        "2001:db8:0:1::1",
        "",
        "unix",
    ]


def test_untouched_log_is_whole() -> None:
    record_some(5)
    result = selectors.verify()
    assert result.broken is None
    assert result.tip == Tip(5, AuditEvent.objects.get(sequence=5).hash)


def test_empty_log_is_whole() -> None:
    assert selectors.verify() == selectors.Verification(Tip(), None)


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("UPDATE audit_auditevent SET actor = 'bob' WHERE sequence = 3", Break(3, Flaw.EDITED)),
        ("UPDATE audit_auditevent SET data_json = '{}' WHERE sequence = 1", Break(1, Flaw.EDITED)),
        ("DELETE FROM audit_auditevent WHERE sequence = 3", Break(3, Flaw.MISSING)),
        ("DELETE FROM audit_auditevent WHERE sequence = 1", Break(1, Flaw.MISSING)),
        ("DELETE FROM audit_auditevent WHERE sequence > 3", Break(4, Flaw.MISSING)),
        ("DELETE FROM audit_auditevent", Break(1, Flaw.MISSING)),
        ("DELETE FROM audit_audithead", Break(1, Flaw.HEAD)),
        ("UPDATE audit_audithead SET count = 4", Break(4, Flaw.HEAD)),
        ("UPDATE audit_audithead SET count = 9", Break(6, Flaw.MISSING)),
        ("UPDATE audit_audithead SET seal = ''", Break(5, Flaw.SEAL)),
        (
            COPY % (6, 5),
            Break(6, Flaw.EXTRA),
        ),
        (
            COPY % (0, 1),
            Break(0, Flaw.EXTRA),
        ),
    ],
)
def test_tampering_is_found(statement: str, found: Break) -> None:
    record_some(5)
    sql(statement)
    assert broken() == found


def test_rows_swapped_are_found() -> None:
    record_some(5)
    sql("UPDATE audit_auditevent SET sequence = 99 WHERE sequence = 2")
    sql("UPDATE audit_auditevent SET sequence = 2 WHERE sequence = 3")
    sql("UPDATE audit_auditevent SET sequence = 3 WHERE sequence = 99")
    assert broken() == Break(2, Flaw.EDITED)


def test_row_put_in_between_is_found() -> None:
    record_some(3)
    sql("UPDATE audit_auditevent SET sequence = 4 WHERE sequence = 3")
    sql(
        "INSERT INTO audit_auditevent SELECT 3, at, name, version, actor, address, session_id, data_json,"
        " hash, hash FROM audit_auditevent WHERE sequence = 2"
    )
    recompute_from(3)
    assert broken() == Break(4, Flaw.SEAL)


def test_whole_chain_computed_anew_without_the_key_is_found() -> None:
    record_some(5)
    sql("UPDATE audit_auditevent SET actor = 'bob' WHERE sequence = 2")
    recompute_from(2)
    assert broken() == Break(5, Flaw.SEAL)


def test_recording_after_a_forged_end_notes_it_instead_of_sealing_it() -> None:
    record_some(5)
    sql("DELETE FROM audit_auditevent WHERE sequence > 3")
    recompute_from(3)
    record_some(1)
    assert broken() == Break(4, Flaw.REPORTED)
    note = AuditEvent.objects.get(sequence=4)
    assert (note.name, note.actor) == ("audit.chain_broken", "portal")
    assert note.data == {"cause": "seal", "noted_rows": 3, "found_rows": 3}


@pytest.mark.parametrize(
    ("statement", "cause"),
    [
        ("DELETE FROM audit_audithead", "head"),
        (
            COPY % (6, 5),
            "rows",
        ),
    ],
)
def test_recording_goes_on_after_tampering_and_notes_it(statement: str, cause: str) -> None:
    record_some(5)
    sql(statement)
    record_some(1)
    assert AuditEvent.objects.get(name="audit.chain_broken").data["cause"] == cause
    assert broken() is not None


def test_rows_cut_off_stay_missing_when_recording_goes_on() -> None:
    record_some(5)
    sql("DELETE FROM audit_auditevent WHERE sequence > 3")
    record_some(1)
    assert broken() == Break(4, Flaw.MISSING)


def test_changed_secret_key_with_the_old_one_kept_breaks_nothing(settings: LazySettings) -> None:
    record_some(2)
    settings.SECRET_KEY_FALLBACKS = [settings.SECRET_KEY]
    settings.SECRET_KEY = "a newer key that is long enough to be one, really"
    assert broken() is None
    record_some(1)
    settings.SECRET_KEY_FALLBACKS = []
    assert broken() is None


def test_database_put_back_to_an_earlier_state_shows_against_a_kept_end() -> None:
    record_some(3)
    head = AuditHead.objects.get()
    record_some(2)
    kept = selectors.verify().tip
    sql("DELETE FROM audit_auditevent WHERE sequence > 3")
    sql("UPDATE audit_audithead SET count = 3, hash = %s, seal = %s", head.hash, head.seal)
    assert broken() is None
    assert selectors.verify(expect=kept).broken == Break(4, Flaw.MISSING)
    record(UserSignedOut(), actor="bob")
    record(UserSignedOut(), actor="bob")
    assert selectors.verify(expect=kept).broken == Break(5, Flaw.UNEXPECTED)


def test_kept_end_is_still_in_a_log_that_grew() -> None:
    record_some(3)
    kept = selectors.verify().tip
    record_some(2)
    assert selectors.verify(expect=kept).broken is None


def test_command_says_that_the_log_is_whole() -> None:
    record_some(3)
    out = io.StringIO()
    call_command("verifyaudit", stdout=out)
    assert "3 rows" in out.getvalue()
    assert f"3:{AuditEvent.objects.get(sequence=3).hash}" in out.getvalue()


def test_command_names_the_first_broken_row_and_fails() -> None:
    record_some(5)
    sql("UPDATE audit_auditevent SET actor = 'bob' WHERE sequence IN (2, 4)")
    errors = io.StringIO()
    with pytest.raises(SystemExit) as stopped:
        call_command("verifyaudit", stderr=errors)
    assert stopped.value.code == 1
    assert "Row 2 was changed" in errors.getvalue()


def test_command_can_leave_out_a_break_that_was_looked_into() -> None:
    record_some(2)
    sql("UPDATE audit_audithead SET seal = 'x'")
    record_some(1)
    with pytest.raises(SystemExit):
        call_command("verifyaudit", stderr=io.StringIO())
    out = io.StringIO()
    call_command("verifyaudit", "--known", "3", stdout=out)
    assert "4 rows" in out.getvalue()


def test_outcome_of_a_check_is_kept_for_the_page() -> None:
    record_some(3)
    call_command("verifyaudit", stdout=io.StringIO())
    state = selectors.chain_state()
    assert (state.count, state.verified_count, state.broken_at) == (3, 3, None)
    assert state.verified_at is not None
    sql("UPDATE audit_auditevent SET actor = 'bob' WHERE sequence = 2")
    with pytest.raises(SystemExit):
        call_command("verifyaudit", stderr=io.StringIO())
    assert selectors.chain_state().broken_at == 2


def test_whoever_records_gets_their_own_event_also_behind_a_note_of_a_break() -> None:
    with transaction.atomic():
        record(SessionSubmitted(job_id="1"), actor="alice")
    AuditHead.objects.update(seal="forged")
    with transaction.atomic():
        event = record(SessionSubmitted(job_id="2"), actor="alice")
    assert (event.name, event.data, event.sequence) == ("session.submitted", {"job_id": "2"}, 3)
