"""What Jupyter's answers say about work; and that nothing hostile in them makes a session idle, or an error."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.activity import MAX_BYTES, Answer, NotUnderstood, unused_seconds

NOON = "Thu, 01 Jan 2026 12:00:00 GMT"


def answer(value: object, *, status: int = 200, date: str = NOON) -> Answer:
    return Answer(status, date, json.dumps(value).encode())


def seen(clock: str) -> dict[str, object]:
    return {"last_activity": f"2026-01-01T{clock}Z"}


def kernel(state: str, clock: str) -> dict[str, object]:
    return {"id": "k", "execution_state": state, "connections": 1, **seen(clock)}


def unused(
    status: object = seen("08:00:00.5"), kernels: object = (), terminals: object = (), *, date: str = NOON
) -> float:
    return unused_seconds([answer(value, date=date) for value in (status, kernels, terminals)])


def test_the_last_of_all_that_was_seen_counts() -> None:
    assert unused(seen("11:00:00")) == 3600
    assert unused(kernels=[kernel("idle", "11:30:00"), kernel("idle", "09:00:00")]) == 1800
    assert unused(terminals=[seen("11:45:00")]) == 900


@pytest.mark.parametrize("state", ["busy", "restarting", "autorestarting"])
def test_a_kernel_that_computes_is_work_now_however_long_it_was_silent(state: str) -> None:
    assert unused(kernels=[kernel(state, "02:00:00")]) == 0


def test_a_kernel_starts_for_some_minutes_and_not_for_ever() -> None:
    assert unused(kernels=[kernel("starting", "11:55:00")]) == 0
    assert unused(seen("08:00:00"), kernels=[kernel("starting", "09:00:00")]) == 3 * 3600


@pytest.mark.parametrize("state", ["idle", "dead", "unknown", "terminating"])
def test_a_kernel_that_does_not_compute_is_as_old_as_its_last_message(state: str) -> None:
    assert unused(kernels=[kernel(state, "11:00:00")]) == 3600


def test_a_time_in_the_future_is_now() -> None:
    assert unused(seen("23:00:00")) == 0


def test_times_are_compared_with_the_jobs_own_clock() -> None:
    assert unused(seen("11:00:00"), date="Thu, 01 Jan 2026 11:10:00 GMT") == 600


def test_a_server_without_terminals_is_understood() -> None:
    answers = [answer(seen("11:00:00")), answer([]), answer({"message": "no"}, status=404)]
    assert unused_seconds(answers) == 3600


@pytest.mark.parametrize(
    "status",
    [
        None,
        [],
        {},
        {"last_activity": None},
        {"last_activity": 0},
        {"last_activity": "yesterday"},
        {"last_activity": "2026-01-01T12:00:00"},
        {"last_activity": ["2026-01-01T12:00:00Z"]},
        {"last_activity": "9" * 10_000},
    ],
)
def test_a_status_of_another_shape_is_not_known(status: object) -> None:
    with pytest.raises(NotUnderstood):
        unused(status)


@pytest.mark.parametrize(
    "kernels",
    [
        None,
        {},
        "x",
        [1],
        [{}],
        [seen("11:00:00")],
        [kernel("x" * 41, "11:00:00")],
        [{**kernel("idle", "11:00:00"), "execution_state": 1}],
    ],
)
def test_kernels_of_another_shape_are_not_known(kernels: object) -> None:
    with pytest.raises(NotUnderstood):
        unused(kernels=kernels)


@pytest.mark.parametrize("status", [204, 302, 401, 403, 404, 500])
@pytest.mark.parametrize("place", [0, 1])
def test_another_status_than_200_is_not_known(status: int, place: int) -> None:
    answers = [answer(seen("11:00:00")), answer([]), answer([])]
    answers[place] = answer(seen("11:00:00"), status=status)
    with pytest.raises(NotUnderstood):
        unused_seconds(answers)


@pytest.mark.parametrize("date", ["", "now", "Thu, 01 Jan 99999 12:00:00 GMT", "1" * 10_000, "Thu, 99 Foo 2026"])
def test_without_a_date_nothing_is_known(date: str) -> None:
    with pytest.raises(NotUnderstood):
        unused(date=date)


def test_a_huge_answer_is_not_read() -> None:
    with pytest.raises(NotUnderstood):
        unused({**seen("11:00:00"), "x": "x" * MAX_BYTES})


@given(st.binary(max_size=200), st.binary(max_size=200), st.binary(max_size=200), st.text(max_size=60))
def test_no_bytes_are_an_error_of_ours(status: bytes, kernels: bytes, terminals: bytes, date: str) -> None:
    try:
        assert unused_seconds([Answer(200, date, body) for body in (status, kernels, terminals)]) >= 0
    except NotUnderstood:
        return


def test_deeply_nested_json_is_no_error_of_ours() -> None:
    deep = Answer(200, NOON, b"[" * 100_000)
    with pytest.raises(NotUnderstood):
        unused_seconds([deep, deep, deep])
