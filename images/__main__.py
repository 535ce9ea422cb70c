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

from images.archive import Compression, ImageConfig, WrittenImage, write_image
from images.build import Builder, BuildSettings
from images.catalogue import IMAGES, ImageName
from images.contents import fill_code, fill_packages
from images.debian import SUITE
from images.packages import export
from images.python import find_interpreter
from images.sbom import find_components
from images.source import read_project
from penstock.errors import PenstockError

logger = logging.getLogger("images")
_REPOSITORY: Final = Path(__file__).resolve().parent.parent
_MEGABYTE: Final = 1e6
_ALL, _ALL_FOR_GPUS = "all", "all-gpu"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m images", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser("build", help="write OCI archives")
    build.add_argument(
        "images",
        nargs="+",
        choices=[*ImageName, _ALL, _ALL_FOR_GPUS],
        metavar="IMAGE",
        help=f"{', '.join(ImageName)}; {_ALL}: those without CUDA's libraries; {_ALL_FOR_GPUS}: those with them",
    )
    build.add_argument("--output", type=Path, default=_REPOSITORY / "build/images", help="the archives' folder")
    build.add_argument("--base", type=Path, help="a root file system, a folder or a tar archive; else mmdebstrap's")
    build.add_argument("--mirror", help="where mmdebstrap gets packages; a snapshot of the archive pins them")
    build.add_argument("--tag", help="of the images; else the project's version")
    build.add_argument("--compression", type=Compression, choices=list(Compression), default=Compression.NONE)
    build.add_argument(
        "--without-layers-of", type=Path, action="append", default=[], help="an archive that was imported before"
    )
    bases = commands.add_parser("bases", help="write mmdebstrap's bases as OCI archives, for a Dockerfile's build")
    bases.add_argument("--output", type=Path, default=_REPOSITORY / "build/images", help="the archives' folder")
    bases.add_argument("--mirror", help="as for build")
    install = commands.add_parser("install", help="put a part of an image into a folder, in a Dockerfile's build")
    install.add_argument("part", choices=["packages", "code"])
    install.add_argument("image", type=ImageName, choices=list(ImageName))
    install.add_argument("--base", type=Path, required=True, help="the base's root folder")
    install.add_argument("--below", type=Path, action="append", default=[], help="a folder of a part below; repeatable")
    install.add_argument("--root", type=Path, required=True, help="the folder to fill")
    return parser


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "penstock", "images")


def _digests(archives: Sequence[Path]) -> frozenset[str]:
    """The digests of all blobs in `archives`."""
    found: set[str] = set()
    for archive in archives:
        with tarfile.open(archive) as tar:
            found.update(f"sha256:{Path(name).name}" for name in tar.getnames() if name.startswith("blobs/sha256/"))
    return frozenset(found)


def _build(given: argparse.Namespace) -> None:
    settings = BuildSettings(
        repository=_REPOSITORY,
        cache=_cache(),
        output=given.output,
        base=given.base,
        mirror=given.mirror,
        tag=given.tag,
        compression=given.compression,
        without=_digests(given.without_layers_of),
    )
    builder = Builder(settings)
    for name in ImageName:
        if name in given.images or (_ALL_FOR_GPUS if name.for_gpus else _ALL) in given.images:
            started = time.monotonic()
            written = builder.build(name)
            _say(written, started)


def _bases(given: argparse.Namespace) -> None:
    settings = BuildSettings(_REPOSITORY, _cache(), given.output, mirror=given.mirror)
    for flavour, layers in Builder(settings).bases():
        started = time.monotonic()
        archive = given.output / f"base-{flavour}.tar"
        config = ImageConfig(entrypoint=(), user="0:0")
        _say(write_image(archive, f"penstock/base-{flavour}:{SUITE}", [each.layer for each in layers], config), started)


def _say(written: WrittenImage, started: float) -> None:
    report = {
        "image": written.name,
        "digest": written.digest,
        "archive": str(written.archive),
        "unpackedMegabytes": round(written.unpacked_bytes / _MEGABYTE, 1),
        "storedMegabytes": round(written.stored_bytes / _MEGABYTE, 1),
        "seconds": round(time.monotonic() - started, 1),
    }
    sys.stdout.write(json.dumps(report) + "\n")
    sys.stdout.flush()


def _install(given: argparse.Namespace) -> None:
    image = IMAGES[given.image]
    interpreter = find_interpreter(given.base)
    given.root.mkdir(parents=True, exist_ok=True)
    if given.part == "packages":
        fill_packages(image, export(image, _REPOSITORY), interpreter, _REPOSITORY, given.root)
    else:
        components = [component for tree in (given.base, *given.below) for component in find_components(tree)]
        fill_code(image, read_project(_REPOSITORY), interpreter, components, given.root)


def main() -> int:
    """Run a command; returns the process's exit status."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        given = _parser().parse_args()
        commands = {"build": _build, "bases": _bases, "install": _install}
        commands[given.command](given)
    except PenstockError as error:
        logger.error("%s", error)  # noqa: TRY400 -- what is wrong and what to do needs no stack trace
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
