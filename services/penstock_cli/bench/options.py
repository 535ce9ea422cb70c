"""Options of `penstock bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from penstock_cli.bench.arrivals import ArrivalProcess

Target = Annotated[
    str,
    typer.Argument(help="A model's URL (…/v2/models/NAME), at any server of the protocol, or a deployment's name."),
]
Connections = Annotated[
    str | None, typer.Option(help="Closed loops: `1,8,64` connections, each sends when it has its answer.")
]
Rate = Annotated[
    str | None, typer.Option(help="Open loops: `100,200` requests a second, sent whatever the answers do.")
]
P99 = Annotated[
    float | None,
    typer.Option(help="Search the highest rate whose 99th percentile is at most so many ms.", min=0.01),
]
Arrivals = Annotated[ArrivalProcess, typer.Option(help="Of an open loop: independent users, or equal gaps.")]
Seconds = Annotated[float, typer.Option(help="Of each load.", min=0.1)]
Warmup = Annotated[float, typer.Option(help="Seconds before each load that do not count.", min=0.0)]
Timeout = Annotated[float, typer.Option(help="Seconds after which a request has failed.", min=0.1)]
MaxConnections = Annotated[int, typer.Option(help="Of an open loop.", min=1, max=16384)]
Rows = Annotated[int, typer.Option(help="In a request, where the model leaves the first axis open.", min=1)]
Shapes = Annotated[
    list[str] | None, typer.Option(help="Length of an input's other axes: `input_ids=128`, `image=3x224x224`.")
]
Distinct = Annotated[int, typer.Option(help="Different requests, sent in turn.", min=1, max=65536)]
Binary = Annotated[bool, typer.Option("--binary", help="Send tensors as bytes, not as JSON.")]
Body = Annotated[Path | None, typer.Option(help="A request in JSON to send instead.", exists=True, dir_okay=False)]
Headers = Annotated[list[str] | None, typer.Option(help="`NAME: VALUE`; may repeat.")]
KeyFile = Annotated[
    Path | None,
    typer.Option(help="File with the API key. Default: $PENSTOCK_API_KEY.", exists=True, dir_okay=False),
]
AuthorityFile = Annotated[
    Path | None, typer.Option(help="Authorities (PEM) of an `https:` server.", exists=True, dir_okay=False)
]
Html = Annotated[Path | None, typer.Option(help="Write a page with a plot there.", dir_okay=False)]
Seed = Annotated[int, typer.Option(help="Of inputs and arrivals.")]
