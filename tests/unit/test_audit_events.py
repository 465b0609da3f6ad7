"""The catalogue of events: complete, documented, and changed only together with a version."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import pytest

from portal.audit import events

RECORDED = {
    "audit.access_denied": (1, {"page": "str"}),
    "audit.chain_broken": (1, {"cause": "str", "noted_rows": "int", "found_rows": "int"}),
    "audit.exported": (1, {"format": "str", "rows": "int"}),
    "cluster.host_key_rejected": (1, {"cluster": "str", "login_host": "str"}),
    "portal.examined": (1, {}),
    "credential.enrolled": (1, {"cluster": "str", "fingerprint": "str"}),
    "credential.line_removed": (1, {"cluster": "str", "fingerprint": "str", "removed": "bool"}),
    "credential.password_kept": (1, {"cluster": "str"}),
    "credential.refused": (1, {"cluster": "str", "credential": "str", "cause": "str"}),
    "credential.revoked": (1, {"cluster": "str", "fingerprint": "str"}),
    "session.access_denied": (1, {"door": "str", "cause": "str"}),
    "session.cancelled": (1, {"job_id": "str"}),
    "session.connected": (1, {"via": "str"}),
    "session.continued": (1, {"by": "str"}),
    "session.extended": (1, {"walltime_seconds": "int"}),
    "session.extension_refused": (1, {"walltime_seconds": "int", "code": "str"}),
    "session.extension_requested": (1, {"walltime_seconds": "int"}),
    "session.folder_removed": (1, {}),
    "session.ended": (1, {"reason": "str", "code": "str", "exit_status": "int | None", "job_id": "str"}),
    "session.job_adopted": (1, {"job_id": "str"}),
    "session.kept_running": (1, {}),
    "session.launched": (
        1,
        {
            "app": "str",
            "cluster": "str",
            "title": "str",
            "cores": "int",
            "memory_mib": "int",
            "walltime_seconds": "int",
            "gpus": "int",
            "queue": "str",
        },
    ),
    "session.opened_as_user": (1, {"owner": "str", "reason": "str", "minutes": "int"}),
    "session.visit_ended": (1, {"visitor": "str", "by_owner": "bool"}),
    "session.ready": (1, {"seconds_since_launch": "float"}),
    "session.started": (1, {"execution_host": "str"}),
    "session.given_up": (1, {"job_id": "str"}),
    "session.stop_requested": (1, {"by_owner": "bool", "reason": "str"}),
    "session.submitted": (1, {"job_id": "str"}),
    "token.created": (1, {"name": "str", "scope": "str", "expires_at": "str"}),
    "token.revoked": (1, {"name": "str"}),
    "user.limit_changed": (
        2,
        {
            "username": "str",
            "group": "str",
            "app": "str",
            "cluster": "str",
            "sessions_before": "int | None",
            "sessions": "int | None",
            "hours_before": "float | None",
            "hours": "float | None",
        },
    ),
    "user.sign_in_refused": (1, {"way": "str", "cause": "str"}),
    "user.signed_in": (1, {"way": "str"}),
    "user.signed_out": (1, {}),
    "user.signed_out_elsewhere": (1, {"everywhere": "bool", "web_sessions": "int", "tokens": "int"}),
    "user.role_changed": (1, {"username": "str", "before": "str", "role": "str"}),
    "user.openid_tied": (1, {"issuer": "str"}),
    "user.openid_released": (1, {"username": "str", "issuer": "str"}),
    "user.confirmed": (1, {"way": "str"}),
    "second_factor.added": (1, {"kind": "str", "name": "str"}),
    "second_factor.removed": (1, {"kind": "str", "name": "str"}),
    "second_factor.reset": (1, {"username": "str", "factors": "int"}),
    "second_factor.codes_made": (1, {"codes": "int"}),
    "second_factor.code_used": (1, {"left": "int"}),
    "user.disabled": (1, {"username": "str"}),
    "user.enabled": (1, {"username": "str"}),
}
"""What is in the logs of sites by now. Change an entry only together with a higher version."""

ALL = sorted(events.REGISTRY.items())


def test_fields_change_only_with_the_version() -> None:
    """A reader of an old log can tell from name and version which fields a row has."""
    defined = {
        name: (event.VERSION, {field.name: field.type for field in dataclasses.fields(event)})  # type: ignore[arg-type]  # every event is a dataclass
        for name, event in ALL
    }
    assert defined == RECORDED


@pytest.mark.parametrize(("name", "event"), ALL)
def test_event_says_what_it_does_not_record(name: str, event: type[events.Event]) -> None:
    assert "Not recorded:" in " ".join((event.__doc__ or "").split()), name


@pytest.mark.parametrize(("name", "event"), ALL)
def test_event_is_frozen_and_slotted(name: str, event: type[events.Event]) -> None:
    parameters = event.__dataclass_params__  # type: ignore[attr-defined]  # every event is a dataclass
    assert parameters.frozen, name
    assert "__dict__" not in dir(event), name


def test_two_events_cannot_share_a_name() -> None:
    with pytest.raises(TypeError, match=r"are both called session\.ready"):

        class Other(events.Event):
            NAME: ClassVar[str] = "session.ready"

    assert events.REGISTRY["session.ready"] is events.SessionReady


def test_value_that_is_no_plain_value_is_refused() -> None:
    event = events.SessionSubmitted(job_id=["1.pbs01"])  # type: ignore[arg-type]  # what the test is about
    with pytest.raises(TypeError, match="job_id is a list"):
        events.fields_of(event)


def test_unknown_event_is_called_by_its_name() -> None:
    assert events.label_of("session.teleported") == "session.teleported"
