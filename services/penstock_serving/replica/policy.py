"""The autoscaling policy as Serve calls it: translates Serve's context for the pure `penstock.scaling`.

It runs in the Serve controller some ten times a second, so it imports little. Serve copies this module by value into the
controller; what it imports must be installed there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from penstock.routing.leases import ReplicaStats
from penstock.scaling.policy import MISS_WEIGHT, Demand, ScalingLimits, ScalingState, decide
from penstock.serving.arguments import ScalingSettings, UserConfig

_STATISTICS = tuple(ReplicaStats.model_fields)
_ALWAYS = tuple(name for name in _STATISTICS if name not in {"capacity", "interval_seconds", "full_share"})
"""What replicas of former releases report, too."""
_WINDOW = "stabilization_window_seconds"
_TO_ZERO = "scale_to_zero_after_seconds"
_SLO = "slo_seconds"
_WEIGHT = "miss_weight"
_TARGET_SET = "is_target_set"
_FORECAST = "forecast"
_EXTRA = "keeps_extra"
_STATE = "penstock"
_ADDED = "added"


class PolicyContext(Protocol):
    """What we read of `ray.serve.config.AutoscalingContext`. Metrics are by name, then by replica."""

    target_num_replicas: int
    running_replicas: list[Any]
    capacity_adjusted_min_replicas: int
    capacity_adjusted_max_replicas: int
    policy_state: dict[str, Any]
    current_time: float | None
    config: Any

    @property
    def raw_metrics(self) -> Mapping[str, Mapping[Any, Any]] | None:
        """Time series (`timestamp`, `value`), oldest first."""

    @property
    def total_num_requests(self) -> float:
        """Requests at Serve's own proxy and at replicas by it: wake-ups."""


def statistics(stats: ReplicaStats, config: UserConfig, *, keeps_extra: bool = False) -> dict[str, float]:
    """What a replica reports to Serve.

    Args:
        stats: of its server.
        config: what it is told, which the policy reads of the replicas.
        keeps_extra: whether it says that one replica is on its way to another node (`penstock.serving.arguments.Move`).
    """
    scaling = config.scaling
    return {
        **{name: float(getattr(stats, name)) for name in _STATISTICS},
        _WINDOW: scaling.stabilization_window_seconds,
        _TO_ZERO: scaling.scale_to_zero_after_seconds,
        _SLO: (config.slo_milliseconds or 0) / 1000,
        _WEIGHT: config.staffing.miss_weight,
        _TARGET_SET: float(config.staffing.is_target_set),
        _FORECAST: float(config.staffing.forecast),
        _EXTRA: float(keeps_extra),
    }


def desired_replicas(ctx: PolicyContext) -> tuple[int, dict[str, Any]]:
    """How many replicas Serve is to run, and what the next call is told."""
    reports = _newest_reports(ctx.raw_metrics or {}, ctx.running_replicas)
    seen = [ReplicaStats(**{name: report[name] for name in _STATISTICS if name in report}) for report in reports]
    state = _state(ctx.policy_state)
    # What moves is there twice for a while: neither demand nor what was decided before is to know of it.
    added, extra = int(ctx.policy_state.get(_ADDED, 0)), _extra(reports)
    decision = decide(
        Demand(seen, silent=len(ctx.running_replicas) - len(seen), waking=0.0 if seen else ctx.total_num_requests),
        max(0, ctx.target_num_replicas - added),
        _limits(ctx, reports),
        state,
        ctx.current_time or 0.0,
    )
    extra = extra if decision.replicas else 0
    # Serve hands this back as it is, in the same process, and keeps keys of its own beside it.
    return decision.replicas + extra, {_STATE: decision.state, "reason": decision.reason, _ADDED: extra}


def _extra(reports: Iterable[Mapping[str, float]]) -> int:
    """How many replicas there are to be beside those that the load wants."""
    return 1 if any(each.get(_EXTRA, 0.0) > 0 for each in reports) else 0


def _newest_reports(metrics: Mapping[str, Mapping[Any, Any]], replicas: Iterable[Any]) -> list[dict[str, float]]:
    """The last report of each replica that has made one."""
    found = []
    for replica in replicas:
        report = {name: series[replica][-1].value for name, series in metrics.items() if series.get(replica)}
        if all(name in report for name in _ALWAYS):
            found.append(report)
    return found


def _limits(ctx: PolicyContext, reports: list[dict[str, float]]) -> ScalingLimits:
    defaults = ScalingSettings()
    latest = reports[-1] if reports else {}
    return ScalingLimits(
        minimum=ctx.capacity_adjusted_min_replicas,
        maximum=ctx.capacity_adjusted_max_replicas,
        target_in_flight=float(ctx.config.target_ongoing_requests),
        stabilization_window_seconds=latest.get(_WINDOW, defaults.stabilization_window_seconds),
        scale_to_zero_after_seconds=latest.get(_TO_ZERO, defaults.scale_to_zero_after_seconds),
        is_target_set=latest.get(_TARGET_SET, 1.0) > 0,
        slo_seconds=latest.get(_SLO) or None,
        miss_weight=latest.get(_WEIGHT, MISS_WEIGHT),
        forecast=latest.get(_FORECAST, 1.0) > 0,
    )


def _state(state: Mapping[str, Any]) -> ScalingState:
    kept = state.get(_STATE)
    return kept if isinstance(kept, ScalingState) else ScalingState()
