"""Fsspec's file systems, and what they raise in words that a user can act on."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, Final
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies

from penstock.api.conditions import Reason
from penstock.errors import Invalid, PenstockError, Unavailable

_DENIED: Final = re.compile(
    r"\b(AccessDenied|InvalidAccessKeyId|SignatureDoesNotMatch|ExpiredToken|InvalidToken|Forbidden|40[13])\b"
)
_DENIED_KINDS: Final = ("NoCredentialsError", "PartialCredentialsError", "DefaultCredentialsError", "RefreshError")
"""Errors of botocore and google-auth."""
TIMEOUTS: Final = {"connect_timeout": 10, "read_timeout": 60, "retries": {"max_attempts": 4, "mode": "standard"}}
"""Of S3's client: seconds, and tries."""
_STANDING: Final[Mapping[str, Mapping[str, Any]]] = {
    "s3": {"config_kwargs": TIMEOUTS},
    "s3a": {"config_kwargs": TIMEOUTS},
    "gs": {"requests_timeout": 60, "session_kwargs": {"trust_env": True}},  # else past every proxy
    "gcs": {"requests_timeout": 60, "session_kwargs": {"trust_env": True}},
}
_QUERY: Final = re.compile(r"\?[^\s'\")]+")
_UNTRUSTED: Final = re.compile(r"certificate.verify.failed", re.IGNORECASE)
_OF_PROXY: Final = re.compile(r"Proxy\w*Error")
"""Errors of requests, httpx, aiohttp and botocore: the store has not been asked."""


def file_uri(uri: str) -> str:
    """The URI; an absolute path becomes a `file://` URI.

    Raises:
        Invalid: UnsupportedStorage, for a relative path, a `file://` URI with a host, or one with credentials in it.
    """
    if uri.startswith("/"):
        return Path(uri).as_uri()
    parts = urlsplit(uri)
    if parts.scheme in ("", "file", "local") and (
        parts.netloc not in ("", "localhost") or not parts.path.startswith("/")
    ):
        raise Invalid(
            Reason.UNSUPPORTED_STORAGE,
            f"{uri!r} is not supported: write file:// and an absolute path, such as file:///models/digits/1",
        )
    if "@" in parts.netloc:
        raise Invalid(
            Reason.UNSUPPORTED_STORAGE,
            f"{parts.scheme}://…@{parts.netloc.rpartition('@')[2]}: credentials do not belong into a URI; "
            "put them into a Secret and name it in model.credentialsSecretRef, or into the environment",
        )
    return uri


def local_path(uri: str) -> Path | None:
    """The path of a `file://` URI; None for another scheme."""
    parts = urlsplit(file_uri(uri))
    return Path(unquote(parts.path)) if parts.scheme in ("file", "local") else None


def is_local(uri: str) -> bool:
    """Whether a URI is of this machine's file system."""
    return urlsplit(uri).scheme in ("file", "local")


def normalize_path(relative: str) -> str:
    """A relative path in its plain form.

    Raises:
        Invalid: it leads out of the folder that it is relative to.
    """
    parts = PurePosixPath(relative).parts
    if not parts or ".." in parts or relative.startswith("/"):
        raise Invalid(
            Reason.INVALID_SPEC, f"{relative!r} is not a path in the store: give one without a leading / and .."
        )
    return "/".join(parts)


def file_system(uri: str, options: Mapping[str, Any]) -> tuple[Any, str]:
    """The file system of a URI, and the path in it.

    Raises:
        Invalid: UnsupportedStorage.
    """
    # Google's library else asks first, by gRPC, what kind of bucket it is, which needs more rights than reading it.
    os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    import fsspec  # noqa: PLC0415 -- a replica whose model lies on its node does without

    path = urlsplit(uri)
    given = {"skip_instance_cache": True, **_STANDING.get(path.scheme, {}), **options}
    if path.scheme in ("gs", "gcs") and os.environ.get("STORAGE_EMULATOR_HOST"):
        given = {"token": "anon", **given}
    if path.scheme in ("file", "local"):
        return fsspec.filesystem("file"), unquote(path.path)
    try:
        files, base = fsspec.url_to_fs(uri, **given)
    except ImportError as error:
        raise Invalid(
            Reason.UNSUPPORTED_STORAGE,
            f"{uri}: the library for {path.scheme}:// is not installed ({error}): install penstock[stores]",
        ) from error
    except ValueError as error:
        raise Invalid(
            Reason.UNSUPPORTED_STORAGE,
            f"{uri!r}: {path.scheme}:// is not a known scheme: use s3://, gs://, https://, hf://, oci://, pvc://, or "
            "file:// with an absolute path",
        ) from error
    return files, str(base)


@contextmanager
def translate_errors(uri: str) -> Iterator[None]:
    """Turn what file systems raise into `Invalid` or `Unavailable`, saying what to do."""
    try:
        yield
    except PenstockError:
        raise
    except Exception as error:
        raise storage_error(uri, error) from error


def storage_error(uri: str, error: Exception) -> PenstockError:
    """What a store's library raised, as a reason and what to do."""
    text = str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
    # A store may send on to an address whose query is a password for it.
    text = _QUERY.sub("?…", text)
    kind = type(error).__name__
    if isinstance(error, FileNotFoundError):
        return Invalid(
            Reason.MODEL_NOT_FOUND, f"there is nothing at {uri} ({text}): check the address, and that it was put there"
        )
    if kind == "FlexibleChecksumError":  # botocore's, for what is not what S3 says that it is
        return Invalid(
            Reason.DIGEST_MISMATCH,
            f"{uri} is not what it should be: {text}. It was damaged in the store or on its way; put it there again",
        )
    if not _OF_PROXY.search(kind) and (
        isinstance(error, PermissionError) or kind in _DENIED_KINDS or _DENIED.search(text)
    ):
        return Invalid(
            Reason.STORAGE_DENIED,
            f"{uri} may not be used ({text}): check the credentials (model.credentialsSecretRef, or the "
            "environment) and what they allow",
        )
    return Unavailable(Reason.STORAGE_UNREACHABLE, f"{uri} cannot be used ({kind}: {text}): check {_reach(str(error))}")


def _reach(text: str) -> str:
    """What to check where a store is not reached."""
    if _UNTRUSTED.search(text):
        return (
            "its certificate, or name the authority that signed it: trustedCA of the chart, the key ca.crt of the model's "
            "Secret, or PENSTOCK_TRUSTED_CA in the environment"
        )
    proxies = sorted(
        {_without_login(url) for scheme, url in getproxies().items() if scheme in ("http", "https", "all")}
    )
    if proxies:
        return (
            f"that it is up, and that the proxy {' or '.join(proxies)} (HTTPS_PROXY, HTTP_PROXY) is and lets it be reached; what "
            "is reached without a proxy, NO_PROXY must name"
        )
    return "that it is up and can be reached"


def _without_login(url: str) -> str:
    scheme, mark, rest = url.rpartition("//")
    return f"{scheme}{mark}{rest.rpartition('@')[2]}"
