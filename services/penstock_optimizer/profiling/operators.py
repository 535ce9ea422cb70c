"""Time by operator of a variant, in a process of its own, since it loads a model into an engine.

`python -m penstock_optimizer.profiling.operators` reads one line of `OperatorsRequest` and answers with one of `OperatorsAnswer`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from penstock.models import Frozen
from penstock.optimization.measurements import OperatorShare
from penstock.optimization.variants import DataSplits
from penstock_optimizer.measure.answering import answer_one_request
from penstock_optimizer.measure.channel import ChildGone, ask_once
from penstock_optimizer.measure.variant import is_code, read_variant

_MODULE: Final = "penstock_optimizer.profiling.operators"
_SECONDS: Final = 120.0


class OperatorsRequest(Frozen):
    """Profile one variant."""

    variant: str
    data: DataSplits
    batch_size: int


class OperatorsAnswer(Frozen):
    """What came of it."""

    operators: tuple[OperatorShare, ...] = ()
    problem: str | None = None


def operators(
    folder: Path,
    data: DataSplits,
    batch_size: int,
    threads: int,
    *,
    sandbox: bool = True,
    hidden: Sequence[Path] = (),
) -> OperatorsAnswer:
    """Time by operator of one run. A variant that cannot be profiled has none, and the answer says why.

    Raises:
        Invalid: there is no variant, or no sandbox for one that is code.
    """
    isolated = sandbox if is_code(read_variant(folder)) else None
    request = OperatorsRequest(variant=str(folder), data=data, batch_size=batch_size)
    try:
        return ask_once(_MODULE, request, OperatorsAnswer, _SECONDS, threads, isolated=isolated, hidden=hidden)
    except ChildGone as error:
        return OperatorsAnswer(problem=str(error))


def main() -> None:
    """The child."""
    from penstock_optimizer.profiling.variant import profile_variant  # noqa: PLC0415 -- engines are for the child only

    def profile(line: bytes) -> OperatorsAnswer:
        request = OperatorsRequest.model_validate_json(line)
        return OperatorsAnswer(operators=profile_variant(Path(request.variant), request.data, request.batch_size))

    answer_one_request(profile, lambda problem: OperatorsAnswer(problem=problem))


if __name__ == "__main__":
    main()
