"""A model's configuration as JSON of Triton's `ModelConfig`, by which its clients learn how requests become batches."""

from __future__ import annotations

from typing import Any, Final

import orjson

from penstock.protocol.limits import DEFAULT_PRIORITY, LAST_PRIORITY
from penstock.serving.joining import Joining
from penstock.serving.manifest import DataType, Signature, TensorSpec
from penstock.serving.settings import BatchingSettings, CacheMode, InPlaceSettings

_NAMED_OTHERWISE: Final = {DataType.BYTES: "TYPE_STRING"}
_MICROSECONDS: Final = 1000


def model_configuration(
    names: tuple[str, str, str], signature: Signature, joining: Joining | None, settings: InPlaceSettings
) -> bytes:
    """The answer to `GET /v2/models/NAME/config`.

    `ModelConfig` has one way to say that requests are joined: along the first axis of every tensor, which `dims` then leave out.
    Of a model that is joined otherwise, or not at all, `max_batch_size` is 0 and `dims` are whole, so that they are true.

    Args:
        names: its own, its version's and its engine's platform's.
        signature: what it takes and gives.
        joining: along which axes requests are joined now; None: they are not.
        settings: as they are now.
    """
    model, version, platform = names
    first = _is_along_first_axes(signature, joining)
    configuration: dict[str, Any] = {
        "name": model,
        "platform": platform,
        "version_policy": {"specific": {"versions": [int(version)]}} if version.isdigit() else {"all": {}},
        "max_batch_size": settings.batching.max_batch_size if first else 0,
        "input": [_tensor(each, first=first) for each in signature.inputs]
        + [_tensor(each, first=first) | {"optional": True} for each in signature.optional],
        "output": [_tensor(each, first=first) for each in signature.outputs],
        "model_transaction_policy": {"decoupled": False},
        "response_cache": {"enable": settings.cache.mode is CacheMode.EXACT},
    }
    if first:
        configuration["dynamic_batching"] = _batching(settings.batching)
    return orjson.dumps(configuration)


def _is_along_first_axes(signature: Signature, joining: Joining | None) -> bool:
    if joining is None or joining.is_forbidden or signature.optional:
        return False
    inputs = all(joining.inputs.get(each.name) == 0 for each in signature.inputs)
    return inputs and all(joining.outputs.get(each.name) == 0 for each in signature.outputs)


def _tensor(spec: TensorSpec, *, first: bool) -> dict[str, Any]:
    described: dict[str, Any] = {
        "name": spec.name,
        "data_type": _NAMED_OTHERWISE.get(spec.datatype, f"TYPE_{spec.datatype.value}"),
    }
    # No number of axes is stated of such a tensor, and none can be said to be: metadata has a word for it.
    return described if spec.any_rank else described | {"dims": spec.shape[first:]}


def _batching(settings: BatchingSettings) -> dict[str, Any]:
    return {
        "max_queue_delay_microseconds": settings.max_delay_milliseconds * _MICROSECONDS,
        "priority_levels": LAST_PRIORITY,
        "default_priority_level": DEFAULT_PRIORITY,
        "default_queue_policy": {
            "timeout_action": "REJECT",
            "allow_timeout_override": True,
            "max_queue_size": settings.max_queued_requests,
        },
    }
