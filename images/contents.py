"""The content of the two layers that are ours: third-party packages, and our code on top. The Dockerfile uses it too."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Final

from images.catalogue import SBOM_FOLDER, Image, ImageName
from images.packages import install, write_environment
from images.python import Interpreter, compile_tree
from images.sbom import Component, find_components, write_sbom
from images.source import Project, install_source

_LOGIN_PROGRAMS: Final = ("ray", "serve")


def fill_packages(image: Image, requirements: str, interpreter: Interpreter, repository: Path, tree: Path) -> None:
    """Put the third-party packages of `image`, less those of the image that it stands on, into `tree`.

    Raises:
        Unavailable: packages cannot be had.
        Invalid: this machine cannot compile for the image's Python.
    """
    if image.stands_on is None:
        write_environment(tree, interpreter, [name for name in image.programs if name in _LOGIN_PROGRAMS])
    install(requirements, image.programs, tree, interpreter, repository)
    compile_tree(tree, [interpreter.packages], interpreter.version)


def fill_code(image: Image, project: Project, interpreter: Interpreter, below: Iterable[Component], tree: Path) -> None:
    """Put our code for `image`, and the bill of materials of it and of what lies `below`, into `tree`.

    Raises:
        Invalid: this machine cannot compile for the image's Python.
    """
    install_source(image, tree, interpreter, project)
    compile_tree(tree, [interpreter.packages], interpreter.version)
    target = tree / sbom_path(image.name).relative_to("/")
    target.parent.mkdir(parents=True)
    components = [*below, *find_components(tree)]
    target.write_bytes(write_sbom(f"penstock/{image.name}", project.version, components))


def sbom_path(name: ImageName) -> PurePosixPath:
    """Where an image's bill of materials lies in it."""
    return SBOM_FOLDER / f"penstock-{name}.cdx.json"
