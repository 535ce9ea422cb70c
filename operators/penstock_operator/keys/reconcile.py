"""Writes of each `APIKey` whether it opens anything."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final

from penstock.api.access import APIKey
from penstock.api.conditions import KeyCondition
from penstock.api.meta import ConditionStatus
from penstock.api.reading import read
from penstock.api.verdicts import transitions
from penstock.errors import Invalid
from penstock.names import KEY_MANAGER
from penstock_operator.deployment.access import key_status, next_look
from penstock_operator.deployment.observed import GatewayProblem
from penstock_operator.keys.directory import API_KEY, KeyDirectory
from penstock_operator.runtime.cluster import Cluster, Key, Manifest, NotFound
from penstock_operator.runtime.controller import Result
from penstock_operator.runtime.unreadable import tell_unreadable

_AGAIN_SECONDS: Final = 2.0

Record = Callable[[Manifest, bool, str, str], None]
"""Records an event: on which object, whether it is a warning, reason, message."""


class KeyReconciler:
    """Judge, one status write.

    Args:
        cluster: where the objects are.
        directory: finds the namespace's other keys.
        record: takes events.
        clock: seconds since the Unix epoch.
        tell: tells every gateway a namespace's keys; which of them have not taken that.
    """

    def __init__(
        self,
        cluster: Cluster,
        directory: KeyDirectory,
        record: Record,
        clock: Callable[[], float] = time.time,
        tell: Callable[[str], Sequence[GatewayProblem]] = lambda _: (),
    ) -> None:
        self._tell = tell
        self._cluster = cluster
        self._directory = directory
        self._record = record
        self._clock = clock

    def reconcile(self, key: Key) -> Result:
        """See `penstock_operator.runtime.controller.Reconcile`."""
        manifest = self._cluster.get(API_KEY, key)
        # First of all, and also where the key is gone: what was taken away is to end.
        problems = self._tell(key.namespace)
        again = Result(_AGAIN_SECONDS, "gateways have not taken the keys") if problems else Result()
        if manifest is None or manifest["metadata"].get("deletionTimestamp") is not None:
            return again
        try:
            present = read(APIKey, manifest)
        except Invalid as error:
            tell_unreadable(
                self._cluster,
                API_KEY,
                manifest,
                error,
                condition=KeyCondition.READY,
                manager=KEY_MANAGER,
                now=self._clock(),
                record=self._record,
            )
            raise
        now = self._clock()
        status = key_status(present, self._directory.keys(key.namespace), now, problems)
        if status != present.status:
            body = {
                "apiVersion": present.api_version,
                "kind": present.kind,
                "metadata": {"name": key.name, "namespace": key.namespace},
                "status": status.model_dump(mode="json", exclude_none=True),
            }
            try:
                self._cluster.apply_status(API_KEY, body, KEY_MANAGER)
            except NotFound:
                return Result()  # deleted meanwhile
            for each in transitions(present.status.conditions, status.conditions):
                if each.status is ConditionStatus.FALSE:
                    self._record(manifest, True, each.reason, f"{each.type}: {each.message}")
        if problems:
            return again
        due = next_look(present, now)
        return Result() if due is None else Result(due.after_seconds, due.reason)
