"""Models on a web server: a file, or a folder whose `manifest.json` says what is in it."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Final
from urllib.parse import quote, unquote, urlsplit

import requests

from penstock.engines import FORMATS
from penstock.serving.manifest import MANIFEST_NAME, SIGNATURE_NAME
from penstock_runtime.filesystems import normalize_path
from penstock_runtime.sources.http import add_deadlines, check_response, headers, pieces, read_whole
from penstock_runtime.sources.manifests import parse_manifest
from penstock_runtime.sources.source import TRIES, RemoteFile, RemoteListing, SourceChanged, sort_files

_FILES: Final = frozenset({*(facts.suffix for facts in FORMATS.values()), ".npz"})
"""What ends in one of these is a file; anything else is a folder if it has a manifest."""
_NO_HEAD: Final = (400, 403, 405, 501)
"""Servers that sign addresses, or serve only GET, refuse HEAD with these."""


class WebSource:
    """A file or a folder at an `https://` address.

    `HTTP_BEARER_TOKEN`, or `HTTP_USERNAME` and `HTTP_PASSWORD`, are sent to the address's own host and to no other.

    Args:
        uri: of the file or the folder.
        version: a folder in that folder, to be looked into where it has no manifest itself. Web servers list nothing.
    """

    tries = TRIES

    def __init__(self, uri: str, version: str | None = None) -> None:
        self.uri = uri.rstrip("/")
        self._version = version
        self._session = add_deadlines(requests.Session())
        # A server that tells no version could have changed the file since an earlier fetch, whose copy is then not used.
        self._unknown = f"unknown {uuid.uuid4()}"
        token, user = os.environ.get("HTTP_BEARER_TOKEN"), os.environ.get("HTTP_USERNAME")
        if token:
            self._session.auth = _Bearer(token)
        elif user:
            self._session.auth = (user, os.environ.get("HTTP_PASSWORD", ""))

    def listing(self) -> RemoteListing:
        """The manifest's files with it and its signature; without a manifest, the file itself."""
        path = unquote(urlsplit(self.uri).path)
        if PurePosixPath(path).suffix not in _FILES:
            manifest = self.read_small(MANIFEST_NAME)
            if manifest is not None:
                return self._folder(manifest)
            below = f"{self._version}/"
            manifest = self.read_small(below + MANIFEST_NAME) if self._version else None
            if manifest is not None:
                return self._folder(manifest, below)
        name = normalize_path(path.rsplit("/", 1)[-1] or "model")
        return RemoteListing((self._file(name, self.uri),), lone=True)

    def find_neighbours(self, file: RemoteFile, names: Sequence[str]) -> tuple[RemoteFile, ...]:
        """Files below the address that the file's is in."""
        folder = file.address.rpartition("/")[0]
        found = []
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                found.append(self._file(normalize_path(name), f"{folder}/{quote(normalize_path(name))}"))
        return tuple(found)

    def read_small(self, path: str) -> bytes | None:
        """A file below the address, whole."""
        address = self._address_of(path)
        try:
            return read_whole(self._get(address, 0), address)
        except FileNotFoundError:
            return None

    def stream(self, file: RemoteFile, offset: int) -> Iterator[bytes]:
        """The content of a file; servers that know no ranges send it from its start, and that is skipped."""
        response = self._get(file.address, offset, file.version)
        if file.versioned and not file.checksums and not _is_of(response, file.version, offset):
            response.close()
            raise SourceChanged(self.uri)
        return pieces(response, offset)

    def _folder(self, manifest: bytes, below: str = "") -> RemoteListing:
        files = [
            RemoteFile(path=name, address=self._address_of(below + name), size=each.size_bytes)
            for name, each in parse_manifest(manifest, self.uri).items()
        ]
        files.append(
            RemoteFile(path=MANIFEST_NAME, address=self._address_of(below + MANIFEST_NAME), size=len(manifest))
        )
        signature = self.read_small(below + SIGNATURE_NAME)
        if signature is not None:
            files.append(self._file(SIGNATURE_NAME, self._address_of(below + SIGNATURE_NAME)))
        return RemoteListing(sort_files(files), below=below)

    def _file(self, name: str, address: str) -> RemoteFile:
        response = self._session.head(address, headers=headers(0), allow_redirects=True)
        if response.status_code in _NO_HEAD:
            response = self._session.get(address, headers=headers(0), stream=True)
        with check_response(response):
            size = response.headers.get("Content-Length")
            stamp = response.headers.get("ETag") or response.headers.get("Last-Modified")
        return RemoteFile(
            path=name,
            address=address,
            size=int(size) if size else None,
            version=stamp or self._unknown,
            versioned=stamp is not None,
        )

    def _get(self, address: str, offset: int, version: str = "") -> requests.Response:
        asked = headers(offset)
        if offset and version.startswith('"'):
            asked["If-Range"] = version
        response = self._session.get(address, headers=asked, stream=True)
        if offset and response.status_code == requests.codes.requested_range_not_satisfiable:
            # Nothing comes after what is here already: of a file of unknown size, all may be. Sent whole, it shows.
            response.close()
            response = self._session.get(address, headers=headers(0), stream=True)
        return check_response(response)

    def _address_of(self, path: str) -> str:
        return f"{self.uri}/{quote(normalize_path(path))}"


def _is_of(response: requests.Response, version: str, offset: int) -> bool:
    """Whether a body is of the version that was listed: an ETag, or else a time of modification.

    An answer that does not say is believed where nothing came before it that it could fail to fit to.
    """
    found = response.headers.get("Last-Modified" if version.endswith(" GMT") else "ETag")
    if found is None:
        return offset == 0
    # Who compresses for some clients calls the same content weakly the same.
    return found.removeprefix("W/") == version.removeprefix("W/")


class _Bearer(requests.auth.AuthBase):
    """A token. `requests` takes it away when it is sent on to another host."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request
