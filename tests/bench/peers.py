"""The proxies that are measured, each started on a port of its own and bound to the first core.

A peer that is not installed is named as left out. nginx and Apache come from Debian, configurable-http-proxy from npm
into var/bench/chp, jupyter-server-proxy from PyPI into var/bench/jsp.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from launcher.processes import WEB_OPTIONS
from tests.integration.ssh_server import free_port
from tests.integration.sshd import Sshd
from tests.waiting import listens, wait_for

ROOT = Path(__file__).resolve().parents[2]
CHP = ROOT / "var/bench/chp/node_modules/.bin/configurable-http-proxy"
JSP = ROOT / "var/bench/jsp/bin/jupyter-server"
PROXY_CORE, OTHER_CORE = "0", "1"
NO_PROXY = "no proxy (the ceiling)"
FILES = 20_000
"""Open files that a proxy may have."""


@dataclass
class Peer:
    """A running proxy."""

    name: str
    port: int
    process: subprocess.Popen[bytes]
    prefix: str = ""  # before every path
    holds_bodies: bool = False  # whole, before it hands them on

    def pids(self) -> list[int]:
        """The process and its children."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [self.process.pid, *map(int, children)]

    def cpu_seconds(self) -> float:
        """Processor time of all of them."""
        ticks = 0
        for pid in self.pids():
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def resident_kb(self) -> float:
        """Memory of all of them."""
        pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in self.pids())
        return pages * os.sysconf("SC_PAGE_SIZE") / 1000


def start(command: list[str], port: int, name: str, log: Path, core: str = PROXY_CORE, **environment: str) -> Peer:
    """Start a command on one core and wait until it listens."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, max(FILES, resource.getrlimit(resource.RLIMIT_NOFILE)[1])))
    with log.open("ab") as output:
        process = subprocess.Popen(
            ["taskset", "-c", core, *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=ROOT,
            env={**os.environ, **environment},
        )
    wait_for(lambda: listens(port) or process.poll() is not None, seconds=20, what=f"{name} to listen")
    if process.poll() is not None:
        raise RuntimeError(f"{name} does not start: {log.read_text('utf-8', 'replace')[-500:]}")
    return Peer(name, port, process)


NGINX = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/nginx.log; worker_rlimit_nofile 20000;
events {{ worker_connections 15000; }}
http {{ access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; client_max_body_size 0;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s; keepalive_requests 1000000;
  upstream origin {{ server 127.0.0.1:{origin}; keepalive 64; keepalive_requests 1000000; }}
  map $http_upgrade $up {{ default upgrade; '' ''; }}
  server {{ listen 127.0.0.1:{port} backlog=4096; location / {{ proxy_pass http://origin; proxy_http_version 1.1;
    proxy_set_header Host $host; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $up;
    proxy_buffering off; proxy_request_buffering off; proxy_read_timeout 1h; }} }} }}
"""
PLAIN = """
daemon off; worker_processes 1; pid {folder}/plain.pid; error_log {folder}/plain.log; worker_rlimit_nofile 20000;
events {{ worker_connections 15000; }}
http {{ access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; keepalive_requests 10000000;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s; default_type text/plain;
  server {{ listen 127.0.0.1:{port} backlog=4096; location = /small {{ return 200 {small}; }}
    location = /middle {{ set $kilobyte {kilobyte}; return 200 {middle}; }} }} }}
"""
APACHE = """
ServerName localhost
PidFile {folder}/apache.pid
DefaultRuntimeDir {folder}
ErrorLog {folder}/apache.log
Listen 127.0.0.1:{port}
{modules}
StartServers 1
ServerLimit 4
ThreadsPerChild 128
MaxRequestWorkers 512
MaxKeepAliveRequests 0
ProxyPass /ws ws://127.0.0.1:{origin}/ws
ProxyPass / http://127.0.0.1:{origin}/ flushpackets=on
"""


def ours(lane: str, origin: int, folder: Path, ssh: Path | None = None, *, sockets: int = 0) -> Peer:
    """The portal's proxy, with the web server's options of a site. ``sockets``: as many WebSockets may be open."""
    port = free_port()
    name = f"ours, {lane}" + (", SSH" if ssh else "")
    command = [sys.executable, "-m", "uvicorn", "--factory", "tests.bench.site:make", "--host", "127.0.0.1"]
    told = {"BENCH_PORT": str(port), "BENCH_ORIGIN": str(origin), "BENCH_LANE": lane, "BENCH_SSH": str(ssh or "")}
    told |= {"BENCH_SOCKETS": str(sockets)} if sockets else {}
    return start([*command, "--port", str(port), *WEB_OPTIONS], port, name, folder / f"{name}.log", **told)


def nginx(origin: int, folder: Path) -> Peer:
    """nginx as its documentation tells for notebooks: nothing buffered."""
    port = free_port()
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder, origin=origin, port=port))
    command = ["/usr/sbin/nginx", "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(folder / "e.log")]
    return start(command, port, "nginx", folder / "nginx.out")


def plain_origin(port: int, folder: Path) -> Peer:
    """nginx as the server behind the proxies, for short answers: it is quicker than any of them."""
    texts = {"small": "x" * 200, "kilobyte": "x" * 1000, "middle": "$kilobyte" * 10}
    (folder / "plain.conf").write_text(PLAIN.format(folder=folder, port=port, **texts))
    command = ["/usr/sbin/nginx", "-p", str(folder), "-c", str(folder / "plain.conf"), "-e", str(folder / "e.log")]
    return start(command, port, NO_PROXY, folder / "plain.out", OTHER_CORE)


def echo_origin(port: int, folder: Path) -> Peer:
    """Our own server behind the proxies, for WebSockets and long bodies."""
    command = [sys.executable, "-m", "tests.bench.origin", str(port)]
    return start(command, port, NO_PROXY, folder / "origin.log", OTHER_CORE)


def apache(origin: int, folder: Path) -> Peer:
    """Apache's mod_proxy with its event MPM."""
    port, modules = free_port(), "/usr/lib/apache2/modules/mod_"
    names = ("mpm_event", "authz_core", "proxy", "proxy_http", "proxy_wstunnel")
    lines = "\n".join(f"LoadModule {name}_module {modules}{name}.so" for name in names)
    (folder / "apache.conf").write_text(APACHE.format(folder=folder, origin=origin, port=port, modules=lines))
    command = ["/usr/sbin/apache2", "-d", str(folder), "-f", str(folder / "apache.conf"), "-DFOREGROUND"]
    return start(command, port, "Apache", folder / "apache.out")


def chp(origin: int, folder: Path) -> Peer:
    """JupyterHub's proxy."""
    port = free_port()
    command = [str(CHP), "--ip", "127.0.0.1", "--port", str(port), "--api-port", str(free_port())]
    more = ["--default-target", f"http://127.0.0.1:{origin}", "--log-level", "error"]
    return start([*command, *more], port, "configurable-http-proxy", folder / "chp.log")


def jupyter_server_proxy(origin: int, folder: Path) -> Peer:
    """Jupyter's own way to another port: a server for each person, and this extension in it. Lets everybody in."""
    port, home = free_port(), folder / "jsp"
    home.mkdir()
    options = ["--no-browser", "--allow-root", f"--port={port}", "--IdentityProvider.token=", f"--notebook-dir={home}"]
    options += ["--ServerApp.allow_remote_access=True", "--ServerApp.disable_check_xsrf=True", "--log-level=ERROR"]
    own = {name: str(home) for name in ("HOME", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR")}
    peer = start([str(JSP), *options], port, "jupyter-server-proxy", folder / "jsp.log", **own)
    peer.prefix, peer.holds_bodies = f"/proxy/{origin}", True
    return peer


def ssh_forward(host: Sshd, origin: int, folder: Path) -> Peer:
    """``ssh -N -L`` with OpenSSH's defaults, as people type it."""
    port, key = free_port(), folder / "id"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    authority = host.home.parent / "ca"
    signed = ["ssh-keygen", "-q", "-s", str(authority), "-I", "bench", "-n", host.username, f"{key}.pub"]
    subprocess.run(signed, check=True)
    at = host.cluster.login_hosts[0].rpartition(":")[2]
    options = ["-F", "none", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-i", str(key)]
    forward = ["-N", "-L", f"127.0.0.1:{port}:127.0.0.1:{origin}", "-p", at, f"{host.username}@127.0.0.1"]
    return start(["ssh", *options, *forward], port, "ssh -N -L", folder / "ssh.log")


def told_ssh(host: Sshd, folder: Path) -> Path:
    """What ``site`` must know of sshd, as a file."""
    path = folder / "ssh.json"
    told = {"username": host.username, "cluster": host.cluster.model_dump(mode="json", exclude_unset=True)}
    path.write_text(json.dumps({**told, "ca": str(host.home.parent / "ca")}))
    return path


@contextlib.contextmanager
def running(*starters: Callable[[], Peer]) -> Iterator[tuple[list[Peer], list[str]]]:
    """All that start, and why the others do not."""
    peers, left_out = [], []
    try:
        for starter in starters:
            try:
                peers.append(starter())
            except (OSError, RuntimeError, AssertionError, subprocess.CalledProcessError) as error:
                left_out.append(str(error))
        yield peers, left_out
    finally:
        for peer in peers:
            peer.process.terminate()
        for peer in peers:
            with contextlib.suppress(subprocess.TimeoutExpired):
                peer.process.wait(5)
            if peer.process.poll() is None:
                peer.process.kill()


def has_wrk() -> bool:
    """Whether requests can be measured."""
    return shutil.which("wrk") is not None


VERSION_OF_JSP = "from importlib.metadata import version; print(version('jupyter-server-proxy'))"


def versions() -> list[str]:
    """What was measured, and with what: the first line that each program says of itself."""
    asked = (
        ["/usr/sbin/nginx", "-v"],
        ["/usr/sbin/apache2", "-v"],
        [str(CHP), "--version"],
        [str(JSP.with_name("python")), "-c", VERSION_OF_JSP],
        ["ssh", "-V"],
        ["wrk", "-v"],
    )
    found = []
    for command in asked:
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
            line = (done.stdout + done.stderr).strip().splitlines()[0].partition(" [")[0]
            names = {str(CHP): "configurable-http-proxy ", str(JSP.with_name("python")): "jupyter-server-proxy "}
            name = names.get(command[0], "")
            found.append(name + re.sub("^(Server|nginx) version: ", "", line))
    return found
