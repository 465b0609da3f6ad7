"""Renders an app's ``script.sh.j2`` so that a value can only ever be an argument. Pure (Jinja2).

Three rules make that sure, whoever writes the template. Every ``{{ value }}`` becomes quoted shell words.
It may stand only on a line of its own that assigns it to a shell variable: inside double quotes or a
here-document the quotes would not protect. And a script holds no scheduler directives: those are options of
the submit command, from checked values.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from portal.errors import FootbridgeError


class JobScriptError(FootbridgeError):
    """A job script could not be rendered. ``detail`` says which rule was broken, never with the value."""

    code = "jobscript.invalid"


_ASSIGNMENT = re.compile(r"\s*[A-Za-z_][A-Za-z0-9_]*=(\{\{[^{}]+\}\}|\(\s*\{\{[^{}]+\}\}\s*\))\s*")
_STATEMENT = re.compile(r"\s*\{%-?[^{}]*-?%\}\s*")
_DIRECTIVE = re.compile(r"\s*#\s*(PBS|SBATCH|BSUB|COBALT|MSUB|OAR|\$)(\s|$)", re.IGNORECASE)


def template_mistakes(text: str) -> list[str]:
    """What is wrong with a template, one sentence each, with the line's number. Empty when all is well."""
    mistakes: list[str] = []
    if not text.startswith("#!/bin/bash\n"):
        mistakes.append("line 1: must be #!/bin/bash")
    for number, line in enumerate(text.splitlines(), start=1):
        if "{{" in line and not _ASSIGNMENT.fullmatch(line):
            mistakes.append(f"line {number}: a value must be assigned to a variable on a line of its own")
        if "{%" in line and not _STATEMENT.fullmatch(line):
            mistakes.append(f"line {number}: a statement must stand on a line of its own")
        if _DIRECTIVE.match(line):
            mistakes.append(f"line {number}: scheduler directives do not belong into a script")
    try:
        _environment().parse(text)
    except jinja2.TemplateSyntaxError as error:
        mistakes.append(f"line {error.lineno}: {error.message}")
    return mistakes


def render_template(text: str, values: Mapping[str, object]) -> str:
    """The script with ``values`` filled in. Raises JobScriptError."""
    if mistakes := template_mistakes(text):
        raise JobScriptError("; ".join(mistakes))
    try:
        return _environment().from_string(text).render(values)
    except jinja2.TemplateError as error:
        raise JobScriptError(str(error)) from error
    except (TypeError, ValueError, ArithmeticError, AttributeError, LookupError) as error:
        raise JobScriptError(f"{type(error).__name__} in the template") from error


def _environment() -> ImmutableSandboxedEnvironment:
    return ImmutableSandboxedEnvironment(
        undefined=jinja2.StrictUndefined,
        finalize=_shell_words,
        autoescape=False,  # this is a shell script; ``finalize`` quotes for the shell
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
        comment_start_string="{##",  # "{#" is shell: ${#array[@]}
        comment_end_string="##}",
    )


def _shell_words(value: object) -> str:
    """A value as one quoted shell word, a tuple as several. Called by Jinja2 for every value it writes."""
    if isinstance(value, jinja2.Undefined):
        return str(value)  # StrictUndefined raises, and names what is missing
    if isinstance(value, tuple | list):
        return " ".join(_shell_word(entry) for entry in value)
    return _shell_word(value)


def _shell_word(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise JobScriptError(f"a value of the type {type(value).__name__} has no place in a script")
    text = str(value)
    if any(ord(character) < 0x20 or ord(character) == 0x7F for character in text):
        raise JobScriptError("a value holds a control character")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise JobScriptError("a value holds half a character") from error
    return shlex.quote(text)
