"""Tells every gateway what a namespace's keys are, and writes of each `APIKey` whether it opens anything."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from penstock.api.access import APIKey, APIKeyStatus
from penstock.api.conditions import KeyCondition
from penstock.api.meta import ConditionStatus
from penstock.api.verdicts import transitions
from penstock.names import KEY_MANAGER
from penstock_operator.deployment.access import key_status, next_look
from penstock_operator.deployment.observed import GatewayProblem
from penstock_operator.keys.directory import KeyDirectory
from penstock_operator.kinds import API_KEY
from penstock_operator.runtime.cluster import Key, Manifest, key_of
from penstock_operator.runtime.loop.news import News
from penstock_operator.runtime.loop.reconciler import Applied, Reconciler
from penstock_operator.runtime.loop.requeue import Requeue

_AGAIN: Final = Requeue(2.0, "gateways have not taken the keys")
_Done: TypeAlias = Applied[APIKeyStatus]


@dataclass(frozen=True, slots=True)
class KeySight:
    """A key, all of its namespace, and which gateways have not taken them."""

    key: APIKey
    others: Sequence[APIKey]
    problems: Sequence[GatewayProblem]


class KeyReconciler(Reconciler[APIKey, APIKeyStatus, KeySight, APIKeyStatus]):
    """See `Reconciler`. Gateways are told first of all, and also where a key is gone: what was taken away is to end.

    Args:
        directory: finds the namespace's other keys.
        tell: tells every gateway a namespace's keys; which of them have not taken that.
    """

    kind = API_KEY
    model = APIKey
    condition = KeyCondition.READY
    manager = KEY_MANAGER

    def __init__(self, directory: KeyDirectory, tell: Callable[[str], Sequence[GatewayProblem]] = lambda _: ()) -> None:
        self._directory = directory
        self._tell = tell

    def settle_absence(self, key: Key) -> Requeue | None:
        """See above."""
        return _AGAIN if self._tell(key.namespace) else None

    def end(self, manifest: Manifest) -> _Done:
        """See above."""
        return Applied(requeue=self.settle_absence(key_of(manifest)))

    def settle_unreadable(self, manifest: Manifest) -> bool:
        """See above."""
        self._tell(key_of(manifest).namespace)
        return False

    def observe(self, resource: APIKey) -> KeySight:
        """See `Reconciler`."""
        problems = self._tell(resource.metadata.namespace)
        return KeySight(resource, self._directory.keys(resource.metadata.namespace), problems)

    def plan(self, observed: KeySight, now: float) -> APIKeyStatus:
        """See `penstock_operator.deployment.access`."""
        return key_status(observed.key, observed.others, now, observed.problems)

    def apply(self, observed: KeySight, plan: APIKeyStatus, now: float) -> _Done:
        """There is nothing but the status."""
        return Applied(plan, _AGAIN if observed.problems else next_look(observed.key, now))

    def announce(self, before: APIKeyStatus, after: APIKeyStatus) -> Iterator[News]:
        """That it opens nothing (any more)."""
        for each in transitions(before.conditions, after.conditions):
            if each.status is ConditionStatus.FALSE:
                yield News(warning=True, reason=each.reason, message=f"{each.type}: {each.message}")
