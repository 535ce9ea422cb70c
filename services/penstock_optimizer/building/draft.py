"""What a step is given, and what it changes: the model between two steps, in the forms that it has."""

from __future__ import annotations

from dataclasses import dataclass, field
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
class BuildContext:
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

    def why_infeasible(self, step: Step, context: BuildContext) -> str | None:
        """What is missing here, and what would help; None where it can be tried. Cheap: no model is loaded."""

    def apply(self, step: Step, draft: Draft, context: BuildContext) -> None:
        """Change the draft.

        Raises:
            CannotDo: the model turns out to have nothing that this step could change, or cannot be changed so.
        """
