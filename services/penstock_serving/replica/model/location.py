"""Where a model lies, which of its files serve, and its digest. Loads nothing."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from penstock.api.conditions import Reason
from penstock.engines import FORMATS, Servability, formats_where
from penstock.errors import Invalid, Unavailable
from penstock.serving.manifest import MANIFEST_NAME, ModelFile, ModelFormat, ModelManifest
from penstock.serving.versions import Wanted
from penstock_runtime.digests import ModelDigest, digest_of, serving_files
from penstock_runtime.downloading import Room
from penstock_runtime.fetching import ModelCacheSettings
from penstock_runtime.files import describe_file, resolve_version
from penstock_runtime.model_cache import HeldModel, ModelCache

_AS_IS: Final = " or ".join(formats_where(lambda each: each.served is Servability.AS_IS))

Stamp = tuple[int, int, int, int]
"""Device, inode, bytes and time of modification of a file."""


@dataclass(frozen=True, slots=True)
class Location:
    """What lies where the URI says."""

    path: Path
    """The folder, or the lone file."""
    entrypoint: Path
    format: ModelFormat
    manifest: ModelManifest | None = None
    manifest_bytes: bytes = b""

    def digest(self) -> ModelDigest:
        """Of the manifest, which lists every file; without one, of all files that serve.

        Raises:
            Invalid: ModelNotFound or ModelInvalid, see `penstock_runtime.digests`.
        """
        if self.manifest is None:
            return digest_of(self.entrypoint, self.format)
        value = f"sha256:{hashlib.sha256(self.manifest_bytes).hexdigest()}"
        return ModelDigest(value, value, MANIFEST_NAME)


def wanted_of(model_format: ModelFormat, version: str) -> Wanted:
    """What is looked for in a model's folder.

    Raises:
        Invalid: ModelInvalid; the format is not served.
    """
    return Wanted(version=version, suffixes=(_suffix(model_format),))


def locate(path: Path, model_format: ModelFormat, version: str = "1") -> Location:
    """The manifest if there is one, and the file to load; of a folder of versions, those of the version.

    Raises:
        Invalid: ModelNotFound or ModelInvalid.
    """
    path = resolve_version(path, wanted_of(model_format, version))
    manifest_path = path / MANIFEST_NAME
    if not manifest_path.is_file():
        suffix = _suffix(model_format)
        entrypoint = path if path.is_file() else _find_model_file(path, suffix)
        if model_format is not ModelFormat.ONNX:
            _check_name(entrypoint, suffix)
        return Location(path, entrypoint, model_format)
    try:
        raw = manifest_path.read_bytes()
    except OSError as error:
        raise Invalid(Reason.MODEL_NOT_FOUND, f"{manifest_path} cannot be read: {error.strerror}") from error
    try:
        manifest = ModelManifest.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the document"
        raise Invalid(Reason.MODEL_INVALID, f"{manifest_path}: {where}: {first['msg']}") from error
    if manifest.entrypoint not in manifest.files:
        raise Invalid(
            Reason.MODEL_INVALID, f"{manifest_path}: entrypoint {manifest.entrypoint!r} is not among its files"
        )
    entrypoint = path / manifest.entrypoint
    _check_name(entrypoint, _suffix(manifest.format))
    return Location(path, entrypoint, manifest.format, manifest, raw)


def check_listed(location: Location) -> None:
    """Every file that serves must be in the manifest, whose digest is the model's.

    Raises:
        Invalid: ModelInvalid.
    """
    if location.manifest is None:
        return
    within = Path(location.manifest.entrypoint).parent
    for name in serving_files(location.entrypoint, location.format):
        if (within / name).as_posix() not in location.manifest.files:
            raise Invalid(
                Reason.MODEL_INVALID,
                f"{location.path / MANIFEST_NAME} does not list {(within / name).as_posix()}, in which "
                f"{location.manifest.entrypoint} keeps weights: add it to files, with its sha256 and sizeBytes",
            )


@contextmanager
def hold_unchanged(location: Location, *, cached: bool) -> Iterator[None]:
    """A model that is told by its digest and loaded within this is the same in both.

    Args:
        location: of the model.
        cached: whether it is in the node's cache, to which nobody else writes.

    Raises:
        Unavailable: StorageUnreachable, somebody wrote to it meanwhile.
    """
    files = () if cached else _files(location)
    before = _stamps(files)
    yield
    if _stamps(files) != before:
        raise _change_error(location)


def copy_apart(
    location: Location, digest: ModelDigest, held: HeldModel, environment: Mapping[str, str]
) -> tuple[HeldModel, Path]:
    """The entry point, to be loaded; with weights beside it that nobody can change under a replica that runs.

    Engines map weights that lie in files of their own into memory, so who writes into such a file changes answers. Those of a
    model that lies anywhere but in the node's cache are copied there, once for all replicas of the node.

    Args:
        location: of the model, whose files are verified.
        digest: of the model.
        held: it, where it lies.
        environment: names the cache.

    Returns:
        What keeps the files there, and the file to load.

    Raises:
        Unavailable: CacheUnavailable, there is no room for the copy; StorageUnreachable, somebody wrote to it meanwhile.
    """
    beside = () if held.key else serving_files(location.entrypoint, location.format)
    if not beside:
        return held, location.entrypoint
    folder, names = location.entrypoint.parent, (location.entrypoint.name, *beside)

    def fill(target: Path, room: Room) -> dict[str, ModelFile]:
        for name in names:
            room.claim((folder / name).stat().st_size)
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / name, target / name)
        copied = {name: describe_file(target / name) for name in names}
        if not _is_it(location, digest, target / location.entrypoint.name, copied):
            raise _change_error(location)
        return copied

    settings = ModelCacheSettings.from_environment(environment)
    size = sum((folder / name).stat().st_size for name in names)
    key = f"apart-{digest.value.removeprefix('sha256:')}"
    kept = ModelCache(settings.folder, settings.max_bytes).get(key, location.path.as_uri(), size, fill)
    return kept, kept.path / location.entrypoint.name


def _is_it(location: Location, digest: ModelDigest, entrypoint: Path, copied: Mapping[str, ModelFile]) -> bool:
    """Whether a copy is what its original was when it was verified."""
    if location.manifest is None:
        return digest_of(entrypoint, location.format).value == digest.value
    within_it = Path(location.manifest.entrypoint).parent
    listed = location.manifest.files
    return all(
        listed[(within_it / name).as_posix()].sha256.removeprefix("sha256:") == file.sha256
        for name, file in copied.items()
    )


def _change_error(location: Location) -> Unavailable:
    return Unavailable(
        Reason.STORAGE_UNREACHABLE,
        f"{location.path} was changed while it was loaded: it is loaded again. Put a new model beside the old one and "
        "rename it, so that nobody sees half of it",
    )


def _files(location: Location) -> tuple[Path, ...]:
    """All that serves, and what says what it is."""
    if location.manifest is not None:
        return (location.path / MANIFEST_NAME, *(location.path / name for name in location.manifest.files))
    beside = serving_files(location.entrypoint, location.format)
    return (location.entrypoint, *(location.entrypoint.parent / name for name in beside))


def _stamps(files: tuple[Path, ...]) -> dict[Path, Stamp | None]:
    found: dict[Path, Stamp | None] = {}
    for each in files:
        try:
            about = each.stat()
        except OSError:  # whoever reads it says so
            found[each] = None
        else:
            found[each] = about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns
    return found


def _suffix(model_format: ModelFormat) -> str:
    facts = FORMATS[model_format]
    if facts.served is Servability.ELSEWHERE:
        raise Invalid(
            Reason.MODEL_INVALID,
            f"{model_format} is made for other machines, and no replica serves it: give the model as {_AS_IS}",
        )
    if facts.served is Servability.CONVERTED:
        raise Invalid(
            Reason.MODEL_INVALID,
            f"{model_format} is not served as it is, since it comes with code: give the deployment an optimization "
            f"profile, or convert it to {_AS_IS}",
        )
    return facts.suffix


def _check_name(entrypoint: Path, suffix: str) -> None:
    """An engine tells by the name what is in a file; another kind must not slip in under a harmless format."""
    if entrypoint.suffix != suffix:
        raise Invalid(
            Reason.MODEL_INVALID, f"{entrypoint} does not end in {suffix}, as its format wants: set modelFormat"
        )


def _find_model_file(folder: Path, suffix: str) -> Path:
    models = sorted(folder.glob(f"*{suffix}"))
    if len(models) != 1:
        found = f"{len(models)} {suffix} files" if models else f"no {suffix} file"
        raise Invalid(
            Reason.MODEL_NOT_FOUND,
            f"{folder} has no {MANIFEST_NAME} and {found}: put a manifest or exactly one {suffix} file there",
        )
    return models[0]
