"""`penstock validate`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from penstock.api.problems import Problem


def validate(
    files: Annotated[list[str], typer.Argument(help="Manifests, folders of manifests, or `-` for standard input.")],
) -> None:
    """Say what the API server would refuse, with file and line, without one.

    The same schema and the same CEL rules as the CRDs. Exits with 1 if anything would be refused.

    **Examples**

    `penstock validate manifests/samples/digits.yaml`

    `kustomize build . | penstock validate -`
    """
    from penstock_cli.validation.manifests import problems_of, validate_files  # noqa: PLC0415 (the CEL evaluator takes half a second to import)

    verdicts = validate_files(files)
    problems = problems_of(verdicts)
    console = Console()
    for problem in problems:
        console.print(_line(problem), soft_wrap=True, highlight=False)
    objects = sum(len(each.documents) for each in verdicts)
    passed_over = [title for each in verdicts for title in each.not_checked]
    if passed_over:
        console.print(f"not checked (not of Penstock's kinds): {', '.join(passed_over)}", style="dim", soft_wrap=True)
    if problems:
        raise typer.Exit(1)
    console.print(_summary(objects, objects - len(passed_over)), highlight=False)


def _summary(objects: int, checked: int) -> str:
    """What can be said of objects with which nothing is wrong."""
    if not objects:
        return "nothing was checked: there is no object in what was named"
    if not checked:
        return f"nothing was checked: none of {objects} objects is of Penstock's kinds"
    return f"{checked} of {objects} objects checked; the API server would accept them"


def _line(problem: Problem) -> Text:
    """`file:line: field: message`, which editors can jump to."""
    text = Text()
    text.append(f"{problem.filename or ''}:{problem.line or ''}: ", style="bold")
    if problem.field:
        text.append(f"{problem.field}: ", style="cyan")
    text.append(problem.text)
    return text
