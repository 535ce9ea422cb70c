"""What `manifest.json` says of a model's files, put beside what the store says."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

from pydantic import ValidationError

from penstock.api.conditions import Reason
from penstock.errors import Invalid
from penstock.serving.manifest import MANIFEST_NAME, SIGNATURE_NAME, ModelFile, ModelManifest
from penstock.serving.versions import Wanted, version_folder
from penstock_runtime.filesystems import normalize_path
from penstock_runtime.sources.source import (
    Algorithm,
    Checksum,
    Neighbourhood,
    RemoteFile,
    RemoteListing,
    RemoteSource,
    sort_files,
)

_DIGEST_ORIGIN = "the model's digest"


def parse_manifest(manifest: bytes, uri: str) -> dict[str, ModelFile]:
    """The files of a manifest, by their plain path.

    Raises:
        Invalid: ModelInvalid, for what is no manifest or leads out of the folder.
    """
    try:
        files = ModelManifest.model_validate_json(manifest).files
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the document"
        raise Invalid(Reason.MODEL_INVALID, f"{uri}/{MANIFEST_NAME}: {where}: {first['msg']}") from error
    try:
        return {normalize_path(name): file for name, file in files.items()}
    except Invalid as error:
        raise Invalid(
            Reason.MODEL_INVALID, f"{uri}/{MANIFEST_NAME}: a file is outside the model's folder: {error.message}"
        ) from error


def with_manifest(source: RemoteSource, listing: RemoteListing) -> RemoteListing:
    """The listing, with the checksums of the folder's manifest where it has one.

    Raises:
        Invalid: ModelInvalid for a bad manifest; ModelNotFound for a file of it that is not in the store.
    """
    names = {each.path for each in listing.files if each.archive is None}
    if listing.lone or MANIFEST_NAME not in names:
        return listing
    manifest = source.read_small(listing.below + MANIFEST_NAME)
    if manifest is None:
        raise FileNotFoundError(f"{MANIFEST_NAME} went away")
    files = parse_manifest(manifest, source.uri)
    missing = sorted(set(files) - names)
    if missing and not any(each.archive for each in listing.files):
        raise Invalid(
            Reason.MODEL_NOT_FOUND,
            f"{source.uri}/{missing[0]} is in {MANIFEST_NAME} but not in the store: put the whole folder there again",
        )
    wanted = {name: Checksum(Algorithm.SHA256, _hex(file.sha256), MANIFEST_NAME) for name, file in files.items()}
    wanted[MANIFEST_NAME] = _checksum_of(manifest)
    signature = source.read_small(listing.below + SIGNATURE_NAME) if SIGNATURE_NAME in names else None
    if signature is not None:
        wanted[SIGNATURE_NAME] = _checksum_of(signature)
    return _with_sums(listing, wanted)


def select_version(source: RemoteSource, listing: RemoteListing, wanted: Wanted | None) -> RemoteListing:
    """The listing; of a folder of versions, the files of the one that is wanted.

    What an archive holds is not known before it is unpacked, so whoever loads it looks there.

    Raises:
        Invalid: ModelNotFound; there is no such version.
    """
    if wanted is None or listing.lone or any(each.archive for each in listing.files):
        return listing
    paths = [each.path.partition("/") for each in listing.files]
    files = (name for name, slash, _ in paths if not slash)
    found = version_folder(files, {name for name, slash, _ in paths if slash}, wanted, source.uri)
    if found is None:
        return listing
    chosen = (each for each in listing.files if each.path.startswith(f"{found}/"))
    return replace(
        listing,
        files=tuple(replace(each, path=each.path.removeprefix(f"{found}/")) for each in chosen),
        below=f"{listing.below}{found}/",
    )


def with_others(
    source: RemoteSource, lone: RemoteListing, required: Sequence[str], optional: Sequence[str] = ()
) -> RemoteListing:
    """A single file with those beside it.

    Raises:
        Invalid: ModelNotFound; one of them is not there.
    """
    entry = lone.files[0]
    others = source.find_neighbours(entry, (*required, *optional)) if isinstance(source, Neighbourhood) else ()
    missing = sorted(set(required) - {each.path for each in others})
    if missing:
        raise Invalid(
            Reason.MODEL_NOT_FOUND,
            f"{source.uri.rpartition('/')[0]}/{missing[0]} is not there, in which {entry.path} keeps weights: put it beside "
            "the model, as it was exported",
        )
    return RemoteListing(sort_files((entry, *others)))


def with_digest(listing: RemoteListing, digest: str | None) -> RemoteListing:
    """The listing, with the digest that the user gave: of the lone file, or of the folder's manifest.

    A folder without a manifest has a digest of its model alone, which is not known by name here: who loads it checks it.
    """
    if digest is None:
        return listing
    wanted = Checksum(Algorithm.SHA256, _hex(digest), _DIGEST_ORIGIN)
    name = listing.files[0].path if listing.lone else MANIFEST_NAME
    return _with_sums(listing, {name: wanted})


def _checksum_of(body: bytes) -> Checksum:
    return Checksum(Algorithm.SHA256, hashlib.sha256(body).hexdigest(), "the first reading of it")


def _hex(digest: str) -> str:
    return digest.removeprefix("sha256:")


def _with_sums(listing: RemoteListing, sums: Mapping[str, Checksum]) -> RemoteListing:
    return replace(listing, files=tuple(_with_sum(each, sums.get(each.path)) for each in listing.files))


def _with_sum(file: RemoteFile, checksum: Checksum | None) -> RemoteFile:
    if checksum is None or file.archive is not None:
        return file
    return replace(file, checksums=(*file.checksums, checksum))
