"""From a request to all that a search is a function of: the model, the samples, the machine, the plan and its key."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from platform import python_version
from typing import Final

import onnx

from penstock.api.conditions import Reason
from penstock.engines import ENGINES
from penstock.errors import Invalid
from penstock.optimization.hardware import Hardware
from penstock.optimization.progress import OptimizationRequest
from penstock.optimization.recipes import STEPS
from penstock.optimization.variants import DataSplits, PreparedSource, SourceRequest
from penstock.serving.manifest import MANIFEST_NAME, ModelFile, ModelManifest
from penstock.serving.mounts import CACHE_VARIABLE
from penstock.serving.versions import Wanted
from penstock_optimizer.building.source import prepare
from penstock_optimizer.publishing.signing_key import secrets_of
from penstock_optimizer.samples.data import prepare_data
from penstock_optimizer.search.candidates import SourceFacts, enumerate_recipes, why_misplaced
from penstock_optimizer.search.keys import digest_of, search_key
from penstock_optimizer.search.standing import SearchPlan
from penstock_optimizer.search.workspace import Workspace
from penstock_optimizer.sources.detect import MODEL_SUFFIXES, detect, locate
from penstock_runtime.digests import digest_of as whole_digest
from penstock_runtime.fetching import fetch_in_child
from penstock_runtime.files import resolve_version, sha256_of
from penstock_runtime.hardware import probe
from penstock_runtime.storage import fetch

LIBRARIES: Final = (
    "penstock", *{facts.package.replace("_", "-") for facts in ENGINES.values()}, "nncf", "onnx", "onnxscript", "onnxslim",
    "torchao", "torch-pruning", "safetensors", "numpy", "litert-torch",
)  # fmt: skip
"""What builds, runs and measures. Other versions make another search."""


@dataclass(frozen=True)
class Prepared:
    """What a search is a function of."""

    request: OptimizationRequest
    source_folder: Path
    source: PreparedSource
    data: DataSplits
    hardware: Hardware
    versions: dict[str, str]
    plan: SearchPlan
    misplaced: str | None
    """Why the profile is not for this machine; then only the baselines are tried."""
    key: str
    model_digest: str
    """Of the model as its owner gave it, as replicas tell it."""


def prepare_search(request: OptimizationRequest, workspace: Workspace) -> Prepared:
    """Fetch, open and describe.

    Raises:
        Invalid: what is wrong with the model or the data, and what to do.
        Unavailable: a store does not answer.
    """
    model = _model(request, workspace)
    raw = _raw_data(request, workspace)
    asked = digest_of({"model": model.model_dump(mode="json"), "data": str(raw) if raw else None})
    folder = workspace.source(asked)
    with workspace.hold_preparation(folder):
        hidden = secrets_of(request)
        source = prepare(model, folder, data=raw, sandbox=request.sandbox, hidden=hidden)
    data = _data(request, raw, source, workspace)
    hardware, versions = probe(), library_versions()
    facts = SourceFacts(
        torch=source.exported is not None or source.weights is not None,
        module=source.import_path is not None and source.weights is not None,
        trainable=data.train is not None and not data.synthetic,
        operators=_operators(folder / source.onnx),
        gpus=bool(hardware.gpus),
    )
    wrong = why_misplaced(request.spec.hardware, hardware)
    plan = _plan(request, facts, data, wrong)
    settings = {
        "seed": request.seed,
        "threads": request.threads,
        "latencyBound": request.latency_bound_milliseconds,
        "memory": request.memory_bytes,
        "budget": plan.budget_seconds,
        "student": source.student_import_path,
    }
    key = search_key(
        source_digest=source.digest,
        data_digest=data.digest,
        spec=request.spec,
        settings=settings,
        library_versions=versions,
        hardware=hardware,
    )
    return Prepared(request, folder, source, data, hardware, versions, plan, wrong, key, digest_at(Path(model.path)))


@cache
def library_versions() -> dict[str, str]:
    """Of what is installed of `LIBRARIES`, and Python's."""
    found = {"python": python_version()}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _plan(request: OptimizationRequest, facts: SourceFacts, data: DataSplits, wrong: str | None) -> SearchPlan:
    recipes = enumerate_recipes(request.spec, facts, request.threads)
    count = 2 if facts.torch else 1
    return SearchPlan(
        spec=request.spec,
        recipes=recipes[:count] if wrong else recipes,
        baseline_count=count,
        budget_seconds=request.budget_seconds or request.spec.search.budget_minutes * 60.0,
        seed=request.seed,
        latency_bound_milliseconds=request.latency_bound_milliseconds,
        memory_bytes=request.memory_bytes,
        labelled=data.labelled,
        synthetic=data.synthetic,
    )


def _model(request: OptimizationRequest, workspace: Workspace) -> SourceRequest:
    wanted = Wanted(version=request.model_version, suffixes=MODEL_SUFFIXES)
    local = Path(request.model.path)
    if request.model_uri is not None:
        local = _fetch(request.model_uri, request, workspace, wanted)
    local = resolve_version(local, wanted)
    check_digest(local, request.model_digest)
    if local == Path(request.model.path):
        return request.model
    return request.model.model_copy(update={"path": str(local)})


def digest_at(path: Path) -> str:
    """The digest of a model on this machine: of its manifest, or of all files that serve.

    Raises:
        Invalid: ModelNotFound or ModelInvalid.
    """
    if (path / MANIFEST_NAME).is_file():
        return f"sha256:{sha256_of(path / MANIFEST_NAME)}"
    entry = locate(path)
    return whole_digest(entry, detect(entry)).value


def check_digest(path: Path, wanted: str | None) -> None:
    """Hold a model against the digest that its deployment names, as replicas do.

    Raises:
        Invalid: DigestMismatch; ModelNotFound or ModelInvalid for one that cannot be read.
    """
    if wanted is None:
        return
    found, manifest, changed = digest_at(path), path / MANIFEST_NAME, None
    if manifest.is_file():
        locate(path)
        listed = ModelManifest.model_validate_json(manifest.read_bytes()).files
        changed = next((name for name, file in listed.items() if not _is(path / name, file)), None)
    if found == wanted and changed is None:
        return
    what = (
        f"{path / changed} is not what {MANIFEST_NAME} says" if changed else f"the model at {path} has digest {found}"
    )
    raise Invalid(
        Reason.DIGEST_MISMATCH, f"{what}, but {wanted} was asked for: restore that model, or name the new one's digest"
    )


def _is(path: Path, file: ModelFile) -> bool:
    return path.is_file() and sha256_of(path) == file.sha256.removeprefix("sha256:")


def _fetch(uri: str, request: OptimizationRequest, workspace: Workspace, wanted: Wanted | None = None) -> Path:
    """What lies at a URI, on this machine. Credentials that the deployment names are a child process's alone."""
    if request.credentials is None:
        return fetch(uri, workspace.fetched, wanted=wanted)
    environment = {**os.environ, CACHE_VARIABLE: str(workspace.fetched)}
    return fetch_in_child(uri, environment, credentials=request.credentials, wanted=wanted).path


def _raw_data(request: OptimizationRequest, workspace: Workspace) -> Path | None:
    """The user's samples on this machine; None where none were given."""
    uri = request.data_uri or request.spec.data.storage_uri
    if uri is None:
        return None
    if request.data_uri is not None and "://" in uri:
        return _fetch(uri, request, workspace)
    return fetch(uri, workspace.fetched) if "://" in uri else Path(uri).expanduser().absolute()


def _data(request: OptimizationRequest, raw: Path | None, source: PreparedSource, workspace: Workspace) -> DataSplits:
    shapes = request.model.example_shapes
    asked = request.spec.steps.model_dump(by_alias=True, exclude_none=True)
    training = any(facts.training for label, facts in STEPS.items() if label.partition(" ")[0] in asked)
    content = {
        "files": _contents(raw) if raw is not None else {},
        "made": raw is None,
        "signature": source.signature.model_dump(mode="json"),
        "vocabulary": source.vocabulary,
        "unsuited": source.unsuited,
        "training": training,
        "shapes": {name: list(shape) for name, shape in shapes.items()},
        "most": request.spec.data.max_samples,
        "seed": request.seed,
    }
    folder = workspace.data(digest_of(content))
    with workspace.hold_preparation(folder):
        return prepare_data(
            str(raw) if raw is not None else None,
            source,
            folder,
            max_samples=request.spec.data.max_samples,
            seed=request.seed,
            example_shapes=shapes,
            training=training,
        )


def _contents(path: Path) -> dict[str, str]:
    """SHA-256 of the sample files, by name."""
    files = sorted(path.glob("*.npz")) if path.is_dir() else [path] if path.is_file() else []
    return {file.name: sha256_of(file) for file in files}


def _operators(path: Path) -> dict[str, int]:
    """How many nodes of each type an ONNX model has."""
    model = onnx.load(str(path), load_external_data=False)
    return dict(Counter(node.op_type for node in model.graph.node))
