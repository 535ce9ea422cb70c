"""What an ONNX model takes and gives, as the Open Inference Protocol can carry it."""

from __future__ import annotations

from typing import Any, Final

import onnxruntime as ort

from penstock.api.conditions import Reason
from penstock.errors import Invalid
from penstock.serving.manifest import DataType, Signature, TensorSpec
from penstock_runtime.engines import onnx_graph

_DATATYPES: Final = {
    "tensor(bool)": DataType.BOOL,
    "tensor(uint8)": DataType.UINT8,
    "tensor(uint16)": DataType.UINT16,
    "tensor(uint32)": DataType.UINT32,
    "tensor(uint64)": DataType.UINT64,
    "tensor(int8)": DataType.INT8,
    "tensor(int16)": DataType.INT16,
    "tensor(int32)": DataType.INT32,
    "tensor(int64)": DataType.INT64,
    "tensor(float16)": DataType.FP16,
    "tensor(bfloat16)": DataType.BF16,
    "tensor(float)": DataType.FP32,
    "tensor(double)": DataType.FP64,
    "tensor(string)": DataType.BYTES,
}
_OPTIONAL: Final = "optional("
_MAPS: Final = ("seq(map(string,tensor(float)))", "seq(map(int64,tensor(float)))")
"""What a ZipMap gives."""


def onnx_signature(session: ort.InferenceSession, stated: onnx_graph.Stated) -> Signature:
    """What a loaded model takes and gives.

    Args:
        session: the model.
        stated: what its file says, where the session does not tell enough: a scalar and a tensor that states no rank look
            the same there.

    Raises:
        Invalid: ModelInvalid: a tensor is of a kind that cannot be served, and what to do.
    """
    inputs, outputs = session.get_inputs(), session.get_outputs()
    own = session.get_overridable_initializers()
    absent = [node for node in inputs if node.type.startswith(_OPTIONAL)]
    return Signature(
        inputs=tuple(_spec(node, "input", stated) for node in inputs if node not in absent),
        outputs=tuple(_output(node, stated) for node in outputs),
        optional=tuple(_spec(node, "input", stated) for node in (*absent, *own)),
    )


def _output(node: Any, stated: onnx_graph.Stated) -> TensorSpec:
    if node.type not in _MAPS:
        return _spec(node, "output", stated)
    classes = stated.classes.get(node.name)
    if not classes:
        raise _not_carried("output", node)
    return TensorSpec(name=node.name, datatype=DataType.FP32, shape=(-1, len(classes)), classes=classes)


def _spec(node: Any, what: str, stated: onnx_graph.Stated) -> TensorSpec:
    kind, may_lack = node.type, False
    if what == "input" and kind.startswith(_OPTIONAL):
        kind, may_lack = kind.removeprefix(_OPTIONAL)[:-1], True
    datatype = _DATATYPES.get(kind)
    if datatype is None:
        raise _not_carried(what, node)
    shape = tuple(axis if isinstance(axis, int) and axis >= 0 else -1 for axis in node.shape)
    any_rank = not shape and (may_lack or node.name in stated.without_rank)
    return TensorSpec(name=node.name, datatype=datatype, shape=shape, any_rank=any_rank)


def _not_carried(what: str, node: Any) -> Invalid:
    if node.type.startswith("seq(map("):
        help_ = "export it as a tensor; scikit-learn's converter does so with options={id(model): {'zipmap': False}}"
    elif node.type.startswith("map("):
        help_ = "export it as a tensor, with a column for each key"
    elif node.type.startswith(("seq(", "optional(seq(")):
        help_ = "export it as one tensor (torch.stack or torch.cat; ConcatFromSequence in the graph)"
    elif node.type.startswith(_OPTIONAL):
        help_ = "export it as a tensor that is always there"
    else:
        help_ = "export it as a dense tensor of another type"
    return Invalid(
        Reason.MODEL_INVALID,
        f"{what} '{node.name}' is a {node.type}, which the Open Inference Protocol cannot carry: {help_}",
    )
