"""Writes attributes as text, dsv and JSON, with the oddities of OpenPBS 23.06 (all recorded). Pure.

Text is str with surrogate escapes for bytes that are not UTF-8; the result is bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from launcher.democluster.pbs.attributes import Attribute
from launcher.democluster.settings import PBS_VERSION, SERVER_NAME

_FIRST_LINE, _LINE_AFTER_COMMA, _LINE_AFTER_CUT = 79, 71, 72
_NUMBER = re.compile(
    r"\s*[+-]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?|0x[0-9a-f]+|inf(?:inity)?|nan)", re.IGNORECASE
)


def shown(text: str | bytes) -> bytes:
    """What qstat's C library lets through: a byte it cannot print becomes a caret and the byte 64 higher."""
    raw = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
    return b"".join(
        bytes((byte,)) if 0x20 <= byte < 0x7F or byte in b"\n\t" else bytes((0x5E, (byte + 64) & 0xFF)) for byte in raw
    )


def folded(name: str, value: str, *, wide: bool = False) -> bytes:
    """``    name = value``, folded inside words into lines that go on after a newline and a tab.

    A piece between commas that does not fit goes to the next line as a whole, and is cut if it does not fit
    there either. The widths are those recorded: a full first line is followed by a tab even at the end.
    """
    line, lines, limit = b"    " + name.encode() + b" = ", [], _FIRST_LINE
    raw = value.encode("utf-8", "surrogateescape")
    if wide:
        return line + shown(value) + b"\n"
    for index, piece in enumerate(re.findall(rb"[^,]*,|[^,]+\Z", raw)):
        if index and line != b"\t" and len(line) + len(piece) > limit:
            lines.append(line)
            line, limit = b"\t", _LINE_AFTER_COMMA
        while len(line) + len(piece) >= limit + (limit != _FIRST_LINE):
            room = limit - len(line)
            lines.append(line + piece[:room])
            line, piece, limit = b"\t", piece[room:], _LINE_AFTER_CUT
        line += piece
    return b"\n".join(shown(part) for part in [*lines, line]) + b"\n"


def text_record(title: str, attributes: Iterable[Attribute], *, wide: bool = False) -> bytes:
    """A record of ``qstat -f``: newlines inside values come out raw, so a value can imitate a field."""
    lines = [title.encode() + b"\n"]
    for attribute in attributes:
        name = f"{attribute.name}.{attribute.resource}" if attribute.resource else attribute.name
        lines.append(folded(name, attribute.value, wide=wide))
    return b"".join(lines) + b"\n"


def dsv_record(title: str, attributes: Iterable[Attribute], delimiter: str) -> bytes:
    """A record on one line. A delimiter inside a value gets a backslash, a newline becomes ``\\n``."""
    parts = [title.encode()]
    for attribute in attributes:
        name = f"{attribute.name}.{attribute.resource}" if attribute.resource else attribute.name
        value = attribute.value
        if delimiter:
            value = value.replace(delimiter, "\\" + delimiter)
        parts.append(name.encode() + b"=" + shown(value.replace("\n", "\\n")))
    return delimiter.encode("utf-8", "surrogateescape").join(parts) + b"\n"


def json_value(text: str) -> bytes:
    """A value of this release's JSON, which is not always JSON.

    What strtod accepts is printed bare, unless it begins with a zero and is not zero. A quote gets a backslash
    unless one, or nothing, stands before it. A backslash is left alone, and dropped before a comma.
    """
    if _NUMBER.fullmatch(text) and not _is_zero_led(text):
        return text.encode()
    out = bytearray()
    raw = shown(text)
    for index, byte in enumerate(raw):
        if byte == 0x22 and index and raw[index - 1] != 0x5C:
            out += b'\\"'
        elif byte == 0x5C and raw[index + 1 : index + 2] in (b",", b"'"):
            continue
        else:
            out += {0x0A: b"\\n", 0x09: b"\\t"}.get(byte, bytes((byte,)))
    return b'"' + bytes(out) + b'"'


def _is_zero_led(text: str) -> bool:
    digits = text.strip().lstrip("+-")
    if not re.match(r"0[0-9x]", digits, re.IGNORECASE):
        return False
    return re.search(r"[1-9a-f]", digits[1:].lower().replace("x", "")) is not None


def split_variables(encoded: str) -> list[tuple[str, str]]:
    """The names and values of a Variable_List, still escaped."""
    pairs = []
    for part in re.findall(r"(?:[^,\\]|\\.)+", encoded, re.DOTALL):
        name, _, value = part.partition("=")
        pairs.append((name, value))
    return pairs


def json_document(section: str, records: Sequence[tuple[str, Sequence[Attribute | tuple[str, Sequence[str]]]]],
                  timestamp: int) -> bytes:  # fmt: skip
    """A whole answer. ``section`` is left out when it holds nothing; then no newline ends it, as recorded."""
    lines = [
        "{",
        f'    "timestamp":{timestamp},',
        f'    "pbs_version":"{PBS_VERSION}",',
        f'    "pbs_server":"{SERVER_NAME}"' + ("," if records else ""),
    ]
    out = "\n".join(lines).encode() + b"\n"
    if not records:
        return out + b"}"
    body = [_json_entry(name, attributes) for name, attributes in records]
    return out + b'    "%s":{\n%s\n    }\n}\n' % (section.encode(), b",\n".join(body))


def _json_entry(name: str, attributes: Sequence[Attribute | tuple[str, Sequence[str]]]) -> bytes:
    fields: list[bytes] = []
    groups: dict[str, list[bytes]] = {}
    for attribute in attributes:
        if isinstance(attribute, tuple):
            key, values = attribute
            listed = b",\n".join(b'                "%s"' % value.encode() for value in values)
            fields.append(b'            "%s":[\n%s\n            ]' % (key.encode(), listed))
        elif attribute.resource:
            if attribute.name not in groups:
                groups[attribute.name] = []
                fields.append(attribute.name.encode())  # a place that is filled below
            groups[attribute.name].append(_json_field(16, attribute.resource, attribute.value))
        elif attribute.name == "Variable_List":
            pairs = [_json_field(16, key, value) for key, value in split_variables(attribute.value)]
            fields.append(_json_group("Variable_List", pairs))
        elif attribute.name == "resources_assigned":
            fields.append(_json_group(attribute.name, ()))  # nothing is assigned: an empty group, as recorded
        else:
            fields.append(_json_field(12, attribute.name, attribute.value))
    whole = [
        _json_group(field.decode(), groups[field.decode()]) if field.decode("latin-1") in groups else field
        for field in fields
    ]
    return b'        "%s":{\n%s\n        }' % (name.encode(), b",\n".join(whole))


def _json_field(indent: int, name: str, value: str) -> bytes:
    return b" " * indent + b'"' + shown(name) + b'":' + json_value(value)


def _json_group(name: str, fields: Sequence[bytes]) -> bytes:
    inner = b",\n".join(fields) + (b"\n" if fields else b"")
    return b'            "%s":{\n%s            }' % (name.encode(), inner)


def empty_json(timestamp: int) -> bytes:
    """The answer of a failed command: valid JSON without anything in it."""
    return json_document("Jobs", (), timestamp)
