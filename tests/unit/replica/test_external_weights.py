"""Weights in files beside the model serve with it: they are in its digest, and nobody changes them under a replica that runs."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import openvino as ov
import pytest
from onnx import TensorProto, helper, numpy_helper
from tests.telling import telling

from penstock.api.conditions import Reason
from penstock.errors import Invalid, Unavailable
from penstock.serving.control import ReplicaSettings
from penstock.serving.manifest import ModelFormat, ModelManifest
from penstock.serving.mounts import CACHE_BYTES_VARIABLE, CACHE_VARIABLE
from penstock_runtime.digests import digest_of
from penstock_runtime.files import describe_file
from penstock_serving.replica.model import loading
from penstock_serving.replica.model.loading import LoadedModel, load

OPENVINO = ModelFormat.OPENVINO


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path_factory.mktemp("cache")))


def settings(path: Path, digest: str | None = None, model_format: ModelFormat = ModelFormat.ONNX) -> ReplicaSettings:
    return ReplicaSettings(
        namespace="default", model="sum", revision="r", replica_id="x", storage_uri=path.as_uri(), digest=digest,
        model_format=model_format,
    )  # fmt: skip


def save(folder: Path, number: float, location: str = "weights.bin") -> Path:
    """A model that adds a number, which lies in another file; `model.onnx` is the same whatever the number."""
    (folder / location).parent.mkdir(parents=True, exist_ok=True)
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"])], "sum",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", 4])],
        [numpy_helper.from_array(np.full((1, 4), number, np.float32), "w")],
    )  # fmt: skip
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save_model(made, folder / "model.onnx", save_as_external_data=True, location=location, size_threshold=0)
    return folder / "model.onnx"


def save_ir(folder: Path, number: float) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    x = ov.opset13.parameter([-1, 4], np.float32, name="x")
    made = ov.Model([ov.opset13.add(x, ov.opset13.constant(np.full((1, 4), number, np.float32)))], [x])
    ov.save_model(made, folder / "model.xml", compress_to_fp16=False)
    return folder / "model.xml"


def answer(loaded: LoadedModel) -> float:
    name = loaded.signature.inputs[0].name
    return float(next(iter(loaded.engine.run({name: np.zeros((1, 4), np.float32)}).values()))[0, 0])


def sha256(path: Path) -> str:
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


@pytest.mark.parametrize("location", ["weights.bin", "a b.bin", "data/weights.bin", "Z.bin", "é.bin"])
def test_the_digest_is_what_its_command_prints(tmp_path: Path, location: str) -> None:
    found = digest_of(save(tmp_path, 1, location), ModelFormat.ONNX)
    assert found.beside == (location,)
    command = found.command.replace(location, f"'{location}'")
    printed = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert found.value == f"sha256:{printed.stdout.split()[0]}"


def test_a_file_that_is_all_of_the_model_keeps_its_own_digest(tmp_path: Path) -> None:
    onnx.save_model(onnx.load(save(tmp_path, 1)), tmp_path / "whole.onnx")
    assert digest_of(tmp_path / "whole.onnx", ModelFormat.ONNX).value == sha256(tmp_path / "whole.onnx")


def test_other_weights_beside_the_same_file_are_another_model(tmp_path: Path) -> None:
    one, other = (load(settings(save(tmp_path / str(number), number))) for number in (1, 2))
    assert sha256(tmp_path / "1" / "model.onnx") == sha256(tmp_path / "2" / "model.onnx")
    assert (answer(one), answer(other)) == (1, 2)
    assert one.digest != other.digest


def test_a_digest_of_the_whole_is_enforced(tmp_path: Path) -> None:
    whole = load(settings(save(tmp_path, 1))).digest
    assert answer(load(settings(tmp_path, whole))) == 1
    save(tmp_path, 2)
    with pytest.raises(Invalid, match=whole) as caught:
        load(settings(tmp_path, whole))
    assert caught.value.reason == Reason.DIGEST_MISMATCH


def test_a_digest_of_the_onnx_alone_is_refused_with_the_one_to_pin(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    with pytest.raises(Invalid, match=telling("model.onnx alone weights.bin")) as caught:
        load(settings(tmp_path, sha256(path)))
    assert caught.value.reason == Reason.DIGEST_MISMATCH
    assert load(settings(tmp_path)).digest in caught.value.message


def a_missing_file(folder: Path) -> None:
    (folder / "weights.bin").unlink()


def a_link_out(folder: Path) -> None:
    (folder / "weights.bin").rename(folder.parent / "outside.bin")
    (folder / "weights.bin").symlink_to(folder.parent / "outside.bin")


def a_manifest_without_them(folder: Path) -> None:
    signature = load(settings(folder)).signature
    files = {"model.onnx": describe_file(folder / "model.onnx")}
    text = ModelManifest(name="sum", signature=signature, files=files).model_dump_json()
    (folder / "manifest.json").write_text(text)


@pytest.mark.parametrize(
    ("damage", "reason", "facts"),
    [
        (a_missing_file, Reason.MODEL_NOT_FOUND, "weights.bin missing"),
        (a_link_out, Reason.MODEL_INVALID, "weights.bin link folder"),
        (a_manifest_without_them, Reason.MODEL_INVALID, "manifest.json weights.bin"),
    ],
    ids=lambda value: value.__name__.replace("_", " ") if callable(value) else "",
)
def test_weights_that_cannot_be_vouched_for_are_refused(
    tmp_path: Path, damage: Callable[[Path], None], reason: Reason, facts: str
) -> None:
    folder = tmp_path / "model"
    save(folder, 1)
    damage(folder)
    with pytest.raises(Invalid, match=telling(facts)) as caught:
        load(settings(folder))
    assert caught.value.reason == reason


def with_manifest(path: Path) -> Path:
    signature = load(settings(path)).signature
    files = {name: describe_file(path.parent / name) for name in ("model.onnx", "weights.bin")}
    text = ModelManifest(name="sum", signature=signature, files=files).model_dump_json()
    (path.parent / "manifest.json").write_text(text)
    return path.parent


@pytest.mark.parametrize(
    ("saved", "model_format", "weights"),
    [
        (save, ModelFormat.ONNX, "weights.bin"),
        (lambda folder, number: with_manifest(save(folder, number)), ModelFormat.ONNX, "weights.bin"),
        (save_ir, OPENVINO, "model.bin"),
    ],
    ids=["an ONNX file", "a folder with a manifest", "OpenVINO's"],
)
def test_who_writes_into_the_weights_changes_no_answer_of_a_replica_that_runs(
    tmp_path: Path, saved: Callable[[Path, float], Path], model_format: ModelFormat, weights: str
) -> None:
    loaded = load(settings(saved(tmp_path / "model", 1), model_format=model_format))
    saved(tmp_path / "next", 100)
    with (tmp_path / "model" / weights).open("r+b") as file:
        file.write((tmp_path / "next" / weights).read_bytes())
    assert answer(loaded) == 1


def test_a_model_that_changes_while_it_is_loaded_is_loaded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx.save_model(onnx.load(save(tmp_path, 1)), tmp_path / "whole.onnx")
    real = loading.load_engine

    def replaced_meanwhile(*arguments: Any, **named: Any) -> Any:
        onnx.save_model(onnx.load(save(tmp_path, 2)), tmp_path / "whole.onnx")
        return real(*arguments, **named)

    monkeypatch.setattr(loading, "load_engine", replaced_meanwhile)
    with pytest.raises(Unavailable, match=telling("whole.onnx changed loaded")):
        load(settings(tmp_path / "whole.onnx"))


def test_the_copy_is_made_once_and_stays_within_the_bound_of_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (load(settings(save(tmp_path / name, 1).parent)) for name in ("a", "b"))
    assert first.held.path == second.held.path
    monkeypatch.setenv(CACHE_BYTES_VARIABLE, "10")
    with pytest.raises(Unavailable, match=r"cache\.maxBytes") as caught:
        load(settings(save(tmp_path / "c", 2).parent))
    assert caught.value.reason == Reason.CACHE_UNAVAILABLE
