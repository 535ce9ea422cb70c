"""`penstock optimize`."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from penstock.errors import Invalid
from penstock_cli.standalone.state import StateFolder, default_cache_folder, default_state_folder, optimizer_workspace

if TYPE_CHECKING:
    from penstock.api.optimization import ClusterOptimizationProfile, OptimizationProfile
    from penstock.optimization.progress import OptimizationRequest, RunResult

_PROFILE_KINDS = ("OptimizationProfile", "ClusterOptimizationProfile")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(optimize)


def optimize(
    model: Annotated[
        str,
        typer.Argument(
            help="A file, folder or URI: ONNX, torch export (.pt2), TorchScript, or safetensors with --import-path."
        ),
    ],
    *,
    profile: Annotated[
        str, typer.Option(help="A shipped profile (`balanced`, `latency`, `throughput`, `small`, …) or a YAML file.")
    ] = "balanced",
    data: Annotated[
        str | None,
        typer.Option(
            help="Samples: a .npz file, or a folder with test.npz, calibration.npz, …; arrays are named by the model's "
            "inputs, and `labels`. Default: made up."
        ),
    ] = None,
    import_path: Annotated[
        str | None, typer.Option(help="`package.module:callable` that gives the torch module of safetensors.")
    ] = None,
    student_import_path: Annotated[
        str | None, typer.Option(help="Likewise for a distilled student. Default: the model itself, narrower.")
    ] = None,
    python_path: Annotated[list[Path] | None, typer.Option(help="Folder to import them from.", file_okay=False)] = None,
    shape: Annotated[
        list[str] | None,
        typer.Option(help="Length of axes that model and data leave open: `input_ids=128`, `image=3x224x224`."),
    ] = None,
    version: Annotated[
        str, typer.Option(help="Of a folder that holds a folder for each version, such as `2`.", show_default=False)
    ] = "",
    name: Annotated[str | None, typer.Option(help="Of the model. Default: of the file.")] = None,
    threads: Annotated[int, typer.Option(min=1, max=1024, help="Of one replica.")] = 1,
    budget: Annotated[float | None, typer.Option(min=0.1, help="Minutes. Default: the profile's.")] = None,
    output: Annotated[
        str | None, typer.Option(help="Artifact store: a folder or URI. Default: in the user's state folder.")
    ] = None,
    signing_key: Annotated[
        Path | None, typer.Option(help="Private key in PEM. Default: the user's own, made at first use.")
    ] = None,
    sandbox: Annotated[
        bool, typer.Option("--sandbox/--no-sandbox", help="Off only where all of this already is in a sandbox.")
    ] = True,
    require_accepted: Annotated[
        bool, typer.Option("--require-accepted", help="Exit with 1 unless a faster model was accepted.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Write the result as JSON; progress goes to stderr.")] = False,
) -> None:
    """Make a model faster on this machine, and prove it.

    Builds what the profile allows, drops what loses accuracy, measures the rest against torch eager and ONNX Runtime side
    by side, tests the leaders on all samples, loads them, and keeps the best: signed, with a report. If nothing is better,
    it says so. Ctrl-C at any time: the same command goes on where it stood, and once done, it is free.

    **Examples**

    `penstock optimize model.onnx --data samples/`

    `penstock optimize weights.safetensors --import-path mymodel:network --python-path src --profile latency --data samples/`

    `penstock optimize model.pt2 --profile my-profile.yaml --data samples.npz --budget 10 --json`
    """
    from penstock_cli.optimization.following import Display, show  # noqa: PLC0415 (only for this command)

    asked = Asked(
        model=model,
        version=version,
        profile=profile,
        data=data,
        import_path=import_path,
        student_import_path=student_import_path,
        python_path=tuple(python_path or ()),
        shapes=tuple(shape or ()),
        name=name,
        threads=threads,
        budget=budget,
        output=output,
        signing_key=signing_key,
        sandbox=sandbox,
    )
    state = StateFolder(default_state_folder())
    request = request_of(asked, state)
    progress = Console(stderr=True) if as_json else Console()
    from penstock_optimizer.search.driver import optimize as search  # noqa: PLC0415 (loads NumPy and more)

    try:
        with Display(progress) as display:
            result = search(request, display)
    except KeyboardInterrupt:
        progress.print(
            "Stopped. What was finished is kept: the same command goes on where this one stood.", highlight=False
        )
        raise
    if as_json:
        Console().print_json(result.model_dump_json())
    else:
        show(Console(), request, result, manifest_of(request, result, state))
    raise typer.Exit(_status(result, require_accepted=require_accepted))


@dataclass(frozen=True, slots=True)
class Asked:
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


def request_of(asked: Asked, state: StateFolder) -> OptimizationRequest:
    """The request for the optimizer. Makes the user's signing key where there is none yet.

    Raises:
        Invalid: the model or the data is not there, the profile is none, or a key cannot be read.
    """
    from penstock.optimization.progress import OptimizationRequest  # noqa: PLC0415 (only for this command)
    from penstock.optimization.variants import SourceRequest  # noqa: PLC0415 (the same)
    from penstock_cli.optimization.profiling import parse_shape  # noqa: PLC0415 (the same)
    from penstock_runtime.signing import make_keys, public_key  # noqa: PLC0415 (loads cryptography)

    found = profile_named(asked.profile)
    spec = found.spec
    if asked.student_import_path is not None and spec.steps.distil is not None:
        distil = spec.steps.distil.model_copy(update={"student_import_path": asked.student_import_path})
        spec = spec.model_copy(update={"steps": spec.steps.model_copy(update={"distil": distil})})
    remote = "://" in asked.model
    path = "" if remote else str(_existing(asked.model, "model"))
    if asked.signing_key is None:
        state.create()
        make_keys(state.signing_key_file)
    else:
        public_key(asked.signing_key)
    return OptimizationRequest(
        model=SourceRequest(
            path=path,
            import_path=asked.import_path,
            python_path=tuple(str(each.absolute()) for each in asked.python_path),
            student_import_path=asked.student_import_path
            or (spec.steps.distil.student_import_path if spec.steps.distil else None),
            example_shapes=dict(parse_shape(each) for each in asked.shapes),
        ),
        model_uri=asked.model if remote else None,
        model_version=asked.version,
        name=_name(asked.model) if asked.name is None else _asked_name(asked.name),
        profile=f"{found.kind}/{found.metadata.name}",
        spec=spec,
        data_uri=asked.data if asked.data is None or "://" in asked.data else str(_existing(asked.data, "data")),
        store=_store(asked.output, state),
        workspace=str(optimizer_workspace(default_cache_folder())),
        signing_key=str((asked.signing_key or state.signing_key_file).absolute()),
        threads=asked.threads,
        budget_seconds=asked.budget * 60 if asked.budget is not None else None,
        sandbox=asked.sandbox,
        command=shlex.join(["penstock", *sys.argv[1:]]),
    )


def profile_named(name: str) -> OptimizationProfile | ClusterOptimizationProfile:
    """A shipped profile, or the one in a file.

    Raises:
        Invalid: there is none of that name, or the file holds no single profile that the API server would accept.
    """
    from penstock.api.optimization import (  # noqa: PLC0415 (only for this command)
        ClusterOptimizationProfile,
        OptimizationProfile,
    )
    from penstock_cli.shipped import profiles  # noqa: PLC0415 (the same)

    shipped = {str(each["metadata"]["name"]): each for each in profiles()}
    manifest = shipped.get(name)
    if manifest is None:
        manifest = _profile_in(name, tuple(shipped))
    if manifest["kind"] == "ClusterOptimizationProfile":
        return ClusterOptimizationProfile.model_validate(manifest)
    return OptimizationProfile.model_validate(manifest)


def _profile_in(name: str, shipped: tuple[str, ...]) -> dict[str, object]:
    if not Path(name).is_file():
        if Path(name).suffix in (".yaml", ".yml") or "/" in name:
            raise Invalid("ProfileNotFound", f"there is no file {name}: give one with an OptimizationProfile")
        raise Invalid(
            "ProfileNotFound", f"there is no profile '{name}': shipped are {', '.join(shipped)}; or name a YAML file"
        )
    from penstock_cli.validation.manifests import accepted  # noqa: PLC0415 (the CEL evaluator takes half a second to import)

    manifests = [each.manifest for each in accepted([name]) if each.manifest.get("kind") in _PROFILE_KINDS]
    if len(manifests) != 1:
        raise Invalid("ProfileNotFound", f"{name} holds {len(manifests)} optimization profiles: exactly one is needed")
    return manifests[0]


def manifest_of(request: OptimizationRequest, result: RunResult, state: StateFolder) -> Path | None:
    """Write a manifest that serves the artifact; None where nothing was chosen."""
    from penstock_cli.optimization.following import serving_manifest  # noqa: PLC0415 (only for this command)

    text = serving_manifest(request, result)
    if text is None:
        return None
    folder = state.root / "optimized"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{request.name}.yaml"
    scratch = path.with_suffix(".tmp")
    scratch.write_text(text, encoding="utf-8")
    scratch.replace(path)
    return path


def _existing(text: str, what: str) -> Path:
    path = Path(text).expanduser().absolute()
    if not path.exists():
        raise Invalid("NotFound", f"there is no {what} at {path}")
    return path


def _name(model: str) -> str:
    """A name that Kubernetes takes, from the model's manifest or its file."""
    from penstock.names import model_of  # noqa: PLC0415 (only for this command)
    from penstock.serving.manifest import MANIFEST_NAME, ModelManifest  # noqa: PLC0415 (the same)

    path = Path(model.rstrip("/"))
    manifest = path / MANIFEST_NAME
    found = ModelManifest.model_validate_json(manifest.read_bytes()).name if manifest.is_file() else path.stem
    return model_of(found)


def _asked_name(name: str) -> str:
    """A name of the user's own, which becomes that of a file and of a deployment."""
    from penstock.names import LONGEST_MODEL, is_model, model_of  # noqa: PLC0415 (only for this command)

    if not is_model(name):
        said = f"--name {name}: at most {LONGEST_MODEL} characters, all of them a-z, 0-9 or -, such as {model_of(name)}"
        raise Invalid("InvalidOption", said)
    return name


def _store(output: str | None, state: StateFolder) -> str:
    if output is None:
        return state.artifacts.absolute().as_uri()
    return output if "://" in output else Path(output).expanduser().absolute().as_uri()


def _status(result: RunResult, *, require_accepted: bool) -> int:
    from penstock.optimization.report import Verdict  # noqa: PLC0415 (only for this command)

    return int(require_accepted and result.verdict is not Verdict.ACCEPTED)
