"""Amounts, durations, selections and option words of the demonstration cluster's PBS."""

from __future__ import annotations

import pytest

from launcher.democluster.pbs.errors import PBSError
from launcher.democluster.pbs.options import directives, getopt
from launcher.democluster.pbs.qsub_values import read_resources, user_variables
from launcher.democluster.pbs.values import (
    clock_text,
    ctime,
    duration_seconds,
    parse_select,
    select_from_nodes,
    short_size,
    size_kib,
    size_text,
)


@pytest.mark.parametrize(("text", "kib"), [("100mb", 102_400), ("1000000000", 976_563), ("2tb", 2 << 30), ("1kw", 8)])
def test_sizes_are_read_in_kibibytes(text: str, kib: int) -> None:
    assert size_kib(text, "mem") == kib


@pytest.mark.parametrize("text", ["1.5gb", "", "-1mb", "mb", "1 gb", "\u0661gb", "1" * 40])
def test_what_is_no_size_is_refused_by_name(text: str) -> None:
    with pytest.raises(PBSError, match=r"select\.mem"):
        size_kib(text, "select.mem")


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("90:00", 5400), ("100:00:00", 360_000), ("0", 0)])
def test_durations_are_read_in_seconds(text: str, seconds: int) -> None:
    assert duration_seconds(text, "walltime") == seconds


def test_hours_may_pass_ninety_nine() -> None:
    assert clock_text(360_000) == "100:00:00"


def test_sums_keep_the_largest_whole_unit() -> None:
    assert [size_text(1 << 20), size_text(1536 << 10), size_text(5)] == ["1gb", "1536mb", "5kb"]


def test_comments_round_odd_sizes_down_to_megabytes() -> None:
    assert [short_size(24_684_084), short_size(900 << 20)] == ["24105mb", "900gb"]


def test_times_follow_the_clients_zone() -> None:
    assert ctime(1_795_391_801, "UTC") == "Sun Nov 22 23:56:41 2026"
    assert ctime(1_795_391_801, "Asia/Shanghai") == "Mon Nov 23 07:56:41 2026"


def test_an_unknown_zone_means_utc() -> None:
    assert ctime(0, "../../etc/passwd") != ""
    assert ctime(0, "No/Such") == "Thu Jan  1 00:00:00 1970"


def test_a_selection_repeats_its_chunks() -> None:
    chunks = parse_select("3:ncpus=2:mem=1gb+1:ncpus=1")
    assert [chunk.cores for chunk in chunks] == [2, 2, 2, 1]


def test_an_endless_selection_is_refused() -> None:
    with pytest.raises(PBSError):
        parse_select("999999999:ncpus=1")


def test_nodes_and_ppn_become_a_selection() -> None:
    assert select_from_nodes("1:ppn=2") == "1:ncpus=2:mpiprocs=2"
    resources = read_resources(["nodes=1:ppn=2"])
    assert (resources.select, resources.place) == ("1:ncpus=2:mpiprocs=2", "scatter")


def test_options_stop_at_the_first_operand() -> None:
    parsed = getopt(["-Nabc", "-h", "-l", "x", "script", "-q", "no"], "N:hl:q:")
    assert parsed.options == [("N", "abc"), ("h", ""), ("l", "x")]
    assert parsed.operands == ["script", "-q", "no"]


def test_directives_end_at_the_first_command() -> None:
    script = b"#!/bin/bash\n#PBS -N one\n\n# a comment\n#PBS -o 'a b' # not this\nls\n#PBS -N two\n"
    assert directives(script, "#PBS") == ["-N", "one", "-o", "a b"]


@pytest.mark.parametrize("text", ["FOO=it's", 'FOO="it\'s"', 'FOO=a\\"b', "NOSUCHVAR", "=x"])
def test_variables_that_qsub_cannot_send_are_refused(text: str) -> None:
    with pytest.raises(PBSError, match="cannot send environment"):
        user_variables([text], {})


def test_a_variable_without_a_value_comes_from_the_environment() -> None:
    assert user_variables(["HOME,BAR=c"], {"HOME": "/h"}) == [("HOME", "/h"), ("BAR", "c")]
