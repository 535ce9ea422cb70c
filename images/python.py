"""Python inside an image: which one a base has, and the bytecode of what lies in an image, compiled ahead."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from images.catalogue import PREFIX
from penstock.errors import Invalid

_TIMEOUT_SECONDS: Final = 1800.0
_NAME: Final = re.compile(r"python(3\.\d+)")
_SUPPORTED: Final = ("3.11", "3.12", "3.13")


@dataclass(frozen=True)
class Interpreter:
    """A Python of a base: where it lies in the image, and its version as `3.11`."""

    path: PurePosixPath
    version: str

    @staticmethod
    def from_path(path: str) -> Interpreter:
        """The interpreter at `path` in the image, as `/usr/bin/python3.11`."""
        return Interpreter(PurePosixPath(path), path.rsplit("python", 1)[-1])

    @property
    def packages(self) -> PurePosixPath:
        """The folder of our environment in the image that holds packages."""
        return PREFIX / "lib" / f"python{self.version}" / "site-packages"


def find_interpreter(root: Path) -> Interpreter:
    """The Python in the root file system `root`: in /usr/local/bin (as in Python's own images), else in /usr/bin.

    Raises:
        Invalid: there is none of a version that this project supports.
    """
    for folder in ("usr/local/bin", "usr/bin"):
        for path in sorted((root / folder).glob("python3.*")):
            found = _NAME.fullmatch(path.name)
            if found and found[1] in _SUPPORTED:
                return Interpreter(PurePosixPath("/", folder, path.name), found[1])
    raise Invalid("BaseUnsuitable", f"{root} holds no Python {' or '.join(_SUPPORTED)}: take a base that has one")


def compile_tree(tree: Path, folders: Sequence[PurePosixPath], version: str) -> None:
    """Compile all Python files of `tree` that lie in `folders`, so that a container with a read-only root starts fast.

    The bytecode is bound to its source's path in the image and is never checked against the source's time (PEP 552,
    unchecked), since times are 0 in an image. One process, in sorted order and with a fixed hash seed: what references
    bytecode stores depends on what the process compiled before.

    Raises:
        Invalid: this machine has no Python of that version, or it failed.
    """
    command = [_compiler(version), "-S", "-s", "-P", "-m", "compileall", "-qq", "-j", "1"]
    command += ["--invalidation-mode", "unchecked-hash", "-s", str(tree), "-p", "/"]
    command += [str(tree / folder.relative_to("/")) for folder in folders]
    environment = {"PATH": os.environ.get("PATH", ""), "PYTHONHASHSEED": "0"}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=_TIMEOUT_SECONDS
    )
    # 1: some file is no valid Python; packages ship templates that are not.
    if done.returncode not in {0, 1}:
        raise Invalid("BytecodeFailed", f"compileall ended with {done.returncode}: {done.stderr.strip()[-2000:]}")


def _compiler(version: str) -> str:
    if f"{sys.version_info.major}.{sys.version_info.minor}" == version:
        return sys.executable
    found = shutil.which(f"python{version}")
    if found is None:
        raise Invalid("BytecodeFailed", f"the base has Python {version} and this machine has not: install it")
    return found
