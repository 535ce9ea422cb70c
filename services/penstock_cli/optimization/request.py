"""From what a user typed to a request for the optimizer."""

from __future__ import annotations

import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.api.conditions import Reason
from penstock.errors import Invalid
from penstock_cli.standalone.state import StateFolder, default_cache_folder, optimizer_workspace

if TYPE_CHECKING:
    from penstock.api.optimization import ClusterOptimizationProfile, OptimizationProfile
    from penstock.optimization.progress import OptimizationRequest


@dataclass(frozen=True, slots=True)
class OptimizeSettings:
    """What the user typed."""

    model: str
    version: str = ""
    profile: str = "balanced"
    data: str | None = None
    import_path: str | None = None
    student_import_path: str | None = None
    python_path: tuple[Path, ...] = ()
    shapes: tuple[str, ...] = ()
    name: str | None = None
    threads: int = 1
    budget: float | None = None
    output: str | None = None
    signing_key: Path | None = None
    sandbox: bool = True


def build_request(settings: OptimizeSettings, state: StateFolder) -> OptimizationRequest:
    """The request for the optimizer. Makes the user's signing key where there is none yet.

    Raises:
        Invalid: the model or the data is not there, the profile is none, or a key cannot be read.
    """
    from penstock.optimization.progress import OptimizationRequest  # noqa: PLC0415 (only for this command)
    from penstock.optimization.variants import SourceRequest  # noqa: PLC0415 (the same)
    from penstock_cli.optimization.profiling import parse_shape  # noqa: PLC0415 (the same)
    from penstock_runtime.signing import make_keys, public_key  # noqa: PLC0415 (loads cryptography)

    found = load_profile(settings.profile)
    spec = found.spec
    if settings.student_import_path is not None and spec.steps.distil is not None:
        distil = spec.steps.distil.model_copy(update={"student_import_path": settings.student_import_path})
        spec = spec.model_copy(update={"steps": spec.steps.model_copy(update={"distil": distil})})
    remote = "://" in settings.model
    path = "" if remote else str(_resolve_existing(settings.model, "model"))
    if settings.signing_key is None:
        state.create()
        make_keys(state.signing_key_file)
    else:
        public_key(settings.signing_key)
    return OptimizationRequest(
        model=SourceRequest(
            path=path,
            import_path=settings.import_path,
            python_path=tuple(str(each.absolute()) for each in settings.python_path),
            student_import_path=settings.student_import_path
            or (spec.steps.distil.student_import_path if spec.steps.distil else None),
            example_shapes=dict(parse_shape(each) for each in settings.shapes),
        ),
        model_uri=settings.model if remote else None,
        model_version=settings.version,
        name=_default_name(settings.model) if settings.name is None else _check_name(settings.name),
        profile=f"{found.kind}/{found.metadata.name}",
        spec=spec,
        data_uri=settings.data
        if settings.data is None or "://" in settings.data
        else str(_resolve_existing(settings.data, "data")),
        store=_store_uri(settings.output, state),
        workspace=str(optimizer_workspace(default_cache_folder())),
        signing_key=str((settings.signing_key or state.signing_key_file).absolute()),
        threads=settings.threads,
        budget_seconds=settings.budget * 60 if settings.budget is not None else None,
        sandbox=settings.sandbox,
        command=shlex.join(["penstock", *sys.argv[1:]]),
    )


def load_profile(name: str) -> OptimizationProfile | ClusterOptimizationProfile:
    """A shipped profile, or the one in a file.

    Raises:
        Invalid: there is none of that name, or the file holds no single profile that the API server would accept.
    """
    from penstock.api.optimization import (  # noqa: PLC0415 (only for this command)
        ClusterOptimizationProfile,
        OptimizationProfile,
    )
    from penstock.api.v1alpha1 import ProfileKind  # noqa: PLC0415 (the same)
    from penstock_cli.shipped import profiles  # noqa: PLC0415 (the same)

    shipped = {str(each["metadata"]["name"]): each for each in profiles()}
    manifest = shipped.get(name)
    if manifest is None:
        manifest = _read_profile(name, tuple(shipped))
    if manifest["kind"] == ProfileKind.CLUSTER:
        return ClusterOptimizationProfile.model_validate(manifest)
    return OptimizationProfile.model_validate(manifest)


def _read_profile(name: str, shipped: tuple[str, ...]) -> dict[str, object]:
    if not Path(name).is_file():
        if Path(name).suffix in (".yaml", ".yml") or "/" in name:
            raise Invalid(Reason.PROFILE_NOT_FOUND, f"there is no file {name}: give one with an OptimizationProfile")
        raise Invalid(
            Reason.PROFILE_NOT_FOUND,
            f"there is no profile '{name}': shipped are {', '.join(shipped)}; or name a YAML file",
        )
    from penstock.api.v1alpha1 import ProfileKind  # noqa: PLC0415 (only for this command)
    from penstock_cli.validation.manifests import load_accepted  # noqa: PLC0415 (the CEL evaluator takes half a second to import)

    manifests = [each.manifest for each in load_accepted([name]) if each.manifest.get("kind") in set(ProfileKind)]
    if len(manifests) != 1:
        raise Invalid(
            Reason.PROFILE_NOT_FOUND, f"{name} holds {len(manifests)} optimization profiles: exactly one is needed"
        )
    return manifests[0]


def _resolve_existing(text: str, what: str) -> Path:
    path = Path(text).expanduser().absolute()
    if not path.exists():
        raise Invalid("NotFound", f"there is no {what} at {path}")
    return path


def _default_name(model: str) -> str:
    """A name that Kubernetes takes, from the model's manifest or its file."""
    from penstock.names import model_of  # noqa: PLC0415 (only for this command)
    from penstock.serving.manifest import MANIFEST_NAME, ModelManifest  # noqa: PLC0415 (the same)

    path = Path(model.rstrip("/"))
    manifest = path / MANIFEST_NAME
    found = ModelManifest.model_validate_json(manifest.read_bytes()).name if manifest.is_file() else path.stem
    return model_of(found)


def _check_name(name: str) -> str:
    """A name of the user's own, which becomes that of a file and of a deployment."""
    from penstock.names import LONGEST_MODEL, is_model, model_of  # noqa: PLC0415 (only for this command)

    if not is_model(name):
        said = f"--name {name}: at most {LONGEST_MODEL} characters, all of them a-z, 0-9 or -, such as {model_of(name)}"
        raise Invalid("InvalidOption", said)
    return name


def _store_uri(output: str | None, state: StateFolder) -> str:
    """Where the result will lie, which must be seen before the search and not after it.

    Raises:
        Invalid: nothing can be put there.
    """
    if output is None:
        return state.artifacts.absolute().as_uri()
    from penstock_runtime.storage import Store  # noqa: PLC0415 (only for this command)

    if "://" in output:
        return Store(output).root
    folder = Path(output).expanduser().absolute()
    standing = next(each for each in (folder, *folder.parents) if each.exists())
    if ":/" in output or not standing.is_dir() or not os.access(standing, os.W_OK):
        message = f"--output {output}: it cannot be written there: name a folder that is yours, or a URI such as s3://bucket/folder"
        raise Invalid("InvalidOption", message)
    return folder.as_uri()
