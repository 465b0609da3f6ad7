"""``python -m launcher.keys FOLDER``: makes the files with keys that a new portal needs, each only if it is missing.

Needs no settings, since it makes what they name. An existing key is never replaced: sessions, secrets and login hosts
depend on it. The secret key is a setting and not a file: only the demo and the containers keep one in their folder.
"""

from __future__ import annotations

import argparse
import os
import secrets
import sys
from collections.abc import Callable
from pathlib import Path

from cryptography.fernet import Fernet

from launcher.ssh.ca import CAError, create_user_ca

SECRET_KEY = "secret.key"
ENCRYPTION_KEY = "encryption.key"
USER_CA = "ssh_user_ca"


def make_keys(folder: Path) -> list[str]:
    """Make the files that are missing, for this account only. Returns their names. Raises OSError, CAError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    made = [ENCRYPTION_KEY] if make_secret(folder / ENCRYPTION_KEY, lambda: Fernet.generate_key().decode()) else []
    if not (folder / USER_CA).exists():
        create_user_ca(folder / USER_CA)
        made.append(USER_CA)
    return made


def make_all_keys(folder: Path) -> list[str]:
    """The same, and a file with the secret key, for who has no settings file to write it into."""
    made = make_keys(folder)
    return [SECRET_KEY, *made] if make_secret(folder / SECRET_KEY, lambda: secrets.token_urlsafe(48)) else made


def make_secret(path: Path, make: Callable[[], str]) -> bool:
    """Write one secret, mode 0600, unless there is one. Whether it was made."""
    if path.exists() and path.stat().st_size:
        return False
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(f"{make()}\n")
    return True


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m launcher.keys", description="Make the keys of a new portal.")
    parser.add_argument("folder", type=Path, help="usually PORTAL_DATA_FOLDER")
    folder: Path = parser.parse_args().folder
    try:
        made = make_keys(folder)
    except (OSError, CAError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"Made in {folder}: {', '.join(made) or 'nothing, all keys are there'}.\n")
    sys.stdout.write(f"Login hosts must trust {folder / USER_CA}.pub (TrustedUserCAKeys in sshd_config).\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
