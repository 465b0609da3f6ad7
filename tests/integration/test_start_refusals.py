"""A web process with wrong settings does not start, and its last line says which setting, and what it may be."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from portal.conf import PROJECT

pytestmark = pytest.mark.integration
HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBpnTzWhQmSKuaHKpdTbJfUSWJlPkQ5Zg6Zo6vAlYbPN"
CLUSTERS = f"""
[clusters.hpc]
name = "HPC"
login_hosts = ["127.0.0.1"]
host_keys = ["{HOST_KEY}"]
[[clusters.hpc.queues]]
name = "workq"
"""


def start(folder: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """What becomes of a web process with these settings."""
    (folder / "clusters.toml").write_text(CLUSTERS)
    environment = dict(os.environ) | {"PORTAL_CLUSTERS_FILE": str(folder / "clusters.toml")} | settings
    environment.pop("DJANGO_SETTINGS_MODULE", None)
    command = [sys.executable, "-c", "import portal.asgi"]
    return subprocess.run(
        command, cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def test_a_web_process_with_right_settings_starts(tmp_path: Path) -> None:
    done = start(tmp_path, PORTAL_AUTH="cluster", PORTAL_AUTH_CLUSTER="hpc")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"PORTAL_AUTH": "horoscope"}, ("no way to sign in called 'horoscope'", "cluster")),
        ({"PORTAL_AUTH_CLUSTER": "nowhere"}, ("PORTAL_AUTH_CLUSTER names 'nowhere'", "name one of: hpc")),
        ({"PORTAL_CLUSTERS_FILE": "/nowhere/clusters.toml"}, ("/nowhere/clusters.toml",)),
    ],
    ids=["auth", "auth-cluster", "clusters-file"],
)
def test_a_web_process_with_a_wrong_setting_does_not(
    tmp_path: Path, settings: dict[str, str], said: tuple[str, ...]
) -> None:
    done = start(tmp_path, **settings)
    assert done.returncode != 0
    for words in said:
        assert words in done.stderr
