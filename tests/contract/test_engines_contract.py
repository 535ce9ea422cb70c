"""One contract for every engine: the same linear model, in the form that the engine loads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ai_edge_litert.schema_py_generated as schema
import numpy as np
import openvino as ov
import pytest
import torch
from safetensors.torch import save_file
from tests.integration.replica_process import linear_weights, save_linear
from tests.telling import telling
from tests.unit.runtime import tflite_files

from penstock.api.conditions import Reason
from penstock.engines import ENGINES
from penstock.errors import Invalid
from penstock.optimization.recipes import EngineName, EngineSettings, Precision
from penstock.serving.manifest import DataType, Signature, TensorSpec
from penstock_runtime.engines import load_engine, why_unavailable
from penstock_runtime.engines.openvino import OpenVinoEngine
from penstock_runtime.engines.torch_program import on_device
from penstock_runtime.hardware import probe

SIGNATURE = Signature(
    inputs=(TensorSpec(name="x", datatype=DataType.FP32, shape=(-1, 64)),),
    outputs=(TensorSpec(name="y", datatype=DataType.FP32, shape=(-1, 10)),),
)
MODULE = """
import torch


def linear():
    return torch.nn.Linear(64, 10, bias=False)
"""


def linear() -> torch.nn.Module:
    module = torch.nn.Linear(64, 10, bias=False)
    with torch.no_grad():
        module.weight.copy_(torch.from_numpy(linear_weights().T.copy()))
    return module.eval()


def program() -> torch.export.ExportedProgram:
    return torch.export.export(linear(), (torch.zeros(4, 64),), dynamic_shapes=({0: torch.export.Dim("n")},))


def onnx(folder: Path) -> Path:
    return save_linear(folder / "model.onnx")


def openvino_ir(folder: Path) -> Path:
    ov.save_model(ov.Core().read_model(str(onnx(folder))), str(folder / "model.xml"), compress_to_fp16=False)
    return folder / "model.xml"


def exported(folder: Path) -> Path:
    torch.export.save(program(), folder / "model.pt2")
    return folder / "model.pt2"


def torchscript(folder: Path) -> Path:
    torch.jit.trace(linear(), torch.zeros(4, 64)).save(str(folder / "model.pt"))  # type: ignore[no-untyped-call]
    return folder / "model.pt"


def safetensors(folder: Path) -> Path:
    save_file(linear().state_dict(), folder / "model.safetensors")
    (folder / "contract_linear.py").write_text(MODULE)
    return folder / "model.safetensors"


def package(folder: Path) -> Path:
    import torch._inductor.config as inductor  # noqa: PLC0415 -- takes seconds, of each worker that collects this file

    # As the optimizer does: headers compiled beforehand take longer than the one compilation that they are for.
    with inductor.patch({"aot_inductor.precompile_headers": False, "cpp_cache_precompile_headers": False}):
        torch._inductor.aoti_compile_and_package(program(), package_path=str(folder / "model.pt2"))
    return folder / "model.pt2"


def tflite(folder: Path) -> Path:
    tensor = tflite_files.tensor
    tensors = [tensor("x", [1, 64], rows=True), tensor("w", [10, 64], 1), tensor("y", [1, 10], rows=True)]
    kind = ("FULLY_CONNECTED", "FullyConnectedOptions", schema.FullyConnectedOptionsT())
    weights = np.ascontiguousarray(linear_weights().T)
    return tflite_files.save(folder / "model.tflite", kind, tensors, 1, (weights,))


@dataclass(frozen=True)
class Case:
    """An engine and a form of the model."""

    engine: EngineName
    make: Callable[[Path], Path]
    device: str | None = None

    def settings(self, folder: Path, **kwargs: Any) -> EngineSettings:
        options = {"importPath": "contract_linear:linear", "pythonPath": str(folder)}
        given = options if self.make is safetensors else {}
        return EngineSettings(
            name=self.engine, options=given | ({"device": self.device} if self.device else {}), **kwargs
        )


CASES = [
    Case(EngineName.ONNX_RUNTIME, onnx),
    Case(EngineName.OPENVINO, openvino_ir),
    Case(EngineName.OPENVINO, onnx),
    Case(EngineName.TORCH_EAGER, exported),
    Case(EngineName.TORCH_EAGER, torchscript),
    Case(EngineName.TORCH_EAGER, safetensors),
    Case(EngineName.TORCH_COMPILE, exported),
    Case(EngineName.TORCH_EXPORT, package),
    Case(EngineName.LITERT, tflite),
    *(
        pytest.param(Case(name, onnx), marks=pytest.mark.gpu)
        for name in (EngineName.ONNX_RUNTIME_CUDA, EngineName.ONNX_RUNTIME_TENSORRT)
    ),
    *(
        pytest.param(Case(name, make, "cuda"), marks=pytest.mark.gpu)
        for name, make in (
            (EngineName.TORCH_EAGER, exported),
            (EngineName.TORCH_EAGER, torchscript),
            (EngineName.TORCH_EAGER, safetensors),
            (EngineName.TORCH_COMPILE, exported),
        )
    ),
]


def test_every_engine_is_here() -> None:
    cases = [each if isinstance(each, Case) else each.values[0] for each in CASES]
    assert {each.engine for each in cases if isinstance(each, Case)} == set(EngineName)


def label(case: Any) -> str:
    return f"{case.engine} runs {case.make.__name__}{' on a GPU' * bool(case.device)}" if isinstance(case, Case) else ""


@pytest.fixture(scope="module", params=CASES, ids=label)
def case(request: pytest.FixtureRequest) -> Case:
    found: Case = request.param
    missing = why_unavailable(found.engine, probe())
    if missing is None and found.device is not None and not torch.cuda.is_available():
        missing = "torch finds no GPU that it can use"
    if missing is not None:
        pytest.skip(missing)
    return found


@pytest.fixture(scope="module")
def model(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return case.make(tmp_path_factory.mktemp("model"))


def test_it_gives_what_numpy_gives_at_every_batch_size(case: Case, model: Path) -> None:
    engine = load_engine(model, case.settings(model.parent), SIGNATURE, trusted=True)
    assert engine.signature == SIGNATURE
    for rows in (1, 3, 1, 8):
        x = np.random.default_rng(rows).normal(size=(rows, 64)).astype(np.float32)
        x.flags.writeable = False  # as arrays over a request's body are
        answer = engine.run({"x": x})["y"]
        assert answer.dtype == np.float32
        np.testing.assert_allclose(answer, x @ linear_weights(), atol=1e-4)


def test_an_answer_is_kept_when_the_engine_runs_again(case: Case, model: Path) -> None:
    engine = load_engine(model, case.settings(model.parent), SIGNATURE, trusted=True)
    first = engine.run({"x": np.ones((1, 64), np.float32)})["y"]
    kept = first.copy()
    engine.run({"x": np.zeros((1, 64), np.float32)})
    np.testing.assert_array_equal(first, kept)


def test_a_broken_file_is_refused_naming_it(case: Case, model: Path, tmp_path: Path) -> None:
    broken = tmp_path / model.name
    broken.write_bytes(b"not a model")
    with pytest.raises(Invalid, match=broken.name.replace(".", r"\.")) as caught:
        load_engine(broken, case.settings(model.parent), SIGNATURE, trusted=True)
    assert caught.value.reason == Reason.MODEL_INVALID


def test_an_option_that_it_does_not_know_is_refused(case: Case, model: Path) -> None:
    settings = EngineSettings(name=case.engine, options={"turbo": "yes"})
    with pytest.raises(Invalid, match=telling("option 'turbo'")):
        load_engine(model, settings, SIGNATURE, trusted=True)


def test_openvino_is_pinned_to_what_was_asked(tmp_path: Path) -> None:
    engine = load_engine(onnx(tmp_path), EngineSettings(name=EngineName.OPENVINO, threads=1))
    assert isinstance(engine, OpenVinoEngine)
    pinned = engine.read_hints()
    assert pinned["INFERENCE_NUM_THREADS"] == "1"
    assert pinned["NUM_STREAMS"] == "1"
    assert pinned["ENABLE_CPU_PINNING"] == "False"
    assert "float32" in pinned["INFERENCE_PRECISION_HINT"]


def test_torch_is_pinned_to_the_threads_asked(tmp_path: Path) -> None:
    path = exported(tmp_path)
    for threads in (2, 1):
        load_engine(path, EngineSettings(name=EngineName.TORCH_EAGER, threads=threads), trusted=True)
        assert torch.get_num_threads() == threads


def test_bf16_rounds_and_stays_close(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(4, 64)).astype(np.float32)
    settings = EngineSettings(name=EngineName.TORCH_EAGER, precision=Precision.BF16)
    engine = load_engine(exported(tmp_path), settings, SIGNATURE, trusted=True)
    error = np.abs(engine.run({"x": x})["y"] - x @ linear_weights()).max()
    assert 1e-4 < error < 0.5


def test_a_program_without_a_signature_has_its_own_names(tmp_path: Path) -> None:
    engine = load_engine(exported(tmp_path), EngineSettings(name=EngineName.TORCH_EAGER), trusted=True)
    assert [spec.name for spec in engine.signature.inputs] == ["input"]
    assert engine.signature.inputs[0].shape == (-1, 64)
    assert [spec.name for spec in engine.signature.outputs] == ["output_0"]


def test_what_a_program_makes_itself_goes_where_its_inputs_are() -> None:
    """A capture on the CPU says `cpu` of positions and masks; beside inputs on a GPU they would end each run."""

    class Positions(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + torch.arange(x.shape[1])

    for device in ("cpu", "meta"):
        captured = torch.export.export(Positions(), (torch.zeros(2, 3),))
        assert on_device(captured, device).module()(torch.zeros(2, 3, device=device)).device.type == device


def test_what_is_code_is_opened_only_where_that_is_trusted(case: Case, model: Path) -> None:
    if not ENGINES[case.engine].torch:
        load_engine(model, case.settings(model.parent), SIGNATURE)
        return
    with pytest.raises(Invalid, match=telling("code optimizationProfileRef")) as caught:
        load_engine(model, case.settings(model.parent), SIGNATURE)
    assert caught.value.reason == Reason.SIGNATURE_MISSING
