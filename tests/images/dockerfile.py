"""Builds the Dockerfile twice by buildah, from nothing, and compares with the writer: `python -m tests.images.dockerfile [IMAGE]`.

It fails where the two builds have different digests, or where a file is not that of the writer's image. Bytecode may differ, since
the builds' Pythons may; it is counted.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_BASES = {"operator": "python", "gateway": "python", "runtime": "shell", "optimizer": "compiler"}
_SECONDS = 1200
File = tuple[int, int, int, str]
"""Mode, owner, group, and the digest of what it holds or where it leads."""


def main() -> int:
    """0 where all is the same."""
    parser = argparse.ArgumentParser(prog="python -m tests.images.dockerfile", description=__doc__)
    parser.add_argument("image", nargs="?", default="gateway", choices=list(_BASES))
    name = parser.parse_args().image
    with tempfile.TemporaryDirectory(prefix="penstock-dockerfile-", dir=ROOT / "build") as scratch:
        work = Path(scratch)
        for arguments in (["bases"], ["build", name]):
            subprocess.run(
                [sys.executable, "-m", "images", *arguments, "--output", str(work)], check=True, timeout=_SECONDS
            )
        digests = [_build(name, number, work) for number in (1, 2)]
        problems = [] if digests[0] == digests[1] else [f"two builds, two digests: {' and '.join(digests)}"]
        problems += _compare(files(work / f"{name}.tar"), files(work / "built-1.tar"))
    print("\n".join(problems) or f"{name}: built twice as {digests[0]}, and every file is the writer's")
    return 1 if problems else 0


def _build(name: str, number: int, work: Path) -> str:
    storage = ["--root", str(work / "store"), "--runroot", str(work / "run")]
    started = time.monotonic()
    command = ["buildah", *storage, "build", "--quiet", "--no-cache", "--isolation", "chroot", "--timestamp", "0"]
    command += ["--build-arg", f"BASE=oci-archive:{work}/base-{_BASES[name]}.tar"]
    command += ["--build-arg", f"BUILDER=oci-archive:{work}/base-builder.tar"]
    command += [
        "--volume",
        "/etc/ssl/certs:/etc/ssl/certs:ro",
        "--target",
        name,
        "-f",
        "images/Dockerfile",
        "-t",
        f"check:{number}",
    ]
    archive = work / f"built-{number}.tar"
    subprocess.run([*command, "."], cwd=ROOT, check=True, timeout=_SECONDS)
    subprocess.run(["buildah", *storage, "push", "--quiet", f"check:{number}", f"oci-archive:{archive}"], check=True)
    with tarfile.open(archive) as tar:
        digest = str(_json(tar, "index.json")["manifests"][0]["digest"])
    print(f"{name}: {digest} in {time.monotonic() - started:.0f} s", flush=True)
    return digest


def files(archive: Path) -> dict[str, File]:
    """All that an image of an OCI archive has, by path."""
    found: dict[str, File] = {}
    with tarfile.open(archive) as tar:
        manifest = _json(tar, _blob(_json(tar, "index.json")["manifests"][0]["digest"]))
        for layer in manifest["layers"]:
            with tarfile.open(fileobj=tar.extractfile(_blob(layer["digest"])), mode="r|*") as entries:
                for entry in entries:
                    found[entry.name.removeprefix("./").rstrip("/")] = _file(entries, entry)
    return found


def _file(entries: tarfile.TarFile, entry: tarfile.TarInfo) -> File:
    opened = entries.extractfile(entry) if entry.isreg() else None
    held = hashlib.sha256(opened.read()).hexdigest() if opened else entry.linkname
    return entry.mode & 0o7777, entry.uid, entry.gid, held  # some writers put the kind into the mode, too


def _compare(writers: dict[str, File], builders: dict[str, File]) -> list[str]:
    problems = [f"{path} is in one of the two" for path in sorted(writers.keys() ^ builders.keys())]
    differ = sorted(path for path in writers.keys() & builders.keys() if writers[path] != builders[path])
    compiled = [path for path in differ if path.endswith(".pyc")]
    print(f"{len(writers)} files; bytecode of {len(compiled)} differs")
    return problems + [f"{path}: {writers[path]} and {builders[path]}" for path in differ if path not in compiled]


def _json(tar: tarfile.TarFile, name: str) -> dict[str, list[dict[str, str]]]:
    opened = tar.extractfile(name)
    assert opened is not None
    document: dict[str, list[dict[str, str]]] = json.load(opened)
    return document


def _blob(digest: str) -> str:
    return f"blobs/sha256/{digest.removeprefix('sha256:')}"


if __name__ == "__main__":
    sys.exit(main())
