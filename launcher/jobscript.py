"""The script a job runs, and the files the portal puts beside it before it is submitted. Pure.

The script comes from the app's template; settings travel as JSON and the secret as a file of its own, so
that neither a name with quotes nor a secret is ever part of a program, a command line or the job's
environment. The files in ``launcher/jobfiles`` travel unchanged: shell functions for all apps, and the
configuration of the Jupyter server.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path

from launcher.appfile import App
from launcher.choices import LaunchChoices
from launcher.connection import CONNECTION_NAME, SECRET_HEADER
from launcher.scripttemplate import JobScriptError, render_template

__all__ = [
    "FUNCTIONS_NAME",
    "LOG_NAME",
    "SECRET_NAME",
    "SERVER_CONFIG_NAME",
    "SETTINGS_NAME",
    "JobScriptError",
    "ScriptContext",
    "SessionFile",
    "render",
    "session_files",
]

LOG_NAME = "session.log"
"""Everything the script and the server print."""
SECRET_NAME = "secret"
SETTINGS_NAME = "settings.json"
FUNCTIONS_NAME = "functions.sh"
SERVER_CONFIG_NAME = "server_config.py"

_JOB_FILES = Path(__file__).parent / "jobfiles"


@dataclass(frozen=True, slots=True)
class ScriptContext:
    """What a script and its files are made of."""

    session_id: str
    session_folder: str  # absolute, on the cluster
    base_url: str  # "/" or "/s/<id>/"
    listen_address: str  # empty: every interface of the execution host
    choices: LaunchChoices
    idle_stop_seconds: int  # the job's own rule, for when the portal is away (launcher.idle); 0: never
    portal_name: str
    listen_on_socket: bool = False  # instead of a port


@dataclass(frozen=True, slots=True)
class SessionFile:
    """A file for the session folder (which has the mode 0700)."""

    relative_path: str
    data: bytes
    mode: int


def render(app: App, context: ScriptContext) -> bytes:
    """The job script of ``app``. Raises JobScriptError."""
    choices = context.choices
    values: dict[str, object] = {
        "session_id": context.session_id,
        "session_folder": context.session_folder,
        "portal_name": context.portal_name,
        "modules": app.modules,
        "start": app.start,
        "environment_kind": choices.environment_kind,
        "environment_value": choices.environment_value,
        "image": choices.image,
        "folder": choices.folder,
        "cores": choices.cores,
        "memory_mib": choices.memory_mib,
        "gpus": choices.gpus,
        "walltime_seconds": choices.walltime_seconds,
    }
    _check_paths(context)
    return render_template(app.script, values).encode("utf-8")


def session_files(context: ScriptContext, secret: str) -> tuple[SessionFile, ...]:
    """What the portal writes into the session folder before it submits. Raises JobScriptError."""
    if len(secret) < 32 or not secret.isascii() or not secret.isprintable():
        raise JobScriptError("the secret is too short, or not printable ASCII")
    _check_paths(context)
    settings = {
        "version": 1,
        "session": context.session_id,
        "base_url": context.base_url,
        "listen_address": context.listen_address,
        "listen_on_socket": context.listen_on_socket,
        "idle_stop_seconds": context.idle_stop_seconds,
        "portal_name": context.portal_name,
        "secret_header": SECRET_HEADER,
        "secret_name": SECRET_NAME,
        "connection_name": CONNECTION_NAME,
    }
    return (
        SessionFile(SECRET_NAME, secret.encode("ascii"), 0o600),
        SessionFile(SETTINGS_NAME, json.dumps(settings, indent=1).encode("ascii"), 0o600),
        SessionFile(SERVER_CONFIG_NAME, _job_file("jupyter_server.py"), 0o600),
        SessionFile(FUNCTIONS_NAME, _job_file("functions.sh"), 0o600),
    )


def _check_paths(context: ScriptContext) -> None:
    if not context.session_folder.startswith("/"):
        raise JobScriptError("the session folder must be an absolute path")
    if not (context.base_url.startswith("/") and context.base_url.endswith("/")):
        raise JobScriptError("the base URL must begin and end with a slash")


@functools.cache
def _job_file(name: str) -> bytes:
    return (_JOB_FILES / name).read_bytes()
