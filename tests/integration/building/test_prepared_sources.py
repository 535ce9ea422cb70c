"""Models in each format become a source folder whose ONNX form computes what the model computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.telling import telling

from penstock.errors import Invalid
from penstock.optimization.variants import SourceRequest
from penstock.serving.manifest import ModelFormat
from penstock_optimizer.building.source import prepare
from penstock_optimizer.sources.examples import Examples
from penstock_optimizer.sources.torch_program import fill


def outputs(source: Path, feed: dict[str, Any]) -> Any:
    return onnxruntime.InferenceSession(str(source / "model.onnx")).run(None, feed)[0]


def rows(data: Path, count: int) -> dict[str, Any]:
    with np.load(data) as archive:
        return {name: archive[name][:count] for name in archive.files}


def test_a_module_of_two_inputs_becomes_onnx_with_its_names_and_a_free_batch(small: Any) -> None:
    signature = small.source.signature
    assert [(each.name, each.shape) for each in signature.inputs] == [("image", (-1, 1, 8, 8)), ("shift", (-1, 10))]
    assert [(each.name, each.shape) for each in signature.outputs] == [("scores", (-1, 10))]
    assert small.source.parameters == 8 * 9 + 8 + 2880 + 10
    assert set(small.source.files) >= {"model.onnx", "model.pt2", "model.safetensors"}


def test_a_source_that_did_not_change_is_taken_as_it_is(small: Any) -> None:
    before = (small.folder / "model.onnx").stat().st_mtime_ns
    again = prepare(small.request, small.folder, data=small.data, sandbox=True)
    assert again == small.source
    assert (small.folder / "model.onnx").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("change", "facts"),
    [
        pytest.param({"drop": "head.bias"}, "missing head.bias", id="a missing key is named"),
        pytest.param({"add": "extra"}, "unexpected extra", id="a key too many is named"),
    ],
)
def test_weights_that_do_not_fit_are_refused(small: Any, tmp_path: Path, change: dict[str, str], facts: str) -> None:
    weights = load_file(small.request.path)
    weights.pop(change.get("drop", ""), None)
    if "add" in change:
        weights[change["add"]] = torch.zeros(1)
    save_file(weights, tmp_path / "model.safetensors")
    request = small.request.model_copy(update={"path": str(tmp_path / "model.safetensors")})
    with pytest.raises(Invalid, match=telling(facts)):
        prepare(request, tmp_path / "source", data=small.data, sandbox=True)
    assert not (tmp_path / "source").exists()


def test_an_exported_program_computes_the_same(small: Any, tmp_path: Path) -> None:
    request = SourceRequest(path=str(small.folder / "model.pt2"))
    source = prepare(request, tmp_path / "source", data=small.data, sandbox=True)
    assert source.format is ModelFormat.TORCH_EXPORT
    feed = rows(small.data, 5)
    np.testing.assert_allclose(outputs(tmp_path / "source", feed), outputs(small.folder, feed), rtol=1e-4, atol=1e-4)


def test_how_to_give_an_example_is_said() -> None:
    with pytest.raises(Invalid, match=telling("'image' --data spec.model dataUri --shape image=3x224x224")):
        fill(torch.nn.Identity(), ["image"], 1, Examples())


def test_a_traced_module_computes_the_same(tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)).eval()
    example = torch.randn(5, 4)
    torch.jit.trace(module, example).save(str(tmp_path / "model.pt"))  # type: ignore[no-untyped-call]
    request = SourceRequest(path=str(tmp_path / "model.pt"), example_shapes={"features": (4,)})
    source = prepare(request, tmp_path / "source", data=None, sandbox=True)
    assert source.format is ModelFormat.TORCHSCRIPT
    assert source.signature.inputs[0].shape == (-1, 4)
    (name,) = (each.name for each in source.signature.inputs)
    found = outputs(tmp_path / "source", {name: example.numpy()})
    np.testing.assert_allclose(found, module(example).detach().numpy(), rtol=1e-4, atol=1e-5)


def test_a_program_with_a_pickled_constant_is_refused_unread(tmp_path: Path) -> None:
    import zipfile  # noqa: PLC0415 -- only here

    with zipfile.ZipFile(tmp_path / "model.pt2", "w") as archive:
        archive.writestr("model/archive_format", "pt2")
        archive.writestr("model/data/constants/opaque_obj_0", b"cos\nsystem\n(S'touch owned'\ntR.")
    with pytest.raises(Invalid) as caught:
        prepare(SourceRequest(path=str(tmp_path / "model.pt2")), tmp_path / "source", data=None, sandbox=True)
    assert caught.value.reason == "PickleRefused"


def test_onnx_with_a_fixed_batch_gets_a_free_one_where_it_can(small: Any, tmp_path: Path) -> None:
    model = onnx.load(str(small.folder / "model.onnx"))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].ClearField("dim_param")
        value.type.tensor_type.shape.dim[0].dim_value = 1
    del model.graph.value_info[:]
    onnx.save_model(model, str(tmp_path / "fixed.onnx"))
    source = prepare(SourceRequest(path=str(tmp_path / "fixed.onnx")), tmp_path / "source", data=None, sandbox=True)
    assert source.signature.inputs[0].shape[0] == -1


def test_an_import_path_that_fails_says_how(small: Any, tmp_path: Path) -> None:
    request = small.request.model_copy(update={"import_path": "small_network:absent"})
    with pytest.raises(Invalid, match="AttributeError"):
        prepare(request, tmp_path / "source", data=small.data, sandbox=True)


def test_a_shape_for_an_input_that_there_is_not_is_refused(small: Any, tmp_path: Path) -> None:
    request = SourceRequest(path=str(small.folder / "model.onnx"), example_shapes={"imgae": (1, 8, 8)})
    with pytest.raises(Invalid, match=telling("'imgae' inputs")):
        prepare(request, tmp_path / "source", data=None, sandbox=True)


def test_an_import_path_beside_a_whole_model_is_refused_and_not_passed_over(small: Any, tmp_path: Path) -> None:
    request = SourceRequest(path=str(small.folder / "model.onnx"), import_path="small_network:network")
    with pytest.raises(Invalid, match=telling("model.onnx small_network:network safetensors")):
        prepare(request, tmp_path / "source", data=None, sandbox=True)
