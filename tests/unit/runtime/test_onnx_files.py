"""The files that an ONNX file names are found wherever ONNX can keep a tensor, as its own library finds them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import set_external_data
from tests.telling import telling

from penstock.errors import Invalid
from penstock_runtime.onnx_files import external_files


def tensor(location: str = "", name: str = "w") -> TensorProto:
    made = numpy_helper.from_array(np.zeros(4, np.float32), name)
    if location:
        set_external_data(made, location)
        made.ClearField("raw_data")
    return made


def value(name: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [4])


def graph(*nodes: onnx.NodeProto, initializers: tuple[TensorProto, ...] = ()) -> onnx.GraphProto:
    return helper.make_graph(list(nodes), "g", [value("x")], [value("y")], list(initializers))


def model(of: onnx.GraphProto) -> onnx.ModelProto:
    return helper.make_model(of)


def an_initializer() -> onnx.ModelProto:
    return model(graph(initializers=(tensor("w.bin"),)))


def a_constant() -> onnx.ModelProto:
    return model(graph(helper.make_node("Constant", [], ["y"], value=tensor("w.bin"))))


def tensors_of_an_operator() -> onnx.ModelProto:
    node = helper.make_node("Custom", [], ["y"])
    node.attribute.append(helper.make_attribute("many", [tensor(), tensor("w.bin")]))
    return model(graph(node))


def both_branches() -> onnx.ModelProto:
    branches = {
        each: graph(helper.make_node("Constant", [], ["y"], value=tensor(f"{each}.bin")))
        for each in ("then_branch", "else_branch")
    }
    return model(graph(helper.make_node("If", ["x"], ["y"], **branches)))


def a_graph_five_deep() -> onnx.ModelProto:
    inner = graph(initializers=(tensor("w.bin"),))
    for _ in range(5):
        inner = graph(helper.make_node("Loop", ["x"], ["y"], body=inner))
    return model(inner)


def a_function() -> onnx.ModelProto:
    made = model(graph())
    node = helper.make_node("Constant", [], ["y"], value=tensor("w.bin"))
    made.functions.append(helper.make_function("own", "F", [], ["y"], [node], [helper.make_opsetid("", 17)]))
    return made


def a_sparse_tensor() -> onnx.ModelProto:
    made = graph()
    indices = numpy_helper.from_array(np.arange(4, dtype=np.int64), "i")
    made.sparse_initializer.append(helper.make_sparse_tensor(tensor("w.bin"), indices, [9]))
    return model(made)


def training() -> onnx.ModelProto:
    made = model(graph())
    made.training_info.add().initialization.CopyFrom(graph(initializers=(tensor("w.bin"),)))
    return made


def compiled(embed: int) -> onnx.ModelProto:
    node = helper.make_node(
        "EPContext", ["x"], ["y"], domain="com.microsoft", embed_mode=embed, ep_cache_context="c.bin"
    )
    return model(graph(node))


def two_tensors_in_one() -> onnx.ModelProto:
    return model(graph(initializers=(tensor("./b/w.bin", "a"), tensor("b/w.bin", "b"), tensor("a.bin", "c"))))


def entries_left_over() -> onnx.ModelProto:
    left = tensor("w.bin")
    left.data_location = TensorProto.DEFAULT
    return model(graph(initializers=(left,)))


@pytest.mark.parametrize(
    ("made", "names"),
    [
        (an_initializer, ("w.bin",)),
        (a_constant, ("w.bin",)),
        (tensors_of_an_operator, ("w.bin",)),
        (both_branches, ("else_branch.bin", "then_branch.bin")),
        (a_graph_five_deep, ("w.bin",)),
        (a_function, ("w.bin",)),
        (a_sparse_tensor, ("w.bin",)),
        (training, ("w.bin",)),
        (two_tensors_in_one, ("a.bin", "b/w.bin")),
        (lambda: compiled(0), ("c.bin",)),
        (lambda: compiled(1), ()),
        (entries_left_over, ()),
        (lambda: model(graph(initializers=(tensor(),))), ()),
    ],
    ids=[
        "in an initializer", "in a constant", "in a list of tensors", "in both branches of a condition",
        "five graphs deep", "in a function", "in a sparse tensor", "in what trains",
        "two tensors in one file, and another", "what was compiled, in a file of its own", "what was compiled, embedded",
        "entries of a tensor that holds its numbers itself", "none",
    ],
)  # fmt: skip
def test_files_are_found(tmp_path: Path, made: Callable[[], onnx.ModelProto], names: tuple[str, ...]) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(made().SerializeToString())
    assert external_files(path) == names


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../w.bin", "a/../../w.bin", "", ".", "a\nb", "a\\b", "x" * 2000], ids=repr
)
def test_a_name_that_leads_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "model.onnx"
    made = model(graph(initializers=(tensor("w.bin"),)))
    for entry in made.graph.initializer[0].external_data:
        entry.value = name if entry.key == "location" else entry.value
    path.write_bytes(made.SerializeToString())
    with pytest.raises(Invalid, match=telling("folder path")):
        external_files(path)


def twice_the_same_attribute(whole: bytes) -> bytes:
    """`t` of an attribute in two parts, which protobuf would join."""
    attribute = helper.make_attribute("value", tensor("w.bin")).SerializeToString()
    part = TensorProto(data_location=TensorProto.EXTERNAL).SerializeToString()
    attribute += bytes([5 << 3 | 2, len(part)]) + part
    node = bytes([5 << 3 | 2, len(attribute)]) + attribute
    inner = bytes([1 << 3 | 2, len(node)]) + node
    return whole + bytes([7 << 3 | 2, len(inner)]) + inner


@pytest.mark.parametrize(
    "damage",
    [lambda whole: whole[:-1], lambda whole: whole + b"\x3b", lambda _: b"\xff" * 40, twice_the_same_attribute],
    ids=["cut off", "a group", "a number without end", "a tensor in two parts"],
)
def test_what_protobuf_might_read_otherwise_is_refused(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(damage(an_initializer().SerializeToString()))
    with pytest.raises(Invalid, match=telling("model.onnx ONNX")):
        external_files(path)


@pytest.mark.parametrize(
    ("content", "facts"),
    [
        pytest.param(b"", "model.onnx empty again", id="nothing"),
        pytest.param(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "Git LFS pull", id="a pointer of Git LFS"),
    ],
)  # fmt: skip
def test_what_stands_in_a_models_place_is_named(tmp_path: Path, content: bytes, facts: str) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(Invalid, match=telling(facts)):
        external_files(path)


def nested(depth: int, names: list[str]) -> onnx.GraphProto:
    tensors = tuple(tensor(each, f"t{index}") for index, each in enumerate(names))
    if not depth:
        return graph(initializers=tensors)
    half = len(tensors) // 2
    node = helper.make_node("Loop", ["x"], ["y"], body=nested(depth - 1, names[half:]))
    return graph(node, initializers=tensors[:half])


@settings(max_examples=60)
@given(
    depth=st.integers(0, 6),
    names=st.lists(st.text("abcdé.-_/ ", min_size=1, max_size=12).filter(lambda n: not set(n) <= {".", "/"} and n[0] != "/" and ".." not in n), max_size=9),
    padding=st.integers(0, 600_000),
)  # fmt: skip
def test_any_nesting_of_any_names_is_found(
    tmp_path_factory: pytest.TempPathFactory, depth: int, names: list[str], padding: int
) -> None:
    made = model(nested(depth, names))
    made.doc_string = "d" * padding
    path = tmp_path_factory.mktemp("m") / "model.onnx"
    path.write_bytes(made.SerializeToString())
    assert external_files(path) == tuple(sorted({Path(each).as_posix() for each in names}))


@settings(max_examples=200)
@given(st.binary(max_size=200))
def test_no_bytes_break_it(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("m") / "model.onnx"
    path.write_bytes(content)
    try:
        external_files(path)
    except Invalid as error:
        assert "model.onnx" in error.message  # noqa: PT017 -- either is right
