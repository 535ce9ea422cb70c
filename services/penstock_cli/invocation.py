"""How the user can type the program that runs now."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path

PROGRAM = "penstock"
PLUGIN = "kubectl-penstock"


def command_as_typed() -> str:
    """The present program, as a user in the present folder can type it."""
    program = Path(sys.argv[0])
    if program.suffix == ".py":
        # Called as a module: the program that was installed with it does the same.
        program = Path(sys.executable).with_name(PROGRAM)
    found = shutil.which(program.name)
    return as_typed(Path(os.path.abspath(program)), Path(found) if found else None, Path.cwd())  # noqa: PTH100 (a link stays)


def as_typed(program: Path, on_path: Path | None, folder: Path) -> str:
    """A program's name where the shell finds it by that, else its path.

    Args:
        program: absolute path.
        on_path: what the shell finds under the program's name.
        folder: the current folder, to which a path in it is relative.
    """
    if program.name.startswith(PLUGIN):
        return "kubectl penstock"
    if on_path is not None and (on_path == program or (program.exists() and on_path.samefile(program))):
        return program.name
    if not program.is_relative_to(folder):
        return shlex.quote(str(program))
    relative = str(program.relative_to(folder))
    return shlex.quote(relative if os.sep in relative else f".{os.sep}{relative}")
