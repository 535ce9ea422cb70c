"""A model's configuration, read as Triton's clients read it: as the message `ModelConfig` of its protocol."""

from __future__ import annotations

import json

import pytest
from google.protobuf.json_format import ParseDict
from tritonclient.grpc.model_config_pb2 import DataType as TritonType
from tritonclient.grpc.model_config_pb2 import ModelConfig

from penstock.serving.control import Reconfigure
from penstock.serving.joining import Joining
from penstock.serving.manifest import DataType, Signature, TensorSpec
from penstock.serving.settings import BatchingSettings, CacheMode, CacheSettings
from penstock_serving.replica.codec.configuration import model_configuration

ROWS = TensorSpec(name="x", datatype=DataType.FP32, shape=(-1, 64))
COLUMNS = TensorSpec(name="y", datatype=DataType.INT64, shape=(3, -1))
FLAG = TensorSpec(name="flag", datatype=DataType.BOOL, shape=(1,))
ANY = TensorSpec(name="any", datatype=DataType.FP32, shape=(), any_rank=True)
SETTINGS = Reconfigure(
    batching=BatchingSettings(max_batch_size=16, max_delay_milliseconds=3, max_queued_requests=100),
    cache=CacheSettings(mode=CacheMode.EXACT),
)


def read(signature: Signature, joining: Joining | None, settings: Reconfigure = SETTINGS) -> ModelConfig:
    text = model_configuration(("m", "7", "onnx_onnxv1"), signature, joining, settings)
    return ParseDict(json.loads(text), ModelConfig())


def test_a_model_whose_requests_are_joined_along_first_axes_says_so_as_triton_does() -> None:
    signature = Signature(inputs=(ROWS,), outputs=(ROWS.model_copy(update={"name": "y"}),))
    found = read(signature, Joining(inputs={"x": 0}, outputs={"y": 0}))
    assert (found.name, found.platform, list(found.version_policy.specific.versions)) == ("m", "onnx_onnxv1", [7])
    assert found.max_batch_size == 16
    assert [list(each.dims) for each in (*found.input, *found.output)] == [[64], [64]]
    batching = found.dynamic_batching
    assert (batching.max_queue_delay_microseconds, batching.default_queue_policy.max_queue_size) == (3000, 100)
    assert (batching.priority_levels, batching.default_priority_level) == (16, 8)
    assert found.response_cache.enable
    assert not found.model_transaction_policy.decoupled


ONE_EACH = Signature(inputs=(ROWS,), outputs=(COLUMNS,))


@pytest.mark.parametrize(
    ("signature", "joining"),
    [
        pytest.param(ONE_EACH, None, id="not joined"),
        pytest.param(ONE_EACH, Joining(), id="never to be joined"),
        pytest.param(ONE_EACH, Joining(inputs={"x": 0}, outputs={"y": 1}), id="joined along another axis"),
        pytest.param(
            Signature(inputs=(ROWS,), outputs=(COLUMNS,), optional=(FLAG,)),
            Joining(inputs={"x": 0}, outputs={"y": 0}),
            id="an input that has no rows",
        ),
    ],
)
def test_what_triton_has_no_word_for_is_told_as_whole_shapes(signature: Signature, joining: Joining | None) -> None:
    found = read(signature, joining, Reconfigure())
    assert (found.max_batch_size, found.HasField("dynamic_batching")) == (0, False)
    assert [list(each.dims) for each in (*found.input, *found.output)] == [
        list(each.shape) for each in (*signature.inputs, *signature.optional, *signature.outputs)
    ]
    assert [each.optional for each in found.input] == [False] + [True] * len(signature.optional)
    assert not found.response_cache.enable


def test_a_tensor_of_any_rank_has_no_dims_that_could_be_wrong() -> None:
    found = read(Signature(inputs=(ANY,), outputs=(ANY,)), None)
    assert [list(each.dims) for each in (*found.input, *found.output)] == [[], []]


@pytest.mark.parametrize("datatype", DataType)
def test_every_datatype_has_its_name_in_triton(datatype: DataType) -> None:
    spec = TensorSpec(name="x", datatype=datatype, shape=(1,))
    found = read(Signature(inputs=(spec,), outputs=(spec,)), None)
    wanted = "TYPE_STRING" if datatype is DataType.BYTES else f"TYPE_{datatype}"
    assert [TritonType.Name(each.data_type) for each in (*found.input, *found.output)] == [wanted] * 2
