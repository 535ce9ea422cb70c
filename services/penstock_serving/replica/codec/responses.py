"""Infer responses and the protocol's metadata documents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import orjson

from penstock.errors import Invalid
from penstock.protocol.datatypes import FLOATS, Array, array_to_bytes, array_to_json
from penstock.protocol.refusals import Refusal
from penstock.routing.leases import RequestsJoined
from penstock.serving.manifest import DataType, Signature, TensorSpec
from penstock_serving.replica.codec.requests import InferRequest, RequestedOutput

_NUMPY: Final = orjson.OPT_SERIALIZE_NUMPY


class ResponseEncoder:
    """Encodes answers of one version of one model."""

    def __init__(self, model: str, version: str) -> None:
        self._head = {"model_name": model, "model_version": version}

    def encode(self, request: InferRequest, arrays: Mapping[str, Array]) -> tuple[bytes, int | None]:
        """Encode an answer.

        Args:
            request: what was asked: id, outputs and their forms.
            arrays: every output by name, this request's rows only.

        Returns:
            The body, and the length of its JSON part where binary tensors follow, else None.

        Raises:
            Invalid: an output cannot be written as JSON; it can be had in binary form.
        """
        document: dict[str, Any] = dict(self._head)
        if request.id is not None:
            document["id"] = request.id
        outputs: list[dict[str, Any]] = []
        blobs: list[bytes] = []
        floats = False
        for output in request.outputs:
            array = arrays[output.name]
            item: dict[str, Any] = {"name": output.name, "datatype": output.datatype.value, "shape": array.shape}
            if output.binary:
                try:
                    blob = array_to_bytes(array, output.datatype)
                except UnicodeEncodeError as error:
                    raise unicode_error(output.name) from error
                item["parameters"] = {"binary_data_size": len(blob)}
                blobs.append(blob)
            else:
                item["data"] = _json_data(array, output)
                floats = floats or output.datatype in FLOATS
            outputs.append(item)
        document["outputs"] = outputs
        try:
            text = orjson.dumps(document, option=_NUMPY)
        except orjson.JSONEncodeError as error:
            # Nothing but half of a surrogate pair in a text can be at fault: the rest was made here.
            named = next(each.name for each in request.outputs if each.datatype is DataType.BYTES)
            raise _json_error(named, "text that is not Unicode") from error
        # orjson writes null for NaN and infinities; looking for it costs less than looking at every number.
        if floats and b"null" in text:
            _check_finite(outputs, request.outputs)
        if not blobs:
            return text, None
        return b"".join((text, *blobs)), len(text)


def _json_data(array: Array, output: RequestedOutput) -> Array | list[str]:
    try:
        return array_to_json(array, output.datatype)
    except UnicodeDecodeError as error:
        raise _json_error(output.name, "bytes that are not UTF-8") from error


def unicode_error(name: str) -> Invalid:
    """An error for an output whose text no bytes stand for."""
    return Invalid(
        Refusal.NOT_REPRESENTABLE,
        f"output '{name}' has text that is not Unicode: have the model give bytes as UINT8, or in base64",
    )


def _check_finite(items: list[dict[str, Any]], outputs: tuple[RequestedOutput, ...]) -> None:
    for item, output in zip(items, outputs, strict=True):
        if not output.binary and output.datatype in FLOATS and not np.isfinite(item["data"]).all():
            raise _json_error(output.name, "NaN or infinity")


def _json_error(name: str, what: str) -> Invalid:
    return Invalid(
        Refusal.NOT_REPRESENTABLE,
        f"output '{name}' has {what}, which JSON cannot hold: ask for it in binary form ('binary_data': true)",
    )


def model_metadata(model: str, version: str, platform: str, signature: Signature, joining: RequestsJoined) -> bytes:
    """The answer to `GET /v2/models/NAME`."""

    def tensors(specs: tuple[Any, ...]) -> list[dict[str, Any]]:
        return [_tensor_metadata(spec, optional=spec in signature.optional) for spec in specs]

    return orjson.dumps(
        {
            "name": model,
            "versions": [version],
            "platform": platform,
            "inputs": tensors((*signature.inputs, *signature.optional)),
            "outputs": tensors(signature.outputs),
            "parameters": {"requests_joined": joining.joined, "requests_joined_reason": joining.reason},
        }
    )


def _tensor_metadata(spec: TensorSpec, *, optional: bool) -> dict[str, Any]:
    """A tensor's entry; no shape is told of one that may have any number of axes, since the protocol has no word for it."""
    described: dict[str, Any] = {
        "name": spec.name,
        "datatype": spec.datatype.value,
        "shape": None if spec.any_rank else spec.shape,
    }
    parameters: dict[str, Any] = {}
    if spec.any_rank:
        parameters["any_rank"] = True
    if optional:
        parameters["optional"] = True
    if spec.classes:
        parameters["classes"] = spec.classes
    return described | {"parameters": parameters} if parameters else described


def model_readiness(model: str, *, ready: bool) -> bytes:
    """The answer to `GET /v2/models/NAME/ready`."""
    return orjson.dumps({"name": model, "ready": ready})
