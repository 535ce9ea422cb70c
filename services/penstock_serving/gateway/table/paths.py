"""The model that a path names. HAProxy reads paths undecoded, and so does everything behind it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from penstock.errors import Invalid
from penstock.routing.table import ModelKey


class ModelOperation(StrEnum):
    """What a path asks of a model."""

    METADATA = "metadata"
    READY = "ready"
    CONFIGURATION = "configuration"
    STATISTICS = "statistics"
    TRACE_SETTING = "trace setting"
    INFER = "infer"
    NOTHING = "nothing"
    """No server has anything there."""

    @property
    def method(self) -> str:
        """How it is asked for. HEAD does where GET does."""
        return "POST" if self is ModelOperation.INFER else "GET"


_ASKED: Final = {
    (): ModelOperation.METADATA,
    ("ready",): ModelOperation.READY,
    ("config",): ModelOperation.CONFIGURATION,
    ("stats",): ModelOperation.STATISTICS,
    ("infer",): ModelOperation.INFER,
}
_ASKED_OF_ALL_VERSIONS: Final = {**_ASKED, ("trace", "setting"): ModelOperation.TRACE_SETTING}


@dataclass(frozen=True, slots=True)
class ModelPath:
    """What a path under `/v2/models/` names."""

    key: ModelKey
    version: str | None
    asked: ModelOperation


def parse_path(namespace: str, raw_path: str) -> ModelPath | None:
    """The model that a path names, if any.

    Args:
        namespace: the path's, or the default one.
        raw_path: the path as it came over the wire: from `/v2` on, or from the namespace on, as what found no replica of a usual
            request's backend.

    Raises:
        Invalid: it has percent-encoding, for which no name has a use.
    """
    if "%" in raw_path:
        # HAProxy, which counts and bounds, takes a model written as `%6d` for another than the one called `m`.
        raise Invalid("PercentEncoded", f"write the path as it is, without percent-encoding: {raw_path}")
    parts = raw_path.split("/")
    if parts[1:3] == [namespace, "v2"]:
        del parts[1]
    if parts[:3] != ["", "v2", "models"] or len(parts) < 4 or not parts[3]:  # noqa: PLR2004 -- a model's name is fourth
        return None
    version = parts[5] if len(parts) > 5 and parts[4] == "versions" else None  # noqa: PLR2004 -- and a version sixth
    if version is None:
        asked = _ASKED_OF_ALL_VERSIONS.get(tuple(parts[4:]), ModelOperation.NOTHING)
    else:
        asked = _ASKED.get(tuple(parts[6:]), ModelOperation.NOTHING)
    return ModelPath((namespace, parts[3]), version, asked)
