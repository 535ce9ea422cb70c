"""The rollouts that the operator knows, as Prometheus metrics: taken from the deployments' statuses, at each scrape."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from prometheus_client import REGISTRY, Counter
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from penstock.api.rollout import RolloutPhase, RolloutStatus, evidence_of
from penstock.telemetry import names

_DEPLOYMENT: Final = ("namespace", "deployment")


class RolloutMetrics(Collector):
    """Gauges of the newest rollout of each deployment, for as long as there is one."""

    def __init__(self) -> None:
        self._shown: dict[tuple[str, str], RolloutStatus] = {}

    def show(self, namespace: str, deployment: str, rollout: RolloutStatus | None) -> None:
        """Note what a deployment's status says; None: it has no rollout, or is gone."""
        if rollout is None:
            self._shown.pop((namespace, deployment), None)
        else:
            self._shown[namespace, deployment] = rollout

    def find(self, namespace: str, deployment: str) -> RolloutStatus | None:
        """What was last noted."""
        return self._shown.get((namespace, deployment))

    def collect(self) -> Iterator[Metric]:
        """See `Collector`."""
        phase = GaugeMetricFamily(
            names.METRIC_ROLLOUT_PHASE,
            "1 for the phase of a deployment's newest rollout.",
            labels=(*_DEPLOYMENT, "phase", "reason"),
        )
        weight = GaugeMetricFamily(
            names.METRIC_ROLLOUT_WEIGHT, "Share of the requests that the new revision gets.", labels=_DEPLOYMENT
        )
        evidence = GaugeMetricFamily(
            names.METRIC_ROLLOUT_EVIDENCE,
            "Evidence by its bound, from 1 on enough: that the new revision is worse (harm), or no worse (proof).",
            labels=(*_DEPLOYMENT, "metric", "of"),
        )
        for (namespace, deployment), rollout in sorted(dict(self._shown).items()):
            phase.add_metric((namespace, deployment, rollout.phase.value, rollout.reason), 1.0)
            weight.add_metric((namespace, deployment), rollout.weight / 100)
            for metric, of, value in _evidence(rollout):
                evidence.add_metric((namespace, deployment, metric, of), value)
        yield from (phase, weight, evidence)


def _evidence(rollout: RolloutStatus) -> Iterator[tuple[str, str, float]]:
    """Metric, what it is evidence of, and how much of its bound. Nothing before there are bounds."""
    harm, proof = evidence_of(rollout.harm_bound), evidence_of(rollout.proof_bound)
    if harm > 0:
        yield "all", "harm", evidence_of(rollout.harm) / harm
        yield from ((each.name, "harm", evidence_of(each.harm) / harm) for each in rollout.metrics)
    if proof > 0:
        yield from (
            (each.name, "proof", evidence_of(each.proof) / proof) for each in rollout.metrics if each.name != "shares"
        )


_ROLLOUTS: Final = RolloutMetrics()
REGISTRY.register(_ROLLOUTS)
_ENDED: Final = Counter(
    names.METRIC_ROLLOUTS_ENDED,
    "Rollouts that ended, by how: Promoted, or the reason for which one was rolled back.",
    [*_DEPLOYMENT, "outcome"],
)


def show_rollout(namespace: str, deployment: str, before: RolloutStatus | None, rollout: RolloutStatus | None) -> None:
    """Note where a deployment's rollout is, and count it where it has ended since it was last looked at.

    Args:
        namespace: the deployment's.
        deployment: its name.
        before: as its status had it before this look: for the first one of this process.
        rollout: after it; None: it has none, or is gone.
    """
    known = _ROLLOUTS.find(namespace, deployment) or before
    _ROLLOUTS.show(namespace, deployment, rollout)
    if rollout is not None and rollout.phase.ended and (known is None or not _is_same_end(known, rollout)):
        _ENDED.labels(namespace, deployment, _outcome(rollout)).inc()


def _outcome(rollout: RolloutStatus) -> str:
    return rollout.phase.value if rollout.phase is RolloutPhase.PROMOTED else rollout.reason or rollout.phase.value


def _is_same_end(before: RolloutStatus, after: RolloutStatus) -> bool:
    return (before.phase, before.candidate, before.started_at) == (after.phase, after.candidate, after.started_at)
