#!/usr/bin/env python3
"""The JavaScript of others that the dashboard stands on, as files in static/vendor/.

python3 tools/vendor.py          fetch it again from npm, as vendor.json says, and write the files
python3 tools/vendor.py check    compare the files with vendor.json; needs no network

vendor.json is the lock: the version, the licence and the SHA-512 of each package, and the SHA-256 of each
file that is made of it. A package whose bytes are others is refused. To take a newer version, change
`version`, empty `integrity`, run this, and look at what changed.

Browsers resolve no bare names (`from "preact"`) without an import map, and an import map would have to stand
inline, which our Content-Security-Policy forbids. So the names become the names of the files beside.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent.parent / "src" / "presque" / "dashboard" / "static" / "vendor"
LOCK = HERE / "vendor.json"
NAMES = {
    "preact": "./preact.js",
    "preact/hooks": "./hooks.js",
    "@preact/signals-core": "./signals-core.js",
}


def main(arguments: list[str]) -> int:
    lock = json.loads(LOCK.read_text())
    if arguments == ["check"]:
        wrong = [name for name, sha256 in files(lock).items() if sha256 != digest(HERE / name)]
        strange = {path.name for path in HERE.iterdir()} - set(files(lock)) - {LOCK.name}
        for name in [*wrong, *sorted(strange)]:
            print(f"{name} is not as vendor.json says")
        return 1 if wrong or strange else 0
    for package in lock["packages"]:
        fetch(package)
    LOCK.write_text(json.dumps(lock, indent=2) + "\n")
    return 0


def files(lock: dict[str, Any]) -> dict[str, str]:
    """The name and the SHA-256 of every file."""
    return {file["name"]: file["sha256"] for package in lock["packages"] for file in package["files"]}


def digest(path: Path) -> str:
    """The SHA-256 of a file; of one that is not there, that of nothing."""
    return hashlib.sha256(path.read_bytes() if path.exists() else b"").hexdigest()


def fetch(package: dict[str, Any]) -> None:
    """Write the files of a package, and note their digests."""
    with tempfile.TemporaryDirectory() as directory:
        named = f"{package['name']}@{package['version']}"
        subprocess.run(["npm", "pack", "--silent", named], cwd=directory, check=True)
        [archive] = Path(directory).glob("*.tgz")
        content = archive.read_bytes()
        integrity = "sha512-" + base64.b64encode(hashlib.sha512(content).digest()).decode()
        if package["integrity"] not in ("", integrity):
            sys.exit(f"{named} is not what vendor.json says: its digest is {integrity}")
        package["integrity"] = integrity
        with tarfile.open(archive) as found:
            for file in package["files"]:
                inside = found.extractfile(f"package/{file['from']}")
                assert inside is not None
                text = fit(inside.read().decode(), file)
                (HERE / file["name"]).write_text(text)
                file["sha256"] = digest(HERE / file["name"])
    print(f"{named}: {', '.join(file['name'] for file in package['files'])}")


def fit(text: str, file: dict[str, Any]) -> str:
    """A file as the dashboard loads it: names resolved, no source map, exporting what it should."""
    text = re.sub(r"\n?//# sourceMappingURL=\S+\s*$", "", text)
    if file["name"].endswith(".js"):
        text = re.sub(r'(?<=from)"([^"]+)"', lambda found: f'"{NAMES.get(found[1], found[1])}"', text)
        text = re.sub(r'(?<=import)"([^"]+)"', lambda found: f'"{NAMES.get(found[1], found[1])}"', text)
    if "exports" in file:
        text += f"\nexport default {file['exports']};"
    return text.rstrip("\n") + "\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
