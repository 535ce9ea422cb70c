"""Options of `penstock replay`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from penstock_cli.replay.loads import LoadShape

VIOLATION_SECONDS: Final = 2.0
"""Replica-seconds that a request without an answer in time is taken to cost, where nobody says otherwise."""

Load = Annotated[
    Path | None,
    typer.Argument(help="Recorded: seconds of each request, or SECONDS,RATE, one a line.", exists=True, dir_okay=False),
]
Shape = Annotated[LoadShape, typer.Option(help="Of a generated load.")]
Low = Annotated[float, typer.Option(help="Its least rate, requests/s.", min=0.0)]
High = Annotated[float, typer.Option(help="Its highest rate, requests/s.", min=0.001)]
Minutes = Annotated[float, typer.Option(help="Its length.", min=0.1, max=1440.0)]
Curve = Annotated[
    str,
    typer.Option(help="ROWS:MILLISECONDS of engine runs, or an optimized model's manifest.json or report.json."),
]
MaxBatch = Annotated[int | None, typer.Option(help="Rows in a run. Default: the curve's last.", min=1)]
Slo = Annotated[float, typer.Option(help="Milliseconds within which an answer is due.", min=0.1)]
StartSeconds = Annotated[float, typer.Option(help="Until a new replica takes requests.", min=0.0)]
EstimateTimes = Annotated[
    float,
    typer.Option(help="By what replicas multiply an expected answer's time: estimate_times of /stats.", min=0.1),
]
Minimum = Annotated[int, typer.Option("--min", help="Replicas at least.", min=0)]
Maximum = Annotated[int, typer.Option("--max", help="Replicas at most.", min=1)]
Forecast = Annotated[bool, typer.Option(help="Whether Penstock's policy foresees load, as spec.scaling.forecast says.")]
Policies = Annotated[str, typer.Option("--policy", help="Which, with commas between.")]
Search = Annotated[bool, typer.Option("--search", help="Find each policy's best setting, too.")]
ViolationPrice = Annotated[float, typer.Option(help="Of a search: replica-seconds that a violation costs.", min=0.0)]
Seed = Annotated[int, typer.Option(help="Of generated loads.")]
Html = Annotated[Path | None, typer.Option(help="Write a page with plots there.", dir_okay=False)]
