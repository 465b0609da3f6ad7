"""``manage.py demo --check``: the whole main job as a person does it, without a browser, each step with its
time.

It goes through real HTTP and WebSockets to the running demo, or starts a throw-away one on free ports. It
only stops what it launched itself.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urljoin, urlsplit

from launcher.demo import ports
from launcher.demo.browser import Answer, Browser, Form, forms_of
from launcher.demo.folder import DemoError, DemoFolder, Running
from launcher.demo.kernel import run_cell
from launcher.demo.steps import Steps
from launcher.democluster.settings import DEFAULT_ACCOUNTS, Account
from portal.conf import PROJECT

APP = "jupyter"
READY_SECONDS = 90.0
ENDED_SECONDS = 60.0
START_SECONDS = 120.0
LAST_LINES = 15

Result = TypeVar("Result")


class StepError(Exception):
    """A step did not come out as it must; the text says what was seen instead."""


def check(folder: DemoFolder, steps: Steps, *, url: str = "") -> int:
    """Do the main job in the demo of ``folder``, or in a throw-away one. Returns the exit code.

    ``url``: in a portal with the demo's accounts that runs elsewhere on this machine, such as in containers; its
    audit log is then not checked.
    """
    if url:
        steps.say(f"Checking the portal at {url}")
        return _Check(None, url.rstrip("/"), steps).run()
    running = folder.running()
    if running is not None:
        steps.say(f"Checking the demo at {running.url}")
        return _Check(folder, running.url, steps).run()
    with _throw_away(steps) as (other, there):
        return _Check(other, there.url, steps).run()


@contextmanager
def _throw_away(steps: Steps) -> Iterator[tuple[DemoFolder, Running]]:
    """A demo of its own on free ports. Raises DemoError with its output when it does not start."""
    root = Path(tempfile.mkdtemp(prefix="footbridge-check-"))
    folder = DemoFolder(root)
    steps.say("No demo is running here: checking a throw-away one on free ports")
    steps.begin("starting the demo")
    environment = os.environ | {
        "PORTAL_DATA_FOLDER": str(root),
        "PORTAL_PORT": str(ports.free_port()),
        "PORTAL_DEMO_CLUSTER_PORT": "0",
        "PORTAL_URL": "",
    }
    output = root / "start.log"
    with output.open("wb") as file:
        demo = subprocess.Popen(
            [sys.executable, str(PROJECT / "manage.py"), "demo", "--end-with-parent"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while (running := folder.running()) is None:
            if demo.poll() is not None or time.monotonic() > deadline:
                steps.failed()
                raise DemoError(output.read_text("utf-8", "replace"))
            steps.tick()
            time.sleep(0.1)
        steps.done(running.url)
        yield folder, running
    finally:
        demo.send_signal(signal.SIGTERM)
        steps.begin("stopping the demo")
        while demo.poll() is None:
            steps.tick()
            time.sleep(0.05)
        steps.done()
        shutil.rmtree(root, ignore_errors=True)


class _Check:
    """One pass. Each method is a step and raises StepError, or what the network raised."""

    def __init__(self, folder: DemoFolder | None, url: str, steps: Steps) -> None:
        self._folder = folder
        self._steps = steps
        self._url = url
        self._browser = Browser("127.0.0.1")
        self._session = ""
        self._page = ""
        self._address = ""

    def run(self) -> int:
        """All steps. 0, or 1 after saying which step failed, with the last lines of the log that knows
        more.
        """
        launched_at = 0.0
        try:
            account = self._step("sign in", self._sign_in, "web", lambda found: f"as {found.name}")
            launched_at = time.monotonic()
            self._step("launch", self._launch, "web", lambda _: f"session {self._session}")
            self._step(
                "ready",
                self._ready,
                "worker",
                lambda _: f"{time.monotonic() - launched_at:.1f} s after launch",
            )
            self._step("connect", self._connect, "web", lambda _: self._address)
            self._step("run 6*7 in a kernel", self._cell, "web", lambda answer: f"gave {answer}")
            self._step("stop", self._stop, "worker", lambda reason: f"ended: {reason}")
            if (folder := self._folder) is not None:
                self._step("audit chain", lambda: _audit(folder), "web", lambda words: words)
        except StepError:
            self._stop_quietly()
            return 1
        self._steps.say(f"All of it works, as {account.name}.")
        return 0

    def _step(self, label: str, do: Callable[[], Result], log: str, note: Callable[[Result], str]) -> Result:
        self._steps.begin(label)
        try:
            result = do()
        except Exception as error:  # whatever it was, the step failed and the person wants to know which
            self._steps.failed()
            self._steps.say(f"The step “{label}” failed: {error or type(error).__name__}")
            self._show_log(log)
            raise StepError from error
        self._steps.done(note(result))
        return result

    def _show_log(self, name: str) -> None:
        """The end of the job's own log once there is one, which knows most, else of the process's."""
        if self._folder is None:
            return
        path = self._folder.logs / f"{name}.log"
        if self._session:
            of_jobs = (self._folder.cluster / "home").glob(f"*/.footbridge/sessions/{self._session}/session.log")
            path = next(of_jobs, path)
        lines = path.read_text("utf-8", "replace").splitlines()[-LAST_LINES:] if path.exists() else []
        self._steps.say("\n".join([f"The last lines of {path}:", *(f"    {line}" for line in lines)]))

    def _sign_in(self) -> Account:
        busy = []
        for account in DEFAULT_ACCOUNTS[:2]:
            self._browser = Browser("127.0.0.1")
            form = _form_with(self._browser.get(f"{self._url}/sign-in/"), "password")
            answer = self._browser.submit(form, username=account.name, password=account.password)
            if answer.status != 302:
                raise StepError(f"signing in as {account.name} was answered with {answer.brief}")
            if not any(found["state"] != "ended" for found in self._api("sessions")["sessions"]):
                return account
            busy.append(account.name)
        raise StepError(
            f"{' and '.join(busy)} have a session already, and the check stops only its own. Stop one of them."
        )

    def _api(self, path: str) -> dict[str, Any]:
        answer = self._browser.get(f"{self._url}/api/v1/{path}")
        document = answer.json() if answer.status == 200 else None
        if not isinstance(document, dict):
            raise StepError(f"/api/v1/{path} answered {answer.brief}")
        return document

    def _look(self) -> dict[str, Any]:
        return self._api(f"sessions/{self._session}")

    def _launch(self) -> None:
        form = _form_with(self._browser.get(f"{self._url}/launch/{APP}/"), "cores")
        answer = self._browser.submit(form)
        path = urlsplit(answer.location).path
        if answer.status != 302 or not path.startswith("/sessions/"):
            raise StepError(f"the launch form was answered with {answer.brief}")
        self._page = urljoin(self._url, path)
        self._session = path.split("/")[2]

    def _await(self, state: str, seconds: float) -> dict[str, Any]:
        deadline = time.monotonic() + seconds
        while True:
            session = self._look()
            if session["state"] == state:
                return session
            if session["state"] == "ended":
                raise StepError(f"the session ended: {_reason(session)}")
            if time.monotonic() > deadline:
                raise StepError(f"the session was “{session['state']}” for {seconds:.0f} s")
            self._steps.tick()
            time.sleep(0.25)  # the API has a budget of requests a minute

    def _ready(self) -> None:
        self._await("ready", READY_SECONDS)

    def _connect(self) -> None:
        form = _form_to(self._browser.get(self._page), f"/sessions/{self._session}/connect/")
        answer = self._browser.submit(form)
        if answer.status not in (302, 303) or "/.footbridge/begin" not in answer.location:
            raise StepError(f"Connect was answered with {answer.brief}")
        self._address = answer.location.partition("/.footbridge/begin")[0]
        entered = self._browser.get(answer.location)
        if entered.status != 200:
            raise StepError(f"the session's address answered {entered.brief}")

    def _cell(self) -> str:
        answer = run_cell(self._browser, self._address, "6*7")
        if answer != "42":
            raise StepError(f"6*7 gave {answer!r}")
        return answer

    def _stop(self) -> str:
        answer = self._browser.submit(self._stop_form())
        if answer.status != 302:
            raise StepError(f"Stop was answered with {answer.brief}")
        ended = self._await("ended", ENDED_SECONDS)
        if (ended["end"] or {}).get("reason") != "stopped_by_user":
            raise StepError(f"it ended with another reason, {_reason(ended)}")
        return "stopped_by_user"

    def _stop_form(self) -> Form:
        return _form_to(self._browser.get(self._page), f"/sessions/{self._session}/stop/")

    def _stop_quietly(self) -> None:
        """After a failure: leave no session of ours behind, as far as that is possible."""
        if self._session:
            try:
                if self._look()["state"] != "ended":
                    self._browser.submit(self._stop_form())
            except Exception as error:  # the failure itself has been told; this one is said and no more
                self._steps.say(f"The session {self._session} could not be stopped: {error}")


def _audit(folder: DemoFolder) -> str:
    """What ``manage.py verifyaudit`` says of this demo. Raises StepError when the chain is broken."""
    done = subprocess.run(
        [sys.executable, str(PROJECT / "manage.py"), "demo", "--", "verifyaudit"],
        env=os.environ | {"PORTAL_DATA_FOLDER": str(folder.root)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    words = (done.stdout.strip() or done.stderr.strip()).splitlines()
    if done.returncode:
        raise StepError("\n".join(words[-3:]) or f"verifyaudit ended with {done.returncode}")
    return words[0] if words else "intact"


def _reason(session: dict[str, Any]) -> str:
    end = session["end"] or {}
    details = " · ".join(part for part in (end.get("message"), end.get("details")) if part)
    return f"{end.get('reason', 'no reason given')}{': ' + details if details else ''}"


def _form_with(page: Answer, field: str) -> Form:
    for form in forms_of(page):
        if field in form.values:
            return form
    raise StepError(f"{page.url} has no form with “{field}”: {page.brief}")


def _form_to(page: Answer, path: str) -> Form:
    for form in forms_of(page):
        if urlsplit(form.action).path == path:
            return form
    raise StepError(f"{page.url} has no form that leads to {path}: {page.brief}")
