"""Runs a model on small requests, alone and together, to prove along which axes requests can be joined.

What is not proved is not joined: a wrong guess would mix the answers of callers in silence. Silence proves nothing either, so a
model that refuses what the trial sends, gives another answer to the same request, or is too slow for the trial, is not joined.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from penstock.optimization.recipes import EngineSettings
from penstock.serving.joining import Joining
from penstock_runtime.engines import Engine
from penstock_runtime.joining.candidates import Axes, AxisNames, candidates
from penstock_runtime.joining.judge import AnswerComparer
from penstock_runtime.joining.proof import NotProved, NotRun, Proof, Runs

logger = logging.getLogger(__name__)

PROOF_SECONDS: Final = 60.0
"""Past this nothing is proved."""
_MOST_REASON: Final = 220


@dataclass(frozen=True)
class Trial:
    """What a trial showed."""

    joining: Joining | None
    """Along which axes requests are joined; None: they are not."""
    reason: str
    """The axes, or why not, for people."""
    judge: AnswerComparer | None = None
    """Of answers, with what it learned of the engine's rounding. None where requests are not joined."""


def prove(
    engine: Engine, settings: EngineSettings, max_rows: int, declared: Joining | None = None, *,
    seconds: float = PROOF_SECONDS,
) -> Trial:  # fmt: skip
    """Find out along which axes requests to a model can be joined.

    Args:
        engine: the model, loaded.
        settings: what runs it.
        max_rows: that a batch may have.
        declared: what the manifest says. It is checked by the same runs, and nothing else is tried.
        seconds: after which nothing is proved.
    """
    runs = Runs(engine, time.monotonic() + seconds)
    if declared is not None and declared.is_forbidden:
        return Trial(None, "the manifest says so")
    names: AxisNames = getattr(engine, "axis_names", {})
    branch: str | None = getattr(engine, "branch", None)
    if branch is not None:
        # Which value makes it turn is nothing that trial runs could find.
        return Trial(None, f"its {branch} takes one way for a whole run, by what the requests in it hold")
    try:
        tried = _declared_axes(engine, declared) if declared is not None else _likely_axes(engine, names)
        found = _first_proved(Proof(engine, settings, names, max_rows, runs), tried, declared)
    except (NotProved, NotRun) as why:
        said = f"as the manifest declares it: {why}" if declared is not None else str(why)
        return Trial(None, said[:_MOST_REASON])
    return Trial(*found)


def _declared_axes(engine: Engine, declared: Joining) -> tuple[Axes, ...]:
    for what, axes, specs in (
        ("input", declared.inputs, engine.signature.inputs),
        ("output", declared.outputs, engine.signature.outputs),
    ):
        if set(axes) != {spec.name for spec in specs}:
            raise NotProved(f"it names the batch axis of {sorted(axes)}, but the {what}s are {[s.name for s in specs]}")
        for spec in specs:
            if what == "input" and spec.shape[axes[spec.name] :][:1] != (-1,):
                raise NotProved(
                    f"axis {axes[spec.name]} of input '{spec.name}' of shape {list(spec.shape)} is not open"
                )
    return (declared.inputs,)


def _likely_axes(engine: Engine, names: AxisNames) -> tuple[Axes, ...]:
    found = candidates(engine.signature, names)
    if not found:
        fixed = [spec.name for spec in engine.signature.inputs if -1 not in spec.shape]
        raise NotProved(
            f"input '{fixed[0]}' has no open axis that could count rows" if fixed else "the model takes no input"
        )
    return found


def _first_proved(proof: Proof, tried: Sequence[Axes], declared: Joining | None) -> tuple[Joining, str, AnswerComparer]:
    """The first candidate that is proved.

    Raises:
        NotProved, NotRun: why none is: the reason of the first.
    """
    first: NotProved | NotRun | None = None
    for axes in tried:
        try:
            found, judge = proof.prove(axes)
        except (NotProved, NotRun) as why:
            logger.info("requests cannot be joined on %s: %s", dict(axes), why)
            # What ran and failed tells more than what did not run at all.
            if first is None or (isinstance(first, NotRun) and isinstance(why, NotProved)):
                first = why
            continue
        if declared is not None and dict(declared.outputs) != dict(found.outputs):
            raise NotProved(f"the outputs count rows on {found.outputs}, not on {declared.outputs}")
        return found, str(found)[:_MOST_REASON], judge
    assert first is not None  # noqa: S101 -- the caller gives at least one
    raise first


__all__ = ["PROOF_SECONDS", "Trial", "prove"]
