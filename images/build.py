"""From a base, the lock file and our code to images: which layers an image has, and what makes each."""

from __future__ import annotations

import hashlib
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path, PurePosixPath

from images import debian
from images.archive import Compression, ImageConfig, WrittenImage, write_image
from images.cache import BuiltLayer, LayerCache
from images.catalogue import IMAGES, Flavour, Image, ImageName
from images.contents import fill_code, fill_packages, sbom_path
from images.packages import export
from images.python import Interpreter, compile_tree
from images.sbom import write_sbom
from images.source import Project, read_project, source_key
from penstock.errors import Invalid


@dataclass(frozen=True)
class BuildSettings:
    """How images are built.

    Attributes:
        repository: this project's folder.
        cache: of layers.
        output: the folder of the archives.
        base: a root file system, as a folder or a tar archive, in place of one made by mmdebstrap.
        mirror: where mmdebstrap gets Debian's packages; this machine's own sources when None.
        tag: of the images; the project's version when None.
        compression: of the layers in the archives.
        without: digests of layers that the reader of the archives has.
    """

    repository: Path
    cache: Path
    output: Path
    base: Path | None = None
    mirror: str | None = None
    tag: str | None = None
    compression: Compression = Compression.NONE
    without: frozenset[str] = frozenset()


class Builder:
    """Builds images; layers that did not change come from the cache."""

    def __init__(self, settings: BuildSettings) -> None:
        self._settings = settings
        self._cache = LayerCache(settings.cache)

    @cached_property
    def _project(self) -> Project:
        return read_project(self._settings.repository)

    def build(self, name: ImageName) -> WrittenImage:
        """Write the archive `OUTPUT/<name>.tar`, and beside it `<name>.cdx.json`, its bill of materials.

        Raises:
            Invalid: the base is unsuitable, or something in a layer is what no image may hold.
            Unavailable: packages cannot be had.
        """
        return self.write(IMAGES[name])

    def write(self, image: Image) -> WrittenImage:
        """Write an image as it is described; see `build`."""
        name = image.name
        tag = self._settings.tag or self._project.version
        with self._cache.lock():
            layers = self._layers(image)
            config = ImageConfig(
                entrypoint=image.entrypoint,
                command=image.command,
                user=image.user.numeric,
                environment=image.all_environment,
                labels={
                    "org.opencontainers.image.title": f"penstock/{name}",
                    "org.opencontainers.image.version": tag,
                    "org.opencontainers.image.description": self._project.description,
                    "io.penstock.sbom": str(sbom_path(name)),
                },
            )
            archive = self._settings.output / f"{name}.tar"
            written = write_image(
                archive,
                f"penstock/{name}:{tag}",
                [built.layer for built in layers],
                config,
                compression=self._settings.compression,
                without=self._settings.without,
            )
        archive.with_suffix(".cdx.json").write_bytes(self._sbom(image, layers))
        return written

    def bases(self) -> list[tuple[Flavour, list[BuiltLayer]]]:
        """The bases that mmdebstrap makes, each with all of its layers."""
        with self._cache.lock():
            return [(flavour, self._base(flavour)) for flavour in Flavour]

    def _layers(self, image: Image) -> list[BuiltLayer]:
        base = self._base(image.flavour)
        interpreter = next((layer.interpreter for layer in base if layer.interpreter), None)
        if interpreter is None:
            raise Invalid("BaseUnsuitable", f"{self._settings.base} holds no Python: take a base that has one")
        below = [IMAGES[image.stands_on]] if image.stands_on else []
        packages = [self._packages(each, interpreter) for each in (*below, image)]
        return [*base, *packages, self._code(image, interpreter, [*base, *packages])]

    def _base(self, flavour: Flavour) -> list[BuiltLayer]:
        given = self._settings.base
        if given is not None:
            return [self._cache.layer("given-base", _fingerprint(given), partial(_copy_base, given))]
        flavours = list(Flavour)[: list(Flavour).index(flavour) + 1]
        return [self._debian(flavours[: index + 1]) for index in range(len(flavours))]

    def _debian(self, flavours: list[Flavour]) -> BuiltLayer:
        wanted = [name for flavour in flavours for name in debian.WANTED[flavour]]
        below = [name for flavour in flavours[:-1] for name in debian.WANTED[flavour]]
        key = repr((wanted, self._settings.mirror, _recipe("debian", "layers", "python", "sbom")))
        return self._cache.layer(
            f"base-{flavours[-1]}", key, partial(_make_base, wanted, below, flavours[-1], self._settings.mirror)
        )

    def _packages(self, image: Image, interpreter: Interpreter) -> BuiltLayer:
        repository = self._settings.repository
        requirements = export(image, repository)
        recipe = _recipe("contents", "layers", "packages", "python", "sbom")
        key = repr((requirements, image.programs, interpreter, sys.version, recipe))
        fill = partial(fill_packages, image, requirements, interpreter, repository)
        return self._cache.layer(f"packages-{image.name}", key, fill)

    def _code(self, image: Image, interpreter: Interpreter, below: Iterable[BuiltLayer]) -> BuiltLayer:
        components = [component for layer in below for component in layer.components]
        recipe = _recipe("contents", "layers", "packages", "python", "sbom", "source")
        key = repr((source_key(image, self._project), components, interpreter, sys.version, recipe))
        fill = partial(fill_code, image, self._project, interpreter, components)
        return self._cache.layer(f"code-{image.name}", key, fill)

    def _sbom(self, image: Image, layers: Iterable[BuiltLayer]) -> bytes:
        components = [component for layer in layers for component in layer.components]
        return write_sbom(f"penstock/{image.name}", self._project.version, components)


def _recipe(*modules: str) -> str:
    """A digest of the modules that make a layer: a changed rule makes new layers."""
    digest = hashlib.sha256()
    for name in modules:
        digest.update(Path(__file__).with_name(f"{name}.py").read_bytes())
    return digest.hexdigest()


def _make_base(wanted: list[str], below: list[str], flavour: Flavour, mirror: str | None, tree: Path) -> None:
    with tempfile.TemporaryDirectory(dir=tree.parent) as scratch:
        debs = debian.download(wanted, _folder(scratch, "all"), mirror)
        lower = {deb.name for deb in debian.download(below, _folder(scratch, "below"), mirror)} if below else set()
        debian.unpack([deb for deb in debs if deb.name not in lower], tree)
    debian.complete(tree, flavour)
    if flavour is Flavour.PYTHON:
        compile_tree(tree, [PurePosixPath("/usr/lib/python3.11")], "3.11")


def _folder(parent: str, name: str) -> Path:
    folder = Path(parent, name)
    folder.mkdir()
    return folder


def _copy_base(given: Path, tree: Path) -> None:
    if given.is_dir():
        shutil.copytree(given, tree, symlinks=True, dirs_exist_ok=True)
        return
    with tarfile.open(given) as archive:
        archive.extractall(tree, filter="tar")


def _fingerprint(given: Path) -> str:
    """What tells one given base from another: each path's name, mode, size and time, or the archive's content."""
    if not given.exists():
        raise Invalid("BaseUnsuitable", f"{given} is not there: give a folder or a tar archive by --base")
    digest = hashlib.sha256()
    if given.is_file():
        with given.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    for path in sorted(given.rglob("*")):
        status = path.lstat()
        digest.update(f"{path.relative_to(given)}\0{status.st_mode}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()
