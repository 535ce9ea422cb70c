"""Options of `penstock optimize` and `penstock profile`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[
    str,
    typer.Argument(
        help="A file, folder or URI: ONNX, torch export (.pt2), TorchScript, or safetensors with --import-path."
    ),
]
LocalModel = Annotated[
    Path,
    typer.Argument(help="A file or folder: ONNX, torch export (.pt2), TorchScript, or safetensors with --import-path."),
]
Profile = Annotated[
    str, typer.Option(help="A shipped profile (`balanced`, `latency`, `throughput`, `small`, …) or a YAML file.")
]
Data = Annotated[
    str | None,
    typer.Option(
        help="Samples: a .npz file, or a folder with test.npz, calibration.npz, …; arrays are named by the model's "
        "inputs, and `labels`. Default: made up."
    ),
]
ProfileData = Annotated[
    str | None,
    typer.Option(help="Samples as for `penstock optimize`: .npz, or a folder of them. Default: made up."),
]
ImportPath = Annotated[
    str | None, typer.Option(help="`package.module:callable` that gives the torch module of safetensors.")
]
StudentImportPath = Annotated[
    str | None, typer.Option(help="Likewise for a distilled student. Default: the model itself, narrower.")
]
PythonPath = Annotated[list[Path] | None, typer.Option(help="Folder to import them from.", file_okay=False)]
ProfilePythonPath = Annotated[list[Path] | None, typer.Option(help="Folder to import it from.", file_okay=False)]
Shapes = Annotated[
    list[str] | None,
    typer.Option(help="Length of axes that model and data leave open: `input_ids=128`, `image=3x224x224`."),
]
ProfileShapes = Annotated[
    list[str] | None,
    typer.Option(
        help="Length of axes that the model leaves open, beside the batch: `input_ids=128`, `image=3x224x224`."
    ),
]
Version = Annotated[
    str, typer.Option(help="Of a folder that holds a folder for each version, such as `2`.", show_default=False)
]
Name = Annotated[str | None, typer.Option(help="Of the model. Default: of the file.")]
ReplicaThreads = Annotated[int, typer.Option(min=1, max=1024, help="Of one replica.")]
EngineThreads = Annotated[int, typer.Option(min=1, max=1024, help="Of the engine.")]
BatchSize = Annotated[int, typer.Option(min=1, max=4096, help="Rows in a run.")]
Budget = Annotated[float | None, typer.Option(min=0.1, help="Minutes. Default: the profile's.")]
Output = Annotated[
    str | None, typer.Option(help="Artifact store: a folder or URI. Default: in the user's state folder.")
]
SigningKey = Annotated[
    Path | None, typer.Option(help="Private key in PEM. Default: the user's own, made at first use.")
]
Sandbox = Annotated[
    bool, typer.Option("--sandbox/--no-sandbox", help="Off only where all of this already is in a sandbox.")
]
RequireAccepted = Annotated[
    bool, typer.Option("--require-accepted", help="Exit with 1 unless a faster model was accepted.")
]
ResultAsJson = Annotated[bool, typer.Option("--json", help="Write the result as JSON; progress goes to stderr.")]
ProfileAsJson = Annotated[bool, typer.Option("--json", help="Write the whole profile as JSON.")]
