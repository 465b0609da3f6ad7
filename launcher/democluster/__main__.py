"""``python -m launcher.democluster``: runs a demonstration cluster until it is told to stop."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from pathlib import Path

from launcher.democluster.cluster import ClusterError, DemoCluster, running_as_root
from launcher.democluster.environment import NOTICE
from launcher.democluster.settings import DEFAULT_ACCOUNTS, Account, DemoSettings


def _account(text: str) -> Account:
    """``name:password`` or ``name:password:group,group``."""
    name, _, rest = text.partition(":")
    password, _, groups = rest.partition(":")
    if not name.isalnum() or not password:
        raise argparse.ArgumentTypeError("write NAME:PASSWORD or NAME:PASSWORD:GROUP,GROUP")
    return Account(name, password, tuple(filter(None, groups.split(","))) or ("users",), name == "admin")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m launcher.democluster",
        description=f"An SSH login host and a small PBS on this machine, to try the portal with. {NOTICE}",
    )
    parser.add_argument("--root", type=Path, required=True, help="folder for homes, spool, keys and job history")
    parser.add_argument("--address", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=2222, help="port to listen on; 0 picks one (default: %(default)s)")
    parser.add_argument("--user-ca", type=Path, metavar="FILE", help="public key whose user certificates are trusted")
    parser.add_argument(
        "--accounts", type=_account, nargs="+", default=DEFAULT_ACCOUNTS, metavar="NAME:PASSWORD[:GROUPS]",
        help="accounts instead of alice, bob and admin; their passwords are no secret to users of this machine",
    )  # fmt: skip
    parser.add_argument("--simulate", action="store_true", help="jobs are timers: no process is started")
    return parser


async def _run(settings: DemoSettings) -> None:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    async with DemoCluster(settings) as cluster:
        sys.stderr.write(f"{NOTICE}\n")
        if running_as_root():
            sys.stderr.write("It runs as root, and so does every job.\n")
        for account in settings.accounts:
            sys.stderr.write(f"  {account.name}  password {account.password}\n")
        sys.stderr.flush()
        sys.stdout.write(
            f"ready port={cluster.port} address={cluster.address} commands={cluster.commands_folder} "
            f"images={cluster.image_folder} host_key={cluster.host_public_key.replace(' ', ':')}\n"
        )
        sys.stdout.flush()
        await stop.wait()


def main() -> int:
    """The command line. Exit code 1 when the cluster cannot start."""
    options = _parser().parse_args()
    settings = DemoSettings(
        root=options.root.absolute(),
        address=options.address,
        port=options.port,
        user_ca_public_key=options.user_ca,
        accounts=tuple(options.accounts),
        simulate=options.simulate,
    )
    try:
        asyncio.run(_run(settings))
    except (ClusterError, OSError) as error:
        sys.stderr.write(f"democluster: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
