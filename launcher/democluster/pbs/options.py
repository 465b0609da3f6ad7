"""Reads command lines as PBS's commands do: single letters, in any order, getopt's own complaints. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(slots=True)
class Parsed:
    """Options in their order, what followed them, and getopt's complaints."""

    options: list[tuple[str, str]] = field(default_factory=list)
    operands: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    after_dashes: bool = False  # the operands stand behind "--"

    def last(self, letter: str, default: str = "") -> str:
        """The value of the last such option."""
        return next((value for name, value in reversed(self.options) if name == letter), default)

    def has(self, letter: str) -> bool:
        """Whether the option was given."""
        return any(name == letter for name, _ in self.options)


def getopt(arguments: Sequence[str], spec: str) -> Parsed:
    """Parse as POSIX getopt: it stops at the first operand. ``spec`` marks options with a value by a colon."""
    parsed = Parsed()
    waiting = list(arguments)
    while waiting:
        word = waiting[0]
        if word == "--":
            parsed.after_dashes = True
            waiting.pop(0)
            break
        if len(word) < 2 or not word.startswith("-"):
            break
        waiting.pop(0)
        _letters(word[1:], waiting, spec, parsed)
    parsed.operands = waiting
    return parsed


def _letters(letters: str, waiting: list[str], spec: str, parsed: Parsed) -> None:
    position = 0
    while position < len(letters):
        letter = letters[position]
        position += 1
        index = spec.find(letter)
        if index < 0 or letter == ":":
            parsed.complaints.append(f"invalid option -- '{letter}'")
        elif spec[index + 1 : index + 2] != ":":
            parsed.options.append((letter, ""))
        elif position < len(letters):
            parsed.options.append((letter, letters[position:]))
            return
        elif waiting:
            parsed.options.append((letter, waiting.pop(0)))
        else:
            parsed.complaints.append(f"option requires an argument -- '{letter}'")


def directive_words(line: str) -> list[str]:
    """The words of a ``#PBS`` line: blanks part them, quotes keep them together, a free ``#`` ends it."""
    words: list[str] = []
    word, quote, started = "", "", False
    for character in line:
        if quote:
            if character == quote:
                quote = ""
            else:
                word += character
        elif character in "\"'":
            quote, started = character, True
        elif character in " \t\r":
            if word or started:
                words.append(word)
            word, started = "", False
        elif character == "#" and not (word or started):
            break
        else:
            word += character
    if word or started:
        words.append(word)
    return words


def directives(script: bytes, prefix: str) -> list[str]:
    """The option words in a script's directives: those before its first command."""
    words: list[str] = []
    for raw in script.split(b"\n"):
        line = raw.decode("utf-8", "surrogateescape")
        if line.startswith(prefix):
            words += directive_words(line[len(prefix) :])
        elif line.strip() and not line.lstrip().startswith((":", "#")):
            break
    return words
