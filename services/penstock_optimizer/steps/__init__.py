"""What is done to a model. A further step, or method of one, is one file here and one line in `_RUNNERS`.

Steps run in the build process (`penstock_optimizer.building.variant`), so they may run a user's code, take memory and crash.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from penstock.optimization.hardware import Hardware
from penstock.optimization.recipes import EngineSettings, Step
from penstock.optimization.variants import DataSplits, PreparedSource

if TYPE_CHECKING:
    import torch


class CannotDo(Exception):
    """A step cannot do this here; the message says what is missing. The build ends as `Infeasible`."""


@dataclass(frozen=True)
class Context:
    """What every step of a build may use."""

    source: PreparedSource
    source_folder: Path
    data: DataSplits
    engine: EngineSettings
    """What will run the result: a static quantization for OpenVINO is another than one for ONNX Runtime."""
    hardware: Hardware
    work: Path
    """A folder for intermediate files; it goes when the build ends."""
    seed: int
    threads: int
    deadline: float
    """Of the monotonic clock. A step that trains sizes itself to it."""


@dataclass
class Draft:
    """The model between two steps. A step reads the form that it needs and sets the one that it made.

    Setting a form empties those that no longer show the same model. `penstock_optimizer.building.forms` gives a form that is
    empty from one that is there.
    """

    module: torch.nn.Module | None = None
    """fp32, in eval mode; None where the source has no import path."""
    onnx: Path | None = None
    openvino: Path | None = None
    """The `.xml`; its `.bin` lies beside it."""
    exported: Path | None = None
    """`.pt2`."""
    compiled: bool = False
    """Whether `exported` is machine code already."""
    engine: EngineSettings | None = None
    """The recipe's, with what a step had to fix in it; None: as in the recipe."""
    weight_precision: str = "fp32"
    notes: list[str] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)


class StepRunner(Protocol):
    """One step, or one method of one."""

    def infeasible(self, step: Step, context: Context) -> str | None:
        """What is missing here, and what would help; None where it can be tried. Cheap: no model is loaded."""

    def apply(self, step: Step, draft: Draft, context: Context) -> None:
        """Change the draft.

        Raises:
            CannotDo: the model turns out to have nothing that this step could change, or cannot be changed so.
        """


_RUNNERS: Mapping[str, str] = {
    "graphOptimize": "graph_optimize:GraphOptimize",
    "quantize Dynamic": "quantize_dynamic:QuantizeDynamic",
    "quantize Static": "quantize_static:QuantizeStatic",
    "quantize BF16": "half:QuantizeBF16",
    "quantize FP16": "half:QuantizeFP16",
    "quantize FP8": "gpu_quantize:QuantizeFP8",
    "quantize INT4WeightOnly": "gpu_quantize:QuantizeInt4WeightOnly",
    "compile": "compile:Compile",
    "prune Structured": "prune_structured:PruneStructured",
    "prune Unstructured": "prune_unstructured:PruneUnstructured",
    "prune SemiStructured24": "prune_semi_structured:PruneSemiStructured",
    "distil": "distil:Distil",
}
"""By `Step.label`: a module of this package, and its class without constructor arguments. A module imports what is heavy
(torch) only in `apply`, so that `infeasible` stays cheap."""


class _Steps(Mapping[str, StepRunner]):
    """Imports a step when it is looked up."""

    def __getitem__(self, label: str) -> StepRunner:
        module, _, name = _RUNNERS[label].partition(":")
        runner: StepRunner = getattr(import_module(f"{__name__}.{module}"), name)()
        return runner

    def __iter__(self) -> Iterator[str]:
        return iter(_RUNNERS)

    def __len__(self) -> int:
        return len(_RUNNERS)


STEPS: Mapping[str, StepRunner] = _Steps()
"""By `Step.label`, such as `quantize Static`."""
