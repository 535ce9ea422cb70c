"""The CEL rules of `spec.rollout`. See `penstock.api.rules`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pydantic import BaseModel

from penstock.api import rollout as api
from penstock.api.rule import Rule, decimal, positive_ratio

_ONE_HALF: Final = "0.5"
_COMPARES_NOTHING: Final = r"^0(\\.0*)?$"
_BY_STEPS: Final = "!has(self.type) || self.type == 'Canary'"


MODEL_RULES: Final[Mapping[type[BaseModel], tuple[Rule, ...]]] = {
    api.RolloutSpec: (
        Rule(
            f"!({_BY_STEPS}) || "
            "self.deadlineSeconds > self.analysis.warmUpSeconds + self.stepSeconds * self.steps.size()",
            "deadlineSeconds must be more than warmUpSeconds and stepSeconds for each of steps together, or the last step would "
            "never be reached: raise it, or lower stepSeconds, such as to 30 with a deadline of 3600",
            field_path=".deadlineSeconds",
        ),
        Rule(
            f"({_BY_STEPS}) || self.type == 'Immediate' || self.deadlineSeconds > self.analysis.warmUpSeconds",
            "deadlineSeconds must be more than warmUpSeconds, during which nothing is judged: raise the one or lower the other",
            field_path=".deadlineSeconds",
        ),
        Rule(
            "!has(self.type) || self.type != 'Shadow' || "
            f"!string(self.analysis.outputParity).matches('{_COMPARES_NOTHING}')",
            'outputParity "0" compares no answers, and type Shadow judges by nothing else: write the agreement that you ask for, '
            'such as "0.99", or leave it out, or take type Canary',
            field_path=".analysis.outputParity",
        ),
    ),
}

FIELD_RULES: Final[Mapping[tuple[type[BaseModel], str], tuple[Rule, ...]]] = {
    (api.RolloutSpec, "steps"): (
        Rule(
            "self.isSorted() && self.all(each, self.exists_one(other, other == each))",
            "steps must rise, each above the one before, such as [1, 5, 25, 50]; after the last one the new revision gets all "
            "requests, so 100 need not be written",
        ),
    ),
    (api.RolloutAnalysis, "output_parity"): (
        Rule(
            r"string(self) == 'Auto' || string(self).matches('^0(\\.[0-9]+)?$')",
            'outputParity must be Auto, or a decimal from "0" (answers are not compared) to below "1", in quotes, such as "0.99": '
            "that no answer ever differs, no number of samples can show",
        ),
    ),
    (api.RolloutAnalysis, "shadow_ratio"): positive_ratio("shadowRatio", "0.1"),
    (api.RolloutAnalysis, "max_error_increase"): positive_ratio("maxErrorIncrease", "0.01"),
    (api.RolloutAnalysis, "max_slow_increase"): positive_ratio("maxSlowIncrease", "0.05"),
    (api.RolloutAnalysis, "max_cpu_increase"): decimal("maxCpuIncrease", "0.5", positive=True),
    (api.RolloutAnalysis, "max_memory_increase"): decimal("maxMemoryIncrease", "0.5", positive=True),
    (api.RolloutAnalysis, "alpha"): positive_ratio("alpha", "0.001", most=_ONE_HALF),
    (api.RolloutAnalysis, "beta"): positive_ratio("beta", "0.05", most=_ONE_HALF),
}
