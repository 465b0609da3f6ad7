"""After a sign-in the password is nowhere: not in the database, in Valkey, in a log, on the disk, in a command line,
nor in a worker's memory.

Every process is real and one's own: web, worker, beat, Valkey, and a cluster with an account whose password nothing
else in the world contains: the demo cluster where the portal acts by certificate, and a Slurm behind OpenSSH where it
enrols a key or keeps the password. Each search is shown to find a secret that was planted for it.
"""

from __future__ import annotations

import contextlib
import re
import sqlite3
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis

from launcher.demo import ports
from launcher.demo.browser import Answer, Browser, Form, forms_of
from launcher.demo.folder import DemoFolder
from launcher.democluster.settings import Account
from launcher.processes import beat_command, web_command, worker_command
from tests.integration.portal_processes import demo_cluster_of, processes, short_root, until_it_answers
from tests.integration.secret_search import ALL_FORMS, Overheard, Search, Secret, children_of
from tests.slurm import slurm_site, why_not
from tests.waiting import wait_for

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(900),
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
]
WHY_NO_SLURM = why_not()
CREDENTIALS = ("certificate", "enrolled-key", "password")


@dataclass(slots=True)
class Portal:
    """A running portal: its processes, what they write to, and one person's browser."""

    root: Path
    homes: Path
    folder: DemoFolder
    url: str
    pids: dict[str, int]
    browser: Browser

    @property
    def database(self) -> Path:
        return self.folder.root / "demo.sqlite3"

    def sign_in(self, password: str) -> Answer:
        (form,) = [form for form in forms_of(self.page("/sign-in/")) if "password" in form.values]
        return self.browser.submit(form, username="alice", password=password)

    def page(self, path: str) -> Answer:
        return self.browser.get(self.url + path)

    def form(self, page: str, path: str) -> Form:
        return next(form for form in forms_of(self.page(page)) if urlsplit(form.action).path == path)

    def state(self, session_id: str) -> str:
        document = self.page(f"/api/v1/sessions/{session_id}").json()
        assert isinstance(document, dict)
        return f"{document['state']} {document['end'] or ''}"

    def until(self, session_id: str, state: str) -> None:
        wait_for(
            lambda: self.state(session_id).startswith(state),
            seconds=240,  # what Slurm's controller could not tell its daemon, it tells again after a minute or two
            pause_seconds=0.5,
            what=lambda: f"the session to be {state}: it is {self.state(session_id)}; {self.last_words()}",
        )

    def last_words(self) -> str:
        """The ends of the processes' logs."""
        return "\n".join(path.read_text("utf-8", "replace")[-3000:] for path in sorted(self.folder.logs.glob("*.log")))

    def places(self, search: Search) -> dict[str, set[str]]:
        """Where the secret is, but for memory."""
        found = {f"file {name}": hits for name, hits in search.folder(self.root).items()}
        found |= {f"home {name}": hits for name, hits in search.folder(self.homes).items()}
        found |= {f"Valkey {key}": hits for key, hits in search.valkey(self.folder.valkey_socket).items()}
        for name, parent in self.pids.items():
            for pid in children_of(parent):
                if hits := search.command_line_and_environment(pid):
                    found[f"arguments or environment of {name}"] = hits
        return found

    def memories(self, search: Search, *names: str) -> dict[str, set[str]]:
        """In which processes' memory the secret is."""
        found = {}
        for name in names:
            for pid in children_of(self.pids[name]):
                if hits := search.memory(pid):
                    found[name] = hits
        return found


@contextlib.contextmanager
def slurm_of(credential: str, user_ca: Path, password: str) -> Iterator[tuple[Path, str]]:
    """The same with a real Slurm, to which the portal has no other key than the password gives it."""
    if WHY_NO_SLURM:
        pytest.skip(WHY_NO_SLURM)
    with slurm_site(user_ca, {"alice": password}) as site:
        if found := site.unreadable("alice"):
            pytest.skip(f"an ordinary account cannot run this Python and its packages: {found[-200:]}")
        yield site.home("alice"), site.toml(credential=credential)


@contextlib.contextmanager
def demo_of(root: Path, user_ca: Path, password: str) -> Iterator[tuple[Path, str]]:
    """A demo cluster on which alice has this password: where the homes are, and the clusters file."""
    with demo_cluster_of(root, user_ca, Account("alice", password, ("users",))) as cluster:
        yield cluster.root, cluster.toml(credential="certificate")


@contextlib.contextmanager
def running_portal(password: str, credential: str, environment: dict[str, str]) -> Iterator[Portal]:
    """A portal with a cluster on which alice has this password."""
    with contextlib.ExitStack() as stack:
        root = stack.enter_context(short_root("fb-pw-"))
        folder, port = DemoFolder(root / "data"), ports.free_port()
        folder.prepare()
        (root / "tmp").mkdir()
        ca = folder.user_ca.with_name(f"{folder.user_ca.name}.pub")
        cluster = demo_of(root, ca, password) if credential == "certificate" else slurm_of(credential, ca, password)
        homes, clusters_file = stack.enter_context(cluster)
        folder.clusters_file.write_text(clusters_file, "utf-8")
        commands = {
            "web": web_command(host="127.0.0.1", port=port),
            "worker": worker_command(),
            "beat": beat_command(schedule=root / "beat-schedule"),
        }
        environment = {"TMPDIR": str(root / "tmp"), "PYTHONUNBUFFERED": "1"} | environment
        pids = stack.enter_context(processes(folder, port=port, commands=commands, environment=environment))
        portal = Portal(root, homes, folder, f"http://localhost:{port}", pids, Browser("127.0.0.1"))
        until_it_answers(portal.url, lambda: (folder.logs / "web.log").read_text())
        yield portal


@pytest.fixture(scope="module", params=CREDENTIALS)
def story(request: pytest.FixtureRequest) -> Iterator[Story]:
    """What a day leaves behind, for each way of acting as the person."""
    planted = Secret.make()
    with _day(request.param, planted) as story:
        yield story


@dataclass(slots=True)
class Story:
    """The searches of one day, made when there was most to find."""

    credential: str
    found: dict[str, dict[str, set[str]]]  # by when, then by where
    planted: dict[str, set[str]]  # where the planted secret was found
    said_to_valkey: int  # bytes
    cores: set[str]  # how large a file a crash may leave, over all processes


def everywhere(search: Search, portal: Portal, overheard: Overheard) -> dict[str, set[str]]:
    found = portal.places(search) | portal.memories(search, "worker", "beat", "Valkey")
    if hits := search.pieces(overheard.pieces):
        found["said to Valkey"] = hits
    return found


@contextlib.contextmanager
def _day(credential: str, planted: Secret) -> Iterator[Story]:
    right, wrong = Secret.make(), Secret.make()
    found: dict[str, dict[str, set[str]]] = {}
    plants = {"FOOTBRIDGE_TEST_PLANT": "\n".join(_written(planted))}
    with running_portal(right.text, credential, plants) as portal, Overheard(portal.folder.valkey_socket) as overheard:
        assert portal.sign_in(wrong.text).status != 302
        assert portal.sign_in(right.text).status == 302
        answer = portal.browser.submit(portal.form("/launch/jupyter/", "/launch/jupyter/"))
        assert answer.status == 302, (portal.folder.logs / "web.log").read_text()[-3000:]
        session_id = urlsplit(answer.location).path.split("/")[2]
        portal.until(session_id, "ready")
        answer = portal.browser.submit(portal.form(f"/sessions/{session_id}/", f"/sessions/{session_id}/connect/"))
        assert portal.browser.get(answer.location).status == 200
        notebook, _, _ = answer.location.partition("/.footbridge/")
        assert "started" in portal.browser.get(f"{notebook}/api/status").text
        found["while a session runs"] = everywhere(Search(right), portal, overheard)

        portal.browser.submit(portal.form(f"/sessions/{session_id}/", f"/sessions/{session_id}/stop/"))
        portal.until(session_id, "ended")
        assert portal.browser.submit(portal.form("/", "/sign-out/")).status == 302
        found["after signing out"] = everywhere(Search(right), portal, overheard)
        found["the wrong one"] = everywhere(Search(wrong), portal, overheard)

        _plant(planted, portal)
        where = everywhere(Search(planted), portal, overheard)
        yield Story(credential, found, where, sum(map(len, overheard.pieces)), core_limits(portal))


def core_limits(portal: Portal) -> set[str]:
    """How large a core dump the portal's own processes may write, soft and hard."""
    found = set()
    for name in ("web", "worker", "beat"):
        for pid in children_of(portal.pids[name]):
            lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
            (line,) = [line for line in lines if line.startswith("Max core file size")]
            found |= set(line.split()[4:6])
    return found


def _written(secret: Secret) -> list[str]:
    """A secret in the forms that fit into text."""
    import base64

    shifted = [base64.b64encode(b"x" * shift + secret.core.encode()).decode() for shift in range(3)]
    return [secret.text, secret.core.encode().hex(), *shifted]


def _plant(secret: Secret, portal: Portal) -> None:
    """Put a secret wherever the searches look; in the processes' environment it is already."""
    forms = "\n".join(_written(secret)).encode() + secret.core.encode("utf-16-be") + secret.core.encode("utf-32-be")
    (portal.folder.logs / "planted.log").write_bytes(forms)
    (portal.root / "tmp" / f"named-{secret.core}").touch()
    with contextlib.closing(sqlite3.connect(portal.database, timeout=20)) as link, link:
        link.execute("CREATE TABLE planted (value BLOB)")
        link.execute("INSERT INTO planted VALUES (?)", (forms,))
    with redis.Redis(unix_socket_path=str(portal.folder.valkey_socket)) as link:
        link.set("planted-string", forms)
        link.hset("planted-hash", mapping={forms: b"1"})
        link.rpush("planted-list", forms)
        link.sadd("planted-set", forms)
        link.zadd("planted-sorted", {forms: 1})
        link.xadd("planted-stream", {b"field": forms})


def test_the_password_is_nowhere_while_a_session_runs_and_after_signing_out(story: Story) -> None:
    for when, places in story.found.items():
        allowed = {"worker"} if story.credential == "password" and when != "the wrong one" else set()
        assert {where: hits for where, hits in places.items() if where not in allowed} == {}, when


def test_a_crash_would_not_write_it_to_the_disk(story: Story) -> None:
    assert story.cores == {"0"}


def test_the_search_finds_what_is_planted(story: Story) -> None:
    texts = {"text", "hex", "base64"}
    for name in ("planted-string", "planted-hash", "planted-list", "planted-set", "planted-sorted", "planted-stream"):
        assert story.planted[f"Valkey 0:b'{name}'"] == ALL_FORMS
    assert story.planted["file data/log/planted.log"] == ALL_FORMS
    assert any(re.fullmatch(r"file tmp/named-\w+", where) for where in story.planted)
    database = [hits for where, hits in story.planted.items() if where.startswith("file data/demo.sqlite3")]
    assert ALL_FORMS in database
    for name in ("web", "worker", "beat"):
        assert story.planted[f"arguments or environment of {name}"] == texts
    for name in ("worker", "beat"):
        assert texts <= story.planted[name]
    assert story.planted["Valkey"] >= ALL_FORMS
    assert story.planted["said to Valkey"] >= texts
    assert story.said_to_valkey > 10_000
