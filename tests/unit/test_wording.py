"""Every code that the pure parts and the services use has a sentence of its own."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from launcher import clusterwords, endwords, forms, joblog, refusalwords
from launcher.models import InteractiveSession
from launcher.rawvalues import tidy
from launcher.schedulers import comments
from launcher.schedulers.base import JobState
from launcher.schedulers.comments import explain
from launcher.states import EndReason, SessionState
from portal.conf import PROJECT

SOURCES = [
    *(PROJECT / "launcher" / "schedulers").glob("*.py"),
    *(PROJECT / "launcher" / "flows").glob("*.py"),
    PROJECT / "launcher" / "choices.py",
    PROJECT / "launcher" / "rawvalues.py",
    *(PROJECT / "launcher" / "services").glob("*.py"),
]
NOT_SHOWN_AT_THE_END = {
    # A session does not end by these: it waits, and is tried again.
    "scheduler.error",
    "scheduler.unavailable",
    "scheduler.command_missing",
    "scheduler.no_history",
    "scheduler.bad_job_id",
    "scheduler.bad_search",
}


def literals(pattern: str) -> set[str]:
    """Every string in the sources that looks like such a code."""

    def all_strings() -> Iterator[str]:
        for path in SOURCES:
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield node.value

    return {text for text in all_strings() if re.fullmatch(pattern, text)}


def ended(code: str, **values: object) -> InteractiveSession:
    return InteractiveSession(
        username="alice", app="jupyter", state=SessionState.ENDED, end_reason="failed", end_code=code, **values
    )


@pytest.mark.parametrize(
    "code", sorted(literals(r"ended\.[a-z_]+") | {f"ended.{code.word}" for code in joblog.ExitCode})
)
def test_every_ending_has_a_sentence(code: str) -> None:
    assert code in endwords.end_sentences()


@pytest.mark.parametrize("reason", EndReason)
def test_every_end_reason_has_a_sentence(reason: EndReason) -> None:
    assert f"ended.{reason}" in endwords.end_sentences()


@pytest.mark.parametrize("code", sorted(literals(r"scheduler\.[a-z_.]+[a-z]") - NOT_SHOWN_AT_THE_END))
def test_every_refusal_of_the_scheduler_has_a_sentence(code: str) -> None:
    assert code in endwords.end_sentences()


@pytest.mark.parametrize(
    "code", sorted(literals(r"(cores|memory|hours|gpus|queue|image|folder|title|environment|choices)\.[a-z_]+"))
)
def test_every_mistake_has_a_sentence(code: str) -> None:
    general = refusalwords.mistake_sentence("nothing.at_all", {})
    assert refusalwords.mistake_sentence(code, {"min": 1, "max": 2, "queue": "workq"}) != general


def waiting(comment: str) -> InteractiveSession:
    return InteractiveSession(username="alice", app="jupyter", state=SessionState.QUEUED, job_comment=comment)


WAITING = {
    **{explain(word).code: word for word in comments._SLURM},
    **{
        explain(words).code: words
        for words in (
            "Insufficient amount of resource: mem",
            "Insufficient amount of resource: ncpus",
            "Insufficient amount of resource: ngpus",
            "Insufficient amount of resource: licenses",
            "User has reached queue running job limit.",
            "Group has reached queue running job limit.",
            "Queue limited job limit has been reached.",
            "AssocGrpCPUMinutesLimit",
            "QOSMaxCpuPerJobLimit",
        )
    },
}
"""Words that lead to each code."""


@pytest.mark.parametrize(("code", "words"), sorted(WAITING.items()))
def test_every_reason_to_wait_has_a_sentence_of_its_own(code: str, words: str) -> None:
    general = clusterwords.waiting_sentence(waiting("something that nobody knows"))
    assert clusterwords.waiting_sentence(waiting(words)) != general
    assert clusterwords.can_never_run(waiting(words)) == code.startswith("waiting.never")


@pytest.mark.parametrize(
    ("comment", "sentence"),
    [
        (
            "Can Never Run: Insufficient amount of resource: ncpus (R: 64 A: 8 T: 8)",
            "This can never start: you asked for 64 cores, and there are at most 8.",
        ),
        (
            "Can Never Run: Insufficient amount of resource: mem (R: 900gb A: 16gb T: 16gb)",
            "This can never start: you asked for 900 GB, and there is at most 16 GB.",
        ),
        (
            "Can Never Run: Insufficient amount of resource: ngpus (R: 4 A: 2 T: 2)",
            "This can never start: you asked for 4 GPUs, and there are at most 2.",
        ),
        (
            "Can Never Run: Not enough total nodes available",
            "This can never start: no computer of this queue has what you asked for.",
        ),
    ],
)
def test_what_can_never_start_is_said_with_its_numbers(comment: str, sentence: str) -> None:
    assert clusterwords.waiting_sentence(waiting(comment)) == sentence


def test_a_held_job_is_held_whatever_its_comment_says() -> None:
    session = waiting("Can Never Run: Not enough total nodes available")
    session.job_state = JobState.HELD
    assert not clusterwords.can_never_run(session)


def test_a_sentence_with_a_missing_parameter_still_reads() -> None:
    assert "%(" not in endwords.end_sentence(ended("ended.module_missing"))


@pytest.mark.parametrize(
    ("hours", "words"), [(1, "at most 1 hour."), (1.0, "at most 1 hour."), (2.5, "at most 2.5 hours.")]
)
def test_one_hour_is_no_hours(hours: float, words: str) -> None:
    params = {"max": tidy(hours), "queue": "Short"}
    assert refusalwords.mistake_sentence("hours.over_queue_limit", params).endswith(words)
    assert forms._queue_label("Short", hours) == f"Short ({words[:-1]})"


def test_percent_signs_in_hostile_parameters_stay_text() -> None:
    sentence = endwords.end_sentence(ended("ended.module_missing", end_params={"subject": "%(by)s %d"}))
    assert "%(by)s %d" in sentence


@pytest.mark.parametrize(("signal", "is_likely"), [(9, True), (15, False)])
def test_a_kill_without_warning_points_at_memory(signal: int, is_likely: bool) -> None:
    cure = endwords.end_cure(ended("ended.killed", end_params={"signal": signal}))
    assert ("memory" in cure) is is_likely
