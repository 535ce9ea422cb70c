"""What ONNX Runtime is given and gives that is no plain tensor of numbers with a stated shape."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tests.telling import telling

from penstock.api.conditions import Reason
from penstock.errors import Invalid
from penstock.optimization.recipes import EngineName, EngineSettings
from penstock.protocol.refusals import status_of
from penstock.serving.manifest import DataType, TensorSpec
from penstock_optimizer.sources.onnx import load
from penstock_runtime.engines import Engine, load_engine

FLOAT, STRING, INT64 = TensorProto.FLOAT, TensorProto.STRING, TensorProto.INT64
CLASSES = ["cat", "dog", "\u732b"]
value = helper.make_tensor_value_info


def engine(folder: Path, nodes: list[Any], inputs: list[Any], outputs: list[Any], *constants: Any) -> Engine:
    graph = helper.make_graph(nodes, "test", inputs, outputs, list(constants))
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), str(folder / "model.onnx"))
    return load_engine(folder / "model.onnx", EngineSettings(name=EngineName.ONNX_RUNTIME, threads=1))


def relu(folder: Path, shape: list[int | str] | None) -> Engine:
    return engine(
        folder, [helper.make_node("Relu", ["x"], ["y"])], [value("x", FLOAT, shape)], [value("y", FLOAT, shape)]
    )


def test_a_tensor_that_states_no_shape_takes_any_and_a_scalar_is_none(tmp_path: Path) -> None:
    found = relu(tmp_path, None)
    assert found.signature.inputs == (TensorSpec(name="x", datatype=DataType.FP32, shape=(), any_rank=True),)
    assert found.signature.outputs[0].any_rank
    for shape in ((), (3,), (2, 2), (1, 0, 2)):
        assert found.run({"x": np.full(shape, -1, np.float32)})["y"].tolist() == np.zeros(shape).tolist()
    scalar = relu(tmp_path, [])
    assert scalar.signature.inputs == (TensorSpec(name="x", datatype=DataType.FP32, shape=()),)


def test_a_shape_that_an_operator_refuses_is_the_callers_error_where_the_model_states_none(tmp_path: Path) -> None:
    found = engine(
        tmp_path,
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        [value("x", FLOAT, None)],
        [value("y", FLOAT, None)],
        numpy_helper.from_array(np.ones((4, 2), np.float32), "w"),
    )
    assert found.run({"x": np.ones((3, 4), np.float32)})["y"].shape == (3, 2)
    with pytest.raises(Invalid, match=telling("model input MatMul")) as caught:
        found.run({"x": np.ones((3, 5), np.float32)})
    assert status_of(caught.value) == 400


def test_axes_of_one_name_that_differ_are_the_callers_error_where_the_model_fails(tmp_path: Path) -> None:
    found = engine(
        tmp_path,
        [helper.make_node("Add", ["x", "z"], ["y"])],
        [value("x", FLOAT, ["n", 2]), value("z", FLOAT, ["n", 2])],
        [value("y", FLOAT, ["n", 2])],
    )
    two, three = np.ones((2, 2), np.float32), np.ones((3, 2), np.float32)
    with pytest.raises(Invalid, match=telling("'z' 3 axis 'n' 'x' 2")) as caught:
        found.run({"x": two, "z": three})
    assert status_of(caught.value) == 400
    assert found.run({"x": two, "z": three[:1]})["y"].tolist() == [[2, 2], [2, 2]], "it broadcasts, so it is let be"


def test_an_id_past_the_table_is_the_callers_error_and_nothing_is_written_of_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    found = engine(
        tmp_path,
        [helper.make_node("Gather", ["w", "x"], ["y"])],
        [value("x", INT64, ["n"])],
        [value("y", FLOAT, ["n"])],
        numpy_helper.from_array(np.ones(2, np.float32), "w"),
    )
    with pytest.raises(Invalid, match=telling("model input bounds")) as caught:
        found.run({"x": np.array([7])})
    assert status_of(caught.value) == 400
    assert "indices" not in capfd.readouterr().err


def test_an_output_of_another_shape_than_declared_is_answered_without_a_line_for_each_request(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    found = engine(
        tmp_path, [helper.make_node("NonZero", ["x"], ["y"])], [value("x", FLOAT, ["n"])], [value("y", INT64, [1, 2])]
    )
    for _ in range(3):
        assert found.run({"x": np.ones(5, np.float32)})["y"].shape == (1, 5)
    assert capfd.readouterr().err.count("\n") <= 1


def test_initializers_that_are_inputs_too_may_be_left_out_or_given(tmp_path: Path) -> None:
    found = engine(
        tmp_path,
        [helper.make_node("Mul", ["x", "scale"], ["y"])],
        [value("x", FLOAT, ["n", 2]), value("scale", FLOAT, [2])],
        [value("y", FLOAT, ["n", 2])],
        numpy_helper.from_array(np.ones(2, np.float32), "scale"),
    )
    assert [spec.name for spec in found.signature.inputs] == ["x"]
    assert found.signature.optional == (TensorSpec(name="scale", datatype=DataType.FP32, shape=(2,)),)
    x = np.ones((1, 2), np.float32)
    assert found.run({"x": x})["y"].tolist() == [[1, 1]]
    assert found.run({"x": x, "scale": np.array([3, 4], np.float32)})["y"].tolist() == [[3, 4]]
    assert found.run({"x": x})["y"].tolist() == [[1, 1]], "one request's value is not the next one's"


def test_an_optional_input_may_be_left_out(tmp_path: Path) -> None:
    kind = helper.make_optional_type_proto(helper.make_tensor_type_proto(FLOAT, ["n"]))
    found = engine(
        tmp_path,
        [helper.make_node("OptionalHasElement", ["x"], ["y"])],
        [helper.make_value_info("x", kind), value("z", FLOAT, [1])],
        [value("y", TensorProto.BOOL, [])],
    )
    z = np.zeros(1, np.float32)
    assert [spec.name for spec in found.signature.optional] == ["x"]
    assert not found.run({"z": z})["y"]
    assert found.run({"z": z, "x": z})["y"]


@pytest.mark.parametrize("numbered", [False, True], ids=["classes are strings", "classes are numbers"])
def test_maps_of_classes_become_a_matrix_whose_columns_are_named(tmp_path: Path, *, numbered: bool) -> None:
    classes: list[Any] = [7, -3, 0] if numbered else CLASSES
    key = "classlabels_int64s" if numbered else "classlabels_strings"
    maps = helper.make_map_type_proto(INT64 if numbered else STRING, helper.make_tensor_type_proto(FLOAT, None))
    found = engine(
        tmp_path,
        [helper.make_node("ZipMap", ["x"], ["p"], domain="ai.onnx.ml", **{key: classes})],
        [value("x", FLOAT, ["n", 3])],
        [helper.make_value_info("p", helper.make_sequence_type_proto(maps))],
    )
    (spec,) = found.signature.outputs
    assert (spec.datatype, spec.shape, list(spec.classes)) == (DataType.FP32, (-1, 3), classes)
    for rows in (2, 0):
        x = np.arange(3 * rows, dtype=np.float32).reshape(rows, 3)
        p = found.run({"x": x})["p"]
        assert (p.dtype, p.shape, p.tolist()) == (np.float32, (rows, 3), x.tolist())


def tensors() -> Any:
    return helper.make_sequence_type_proto(helper.make_tensor_type_proto(FLOAT, None))


def test_sequences_are_refused_saying_what_to_export(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=telling("output 'y' seq(tensor(float)) torch.stack")) as caught:
        engine(
            tmp_path,
            [helper.make_node("SplitToSequence", ["x"], ["y"])],
            [value("x", FLOAT, ["n", 2])],
            [helper.make_value_info("y", tensors())],
        )
    assert caught.value.reason == Reason.MODEL_INVALID
    with pytest.raises(Invalid, match=telling("input 'x' seq(tensor(float)) one tensor")):
        engine(
            tmp_path,
            [helper.make_node("ConcatFromSequence", ["x"], ["y"], axis=0)],
            [helper.make_value_info("x", tensors())],
            [value("y", FLOAT, None)],
        )


def test_a_map_as_input_is_refused_saying_what_to_export(tmp_path: Path) -> None:
    maps = helper.make_map_type_proto(STRING, helper.make_tensor_type_proto(FLOAT, None))
    with pytest.raises(Invalid, match=telling("input 'x' map( tensor column key")):
        engine(
            tmp_path,
            [helper.make_node("DictVectorizer", ["x"], ["y"], domain="ai.onnx.ml", string_vocabulary=CLASSES)],
            [helper.make_value_info("x", maps)],
            [value("y", FLOAT, [1, 3])],
        )


def strings(folder: Path) -> Engine:
    return engine(
        folder, [helper.make_node("Identity", ["x"], ["y"])], [value("x", STRING, ["n"])], [value("y", STRING, ["n"])]
    )


def test_bytes_pass_where_they_are_text_and_are_refused_where_they_are_not(tmp_path: Path) -> None:
    found = strings(tmp_path)
    texts = [b"", b"a\0b", "Z\u00fcrich \u6f22 \U0001f600".encode()]
    given = np.array(texts, dtype=object)
    assert [each.encode() for each in found.run({"x": given})["y"]] == texts
    with pytest.raises(Invalid, match=telling("input 'x' UTF-8 base64 UINT8")) as caught:
        found.run({"x": np.array([b"ok", b"\xff\xd8"], dtype=object)})
    assert status_of(caught.value) == 400


def test_a_model_that_gives_bytes_that_are_no_text_is_told_so(tmp_path: Path) -> None:
    blob = onnx.TensorProto(name="w", data_type=STRING, dims=[1], string_data=[b"\xff\xd8"])
    found = engine(
        tmp_path,
        [helper.make_node("Identity", ["w"], ["y"])],
        [value("x", FLOAT, [1])],
        [value("y", STRING, [1])],
        blob,
    )
    with pytest.raises(Invalid, match=telling("output 'y' UTF-8")) as caught:
        found.run({"x": np.zeros(1, np.float32)})
    assert status_of(caught.value) == 406


@pytest.mark.parametrize(
    "kind",
    [FLOAT, TensorProto.BFLOAT16, TensorProto.FLOAT16, TensorProto.BOOL, INT64, STRING],
    ids=["FP32", "BF16", "FP16", "BOOL", "INT64", "BYTES"],
)
def test_tensors_without_elements_go_in_and_out(tmp_path: Path, kind: int) -> None:
    shape = ["n", 2]
    found = engine(
        tmp_path, [helper.make_node("Identity", ["x"], ["y"])], [value("x", kind, shape)], [value("y", kind, shape)]
    )
    dtype = {TensorProto.BFLOAT16: np.dtype(np.uint16), STRING: np.dtype(object)}.get(
        kind, helper.tensor_dtype_to_np_dtype(kind)
    )
    assert found.run({"x": np.empty((0, 2), dtype)})["y"].shape == (0, 2)


def test_a_locale_that_is_not_there_is_told_with_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=telling("locale xx_XX.UTF-8 localedef")) as caught:
        engine(
            tmp_path,
            [helper.make_node("StringNormalizer", ["x"], ["y"], case_change_action="LOWER", locale="xx_XX.UTF-8")],
            [value("x", STRING, ["n"])],
            [value("y", STRING, ["n"])],
        )
    assert caught.value.reason == Reason.ENGINE_UNAVAILABLE


@pytest.mark.parametrize("lacking", ["x", "y"], ids=["an input", "an output"])
def test_what_states_no_shape_is_not_called_invalid_by_profile_and_optimize(tmp_path: Path, lacking: str) -> None:
    shapes = {name: None if name == lacking else ["n"] for name in ("x", "y")}
    engine(
        tmp_path,
        [helper.make_node("Relu", ["x"], ["y"])],
        [value("x", FLOAT, shapes["x"])],
        [value("y", FLOAT, shapes["y"])],
    )
    with pytest.raises(Invalid, match=telling(f"'{lacking}' axes export")):
        load(tmp_path / "model.onnx")
