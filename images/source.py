"""Our own code in an image: the packages that it runs, laid out as the wheel would install them."""

from __future__ import annotations

import csv
import hashlib
import shutil
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from images.catalogue import PREFIX, Image
from images.packages import record_row, write_launchers
from images.python import Interpreter

_IGNORED: Final = shutil.ignore_patterns("__pycache__", "*.pyc")


@dataclass(frozen=True)
class Project:
    """What pyproject.toml says of this project."""

    name: str
    version: str
    description: str
    requires_python: str
    scripts: dict[str, str]
    folders: dict[str, Path]


def read_project(repository: Path) -> Project:
    """Read pyproject.toml; `folders` maps each of our packages to where its source lies."""
    document = tomllib.loads((repository / "pyproject.toml").read_text())
    project = document["project"]
    folders = [repository / folder for folder in document["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]]
    return Project(
        project["name"],
        project["version"],
        project["description"],
        project["requires-python"],
        project["scripts"],
        {folder.name: folder for folder in folders},
    )


def source_key(image: Image, project: Project) -> str:
    """A digest of all that `install_source` would install for `image`."""
    digest = hashlib.sha256(repr((project.name, project.version, sorted(project.scripts.items()))).encode())
    for name in image.packages:
        folder = project.folders[name]
        for path in sorted(folder.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                digest.update(f"{name}/{path.relative_to(folder)}\0".encode())
                digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def install_source(image: Image, tree: Path, interpreter: Interpreter, project: Project) -> None:
    """Copy the packages of `image` into its files `tree`, with their metadata and programs."""
    packages = tree / interpreter.packages.relative_to("/")
    packages.mkdir(parents=True, exist_ok=True)
    for name in image.packages:
        shutil.copytree(project.folders[name], packages / name, ignore=_IGNORED)
    scripts = {name: target for name, target in project.scripts.items() if target.split(".")[0] in image.packages}
    entry_points = "[console_scripts]\n" + "".join(f"{name} = {target}\n" for name, target in sorted(scripts.items()))
    metadata = packages / f"{project.name}-{project.version}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.4\nName: {project.name}\nVersion: {project.version}\n"
        f"Summary: {project.description}\nRequires-Python: {project.requires_python}\n"
    )
    (metadata / "entry_points.txt").write_text(entry_points)
    (metadata / "INSTALLER").write_text("penstock-images\n")
    write_launchers(tree / (PREFIX / "bin").relative_to("/"), entry_points, tuple(scripts))
    installed = [path for name in (*image.packages, metadata.name) for path in (packages / name).rglob("*")]
    rows = sorted(record_row(path, packages) for path in installed if path.is_file())
    with (metadata / "RECORD").open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([*rows, (f"{metadata.name}/RECORD", "", "")])
