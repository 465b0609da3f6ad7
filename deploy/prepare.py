"""Makes what a first ``docker compose up`` needs: keys, the database's password, and the way to the demo cluster.

Runs once before everything else, as the portal's account, and changes nothing that is there. Each volume holds what
one kind of container may know: ``/keys`` the portal, ``/database-keys`` PostgreSQL, ``/config`` everybody.
"""

from __future__ import annotations

import secrets
import shutil
import sys
from pathlib import Path

from launcher.demo.clusters_file import clusters_text
from launcher.democluster import hostkey
from launcher.democluster.settings import DemoSettings
from launcher.keys import ENCRYPTION_KEY, USER_CA, make_keys, make_secret

KEYS, DATABASE_KEYS, CONFIG, CLUSTER = Path("/keys"), Path("/database-keys"), Path("/config"), Path("/cluster")
CLUSTER_PORT = 2222


def main() -> None:
    """Make what is missing."""
    made = make_keys(KEYS)
    secret_key = (KEYS / "secret.key").read_text().strip()
    make_secret(KEYS / "PORTAL_SECRET_KEY", lambda: secret_key)
    make_secret(DATABASE_KEYS / "password", lambda: secrets.token_hex(24))
    password = (DATABASE_KEYS / "password").read_text().strip()
    make_secret(KEYS / "PORTAL_DATABASE_URL", lambda: f"postgresql://footbridge:{password}@postgres/footbridge")

    settings = DemoSettings(root=CLUSTER, port=CLUSTER_PORT)
    (CLUSTER / "etc").mkdir(exist_ok=True)
    host_key = hostkey.public_line(hostkey.host_key(CLUSTER))
    text = clusters_text(settings, host="cluster", port=CLUSTER_PORT, host_key=host_key)
    (CONFIG / "clusters.toml").write_text(text, encoding="utf-8")
    shutil.copyfile(KEYS / f"{USER_CA}.pub", CONFIG / f"{USER_CA}.pub")
    sys.stdout.write(f"Ready; made {', '.join(made) or 'nothing new'}. Encryption: {KEYS / ENCRYPTION_KEY}\n")


if __name__ == "__main__":
    main()
