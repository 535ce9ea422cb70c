"""`python -m images`: builds the images without a container tool, and installs packages inside a Dockerfile's build."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import tarfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from images.archive import Compression
from images.build import Builder, BuildSettings
from images.catalogue import ImageName
from penstock.errors import PenstockError

logger = logging.getLogger("images")
_REPOSITORY: Final = Path(__file__).resolve().parent.parent
_MEGABYTE: Final = 1e6


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m images", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser("build", help="write OCI archives")
    build.add_argument("images", nargs="+", choices=[*ImageName, "all"])
    build.add_argument("--output", type=Path, default=_REPOSITORY / "build/images", help="the archives' folder")
    build.add_argument("--base", type=Path, help="a root file system, a folder or a tar archive; else mmdebstrap's")
    build.add_argument("--mirror", help="where mmdebstrap gets packages; a snapshot of the archive pins them")
    build.add_argument("--tag", help="of the images; else the project's version")
    build.add_argument("--compression", type=Compression, choices=list(Compression), default=Compression.NONE)
    build.add_argument(
        "--without-layers-of", type=Path, action="append", default=[], help="an archive that was imported before"
    )
    return parser


def _digests(archives: Sequence[Path]) -> frozenset[str]:
    """The digests of all blobs in `archives`."""
    found: set[str] = set()
    for archive in archives:
        with tarfile.open(archive) as tar:
            found.update(f"sha256:{Path(name).name}" for name in tar.getnames() if name.startswith("blobs/sha256/"))
    return frozenset(found)


def _build(given: argparse.Namespace) -> None:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "penstock", "images")
    settings = BuildSettings(
        repository=_REPOSITORY,
        cache=cache,
        output=given.output,
        base=given.base,
        mirror=given.mirror,
        tag=given.tag,
        compression=given.compression,
        without=_digests(given.without_layers_of),
    )
    builder = Builder(settings)
    for name in ImageName:
        if name in given.images or "all" in given.images:
            started = time.monotonic()
            written = builder.build(name)
            report = {
                "image": written.name,
                "digest": written.digest,
                "archive": str(written.archive),
                "unpackedMegabytes": round(written.unpacked_bytes / _MEGABYTE, 1),
                "storedMegabytes": round(written.stored_bytes / _MEGABYTE, 1),
                "seconds": round(time.monotonic() - started, 1),
            }
            sys.stdout.write(json.dumps(report) + "\n")


def main() -> int:
    """Run a command; returns the process's exit status."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        _build(_parser().parse_args())
    except PenstockError as error:
        logger.error("%s", error)  # noqa: TRY400 -- what is wrong and what to do needs no stack trace
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
