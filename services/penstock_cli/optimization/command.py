"""`penstock optimize`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console

from penstock_cli.optimization import options
from penstock_cli.optimization.request import OptimizeSettings, build_request
from penstock_cli.standalone.state import StateFolder, default_state_folder
from penstock_runtime.atomic import write_atomically

if TYPE_CHECKING:
    from penstock.optimization.progress import OptimizationRequest, RunResult


def optimize(
    model: options.Model,
    *,
    profile: options.Profile = "balanced",
    data: options.Data = None,
    import_path: options.ImportPath = None,
    student_import_path: options.StudentImportPath = None,
    python_path: options.PythonPath = None,
    shape: options.Shapes = None,
    version: options.Version = "",
    name: options.Name = None,
    threads: options.ReplicaThreads = 1,
    budget: options.Budget = None,
    output: options.Output = None,
    signing_key: options.SigningKey = None,
    sandbox: options.Sandbox = True,
    require_accepted: options.RequireAccepted = False,
    as_json: options.ResultAsJson = False,
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
    settings = OptimizeSettings(
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
    result = _search(settings, as_json=as_json)
    raise typer.Exit(_exit_status(result, require_accepted=require_accepted))


def _search(settings: OptimizeSettings, *, as_json: bool) -> RunResult:
    """Search, show how it goes, and write what came of it."""
    from penstock_cli.optimization.following import Display, show  # noqa: PLC0415 (only for this command)

    state = StateFolder(default_state_folder())
    request = build_request(settings, state)
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
        show(Console(), request, result, write_manifest(request, result, state))
    return result


def write_manifest(request: OptimizationRequest, result: RunResult, state: StateFolder) -> Path | None:
    """Write a manifest that serves the artifact; None where nothing was chosen."""
    from penstock_cli.optimization.following import serving_manifest  # noqa: PLC0415 (only for this command)

    text = serving_manifest(request, result)
    if text is None:
        return None
    path = state.root / "optimized" / f"{request.name}.yaml"
    write_atomically(path, text.encode())
    return path


def _exit_status(result: RunResult, *, require_accepted: bool) -> int:
    from penstock.optimization.report import SearchVerdict  # noqa: PLC0415 (only for this command)

    return int(require_accepted and result.verdict is not SearchVerdict.ACCEPTED)
