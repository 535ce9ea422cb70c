"""The index of models, as Triton's model repository extension has it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import orjson

from penstock.protocol.refusals import bad_request


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """A model, or one version of it."""

    name: str
    version: str | None
    """None: not known, since no replica has been there."""
    ready: bool
    """Whether a request would be answered."""
    reason: str = ""


def read_index_request(body: bytes | bytearray) -> bool:
    """Whether only models that are ready are asked for.

    Args:
        body: of `POST …/repository/index`; it may be empty.

    Raises:
        Invalid: it is something else than a `repository_index_request`.
    """
    if not body.strip():
        return False
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise bad_request(f"the body is not valid JSON: {error}") from error
    ready = document.get("ready") if type(document) is dict else 0
    if ready is not None and type(ready) is not bool:
        raise bad_request("the body must be empty, or a JSON object whose 'ready' is true or false")
    return bool(ready)


def write_index(entries: Iterable[IndexEntry], *, ready_only: bool) -> bytes:
    """The `repository_index_response`."""
    return orjson.dumps(
        [
            {"name": each.name}
            | ({} if each.version is None else {"version": each.version})
            | {"state": "READY" if each.ready else "UNAVAILABLE", "reason": each.reason}
            for each in entries
            if each.ready or not ready_only
        ]
    )
