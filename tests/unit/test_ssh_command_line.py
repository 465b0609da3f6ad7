"""From a Command to one line for the login shell: whatever is in it, the arguments arrive unchanged."""

from __future__ import annotations

import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from launcher.schedulers.base import Command
from launcher.ssh.commands import command_line

hostile = st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)


@settings(max_examples=60)
@given(arguments=st.lists(hostile, max_size=4), value=hostile)
def test_hostile_values_reach_the_command_unchanged(arguments: list[str], value: str) -> None:
    script = 'printf "%s\\0" "$VALUE" "$@"'
    line = command_line(Command(("sh", "-c", script, "sh", *arguments), environment={"VALUE": value}))
    output = subprocess.run(["/bin/sh", "-c", line], capture_output=True, check=True).stdout
    assert output.split(b"\0")[:-1] == [text.encode() for text in (value, *arguments)]


@pytest.mark.parametrize("argv", [(), ("",)])
def test_a_command_without_a_name_is_refused(argv: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="name"):
        command_line(Command(argv))


@pytest.mark.parametrize("name", ["", "1A", "A B", "A=B", "A;rm", "LD\n"])
def test_an_odd_variable_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="environment"):
        command_line(Command(("true",), environment={name: "x"}))


def test_a_nul_byte_is_refused() -> None:
    with pytest.raises(ValueError, match="NUL"):
        command_line(Command(("echo", "a\0b")))
