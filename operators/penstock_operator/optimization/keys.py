"""The key of each run, by which its result and its artifact are signed.

It follows from the operator's secret and the run's uid. So the operator needs no right to read Secrets, every run has
another one, and a namespace or a run that is made anew under an old name inherits nothing.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import ec

from penstock import names
from penstock.api.meta import Manifest
from penstock.api.optimization import OptimizationRun
from penstock_operator.optimization.job_pod import SIGNING_KEY
from penstock_runtime.signing import derive_key, pem_of


@dataclass(frozen=True, slots=True)
class RunKeys:
    """Makes the keys of runs."""

    secret: str
    """From which they follow."""
    suffix: str | None
    """Of the Secrets' names; None: searches are processes of this machine, with a key of their own."""
    local: tuple[str, ...] = ()
    """Public keys in PEM of that."""

    def public_keys(self, run: OptimizationRun) -> tuple[str, ...]:
        """Public keys in PEM that this run's files may be signed by."""
        return self.local if self.suffix is None else (pem_of(self._key(run))[1],)

    def manifest(self, run: OptimizationRun) -> Manifest | None:
        """The Secret that a run's Jobs have their key from. It goes with the run; None where there is none."""
        if self.suffix is None:
            return None
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {
                "name": names.signing_secret(run.metadata, self.suffix),
                "namespace": run.metadata.namespace,
                "labels": {names.RUN_LABEL: run.metadata.name, "app.kubernetes.io/managed-by": "penstock"},
                "ownerReferences": [names.owner_reference(run.api_version, run.kind, run.metadata)],
            },
            "immutable": True,
            "type": "Opaque",
            "data": {SIGNING_KEY: base64.b64encode(pem_of(self._key(run))[0].encode()).decode()},
        }

    def _key(self, run: OptimizationRun) -> ec.EllipticCurvePrivateKey:
        return derive_key(self.secret, f"run-signing/{run.metadata.namespace}/{run.metadata.uid}")
