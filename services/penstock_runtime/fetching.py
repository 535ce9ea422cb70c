"""A model by its URI: where it lies, or a copy of it in the node's cache.

Whatever comes over a network is fetched in a child process. The libraries of the stores take up to 50 MiB, which a replica
would keep for life, and only the child gets the credentials that a deployment names:

    python -m penstock_runtime.fetching

reads a `FetchRequest` as JSON from its standard input. Exit status: 0 with a `FetchedModel` as JSON on its standard output; 3
with a `FetchFailure`.
"""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

from pydantic import ValidationError

from penstock.api.conditions import Reason
from penstock.errors import Invalid, PenstockError, Unavailable
from penstock.models import Frozen
from penstock.serving.manifest import ModelFile
from penstock.serving.mounts import CACHE_BYTES_VARIABLE, CACHE_VARIABLE
from penstock.serving.versions import Wanted
from penstock_runtime.credentials import environment_with
from penstock_runtime.downloading import Room, download, retry
from penstock_runtime.filesystems import file_uri
from penstock_runtime.local_models import find_local
from penstock_runtime.model_cache import HeldModel, ModelCache
from penstock_runtime.onnx_files import external_files
from penstock_runtime.parent_death import end_with_parent
from penstock_runtime.sources.manifests import select_version, with_digest, with_manifest, with_others
from penstock_runtime.sources.source import RemoteListing, RemoteSource, SourceChanged

logger = logging.getLogger(__name__)

_REFUSED: Final = 3
_TRIES: Final = 5


class FetchRequest(Frozen):
    """What the child is to fetch."""

    uri: str
    cache: str
    """Folder."""
    max_bytes: int | None = None
    """Of the cache."""
    digest: str | None = None
    """`sha256:` and 64 hex digits: of a lone file, or of a folder's `manifest.json`."""
    wanted: Wanted | None = None
    """What is looked for in a folder of versions; None: all of a folder is fetched."""
    most_bytes: int | None = None
    """What is larger, or of unknown size, is not fetched; None: whatever its size."""
    parent: int
    """Process that waits; when it ends, so does the child."""


class FetchedModel(Frozen):
    """A model in the cache."""

    key: str
    lone: str | None = None
    """Name of the file, where the URI names a single one. Files that serve with it lie beside it."""


class FetchFailure(Frozen):
    """Why there is no model."""

    reason: str
    message: str
    lasting: bool
    """Whether trying again cannot help."""


@dataclass(frozen=True, slots=True)
class ModelCacheSettings:
    """Where fetched models are kept."""

    folder: Path
    max_bytes: int | None = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> ModelCacheSettings:
        """`PENSTOCK_MODEL_CACHE` and `PENSTOCK_MODEL_CACHE_BYTES`, else a folder of the user's own cache.

        Raises:
            Invalid: InvalidSpec; the bound is no number of bytes.
        """
        given = environment.get(CACHE_VARIABLE)
        own = Path(environment.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "penstock" / "models"
        bound = environment.get(CACHE_BYTES_VARIABLE) or None
        if bound is not None and not re.fullmatch(r"[1-9][0-9]*", bound):
            raise Invalid(
                Reason.INVALID_SPEC, f"{CACHE_BYTES_VARIABLE} must be a whole number of bytes: {bound!r} is none"
            )
        return cls(Path(given) if given else own, int(bound) if bound else None)


def fetch_into_cache(
    uri: str,
    settings: ModelCacheSettings,
    digest: str | None = None,
    options: Mapping[str, Any] | None = None,
    wanted: Wanted | None = None,
    *,
    most_bytes: int | None = None,
) -> tuple[HeldModel, FetchedModel]:
    """A model of a store, in the cache; by this process, with its environment's credentials.

    A single file comes with those that serve with it: an `.onnx` names them, and an `.xml` has a `.bin`.

    Raises:
        Invalid: UnsupportedStorage, ModelNotFound, StorageDenied, ModelInvalid, or DigestMismatch for what is not what
            the manifest, the digest or the store says; ModelInvalid for what is larger than `most_bytes`.
        Unavailable: StorageUnreachable or CacheUnavailable.
    """
    from penstock_runtime.sources import open_source  # noqa: PLC0415 -- brings the store's library

    source = open_source(file_uri(uri), options, wanted.version if wanted else None)
    cache = ModelCache(settings.folder, settings.max_bytes)

    def list_files() -> RemoteListing:
        return _require_within(uri, with_manifest(source, select_version(source, source.listing(), wanted)), most_bytes)

    try:
        held, listing = _fetch_listing(source, cache, lambda: with_digest(list_files(), digest))
    except Invalid as error:
        if (
            error.reason != Reason.DIGEST_MISMATCH
            or digest is None
            or not _may_have_companions(retry(source, list_files))
        ):
            raise
        # The digest may be of the file together with those beside it, which are known once the file is here.
        held, listing = _fetch_listing(source, cache, list_files)
        if not any(_companion_names(held.path / listing.files[0].path)):
            held.close()
            raise
    if not _may_have_companions(listing):
        return held, FetchedModel(key=held.key, lone=listing.files[0].path if listing.lone else None)
    name = listing.files[0].path
    required, optional = _companion_names(held.path / name)
    if not required and not optional:
        return held, FetchedModel(key=held.key, lone=name)
    held.close()
    whole, _ = _fetch_listing(source, cache, lambda: with_others(source, list_files(), required, optional))
    if _companion_names(whole.path / name)[0] != required:
        whole.close()
        raise SourceChanged(source.uri)
    return whole, FetchedModel(key=whole.key, lone=name)


def _fetch_listing(
    source: RemoteSource, cache: ModelCache, ask: Callable[[], RemoteListing]
) -> tuple[HeldModel, RemoteListing]:
    """What a listing says, in the cache."""
    listing = retry(source, ask)
    key = listing.key(source.uri)

    def fill(folder: Path, room: Room) -> dict[str, ModelFile]:
        files = download(source, listing, folder, room)
        if not listing.pinned and retry(source, ask).key(source.uri) != key:
            raise SourceChanged(source.uri)
        return files

    return cache.get(key, source.uri, listing.size, fill), listing


def _require_within(uri: str, listing: RemoteListing, most_bytes: int | None) -> RemoteListing:
    if most_bytes is None or (listing.size is not None and listing.size <= most_bytes):
        return listing
    size = "an unknown size" if listing.size is None else f"{listing.size >> 20} MiB"
    raise Invalid(Reason.MODEL_INVALID, f"{uri} has {size}, and no more than {most_bytes >> 20} MiB are fetched")


def _may_have_companions(listing: RemoteListing) -> bool:
    """Whether a single file may have others that serve with it."""
    return listing.lone and PurePosixPath(listing.files[0].path).suffix in (".onnx", ".xml")


def _companion_names(file: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the files that must be beside a file, and of those that may be."""
    if file.suffix == ".xml":
        return (), (file.with_suffix(".bin").name,)
    try:
        return external_files(file), ()
    except Invalid:
        return (), ()  # whoever loads it says what is wrong with it


def fetch_in_child(
    uri: str,
    environment: Mapping[str, str],
    digest: str | None = None,
    credentials: str | None = None,
    wanted: Wanted | None = None,
    *,
    most_bytes: int | None = None,
) -> HeldModel:
    """A model, wherever it lies. What is not on this machine is fetched into the node's cache by a child process.

    Args:
        uri: of the model.
        environment: of this process: cache, claims, and credentials of the pod's own.
        digest: see `FetchRequest`.
        credentials: Secret whose keys the child gets instead of the pod's own.
        wanted: see `FetchRequest`.
        most_bytes: see `FetchRequest`; of what lies on this machine, it bounds nothing.

    Returns:
        The file or folder. It stays in the cache until it is closed, or this process ends.

    Raises:
        Invalid: see `find_local` and `fetch_into_cache`; SecretNotFound.
        Unavailable: StorageUnreachable or CacheUnavailable.
    """
    path = find_local(uri, environment)
    if path is not None:
        return HeldModel(path)
    settings = ModelCacheSettings.from_environment(environment)
    request = FetchRequest(
        uri=uri,
        cache=str(settings.folder),
        max_bytes=settings.max_bytes,
        digest=digest,
        wanted=wanted,
        most_bytes=most_bytes,
        parent=os.getpid(),
    )
    child = environment_with(credentials, environment, uri)
    for _ in range(_TRIES):
        found = _ask_child(request, child)
        held = ModelCache(settings.folder, settings.max_bytes).acquire(found.key)
        if held is not None:
            held.path = held.path / found.lone if found.lone else held.path
            return held
    raise Unavailable(
        Reason.CACHE_UNAVAILABLE,
        f"{uri} was removed from {settings.folder} as soon as it was there, {_TRIES} times: the cache is too small for "
        "what this node starts at once; raise the pool's cache.maxBytes",
    )


def main() -> int:
    """Fetch one model; the exit status."""
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    request = FetchRequest.model_validate_json(sys.stdin.read())
    end_with_parent(request.parent)  # no download goes on for nobody
    try:
        cache = ModelCacheSettings(Path(request.cache), request.max_bytes)
        held, found = fetch_into_cache(
            request.uri, cache, request.digest, wanted=request.wanted, most_bytes=request.most_bytes
        )
    except PenstockError as error:
        refused = FetchFailure(reason=error.reason, message=error.message, lasting=isinstance(error, Invalid))
        sys.stdout.write(refused.model_dump_json())
        return _REFUSED
    with held:
        sys.stdout.write(found.model_dump_json())
    return 0


def _ask_child(request: FetchRequest, environment: Mapping[str, str]) -> FetchedModel:
    ran = subprocess.run(
        [sys.executable, "-m", "penstock_runtime.fetching"],
        input=request.model_dump_json(), env=dict(environment), stdout=subprocess.PIPE, stderr=None, text=True, check=False,
    )  # fmt: skip
    try:
        if ran.returncode == 0:
            return FetchedModel.model_validate_json(ran.stdout)
        if ran.returncode == _REFUSED:
            refused = FetchFailure.model_validate_json(ran.stdout)
            kind = Invalid if refused.lasting else Unavailable
            raise kind(Reason(refused.reason), refused.message)
    except ValidationError:
        logger.exception("the process that fetches said what is not understood")
    raise Unavailable(
        Reason.STORAGE_UNREACHABLE,
        f"the process that fetches {request.uri} ended with status {ran.returncode}: the replica's log has its last words",
    )


if __name__ == "__main__":
    sys.exit(main())
