"""Third-party packages of an image, exactly as `uv.lock` pins them, laid out as a Python environment at `/opt/penstock`."""

from __future__ import annotations

import base64
import configparser
import csv
import hashlib
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from images.catalogue import IMAGES, PREFIX, Image
from images.python import Interpreter
from penstock.errors import Invalid, Unavailable

PLATFORM: Final = "x86_64-manylinux_2_36"  # bookworm's C library
_TIMEOUT_SECONDS: Final = 1200.0
_REQUIREMENT: Final = re.compile(r"^([A-Za-z0-9._-]+)==", re.MULTILINE)

TRIMMED: Final[Mapping[str, str]] = {
    "**/tests": "tests of packages",
    "kubernetes/aio": "a second Kubernetes client, for asyncio, that nothing here imports",
    "onnx/backend/test": "test data",
    "openvino/include": "C++ headers",
    "openvino/cmake": "C++ build files",
    "ray/jars": "Ray's Java workers",
    "ray/rllib": "reinforcement learning",
    "torch/test": "C++ tests",
    "triton/**/*.a": "libraries to link a profiler with",
    "uv_cache.json": "where this machine got a package from",
}
_LAUNCHER: Final = """\
#!{python}
import sys

from {module} import {name}

sys.exit({call}())
"""


def export(image: Image, repository: Path) -> str:
    """The pinned requirements of `image` with their hashes, as text for an installer, without those of the image below.

    Raises:
        Unavailable: uv failed.
    """
    own = _export(image, repository)
    if image.stands_on is None:
        return own
    below = set(_REQUIREMENT.findall(_export(IMAGES[image.stands_on], repository)))
    return "".join(block for name, block in _blocks(own) if name not in below)


def _export(image: Image, repository: Path) -> str:
    command = ["export", "--frozen", "--no-dev", "--no-emit-project", "--no-header", "--no-annotate", "--quiet"]
    command += [word for extra in image.extras for word in ("--extra", extra)]
    command += [word for name in image.left_out for word in ("--no-emit-package", name)]
    return _uv(command, repository)


def _blocks(requirements: str) -> Iterator[tuple[str, str]]:
    """Each requirement's name, and its lines: the hashes follow on indented lines."""
    for block in re.split(r"^(?=\S)", requirements, flags=re.MULTILINE):
        found = _REQUIREMENT.match(block)
        if found:
            yield found[1], block


def _uv(arguments: Iterable[str], repository: Path, requirements: str = "") -> str:
    command = [str(repository / "scripts" / "uv"), *arguments]
    done = subprocess.run(
        command,
        input=requirements,
        cwd=repository,
        capture_output=True,
        text=True,
        check=False,
        timeout=_TIMEOUT_SECONDS,
    )
    if done.returncode:
        raise Unavailable("PackagesUnavailable", f"uv {command[1]} failed: {done.stderr.strip()[-2000:]}")
    return done.stdout


def install(requirements: str, programs: Sequence[str], tree: Path, interpreter: Interpreter, repository: Path) -> None:
    """Install `requirements` into the environment of the image whose files are `tree`, trimmed, with those `programs`.

    Raises:
        Unavailable: a package cannot be had, or its hash is not the pinned one.
        Invalid: a package's metadata is broken.
    """
    packages = tree / interpreter.packages.relative_to("/")
    packages.mkdir(parents=True, exist_ok=True)
    command = ["pip", "install", "--quiet", "--no-config", "--no-deps", "--require-hashes", "--only-binary=:all:"]
    command += ["--python", sys.executable, "--python-version", interpreter.version, "--python-platform", PLATFORM]
    _uv([*command, "--target", str(packages), "-r", "-"], repository, requirements)
    for pattern in TRIMMED:
        for path in sorted(packages.glob(pattern)):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for lock in (".lock", ".gitignore"):
        (packages / lock).unlink(missing_ok=True)
    folder = tree / (PREFIX / "bin").relative_to("/")
    _move_programs(packages / "bin", folder, programs)
    for distribution in sorted(packages.glob("*.dist-info")):
        entry_points = distribution / "entry_points.txt"
        if entry_points.exists():
            write_launchers(folder, entry_points.read_text(), programs)
        _write_record(distribution, packages)


def _move_programs(source: Path, target: Path, programs: Sequence[str]) -> None:
    """Keep the programs that are no Python: launchers of Python ones name this machine's interpreter."""
    if not source.is_dir():
        return
    for path in sorted(path for path in source.iterdir() if path.name in programs):
        target.mkdir(parents=True, exist_ok=True)
        with path.open("rb") as file:
            if file.read(2) != b"#!":
                shutil.move(path, target / path.name)
    shutil.rmtree(source)


def write_launchers(folder: Path, entry_points: str, programs: Sequence[str]) -> None:
    """Write a program for each console script in `entry_points` (the text of an entry_points.txt) that `programs` names.

    Raises:
        Invalid: the text is not in that format.
    """
    parser = configparser.ConfigParser(delimiters=("=",), interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # the documented way to keep the names' case
    try:
        parser.read_string(entry_points)
    except configparser.Error as error:
        raise Invalid("PackageBroken", f"an entry_points.txt cannot be read: {error}") from error
    if not parser.has_section("console_scripts"):
        return
    for script, target in parser.items("console_scripts"):
        if script not in programs:
            continue
        module, _, attribute = target.split("[")[0].strip().partition(":")
        name = attribute.split(".")[0]
        folder.mkdir(parents=True, exist_ok=True)
        launcher = folder / script
        launcher.write_text(
            _LAUNCHER.format(python=PREFIX / "bin/python", module=module.strip(), name=name, call=attribute)
        )
        launcher.chmod(0o755)


def _write_record(distribution: Path, packages: Path) -> None:
    """Leave in RECORD only what is there: not launchers (rewritten) and not what was trimmed; sorted."""
    record = distribution / "RECORD"
    with record.open(newline="") as file:
        rows = [row for row in csv.reader(file) if row and (packages / row[0]).exists() and not row[0].startswith("..")]
    # uv links files from its cache: replaced, not written into.
    record.unlink()
    with record.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(sorted(rows))


def record_row(path: Path, packages: Path) -> tuple[str, str, str]:
    """A row of RECORD (PEP 376, PEP 427): relative path, unpadded URL-safe base64 of its SHA-256, length in bytes."""
    body = path.read_bytes()
    digest = base64.urlsafe_b64encode(hashlib.sha256(body).digest()).rstrip(b"=").decode()
    return path.relative_to(packages).as_posix(), f"sha256={digest}", str(len(body))


def write_environment(tree: Path, interpreter: Interpreter, links: Iterable[str] = ()) -> None:
    """Make `/opt/penstock` a virtual environment (PEP 405) of the base's Python.

    Args:
        tree: the image's files.
        interpreter: the base's.
        links: programs to name in /usr/local/bin too: a login shell resets PATH to the system's folders.
    """
    prefix = tree / PREFIX.relative_to("/")
    (prefix / "bin").mkdir(parents=True, exist_ok=True)
    (prefix / "pyvenv.cfg").write_text(
        f"home = {interpreter.path.parent}\ninclude-system-site-packages = false\nversion = {interpreter.version}\n"
    )
    (prefix / "bin/python").symlink_to(interpreter.path)
    for name in ("python3", interpreter.path.name):
        (prefix / "bin" / name).symlink_to("python")
    local = tree / "usr/local/bin"
    for name in links:
        local.mkdir(parents=True, exist_ok=True)
        (local / name).symlink_to(PREFIX / "bin" / name)
