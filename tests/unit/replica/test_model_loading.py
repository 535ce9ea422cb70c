"""What is wrong with a model is said in words that a user can act on."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.integration.replica_process import save_linear
from tests.telling import assert_tells, telling

from penstock.api.conditions import Reason
from penstock.errors import Invalid
from penstock.serving.control import ReplicaSettings
from penstock.serving.manifest import DataType, ModelFile, ModelManifest, Signature, TensorSpec
from penstock_serving.replica.model.loading import load


def settings(uri: str, digest: str | None = None) -> ReplicaSettings:
    return ReplicaSettings(
        namespace="default", model="tiny", revision="r", replica_id="x", storage_uri=uri, digest=digest
    )


def spec(name: str, shape: tuple[int, ...], datatype: DataType = DataType.FP32) -> TensorSpec:
    return TensorSpec(name=name, datatype=datatype, shape=shape)


RIGHT = Signature(inputs=(spec("x", (-1, 64)),), outputs=(spec("y", (-1, 10)),))


def folder(path: Path, signature: Signature = RIGHT, entrypoint: str = "model.onnx") -> Path:
    """A model folder with a manifest."""
    model = save_linear(path / "model.onnx")
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    file = ModelFile(sha256=digest, size_bytes=model.stat().st_size)
    manifest = ModelManifest(name="tiny", entrypoint=entrypoint, signature=signature, files={"model.onnx": file})
    (path / "manifest.json").write_text(manifest.model_dump_json())
    return path


def test_a_lone_file_has_its_own_digest_and_the_engines_signature(tmp_path: Path) -> None:
    model = save_linear(tmp_path / "any name.onnx")
    loaded = load(settings(model.as_uri()))
    assert loaded.digest == f"sha256:{hashlib.sha256(model.read_bytes()).hexdigest()}"
    assert loaded.signature == RIGHT


def test_a_folder_with_a_manifest_has_the_manifests_digest(tmp_path: Path) -> None:
    folder(tmp_path)
    digest = f"sha256:{hashlib.sha256((tmp_path / 'manifest.json').read_bytes()).hexdigest()}"
    assert load(settings(tmp_path.as_uri(), digest)).digest == digest


def no_such_path(path: Path) -> str:
    return (path / "missing").as_uri()


def an_empty_folder(path: Path) -> str:
    return path.as_uri()


def two_models(path: Path) -> str:
    save_linear(path / "a.onnx")
    save_linear(path / "b.onnx")
    return path.as_uri()


def not_onnx(path: Path) -> str:
    (path / "model.onnx").write_bytes(b"not a model")
    return path.as_uri()


def a_broken_manifest(path: Path) -> str:
    (folder(path) / "manifest.json").write_text('{"name": 3}')
    return path.as_uri()


def an_entrypoint_not_listed(path: Path) -> str:
    return folder(path, entrypoint="other.onnx").as_uri()


def a_changed_file(path: Path) -> str:
    with (folder(path) / "model.onnx").open("ab") as file:
        file.write(b"x")
    return path.as_uri()


def a_missing_file(path: Path) -> str:
    (folder(path) / "model.onnx").unlink()
    return path.as_uri()


def a_file_outside_the_folder(path: Path) -> str:
    outside = save_linear(path / "model.onnx")
    inside = path / "inside"
    inside.mkdir()
    folder(inside)
    text = (inside / "manifest.json").read_text()
    (inside / "manifest.json").write_text(text.replace('"model.onnx"', f'"../{outside.name}"'))
    return inside.as_uri()


def another_input(path: Path) -> str:
    return folder(path, Signature(inputs=(spec("z", (-1, 64)),), outputs=RIGHT.outputs)).as_uri()


def another_datatype(path: Path) -> str:
    inputs = (spec("x", (-1, 64), DataType.INT64),)
    return folder(path, Signature(inputs=inputs, outputs=RIGHT.outputs)).as_uri()


def another_width(path: Path) -> str:
    return folder(path, Signature(inputs=(spec("x", (-1, 65)),), outputs=RIGHT.outputs)).as_uri()


def another_storage(_: Path) -> str:
    return "floppy://bucket/model"


@pytest.mark.parametrize(
    ("arrange", "reason", "facts"),
    [
        (no_such_path, Reason.MODEL_NOT_FOUND, "missing storageUri"),
        (an_empty_folder, Reason.MODEL_NOT_FOUND, "no .onnx"),
        (two_models, Reason.MODEL_NOT_FOUND, "2 .onnx"),
        (not_onnx, Reason.MODEL_INVALID, "model.onnx ONNX"),
        (a_broken_manifest, Reason.MODEL_INVALID, "manifest.json name string"),
        (an_entrypoint_not_listed, Reason.MODEL_INVALID, "'other.onnx' files"),
        (a_changed_file, Reason.DIGEST_MISMATCH, "model.onnx changed copied"),
        (a_missing_file, Reason.MODEL_NOT_FOUND, "manifest.json missing"),
        (a_file_outside_the_folder, Reason.MODEL_INVALID, "outside folder"),
        (another_input, Reason.MODEL_INVALID, "inputs ['z'] ['x']"),
        (another_datatype, Reason.MODEL_INVALID, "INT64[-1, 64] FP32[-1, 64]"),
        (another_width, Reason.MODEL_INVALID, "FP32[-1, 65] FP32[-1, 64]"),
        (another_storage, Reason.UNSUPPORTED_STORAGE, "floppy:// s3:// gs://"),
    ],
    ids=lambda value: value.__name__.replace("_", " ") if callable(value) else "",
)
def test_a_model_that_cannot_be_served_says_why(
    tmp_path: Path, arrange: Callable[[Path], str], reason: Reason, facts: str
) -> None:
    with pytest.raises(Invalid) as caught:
        load(settings(arrange(tmp_path)))
    assert caught.value.reason == reason
    assert_tells(caught.value.message, facts)


def test_another_digest_than_asked_for_is_refused_naming_both(tmp_path: Path) -> None:
    asked = "sha256:" + "0" * 64
    with pytest.raises(Invalid, match=asked) as caught:
        load(settings(folder(tmp_path).as_uri(), asked))
    assert caught.value.reason == Reason.DIGEST_MISMATCH


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file_is_not_found(tmp_path: Path) -> None:
    model = save_linear(tmp_path / "model.onnx")
    model.chmod(0)
    with pytest.raises(Invalid, match=telling("model.onnx read")):
        load(settings(model.as_uri()))
