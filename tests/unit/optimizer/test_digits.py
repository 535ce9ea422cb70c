"""The digits model: training, export, manifest, cache."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file
from tests.telling import telling

from penstock.errors import Invalid
from penstock.serving.manifest import DataType, TensorSpec
from penstock_optimizer import artifact as artifacts
from penstock_optimizer.artifact import DigitsArtifact, Split, digits_artifact
from penstock_optimizer.building import export
from penstock_optimizer.digits import Training, accuracy, build, network, split, train

SHORT = Training(epochs=4)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> DigitsArtifact:
    return build(tmp_path_factory.mktemp("cache"), SHORT)


def test_the_parts_share_no_image(built: DigitsArtifact) -> None:
    data = {part: built.images(part) for part in Split}
    assert {part: len(images.images) for part, images in data.items()} == {
        Split.TRAIN: 847,
        Split.CALIBRATION: 100,
        Split.VALIDATION: 150,
        Split.TEST: 700,
    }
    # The data set itself has no two equal images.
    assert len({row.tobytes() for images in data.values() for row in images.images}) == 1797
    assert (np.bincount(data[Split.TEST].labels) > 60).all()


def test_the_onnx_model_and_the_weights_compute_the_same(built: DigitsArtifact) -> None:
    model = network().eval()
    model.load_state_dict(load_file(built.weights_file))
    session = onnxruntime.InferenceSession(str(built.model_folder / "model.onnx"))
    images = built.test_images().images
    for rows in (images[:1], images[:3], images):
        (got,) = session.run(None, {"image": rows})
        with torch.no_grad():
            np.testing.assert_allclose(got, model(torch.from_numpy(rows)).numpy(), rtol=1e-4, atol=1e-4)


def test_it_learns(built: DigitsArtifact) -> None:
    model = network().eval()
    model.load_state_dict(load_file(built.weights_file))
    assert accuracy(model, built.test_images()) > 0.9
    assert float(built.manifest().annotations["penstock.dev/held-out-accuracy"]) > 0.9


def test_the_same_seed_gives_the_same_weights() -> None:
    data = split(SHORT)[Split.CALIBRATION]
    first, second = (train(data, Training(epochs=1)).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_manifest_covers_every_byte(built: DigitsArtifact) -> None:
    manifest = built.manifest()
    assert set(manifest.files) == {p.name for p in built.model_folder.iterdir()} - {"manifest.json"}
    for name, entry in manifest.files.items():
        body = (built.model_folder / name).read_bytes()
        assert (hashlib.sha256(body).hexdigest(), len(body)) == (entry.sha256, entry.size_bytes)
    assert manifest.signature.inputs == (TensorSpec(name="image", datatype=DataType.FP32, shape=(-1, 1, 8, 8)),)
    assert manifest.signature.outputs == (TensorSpec(name="logits", datatype=DataType.FP32, shape=(-1, 10)),)


def test_the_manifest_is_camel_case_json(built: DigitsArtifact) -> None:
    raw = json.loads((built.model_folder / "manifest.json").read_text())
    assert raw["apiVersion"] == "penstock.dev/v1alpha1"
    assert raw["files"]["model.onnx"]["sizeBytes"] > 0


def test_what_the_cache_has_is_not_built_again(built: DigitsArtifact) -> None:
    cache = built.root.parent
    before = (built.model_folder / "model.onnx").stat().st_mtime_ns
    assert build(cache) == built
    assert (built.model_folder / "model.onnx").stat().st_mtime_ns == before
    assert [p.name for p in cache.iterdir()] == [built.root.name], "no scratch folder is left"


@pytest.mark.parametrize(
    ("sources", "versions", "same"),
    [
        pytest.param({"a.py": b"1"}, {"torch": "1"}, True, id="the same code and libraries have the same key"),
        pytest.param({"a.py": b"2"}, {"torch": "1"}, False, id="other code has another key"),
        pytest.param({"a.py": b"1"}, {"torch": "2"}, False, id="another torch has another key"),
    ],
)
def test_cache_keys(sources: dict[str, bytes], versions: dict[str, str], same: bool) -> None:  # noqa: FBT001 (a table)
    assert (artifacts._key(sources, versions) == artifacts._key({"a.py": b"1"}, {"torch": "1"})) is same


def test_half_an_artifact_is_none(tmp_path: Path) -> None:
    artifact = digits_artifact(tmp_path)
    assert not artifact.exists()
    artifact.model_folder.mkdir(parents=True)
    (artifact.model_folder / "manifest.json").write_text("{}")
    assert not artifact.exists()


def test_an_export_that_differs_is_refused(built: DigitsArtifact) -> None:
    session = onnxruntime.InferenceSession(str(built.model_folder / "model.onnx"))
    other = train(split(SHORT)[Split.CALIBRATION], Training(epochs=1, seed=7))
    images = torch.from_numpy(built.test_images().images[:4])
    request = export.ExportRequest("digits", other, images, "image", "logits", {})
    with pytest.raises(Invalid, match=telling("differ torch's")):
        export._check_equal(request, other, session)
