"""Brings other people's front-end files into the repository, or checks that nobody changed them since.

``python static/vendor/update.py`` fetches what ``vendor.toml`` lists with the npm client (``npm pack``: no install
scripts run), refuses a package or a file with another SHA-256 than the list's, and writes the files with their
licences. ``--check`` only compares the files that are here. To upgrade: change the version in ``vendor.toml``, run
this, read the difference, put the new sums it prints into the list, run it again.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

HERE = Path(__file__).resolve().parent
SVG = "http://www.w3.org/2000/svg"
SOURCE_MAP = re.compile(rb"\s*/\*# sourceMappingURL=[^*]*\*/\s*$")


class VendorError(Exception):
    """A file is not what the list says."""


@dataclass(frozen=True, slots=True)
class Item:
    """A file we keep: ``source`` inside the package (or made of ``icons``), ``target`` in this folder."""

    source: str
    target: str
    sha256: str
    icons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Package:
    """An npm package at one version; ``sha256`` is that of its tarball."""

    name: str
    version: str
    sha256: str
    items: tuple[Item, ...]


def read_list(path: Path = HERE / "vendor.toml") -> tuple[Package, ...]:
    """The packages of the list."""
    with path.open("rb") as file:
        content = tomllib.load(file)
    return tuple(
        Package(
            name=package["name"],
            version=package["version"],
            sha256=package["sha256"],
            items=tuple(
                Item(item.get("source", ""), item["target"], item["sha256"], tuple(item.get("icons", ())))
                for item in package["files"]
            ),
        )
        for package in content["package"]
    )


def sha256(content: bytes) -> str:
    """The sum as hexadecimal text."""
    return hashlib.sha256(content).hexdigest()


def problems(packages: tuple[Package, ...], folder: Path = HERE) -> Iterator[str]:
    """One sentence for each file that is missing or differs from the list."""
    for package in packages:
        for item in package.items:
            path = folder / item.target
            if not path.is_file():
                yield f"{item.target} is missing"
            elif (found := sha256(path.read_bytes())) != item.sha256:
                yield f"{item.target} has SHA-256 {found}, the list says {item.sha256}"


def _pack(package: Package, folder: Path) -> Path:
    """Let the npm client fetch the package's tarball into ``folder``."""
    wanted = f"{package.name}@{package.version}"
    subprocess.run(["npm", "pack", "--silent", wanted], cwd=folder, check=True, capture_output=True)
    return next(folder.glob(f"*{package.version}.tgz"))


def _sprite(read: dict[str, bytes], icons: tuple[str, ...]) -> bytes:
    """One SVG with a symbol per icon, so that a page loads all of them with one request."""
    ElementTree.register_namespace("", SVG)
    root = ElementTree.Element(f"{{{SVG}}}svg")
    for name in sorted(icons):
        icon = ElementTree.fromstring(read[f"package/icons/{name}.svg"])  # noqa: S314  # its sum was checked
        symbol = ElementTree.SubElement(root, f"{{{SVG}}}symbol", id=name, viewBox=icon.attrib["viewBox"])
        symbol.extend(list(icon))
        symbol.tail = "\n"
    return ElementTree.tostring(root, encoding="utf-8") + b"\n"


def _read(package: Package) -> dict[str, bytes]:
    """The package's files by their path inside the tarball, whose sum is checked first."""
    with tempfile.TemporaryDirectory() as name:
        tarball = _pack(package, Path(name))
        if (found := sha256(tarball.read_bytes())) != package.sha256:
            wanted = f"{package.name} {package.version}"
            raise VendorError(f"{wanted} has SHA-256 {found}, the list says {package.sha256}")
        with tarfile.open(tarball) as archive:
            members = [member for member in archive.getmembers() if member.isfile()]
            return {member.name: file.read() for member in members if (file := archive.extractfile(member))}


def update(packages: tuple[Package, ...]) -> None:
    """Write every file of the list. Raises VendorError, before writing, when a sum is another one."""
    wrong: list[str] = []
    ready: dict[Path, bytes] = {}
    for package in packages:
        read = _read(package)
        for item in package.items:
            content = _sprite(read, item.icons) if item.icons else read[f"package/{item.source}"]
            content = SOURCE_MAP.sub(b"\n", content)  # we keep no map; a dead link to it breaks collectstatic
            if (found := sha256(content)) != item.sha256:
                wrong.append(f"{item.target}: SHA-256 {found}, the list says {item.sha256}")
            ready[HERE / item.target] = content
    if wrong:
        raise VendorError("\n".join(wrong))
    for path, content in ready.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def main() -> int:
    """Update, or check with ``--check``. Returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--check", action="store_true", help="compare with the list, fetch nothing")
    packages = read_list()
    if parser.parse_args().check:
        found = list(problems(packages))
        print("\n".join(found) or "All files are as listed.")
        return 1 if found else 0
    try:
        update(packages)
    except VendorError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
