"""Formats are told from what a file holds, and pickles are refused, whatever the file is called."""

from __future__ import annotations

import json
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from onnx import TensorProto, helper, save_model

from penstock.errors import Invalid
from penstock.serving.manifest import ModelFormat
from penstock_optimizer.sources.detect import detect, locate


def write_onnx(path: Path) -> None:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 2])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 2])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "relu", [value], [result])
    save_model(helper.make_model(graph), str(path))


def write_safetensors(path: Path) -> None:
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))


def archive(*names: str, body: bytes = b"pt2") -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as file:
            for name in names:
                file.writestr(name, body)

    return write


def content(body: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_bytes(body)

    return write


@pytest.mark.parametrize(
    ("write", "wanted"),
    [
        pytest.param(write_onnx, ModelFormat.ONNX, id="a ModelProto is ONNX"),
        pytest.param(write_safetensors, ModelFormat.SAFETENSORS, id="a length and a JSON header are safetensors"),
        pytest.param(archive("m/archive_format", "m/models/model.json"), ModelFormat.TORCH_EXPORT, id="pt2 says so"),
        pytest.param(
            archive("m/data.pkl", "m/constants.pkl", "m/code/__torch__.py"),
            ModelFormat.TORCHSCRIPT,
            id="a pickle's archive with code is TorchScript",
        ),
    ],
)
def test_the_content_tells_the_format(tmp_path: Path, write: Callable[[Path], None], wanted: ModelFormat) -> None:
    path = tmp_path / "model.bin"
    write(path)
    assert detect(path) is wanted


@pytest.mark.parametrize(
    ("write", "reason", "told"),
    [
        pytest.param(
            archive("m/data.pkl", "m/data/0"), "PickleRefused", "save_file", id="torch.save's archive is a pickle"
        ),
        pytest.param(content(pickle.dumps({"w": 1})), "PickleRefused", "safetensors", id="a bare pickle is refused"),
        pytest.param(
            content(pickle.dumps({"w": [1, 2, 3]}, protocol=0)),
            "PickleRefused",
            "run whatever",
            id="so is a textual one",
        ),
        pytest.param(
            archive("serialized_exported_program.json"),
            "PickleRefused",
            "newer torch",
            id="so is an export of before 2.8",
        ),
        pytest.param(content(b"\x1c\0\0\0TFL3" + bytes(40)), "ModelInvalid", "LiteRT", id="LiteRT is no source"),
        pytest.param(content(b"<?xml version='1.0'?><net/>"), "ModelInvalid", "OpenVINO", id="OpenVINO is no source"),
        pytest.param(content(bytes(100)), "ModelInvalid", "neither", id="zeros are nothing"),
        pytest.param(content(b""), "ModelInvalid", "neither", id="an empty file is nothing"),
    ],
)
def test_what_cannot_be_optimized_is_refused_with_advice(
    tmp_path: Path, write: Callable[[Path], None], reason: str, told: str
) -> None:
    path = tmp_path / "model.onnx"
    write(path)
    with pytest.raises(Invalid) as caught:
        detect(path)
    assert caught.value.reason == reason
    assert told in caught.value.message


def test_a_folder_with_one_model_is_that_model(tmp_path: Path) -> None:
    write_onnx(tmp_path / "net.onnx")
    assert locate(tmp_path) == tmp_path / "net.onnx"


def test_a_folder_with_two_models_is_ambiguous(tmp_path: Path) -> None:
    write_onnx(tmp_path / "a.onnx")
    write_onnx(tmp_path / "b.onnx")
    with pytest.raises(Invalid, match=r"a\.onnx, b\.onnx"):
        locate(tmp_path)


def test_a_manifest_cannot_name_a_file_outside_its_folder(tmp_path: Path) -> None:
    write_onnx(tmp_path / "outside.onnx")
    folder = tmp_path / "model"
    folder.mkdir()
    manifest = {"name": "m", "entrypoint": "../outside.onnx", "signature": {"inputs": [], "outputs": []}, "files": {}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(Invalid, match="not there"):
        locate(folder)
