"""What `spec.rollout` asks for, with what it leaves open decided."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from penstock.api.conditions import Reason
from penstock.api.meta import AUTO
from penstock.api.rollout import OnFailure, OnInconclusive, RolloutAnalysis, RolloutSpec, RolloutType, WithoutRoom
from penstock.errors import Invalid
from penstock.optimization.measurements import METRICS, MetricName
from penstock.routing.outcomes import Losses, SampleSource
from penstock_operator.rollout.evidence.findings import AnalysisSettings

_PARITY: Final = 0.99
"""Of a model that an optimization made, and of one that is judged by nothing else."""
_FULL: Final = 100
OF_OPTIMIZED: Final = RolloutType.CANARY
"""How what an optimization made takes over where the spec does not say: nobody has said that its answers may be others."""


@dataclass(frozen=True, slots=True)
class RolloutSettings:
    """What holds for one rollout."""

    type: RolloutType
    named: bool
    """Whether the spec names the type, or it follows from what the model is."""
    steps: tuple[int, ...]
    """Percent of the requests that a candidate gets, one after another, each above the one before; without the last, all of them."""
    step_seconds: float
    deadline_seconds: float
    on_failure: OnFailure
    on_inconclusive: OnInconclusive
    without_room: WithoutRoom
    paused: bool
    sticky: bool
    keep_seconds: float
    keep_payloads: bool
    shadow_share: float
    """Of the requests whose inputs the candidate is shown, in [0, 1]."""
    loss: Losses
    loss_where_it_suits: bool
    """Whether the loss follows from a profile's metric, which some outputs may have nothing of."""
    analysis: AnalysisSettings
    samples: SampleSource | None
    """That are shown, too, where clients send too few requests."""

    @property
    def shares_requests(self) -> bool:
        """Whether the candidate and its baseline get shares of clients' requests; else they are shown requests alone."""
        return self.type is RolloutType.CANARY

    @property
    def asks_parity(self) -> bool:
        """Whether answers must be proved to agree."""
        return self.analysis.output_parity > 0


def rollout_settings(
    spec: RolloutSpec, *, optimized: bool, metric: MetricName | None = None, samples: SampleSource | None = None
) -> RolloutSettings:
    """The settings.

    Args:
        spec: as it is written.
        optimized: whether the candidate is what an optimization made of the model.
        metric: by which the deployment's profile judges accuracy; None: it names none.
        samples: that its model or profile names; None: neither does.

    Raises:
        Invalid: a share is none.
    """
    loss, asked = _loss(spec.analysis.loss, metric), spec.analysis.loss
    kind = spec.type or (OF_OPTIMIZED if optimized else RolloutType.IMMEDIATE)
    parity = _parity(spec.analysis, asked=optimized or kind is RolloutType.SHADOW)
    shares = tuple(sorted({each for each in spec.steps if each < _FULL}))
    return RolloutSettings(
        type=kind,
        named=spec.type is not None,
        steps=(_FULL,) if kind is RolloutType.BLUE_GREEN else shares or (1,),
        step_seconds=spec.step_seconds,
        deadline_seconds=spec.deadline_seconds,
        on_failure=spec.on_failure,
        on_inconclusive=spec.on_inconclusive,
        without_room=spec.without_room,
        paused=spec.paused,
        sticky=spec.sticky,
        keep_seconds=spec.keep_seconds,
        keep_payloads=spec.keep_payloads,
        shadow_share=_decimal(spec.analysis.shadow_ratio, "shadowRatio"),
        loss=loss,
        loss_where_it_suits=loss is not asked,
        analysis=_analysis(spec.analysis, parity),
        samples=samples,
    )


def _loss(asked: Losses, metric: MetricName | None) -> Losses:
    return asked if asked is not Losses.AUTO or metric is None else METRICS[metric].loss


def _parity(analysis: RolloutAnalysis, *, asked: bool) -> float:
    if analysis.output_parity == AUTO:
        return _PARITY if asked else 0.0
    return _decimal(analysis.output_parity, "outputParity")


def _analysis(spec: RolloutAnalysis, parity: float) -> AnalysisSettings:
    return AnalysisSettings(
        output_parity=parity,
        max_error_increase=_decimal(spec.max_error_increase, "maxErrorIncrease"),
        max_slow_increase=_decimal(spec.max_slow_increase, "maxSlowIncrease"),
        max_cpu_increase=_decimal(spec.max_cpu_increase, "maxCpuIncrease"),
        max_memory_increase=_decimal(spec.max_memory_increase, "maxMemoryIncrease"),
        alpha=_decimal(spec.alpha, "alpha"),
        beta=_decimal(spec.beta, "beta"),
        warm_up_seconds=float(spec.warm_up_seconds),
    )


def _decimal(text: str, field: str) -> float:
    try:
        return float(text)
    except ValueError:
        message = f'spec.rollout.analysis.{field} is "{text}": write a decimal, such as "0.01"'
        raise Invalid(Reason.INVALID_SPEC, message) from None
