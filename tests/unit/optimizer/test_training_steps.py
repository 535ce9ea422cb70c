"""Pruning and distillation, on a tiny network and the digits it was trained on for a moment."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.telling import Telling, assert_tells
from torch import nn

from penstock.optimization.hardware import Gpu, Hardware
from penstock.optimization.recipes import EngineName, EngineSettings, Step, StepName
from penstock.optimization.variants import DataSplits, PreparedSource
from penstock.serving.manifest import DataType, ModelFormat, Signature, TensorSpec
from penstock_optimizer.artifact import Split
from penstock_optimizer.building.draft import BuildContext, CannotDo, Draft
from penstock_optimizer.digits import Training, split
from penstock_optimizer.steps import step_runner
from penstock_optimizer.steps.masking import global_magnitude, two_of_four
from penstock_optimizer.steps.narrowing import parameter_count
from penstock_optimizer.steps.training import Learning, fit, load_samples, score

SIGNATURE = Signature(
    inputs=(TensorSpec(name="image", datatype=DataType.FP32, shape=(-1, 1, 8, 8)),),
    outputs=(TensorSpec(name="logits", datatype=DataType.FP32, shape=(-1, 10)),),
)
CPU = Hardware(architecture="x86_64", cpu="c", cores=2)
AMPERE = Hardware(
    architecture="x86_64", cpu="c", cores=2, gpus=(Gpu(name="g", memory_bytes=1, compute_capability="9.0"),)
)


def tiny() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(256, 32),
        nn.ReLU(), nn.Linear(32, 10),
    )  # fmt: skip


@dataclass(frozen=True)
class Trained:
    module: nn.Module
    context: BuildContext
    """With labels."""
    unlabelled: BuildContext

    def draft(self) -> Draft:
        return Draft(module=copy.deepcopy(self.module), onnx=Path("before.onnx"))


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("samples")
    parts = split(Training())
    for part, images in parts.items():
        np.savez(folder / f"{part}.npz", image=images.images, labels=images.labels)
        np.savez(folder / f"{part}-bare.npz", image=images.images)
    context = _context(folder, "")
    torch.manual_seed(0)
    module = tiny()
    train, validation = (load_samples(folder / f"{each}.npz", SIGNATURE) for each in (Split.TRAIN, Split.VALIDATION))
    fit(module, train, validation, Learning(8, 0, time.monotonic() + 60, learning_rate=5e-3), name="tiny")
    return Trained(module, context, _context(folder, "-bare"))


def _context(folder: Path, suffix: str) -> BuildContext:
    files = {each: str(folder / f"{each}{suffix}.npz") for each in Split}
    data = DataSplits(
        digest="sha256:0",
        labelled=not suffix,
        calibration=files[Split.CALIBRATION],
        train=files[Split.TRAIN],
        validation=files[Split.VALIDATION],
        test=files[Split.TEST],
    )
    source = PreparedSource(
        name="tiny", digest="sha256:0", format=ModelFormat.SAFETENSORS, signature=SIGNATURE, onnx="model.onnx",
        weights="model.safetensors", import_path="tiny:network", parameters=1, size_bytes=4, files={},
    )  # fmt: skip
    engine = EngineSettings(name=EngineName.ONNX_RUNTIME)
    return BuildContext(source, folder, data, engine, CPU, folder, 0, 1, time.monotonic() + 600)


def changed(context: BuildContext, **update: object) -> BuildContext:
    return BuildContext(**{**{name: getattr(context, name) for name in BuildContext.__dataclass_fields__}, **update})  # type: ignore[arg-type]  # a table's keywords


def step(name: StepName, method: str = "", **parameters: float | str) -> Step:
    return Step(name=name, method=method, parameters=dict(parameters))


def accuracy(module: nn.Module, context: BuildContext) -> float:
    return score(module, load_samples(Path(context.data.test), SIGNATURE), None)


def test_the_tiny_network_knows_its_digits(trained: Trained) -> None:
    assert accuracy(trained.module, trained.context) > 0.9


@pytest.mark.parametrize("importance", ["magnitude", "taylor"])
def test_structured_pruning_makes_the_module_smaller_and_keeps_it_right(trained: Trained, importance: str) -> None:
    draft = trained.draft()
    asked = step(StepName.PRUNE, "Structured", sparsity=0.5, fineTuningEpochs=3, importance=importance)
    step_runner(asked.label).apply(asked, draft, trained.context)
    assert draft.module is not None
    assert draft.onnx is None, "the ONNX form showed the model as it was"
    assert parameter_count(draft.module) < 0.4 * parameter_count(trained.module)
    assert draft.module(torch.zeros(3, 1, 8, 8)).shape == (3, 10)
    assert accuracy(draft.module, trained.context) > 0.85
    assert not draft.module.training
    assert "pruned" in draft.notes[0]


def test_pruning_without_labels_learns_from_the_model_itself(trained: Trained) -> None:
    asked = step(StepName.PRUNE, "Structured", sparsity=0.5, fineTuningEpochs=3)
    raw, tuned = trained.draft(), trained.draft()
    step_runner(asked.label).apply(
        step(StepName.PRUNE, "Structured", sparsity=0.5, fineTuningEpochs=0), raw, trained.unlabelled
    )
    step_runner(asked.label).apply(asked, tuned, trained.unlabelled)
    assert raw.module is not None
    assert tuned.module is not None
    assert accuracy(tuned.module, trained.context) > accuracy(raw.module, trained.context)


def test_the_same_seed_prunes_the_same(trained: Trained) -> None:
    asked = step(StepName.PRUNE, "Structured", sparsity=0.5, fineTuningEpochs=1)
    first, second = trained.draft(), trained.draft()
    for draft in (first, second):
        step_runner(asked.label).apply(asked, draft, trained.context)
    assert first.module is not None
    assert second.module is not None
    assert all(torch.equal(a, b) for a, b in zip(first.module.parameters(), second.module.parameters(), strict=True))


def test_single_weights_stay_zero_through_fine_tuning(trained: Trained) -> None:
    draft = trained.draft()
    asked = step(StepName.PRUNE, "Unstructured", sparsity=0.8, fineTuningEpochs=2)
    step_runner(asked.label).apply(asked, draft, trained.context)
    assert draft.module is not None
    weights = torch.cat([value.flatten() for name, value in draft.module.named_parameters() if value.ndim > 1])
    assert (weights == 0).float().mean() == pytest.approx(0.8, abs=0.01)
    assert Telling("no speed") in draft.notes


def test_masks_keep_the_greatest_weights() -> None:
    module = nn.Sequential(nn.Linear(4, 1, bias=False), nn.Linear(1, 2, bias=False))
    with torch.no_grad():
        module.get_parameter("0.weight").copy_(torch.tensor([[1.0, -5.0, 3.0, -2.0]]))
        module.get_parameter("1.weight").copy_(torch.tensor([[4.0], [0.5]]))
    masks = global_magnitude(module, 0.5)
    assert masks["0.weight"].tolist() == [[0, 1, 1, 0]]
    assert masks["1.weight"].tolist() == [[1], [0]]
    assert {name: mask.tolist() for name, mask in two_of_four(module).items()} == {"0.weight": [[0, 1, 1, 0]]}


def test_two_of_four_goes_along_input_channels() -> None:
    module = nn.Conv2d(8, 4, 3)
    (mask,) = two_of_four(module).values()
    assert mask.shape == module.weight.shape
    assert (mask.reshape(4, 2, 4, 3, 3).sum(dim=2) == 2).all()


def test_a_student_is_told_apart_from_its_control(trained: Trained) -> None:
    draft = trained.draft()
    asked = step(StepName.DISTIL, width=0.5, epochs=4)
    step_runner(asked.label).apply(asked, draft, trained.context)
    assert draft.module is not None
    assert parameter_count(draft.module) < 0.4 * parameter_count(trained.module)
    taught, alone = (draft.figures[f"distil.{name}"] for name in ("validationAccuracy", "hardLabelControlAccuracy"))
    kept = score(draft.module, load_samples(Path(trained.context.data.validation or ""), SIGNATURE), None)
    assert kept == pytest.approx(max(taught, alone))
    assert any("control" in note for note in draft.notes)


def test_distillation_needs_no_labels(trained: Trained) -> None:
    draft = trained.draft()
    asked = step(StepName.DISTIL, width=0.5, epochs=3)
    step_runner(asked.label).apply(asked, draft, trained.unlabelled)
    assert {"distil.validationCosine", "distil.hardLabelControlCosine"} <= set(draft.figures)


def test_training_stops_at_its_deadline_and_keeps_the_best(trained: Trained) -> None:
    train = load_samples(Path(trained.context.data.train or ""), SIGNATURE)
    module = copy.deepcopy(trained.module)
    before = score(module, train, None)
    fitted = fit(module, train, train, Learning(10_000, 0, time.monotonic() + 1), name="long")
    assert fitted.epochs < 10_000
    assert score(module, train, None) >= before


def test_what_left_no_time_to_train_is_not_called_pruned(trained: Trained) -> None:
    asked = step(StepName.PRUNE, "Structured", sparsity=0.5, fineTuningEpochs=3)
    with pytest.raises(CannotDo, match="no time"):
        step_runner(asked.label).apply(asked, trained.draft(), changed(trained.context, deadline=time.monotonic()))


def test_a_module_with_nothing_to_drop_says_so(trained: Trained) -> None:
    asked = step(StepName.PRUNE, "Structured", sparsity=0.5, fineTuningEpochs=0)
    alone = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    with pytest.raises(CannotDo, match="no layer"):
        step_runner(asked.label).apply(asked, Draft(module=alone), trained.context)


def test_a_residual_network_is_pruned_as_a_whole(trained: Trained) -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.inner, self.head = (
                nn.Conv2d(1, 16, 3, padding=1),
                nn.Conv2d(16, 16, 3, padding=1),
                nn.Linear(16, 10),
            )

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            stem = self.stem(image).relu()
            return self.head((stem + self.inner(stem)).mean(dim=(2, 3)))

    draft = Draft(module=Residual().eval())
    asked = step(StepName.PRUNE, "Structured", sparsity=0.5, fineTuningEpochs=0)
    step_runner(asked.label).apply(asked, draft, trained.context)
    assert draft.module is not None
    assert draft.module(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
    assert draft.module.get_parameter("inner.weight").shape == (8, 8, 3, 3)


TRAINERS = ("prune Structured", "prune Unstructured", "distil")


def _without(**update: object) -> Callable[[BuildContext], BuildContext]:
    return lambda context: changed(context, source=context.source.model_copy(update=update))


def _data(**update: object) -> Callable[[BuildContext], BuildContext]:
    return lambda context: changed(context, data=context.data.model_copy(update=update))


@pytest.mark.parametrize("label", TRAINERS)
@pytest.mark.parametrize(
    ("change", "facts"),
    [
        pytest.param(_without(import_path=None), "safetensors import path", id="a graph without a module"),
        pytest.param(_data(train=None), "train.npz", id="no train split"),
        pytest.param(_data(synthetic=True), "made samples", id="made samples"),
    ],
)
def test_what_is_missing_is_said(
    trained: Trained, label: str, change: Callable[[BuildContext], BuildContext], facts: str
) -> None:
    name, _, method = label.partition(" ")
    reason = step_runner(label).why_infeasible(step(StepName(name), method), change(trained.context))
    assert_tells(reason or "", facts)


@pytest.mark.parametrize(
    ("hardware", "engine", "facts"),
    [
        pytest.param(CPU, EngineName.ONNX_RUNTIME_TENSORRT, "8.0", id="there is no GPU"),
        pytest.param(AMPERE, EngineName.OPENVINO, "OpenVINO CPU", id="the engine has no use for it"),
        pytest.param(AMPERE, EngineName.ONNX_RUNTIME_TENSORRT, None, id="sparse tensor cores, and an engine for them"),
    ],
)
def test_two_of_four_needs_sparse_tensor_cores(
    trained: Trained, hardware: Hardware, engine: EngineName, facts: str | None
) -> None:
    context = changed(trained.context, hardware=hardware, engine=EngineSettings(name=engine))
    reason = step_runner("prune SemiStructured24").why_infeasible(step(StepName.PRUNE, "SemiStructured24"), context)
    assert reason == (None if facts is None else Telling(facts))
