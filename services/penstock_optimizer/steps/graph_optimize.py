"""graphOptimize: a smaller graph that computes the same.

Parameters:
    simplify (bool, true): rewrite the graph with onnxslim: fold constants, drop what changes nothing, merge duplicates.
    transformer (bool, false): also fuse attention, layer normalization, GELU and the like into ONNX Runtime's own
        operators, as `onnxruntime.transformers` finds them in BERT-like graphs. ONNX Runtime only. Worth trying before
        `quantize Dynamic`; after it `quantize Static` finds less to quantize.

Each rewrite is checked on calibration samples, and left out with a note where outputs differ.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np

from penstock.engines import ENGINES
from penstock.optimization.recipes import EngineName, Step
from penstock_optimizer.accuracy.likeness import difference_between
from penstock_optimizer.building import forms
from penstock_optimizer.building.draft import BuildContext, CannotDo, Draft
from penstock_optimizer.samples.arrays import as_onnxruntime_takes, rows_of_run, run_of
from penstock_optimizer.steps.parameters import Parameters
from penstock_runtime.engines import Array

_DEFAULTS: Final = {"simplify": True, "transformer": False}
_ROWS: Final = 4


class GraphOptimize:
    """Rewrites of the ONNX form."""

    def why_infeasible(self, step: Step, context: BuildContext) -> str | None:
        """On ONNX only; fusions on ONNX Runtime only."""
        transformer = Parameters(step, _DEFAULTS).boolean("transformer")
        if ENGINES[context.engine.name].from_program:
            return f"{context.engine.name} runs torch's own program, and this rewrites ONNX: leave graphOptimize out"
        if transformer and context.engine.name is EngineName.OPENVINO:
            return "transformer fusions are operators of ONNX Runtime, which OpenVINO does not know"
        return None

    def apply(self, step: Step, draft: Draft, context: BuildContext) -> None:
        """Rewrite, check, and keep what computes the same."""
        parameters = Parameters(step, _DEFAULTS)
        path = forms.as_onnx(draft, context)
        wanted = _outputs(path, context)
        for asked, rewrite, name in (
            (parameters.boolean("simplify"), _slim, "onnxslim's graph"),
            (parameters.boolean("transformer"), _fuse, "the graph with fused attention"),
        ):
            if asked:
                rewritten = rewrite(path, context)
                problem = _difference(wanted, rewritten, context)
                if problem is None:
                    path = rewritten
                else:
                    draft.notes.append(f"{name} was left out: {problem}")
        forms.set_onnx(draft, path)


def _slim(path: Path, context: BuildContext) -> Path:
    import onnx  # noqa: PLC0415 -- only where the step runs
    import onnxslim  # noqa: PLC0415 -- as above

    from penstock_optimizer.sources.onnx import write  # noqa: PLC0415 -- as above

    target = context.work / "slim.onnx"
    slimmed = onnxslim.slim(onnx.load(str(path)))
    if slimmed is None:
        raise CannotDo("onnxslim gave no model")
    write(slimmed, target)
    return target


def _fuse(path: Path, context: BuildContext) -> Path:
    from onnxruntime.transformers.optimizer import optimize_model  # noqa: PLC0415 -- as above

    target = context.work / "fused.onnx"
    # Zero heads and zero hidden size: told from the graph.
    fused = optimize_model(str(path), model_type="bert", num_heads=0, hidden_size=0, opt_level=0)
    fused.save_model_to_file(str(target))
    return target


def _outputs(path: Path, context: BuildContext) -> list[Array]:
    import onnxruntime  # noqa: PLC0415 -- as above

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = context.threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    signature = context.source.signature
    rows = rows_of_run(signature, _ROWS)
    samples = forms.calibration(context, rows)
    count = len(next(iter(samples.values())))
    feed = as_onnxruntime_takes(run_of(samples, signature, np.arange(rows) % count))
    given: list[Array] = session.run(None, feed)
    return given


def _difference(wanted: list[Array], rewritten: Path, context: BuildContext) -> str | None:
    try:
        got = _outputs(rewritten, context)
    except Exception as error:  # noqa: BLE001 -- ONNX Runtime's errors have no common base; the note tells
        return str(error).strip().splitlines()[0][:300]
    problems = (difference_between(ours, theirs) for ours, theirs in zip(wanted, got, strict=True))
    return next((problem for problem in problems if problem is not None), None)
