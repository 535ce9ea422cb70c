"""The one runner of all reconcilers: in which order a look goes, and what is told of one that fails."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.api.meta import Condition, ConditionStatus, Manifest
from penstock.api.quota import TenantQuota, TenantQuotaStatus
from penstock.errors import Invalid, PenstockError, Unavailable
from penstock.names import FINALIZER
from penstock_operator.kinds import TENANT_QUOTA
from penstock_operator.runtime.cluster import Key, ResourceKind
from penstock_operator.runtime.cluster.embedded import EmbeddedCluster
from penstock_operator.runtime.loop.news import News
from penstock_operator.runtime.loop.reconciler import Applied, Failure, Reconciler, Runner
from penstock_operator.runtime.loop.requeue import Requeue

KEY = Key("default", "one")
AGAIN = Requeue(3.0, "a reason")
Explained = TenantQuotaStatus | Invalid | None


def status(reason: str) -> TenantQuotaStatus:
    said = Condition(
        type="Ready", status=ConditionStatus.TRUE, reason=reason, message="", last_transition_time="2026-01-01T00:00:00Z"
    )  # fmt: skip
    return TenantQuotaStatus(conditions=(said,))


class Scripted(Reconciler[TenantQuota, TenantQuotaStatus, str, str]):
    """Notes each step, and fails at one of them."""

    kind = TENANT_QUOTA
    model = TenantQuota
    condition = "Ready"
    manager = "test"

    def __init__(self, steps: list[str], fails: dict[str, PenstockError], explained: Explained = None) -> None:
        self.steps = steps
        self.fails = fails
        self.explained = explained
        self.release = False

    def _step(self, name: str) -> str:
        self.steps.append(name)
        if name in self.fails:
            raise self.fails[name]
        return name

    def needs_finalizer(self, resource: TenantQuota) -> bool:
        del resource
        return True

    def observe(self, resource: TenantQuota) -> str:
        del resource
        return self._step("observe")

    def plan(self, observed: str, now: float) -> str:
        assert (observed, now) == ("observe", 7.0)
        return self._step("plan")

    def apply(self, observed: str, plan: str, now: float) -> Applied[TenantQuotaStatus]:
        assert (observed, plan, now) == ("observe", "plan", 7.0)
        self._step("apply")
        return Applied(status("Done"), AGAIN, release=self.release)

    def announce(self, before: TenantQuotaStatus, after: TenantQuotaStatus) -> Iterator[News]:
        assert before != after
        yield News(warning=False, reason=after.conditions[0].reason, message="")

    def explain(self, failure: Failure[TenantQuota, str, str]) -> TenantQuotaStatus | None:
        self.steps.append(f"explain after {failure.plan or failure.observed or 'nothing'}")
        if isinstance(self.explained, Invalid):
            raise self.explained
        return self.explained

    def conclude(self, observed: str) -> None:
        self.steps.append(f"conclude {observed}")


class Recorded(EmbeddedCluster):
    """Notes what is written."""

    def __init__(self, path: Path, steps: list[str]) -> None:
        super().__init__(path)
        self.steps = steps

    def add_finalizer(self, kind: ResourceKind, manifest: Manifest, finalizer: str) -> Manifest:
        self.steps.append("hold")
        return super().add_finalizer(kind, manifest, finalizer)

    def remove_finalizer(self, kind: ResourceKind, manifest: Manifest, finalizer: str) -> Manifest:
        self.steps.append("release")
        return super().remove_finalizer(kind, manifest, finalizer)

    def apply_status(self, kind: ResourceKind, manifest: Manifest, field_manager: str) -> Manifest:
        self.steps.append(f"status {manifest['status']['conditions'][0]['reason']}")
        return super().apply_status(kind, manifest, field_manager)


class Stage:
    """One quota, and its runner."""

    def __init__(self, path: Path) -> None:
        self.steps: list[str] = []
        self.cluster = Recorded(path, self.steps)
        self.cluster.apply(
            TENANT_QUOTA,
            {"metadata": {"name": KEY.name, "namespace": KEY.namespace}, "spec": {"hard": {"replicas": 3}}}, "test",
        )  # fmt: skip

    def reconcile(self, reconciler: Scripted) -> Requeue | None:
        runner = Runner(self.cluster, reconciler, self._record, lambda: 7.0)
        return runner.reconcile(KEY)

    def _record(self, _: Manifest, news: News) -> None:
        self.steps.append(f"event {news.reason}")


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    made = Stage(tmp_path / "cluster.sqlite")
    yield made
    made.cluster.close()


def test_a_look_goes_from_the_finalizer_to_the_events_and_the_next_one_writes_nothing(stage: Stage) -> None:
    reconciler = Scripted(stage.steps, {})
    assert stage.reconcile(reconciler) == AGAIN
    assert stage.steps == ["hold", "observe", "plan", "apply", "conclude observe", "status Done", "event Done"]
    stage.steps.clear()
    assert stage.reconcile(reconciler) == AGAIN
    assert stage.steps == ["observe", "plan", "apply", "conclude observe"], "the finalizer is there"


def test_what_is_let_go_gets_no_status(stage: Stage) -> None:
    stage.reconcile(Scripted(stage.steps, {}))
    stage.cluster.delete(TENANT_QUOTA, KEY)
    stage.steps.clear()
    reconciler = Scripted(stage.steps, {})
    reconciler.release = True
    stage.reconcile(reconciler)
    assert stage.steps == ["observe", "plan", "apply", "release", "conclude observe"]
    assert stage.cluster.get(TENANT_QUOTA, KEY) is None
    assert stage.reconcile(reconciler) is None, "it is not there"


INVALID, DOWN = Invalid("InvalidSpec", "it cannot be"), Unavailable("Down", "no answer")
FAILURES = [
    ("what cannot be read is told so", "observe", INVALID, status("Why"), ["status InvalidSpec", "event InvalidSpec"]),
    ("what was observed is explained", "plan", INVALID, status("Why"), ["explain after observe", "status Why", "event Why"]),
    ("so is what was planned", "apply", INVALID, status("Why"), ["explain after plan", "status Why", "event Why"]),
    ("what cannot be explained is told as unreadable", "plan", INVALID, INVALID,
     ["explain after observe", "status InvalidSpec", "event InvalidSpec"]),
    ("where all was refused, nothing was seen", "observe", DOWN, status("Why"),
     ["explain after nothing", "status Why", "event Why"]),
    ("a status may stay", "apply", DOWN, None, ["explain after plan"]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("step", "error", "explained", "told"), [row[1:] for row in FAILURES], ids=[row[0] for row in FAILURES]
)
def test_a_look_that_fails_is_told_of_and_then_raises(
    stage: Stage, step: str, error: PenstockError, explained: Explained, told: list[str]
) -> None:
    with pytest.raises(type(error)):
        stage.reconcile(Scripted(stage.steps, {step: error}, explained))
    after = stage.steps[stage.steps.index(step) + 1 :]
    assert [each for each in after if not each.startswith("conclude")] == told
    assert ("conclude observe" in after) == (step != "observe")
    found = stage.cluster.get(TENANT_QUOTA, KEY)
    assert found is not None
    assert found["metadata"]["finalizers"] == [FINALIZER]
