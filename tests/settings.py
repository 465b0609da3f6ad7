"""Django's settings for the tests: those of the portal, over a throw-away folder and an own Valkey socket."""

from __future__ import annotations

import atexit
import os
import secrets
import shutil
import tempfile
from pathlib import Path

from cryptography.fernet import Fernet

FOLDER = Path(tempfile.mkdtemp(prefix="fb-"))
"""Everything this test process writes. Short, because Unix sockets live in it."""

atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)

for _name in [name for name in os.environ if name.startswith("PORTAL_")]:
    if _name != "PORTAL_DATABASE_URL":  # the suite may be run on PostgreSQL
        del os.environ[_name]
os.environ |= {
    "PORTAL_SECRET_KEY": secrets.token_urlsafe(48),
    "PORTAL_DEMO": "1",
    "PORTAL_DATA_FOLDER": str(FOLDER),
    "PORTAL_VALKEY_URL": f"unix://{FOLDER}/valkey.sock",
    "PORTAL_CLUSTERS_FILE": str(FOLDER / "clusters.toml"),
    "PORTAL_ADMINISTRATORS": "admin",
    "PORTAL_LOG_LEVEL": "WARNING",
}
(FOLDER / "encryption.key").write_bytes(Fernet.generate_key())
(FOLDER / "encryption.key").chmod(0o600)

from portal.settings import *  # noqa: E402, F403  (the environment must be set first)
from portal.settings import DATABASES  # noqa: E402  (as above)

if DATABASES["default"]["ENGINE"].endswith("sqlite3"):
    DATABASES["default"]["TEST"] = {"NAME": str(FOLDER / "test.sqlite3")}  # other processes and threads see it, too
