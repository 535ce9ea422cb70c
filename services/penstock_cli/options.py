"""Options that several commands have, and what they have in common to say of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from penstock.errors import Invalid
from penstock_cli.objects.showing import OutputFormat
from penstock_cli.standalone.state import StateFolder, default_state_folder

Kubeconfig = Annotated[Path | None, typer.Option(help="Kubeconfig of the cluster to speak to.", dir_okay=False)]
Context = Annotated[str | None, typer.Option(help="Context in the kubeconfig.")]
StateDir = Annotated[Path | None, typer.Option(help="State folder of `penstock run`; then no cluster is asked.")]
Namespace = Annotated[str, typer.Option("-n", "--namespace", help="The namespace.")]
AllNamespaces = Annotated[bool, typer.Option("-A", "--all-namespaces", help="In all namespaces.")]
Files = Annotated[list[str] | None, typer.Option("-f", "--filename", help="Manifest, folder, or `-`; may repeat.")]
Output = Annotated[OutputFormat, typer.Option("-o", "--output", help="How to write.")]
FiguresAsJson = Annotated[bool, typer.Option("--json", help="Write all figures as JSON.")]


def state_folder(given: Path | None) -> StateFolder:
    """The one that `--state-dir` names, else the user's."""
    return StateFolder(given.absolute() if given else default_state_folder())


def check_page(html: Path | None) -> None:
    """See that `--html` can be written, before anything takes its time.

    Raises:
        Invalid: it cannot.
    """
    if html is not None and not os.access(html if html.exists() else html.absolute().parent, os.W_OK):
        raise Invalid(
            "InvalidOption", f"--html {html}: it cannot be written there: name a file in a folder that is yours"
        )
