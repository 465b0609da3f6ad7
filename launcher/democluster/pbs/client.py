"""All PBS commands of the demonstration: hands its command line to the server and prints the answer.

A program of its own that must start fast: run as ``python -I -S client.py FOLDER NAME ARGUMENT…``, it uses
nothing but built-in modules. FOLDER holds the server's socket. Frames from the server are a letter, a length
in 8 hexadecimal digits, and so many bytes: O stdout, E stderr, X exit code, I send your stdin, D behave as if
there were no server, K end without a word.
"""

# Pathlib alone would double the start-up time.
# ruff: noqa: PTH109
import os
import sys
from _socket import AF_UNIX, SOCK_STREAM, socket

_SENT = ("HOME", "LANG", "PATH", "SHELL", "TZ", "PBS_SERVER", "DEMO_PBS_IDENTITY")


def _frame(payload: bytes) -> bytes:
    return b"%08x" % len(payload) + payload


def _connected(folder: str) -> socket:
    # Through /proc the name stays short: the path of a Unix socket may have only 107 bytes.
    descriptor = os.open(folder, os.O_RDONLY)
    link = socket(AF_UNIX, SOCK_STREAM)
    link.connect(f"/proc/self/fd/{descriptor}/socket")
    return link


def _read(link: socket, count: int) -> bytes:
    out = b""
    while len(out) < count:
        chunk = link.recv(min(count - len(out), 1 << 16))
        if not chunk:
            raise OSError("the server went away")
        out += chunk
    return out


def _all_of_stdin() -> bytes:
    out = []
    while chunk := os.read(0, 1 << 16):
        out.append(chunk)
    return b"".join(out)


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _no_server(command: str, arguments: list[str]) -> int:
    """What each command says when nobody listens (recorded)."""
    server, text = "demo-pbs", "Connection refused\n"
    if command == "qdel":
        text += f"Couldn't connect to cluster: {server}\n"
    elif command == "pbsnodes":
        text += f"pbsnodes: cannot connect to server {server}, error=15010\n"
    else:
        text += f"{command}: cannot connect to server {server} (errno=15010)\n"
    if command == "qstat" and "json" in arguments:
        from time import time

        body = f'{{\n    "timestamp":{int(time())},\n    "pbs_version":"23.06.06",\n    "pbs_server":"{server}"\n}}'
        _write(1, body.encode())
    _write(2, text.encode())
    return {"qstat": 255, "pbsnodes": 1}.get(command, 162)


def main() -> int:
    """Run the command. Its exit code."""
    folder, command, arguments = sys.argv[1], sys.argv[2], sys.argv[3:]
    wanted = os.environ.get("PBS_SERVER", "demo-pbs")
    if command == "qstat" and wanted != "demo-pbs":
        _write(2, f"Unknown Host.\nqstat: cannot connect to server {wanted} (errno=15008)\n".encode())
        return 255
    named = {*_SENT, *_names_in_v(arguments)}
    environment = [f"{name}={value}" for name, value in os.environ.items() if name in named]
    try:
        here = os.getcwd()
    except OSError:
        here = "/"
    fields = [command, here, str(len(arguments)), *arguments, *environment]
    try:
        link = _connected(folder)
    except OSError:
        return _no_server(command, arguments)
    try:
        link.sendall(_frame("\0".join(fields).encode("utf-8", "surrogateescape")))
        while True:
            head = _read(link, 9)
            payload = _read(link, int(head[1:], 16))
            kind = head[:1]
            if kind == b"O":
                _write(1, payload)
            elif kind == b"E":
                _write(2, payload)
            elif kind == b"I":
                link.sendall(_frame(_all_of_stdin()))
            elif kind == b"D":
                return _no_server(command, arguments)
            elif kind == b"K":
                os.kill(os.getpid(), 9)
            else:
                return int(payload)
    except OSError as error:
        _write(2, f"{command}: End of File ({error})\n".encode())
        return 1


def _names_in_v(arguments: list[str]) -> list[str]:
    """Names that ``qsub -v NAME`` may take from the environment."""
    return [part for word in arguments for part in word.removeprefix("-v").split(",") if part.isidentifier()]


if __name__ == "__main__":
    sys.exit(main())
