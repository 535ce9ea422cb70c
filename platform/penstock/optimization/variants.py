"""What is handed from the loader to the steps, and from the steps to the engines: folders, described.

    prepare  a user's model      -> source folder   with `source.json`   (`PreparedSource`)
    build    source + `Recipe`   -> variant folder  with `variant.json`  (`Built`: a `Variant`, `Infeasible`, or `Broken`)

Both run in a process of their own, since they may run a user's code and may crash. Every file is written before the
JSON that names it, and the folder is renamed into place, so that a folder which is there is whole.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from penstock.models import Frozen
from penstock.optimization.recipes import EngineSettings, Precision, Recipe
from penstock.serving.manifest import ModelFile, ModelFormat, Signature

SOURCE_FILE = "source.json"
VARIANT_FILE = "variant.json"


class SourceRequest(Frozen):
    """A model as the user names it."""

    path: str
    """A local file or folder."""
    format: ModelFormat | None = None
    """None: told from the file."""
    import_path: str | None = None
    """`package.module:callable` that gives the `torch.nn.Module` for safetensors. Code: it runs in the sandbox only."""
    python_path: tuple[str, ...] = ()
    """Folders to import it from."""
    student_import_path: str | None = None
    """Likewise for a distilled student; None: shrunk automatically."""
    example_shapes: dict[str, tuple[int, ...]] = Field(default={})
    """Shape by input for axes beside the batch that the model leaves open, where no data shows them."""


class PreparedSource(Frozen):
    """`source.json`: the model in the forms that the steps need. Paths are relative to the folder."""

    name: str
    digest: str
    """`sha256:` over the user's files and the import path: equal for equal models."""
    format: ModelFormat
    signature: Signature
    """Of the ONNX form."""
    onnx: str
    """fp32 ONNX, by torch's dynamo exporter where the source is torch's; checked against the source's own outputs."""
    exported: str | None = None
    """`.pt2` of the fp32 program, where the source is torch's."""
    weights: str | None = None
    """safetensors, where there is an import path: then the steps have the real `torch.nn.Module`."""
    import_path: str | None = None
    python_path: tuple[str, ...] = ()
    student_import_path: str | None = None
    parameters: int
    size_bytes: int
    """Of the source's weights in fp32."""
    vocabulary: dict[str, int] = Field(default={})
    """How many ids there are, by input: of the tables that the model indexes by it. Only where no data was given."""
    unsuited: str | None = None
    """Why samples that are made up do not run, whatever they are."""
    files: dict[str, ModelFile]


class DataSplits(Frozen):
    """Prepared samples: NumPy archives (`.npz`, no pickle) whose arrays are named by the model's inputs, and `labels`.

    The first axis of every array counts samples. No two splits share a sample.
    """

    digest: str
    """`sha256:` over all samples and how they were split."""
    synthetic: bool = False
    """Made from the signature, since no data was given: good for speed and for agreement, not for accuracy."""
    labelled: bool = False
    calibration: str
    train: str | None = None
    """For pruning's fine-tuning and for distillation."""
    validation: str | None = None
    """Decides between candidates. None: the test split is used, and the report says so."""
    test: str
    """Only looked at for the full accuracy test."""
    samples: dict[str, int] = Field(default={})
    """By split."""
    notes: tuple[str, ...] = ()
    """What was changed or limits what can be said: `12 samples of train stood in test too and were dropped`."""


class BuildRequest(Frozen):
    """One line of JSON to `python -m penstock_optimizer.building.variant` on its standard input."""

    source: str
    """The source folder."""
    data: DataSplits
    recipe: Recipe
    output: str
    """The variant folder to make."""
    seed: int = 0
    threads: Annotated[int, Field(ge=1)] = 1
    budget_seconds: Annotated[float, Field(gt=0)] = 600.0
    """For this one build; training steps size themselves to it."""


class Variant(Frozen):
    """A model that an engine can load."""

    type: Literal["variant"] = "variant"
    recipe: Recipe
    format: ModelFormat
    entrypoint: str
    signature: Signature
    files: dict[str, ModelFile]
    """Without `variant.json`. The size is their sum."""
    engine: EngineSettings
    """The recipe's, with what the steps had to fix in it."""
    weight_precision: str
    """For people: `int8`, `fp32`."""
    built_precision: Precision = Precision.FP32
    build_seconds: float = 0.0
    notes: tuple[str, ...] = ()
    """What a step found worth telling: `pruned 696,010 to 181,322 parameters`."""
    figures: dict[str, float] = Field(default={})
    """A step's own measurements, such as `distil.validationAccuracy` and `distil.hardLabelControlAccuracy`."""

    @property
    def size_bytes(self) -> int:
        """Of all files."""
        return sum(file.size_bytes for file in self.files.values())


class Infeasible(Frozen):
    """A step or an engine cannot do this here. The search goes on without it."""

    type: Literal["infeasible"] = "infeasible"
    part: str
    """The step's label or the engine's name."""
    reason: str
    """What is missing, and what would help."""


class Broken(Frozen):
    """A step failed, or made a model that no engine loads. Kept as a trial; the search goes on."""

    type: Literal["broken"] = "broken"
    part: str
    message: str


Built = Annotated[Variant | Infeasible | Broken, Field(discriminator="type")]
BUILT: TypeAdapter[Variant | Infeasible | Broken] = TypeAdapter(Built)
