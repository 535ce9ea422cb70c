"""Options of `penstock cost`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

TOKEN_VARIABLE: Final = "PENSTOCK_PROMETHEUS_TOKEN"  # noqa: S105 -- a variable's name

What = Annotated[
    str | None, typer.Argument(metavar="[NAMESPACE/NAME]", help="A deployment, or `NAMESPACE/`; none: all.")
]
Since = Annotated[str, typer.Option(help="With --prometheus: how far back, such as 90m, 24h, 7d, 4w.")]
Prometheus = Annotated[
    str | None, typer.Option(help=f"Prometheus' address. A bearer token is taken from {TOKEN_VARIABLE}.")
]
Metrics = Annotated[
    str | None,
    typer.Option(help="A gateway's metrics port, where there is no Prometheus: replicas since they started."),
]
Prices = Annotated[
    Path | None,
    typer.Option(help="Price list in YAML. Default: the cluster's, or else an example.", exists=True, dir_okay=False),
]
PricesFrom = Annotated[
    str,
    typer.Option(metavar="NAMESPACE/NAME", help="ConfigMap with the cluster's price list, as the chart makes it."),
]
SharePlatform = Annotated[
    bool, typer.Option("--share-platform", help="Charge gateways and operators to the models, by CPU time.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Write JSON.")]
