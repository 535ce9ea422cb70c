"""Models on the Hugging Face Hub: `hf://ORG/REPO[@REVISION][/PATH]`, by its own client.

`HF_TOKEN` is for private and gated repositories, `HF_ENDPOINT` for a mirror.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import unquote

from penstock.api.conditions import Reason
from penstock.errors import Invalid
from penstock_runtime.filesystems import normalize_path
from penstock_runtime.sources.source import (
    CHUNK_BYTES,
    SMALL_BYTES,
    TRIES,
    Algorithm,
    Checksum,
    RemoteFile,
    RemoteListing,
    size_error,
    sort_files,
)

_ADDRESS: Final = re.compile(r"hf://(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[^/]+))?(?:/(?P<path>.+))?$")
_SECONDS: Final = 60.0
_ORIGIN: Final = "the Hub"
_PATHS_AT_ONCE: Final = 100


@dataclass(frozen=True, slots=True)
class HubAddress:
    """The parts of an `hf://` URI."""

    repo: str
    revision: str
    path: str
    """Of a file or a folder in the repository; empty for all of it."""


def parse_address(uri: str) -> HubAddress:
    """The parts of an `hf://` URI. A revision with a `/` is written with `%2F`, as the Hub has it.

    Raises:
        Invalid: UnsupportedStorage.
    """
    match = _ADDRESS.fullmatch(uri.rstrip("/"))
    if match is None:
        raise Invalid(
            Reason.UNSUPPORTED_STORAGE,
            f"{uri!r} names no model: write hf://ORG/REPO, hf://ORG/REPO/path or hf://ORG/REPO@REVISION/path",
        )
    path = match["path"]
    return HubAddress(
        match["repo"], unquote(match["revision"] or "main"), normalize_path(unquote(path)) if path else ""
    )


class HubSource:
    """A repository of models, or a part of one.

    Args:
        uri: see `parse_address`.

    Raises:
        Invalid: UnsupportedStorage.
    """

    tries = TRIES

    def __init__(self, uri: str) -> None:
        self.uri = uri.rstrip("/")
        self._address = parse_address(uri)
        # Its own cache is not used, and it must not look for a login of whoever started this process.
        os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
        from huggingface_hub import HfApi  # noqa: PLC0415 -- only where a model is on the Hub

        self._api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"), token=os.environ.get("HF_TOKEN") or False)
        self._commit = ""

    def listing(self) -> RemoteListing:
        """The files at the commit that the revision is now."""
        with _translate_errors():
            address = self._address
            self._commit = str(self._api.model_info(address.repo, revision=address.revision, timeout=_SECONDS).sha)
            lone = self._lone_file()
            if lone is not None:
                return RemoteListing((self._file(lone, lone.path.rsplit("/", 1)[-1]),), lone=True)
            tree = self._api.list_repo_tree(address.repo, address.path or None, recursive=True, revision=self._commit)
            below = f"{address.path}/" if address.path else ""
            files = [self._file(each, each.path.removeprefix(below)) for each in tree if hasattr(each, "size")]
        if not files:
            raise FileNotFoundError("the repository has no file there")
        return RemoteListing(sort_files(files))

    def find_neighbours(self, file: RemoteFile, names: Sequence[str]) -> tuple[RemoteFile, ...]:
        """Files of the same commit."""
        folder = file.address.removesuffix(file.path)
        found = []
        with _translate_errors():
            for start in range(0, len(names), _PATHS_AT_ONCE):
                paths = [folder + normalize_path(name) for name in names[start : start + _PATHS_AT_ONCE]]
                about = self._api.get_paths_info(self._address.repo, paths, revision=self._commit)
                found += [self._file(each, each.path.removeprefix(folder)) for each in about if hasattr(each, "size")]
        return tuple(found)

    def read_small(self, path: str) -> bytes | None:
        """A file below the URI, whole."""
        below = f"{self._address.path}/" if self._address.path else ""
        file = RemoteFile(path=path, address=below + normalize_path(path))
        body = bytearray()
        try:
            for piece in self.stream(file, 0):
                body += piece
                if len(body) > SMALL_BYTES:
                    raise size_error(f"{self.uri}/{path}")
        except FileNotFoundError:
            return None
        return bytes(body)

    def stream(self, file: RemoteFile, offset: int) -> Iterator[bytes]:
        """The content of a file, from wherever the Hub sends us."""
        from huggingface_hub import hf_hub_url  # noqa: PLC0415 -- only where a model is on the Hub
        from huggingface_hub.utils import (  # type: ignore[attr-defined] # noqa: PLC0415 -- exported, but lazily
            build_hf_headers,
            hf_raise_for_status,
            http_stream_backoff,
        )

        address = self._address
        url = hf_hub_url(
            address.repo, file.address, revision=self._commit or address.revision, endpoint=self._api.endpoint
        )
        headers = {**build_hf_headers(token=self._api.token), "Accept-Encoding": "identity"}
        if offset:
            headers["Range"] = f"bytes={offset}-"
        with (
            _translate_errors(),
            http_stream_backoff(
                "GET", url, max_retries=0, headers=headers, timeout=_SECONDS, follow_redirects=True
            ) as response,
        ):
            hf_raise_for_status(response)
            skip = 0 if response.status_code == HTTPStatus.PARTIAL_CONTENT else offset
            for piece in response.iter_raw(CHUNK_BYTES):
                if skip < len(piece):
                    yield piece[skip:]
                skip = max(0, skip - len(piece))

    def _lone_file(self) -> Any:
        """The file that the URI names; None for a folder."""
        if not self._address.path:
            return None
        found = self._api.get_paths_info(self._address.repo, [self._address.path], revision=self._commit)
        return next((each for each in found if hasattr(each, "size")), None)

    def _file(self, about: Any, name: str) -> RemoteFile:
        if about.lfs is not None:
            checksum = Checksum(Algorithm.SHA256, about.lfs.sha256, _ORIGIN)
        else:
            checksum = Checksum(Algorithm.GIT, about.blob_id, _ORIGIN)
        return RemoteFile(
            path=normalize_path(name), address=about.path, size=about.size, checksums=(checksum,), version=about.blob_id
        )


@contextmanager
def _translate_errors() -> Iterator[None]:
    """Turns the client's errors into Python's own."""
    from huggingface_hub import errors  # noqa: PLC0415 -- only where a model is on the Hub

    try:
        yield
    except errors.HfHubHTTPError as error:
        said = str(error).strip().splitlines()[0]
        status = HTTPStatus(error.response.status_code)
        if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            raise PermissionError(
                f"{said} The Hub answers so for what does not exist, too, unless HF_TOKEN may read it"
            ) from error
        if status is HTTPStatus.NOT_FOUND:
            raise FileNotFoundError(said) from error
        raise
