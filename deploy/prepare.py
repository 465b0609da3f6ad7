"""Makes what a first ``docker compose up`` needs: keys, the database's password, and the way to the demo cluster.

Runs once before everything else, as the portal's account, and changes nothing that is there. Each volume holds what
one kind of container may know: ``/keys`` the portal, ``/database-keys`` PostgreSQL, ``/valkey-keys`` Valkey, and
``/config`` everybody. Without the demo (``PORTAL_DEMO=false``) ``/config`` is the administrator's and stays as it is.
"""

from __future__ import annotations

import os
import secrets
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from launcher.demo.clusters_file import clusters_text
from launcher.democluster import hostkey
from launcher.democluster.settings import DemoSettings
from launcher.keys import USER_CA, make_all_keys, make_secret

KEYS, DATABASE_KEYS, VALKEY_KEYS = Path("/keys"), Path("/database-keys"), Path("/valkey-keys")
CONFIG, CLUSTER = Path("/config"), Path("/cluster")
CLUSTER_PORT = 2222
VALKEY = """# Written once by deploy/prepare.py. A queue and a cache: nothing in it is kept on disk.
requirepass {password}
save ""
appendonly no
dir /tmp
"""


def make_secrets() -> list[str]:
    """Make the keys, passwords and addresses that are missing. Returns the names of what was made."""
    made = make_all_keys(KEYS)

    def kept(path: Path, make: Callable[[], str]) -> str:
        """What the file holds, made now if it is missing."""
        if make_secret(path, make):
            made.append(str(path))
        return path.read_text().strip()

    secret_key = (KEYS / "secret.key").read_text().strip()
    kept(KEYS / "PORTAL_SECRET_KEY", lambda: secret_key)
    database_password = kept(DATABASE_KEYS / "password", lambda: secrets.token_hex(24))
    kept(KEYS / "PORTAL_DATABASE_URL", lambda: f"postgresql://footbridge:{database_password}@postgres/footbridge")
    valkey_password = kept(VALKEY_KEYS / "password", lambda: secrets.token_hex(24))
    kept(VALKEY_KEYS / "valkey.conf", lambda: VALKEY.format(password=valkey_password))
    kept(KEYS / "PORTAL_VALKEY_URL", lambda: f"redis://:{valkey_password}@valkey:6379/0")
    return made


def lead_to_demo_cluster() -> None:
    """Give the demo cluster its host key and the portal's authority, and write the clusters file that leads there."""
    settings = DemoSettings(root=CLUSTER, port=CLUSTER_PORT)
    (CLUSTER / "etc").mkdir(exist_ok=True)
    host_key = hostkey.public_line(hostkey.host_key(CLUSTER))
    text = clusters_text(settings, host="cluster", port=CLUSTER_PORT, host_key=host_key)
    (CONFIG / "clusters.toml").write_text(text, encoding="utf-8")
    shutil.copyfile(KEYS / f"{USER_CA}.pub", CONFIG / f"{USER_CA}.pub")


def main() -> None:
    """Make what is missing."""
    made = make_secrets()
    if os.environ.get("PORTAL_DEMO", "").lower() in ("1", "true", "yes", "on"):
        lead_to_demo_cluster()
    sys.stdout.write(f"Ready; made {', '.join(made) or 'nothing new'}.\n")


if __name__ == "__main__":
    main()
