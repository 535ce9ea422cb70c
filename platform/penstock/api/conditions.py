"""Condition types and reasons. `Ready` is derived from the others and never set by itself.

To add a reason, add it to `Reason` and to `REASONS`; docs/conditions.md explains it to people, and a test compares the two.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class DeploymentCondition(StrEnum):
    """Conditions of an `InferenceDeployment`."""

    READY = "Ready"
    MODEL_RESOLVED = "ModelResolved"
    POOL_READY = "PoolReady"
    SERVING = "Serving"
    PROGRESSING = "Progressing"
    REQUESTS_JOINED = "RequestsJoined"
    """Only once a replica has told. It has no say in `Ready`: requests that run one by one are answered, too."""
    PROFILE_APPLIED = "ProfileApplied"
    """Only where the spec names a profile. It has no say in `Ready`: the model itself serves meanwhile."""
    SCALE_WRITTEN = "ScaleWritten"
    """Only while the number of replicas cannot be written into the spec, so that `/scale` shows another. It has no say in `Ready`."""


class RunCondition(StrEnum):
    """Conditions of an `OptimizationRun`."""

    COMPLETE = "Complete"
    """Whether a verdict was reached."""
    ACCEPTED = "Accepted"
    """Which."""


class PoolCondition(StrEnum):
    """Conditions of a `ServingPool`."""

    READY = "Ready"
    PROGRESSING = "Progressing"
    """Whether a change is under way, and what stops it."""


class QuotaCondition(StrEnum):
    """Conditions of a `TenantQuota`."""

    READY = "Ready"
    EXCEEDED = "Exceeded"


class KeyCondition(StrEnum):
    """Conditions of an `APIKey`."""

    READY = "Ready"


class Reason(StrEnum):
    """Every reason that a condition or an event can carry."""

    # All is well.
    READY = "Ready"
    MODEL_LOADED = "ModelLoaded"
    POOL_AVAILABLE = "PoolAvailable"
    REPLICAS_READY = "ReplicasReady"
    SCALED_TO_ZERO = "ScaledToZero"
    ROLLED_OUT = "RolledOut"

    BATCH_PROVED = "BatchProved"
    BATCH_NOT_PROVED = "BatchNotProved"

    # Under way.
    PENDING = "Pending"
    STARTING_REPLICAS = "StartingReplicas"
    ROLLING_OUT = "RollingOut"
    TERMINATING = "Terminating"

    # A rollout that is judged.
    ROLLOUT_FAILED = "RolloutFailed"
    ROLLOUT_ABORTED = "RolloutAborted"
    ROLLOUT_INCONCLUSIVE = "RolloutInconclusive"
    ROLLOUT_HELD = "RolloutHeld"
    ROLLOUT_PAUSED = "RolloutPaused"

    # The model.
    MODEL_NOT_FOUND = "ModelNotFound"
    DIGEST_MISMATCH = "DigestMismatch"
    MODEL_CHANGED = "ModelChanged"
    MODEL_INVALID = "ModelInvalid"
    UNSUPPORTED_STORAGE = "UnsupportedStorage"
    STORAGE_DENIED = "StorageDenied"
    STORAGE_UNREACHABLE = "StorageUnreachable"
    CACHE_UNAVAILABLE = "CacheUnavailable"
    SIGNATURE_MISSING = "SignatureMissing"
    SIGNATURE_INVALID = "SignatureInvalid"
    KEY_NOT_TRUSTED = "KeyNotTrusted"
    HARDWARE_MISMATCH = "HardwareMismatch"
    ENGINE_UNAVAILABLE = "EngineUnavailable"

    # Optimization.
    OPTIMIZED = "Optimized"
    VERDICT_REACHED = "VerdictReached"
    PROFILE_ACCEPTED = "ProfileAccepted"
    OPTIMIZING = "Optimizing"
    OPTIMIZATION_RETRIED = "OptimizationRetried"
    WAITING_FOR_OPTIMIZATION = "WaitingForOptimization"
    PROFILE_REJECTED = "ProfileRejected"
    NO_DECISION = "NoDecision"
    OPTIMIZATION_FAILED = "OptimizationFailed"
    OPTIMIZATION_UNAVAILABLE = "OptimizationUnavailable"
    PROFILE_NOT_FOUND = "ProfileNotFound"
    PROFILE_INVALID = "ProfileInvalid"
    ARTIFACT_REFUSED = "ArtifactRefused"

    # Kubernetes.
    API_REFUSED = "ApiRefused"

    # The pool.
    POOL_NOT_FOUND = "PoolNotFound"
    POOL_UNREACHABLE = "PoolUnreachable"
    POOL_UNAUTHORIZED = "PoolUnauthorized"
    SECRET_NOT_FOUND = "SecretNotFound"  # noqa: S105 - a reason, not a secret
    UNSCHEDULABLE = "Unschedulable"
    SUSPENDED = "Suspended"
    PODS_REFUSED = "PodsRefused"
    STARTING_POOL = "StartingPool"
    CHANGING_IN_PLACE = "ChangingInPlace"
    CHANGED_BY_ANOTHER = "ChangedByAnother"
    REPLACING = "Replacing"
    SURGE_DOES_NOT_FIT = "SurgeDoesNotFit"
    KUBERAY_MISSING = "KubeRayMissing"

    # Tenants.
    QUOTA_EXCEEDED = "QuotaExceeded"
    WITHIN_QUOTA = "WithinQuota"
    KEY_ACCEPTED = "KeyAccepted"
    KEY_EXPIRED = "KeyExpired"
    KEY_DISABLED = "KeyDisabled"

    # The replicas.
    REPLICA_FAILED = "ReplicaFailed"
    DEPLOY_FAILED = "DeployFailed"
    GATEWAY_UNREACHABLE = "GatewayUnreachable"
    NAME_CONFLICT = "NameConflict"
    INVALID_SPEC = "InvalidSpec"


class Fault(StrEnum):
    """What is to be mended, where a condition is False."""

    NOTHING = "nothing"
    """All is well, or on its way, or as it was asked for."""
    MODEL = "model"
    """The model, or the way to it: its store, Secret, signature, engine, or the node's cache. `ModelResolved` is False."""
    USER = "user"
    """What a user wrote, in this object or in one that it names."""
    CLUSTER = "cluster"
    """What Penstock runs on: nodes, Ray, KubeRay."""
    PLATFORM = "platform"
    """Penstock as it is installed."""


@dataclass(frozen=True, slots=True)
class ReasonFacts:
    """What follows from a reason. Those who act on one look it up in `REASONS`, and keep no lists of their own."""

    fault: Fault
    lasts: bool = False
    """Whether nothing but a change of the object or of its model mends it, so that a command which waits gives up. What
    passes may end by itself, or by a change of another object."""
    refuses: bool = False
    """Whether requests that find no replica for this reason are refused with it; else they are held for one that comes."""

    @property
    def warns(self) -> bool:
        """Whether the event is a `Warning` where the condition is False; else it is `Normal`."""
        return self.fault is not Fault.NOTHING


_NO_FAULT: Final = ReasonFacts(Fault.NOTHING)
_NOTHING_TO_SERVE: Final = ReasonFacts(Fault.NOTHING, refuses=True)
_WRONG_MODEL: Final = ReasonFacts(Fault.MODEL, lasts=True, refuses=True)
_NO_MODEL_YET: Final = ReasonFacts(Fault.MODEL, refuses=True)
_WRONG_SPEC: Final = ReasonFacts(Fault.USER, lasts=True, refuses=True)
_OF_ANOTHER_OBJECT: Final = ReasonFacts(Fault.USER, refuses=True)
_CLUSTER_IN_THE_WAY: Final = ReasonFacts(Fault.CLUSTER, refuses=True)
_PLATFORM_IN_THE_WAY: Final = ReasonFacts(Fault.PLATFORM, refuses=True)

REASONS: Final[Mapping[str, ReasonFacts]] = {
    Reason.READY: _NO_FAULT,
    Reason.MODEL_LOADED: _NO_FAULT,
    Reason.POOL_AVAILABLE: _NO_FAULT,
    Reason.REPLICAS_READY: _NO_FAULT,
    Reason.SCALED_TO_ZERO: _NO_FAULT,
    Reason.ROLLED_OUT: _NO_FAULT,
    Reason.BATCH_PROVED: _NO_FAULT,
    Reason.BATCH_NOT_PROVED: _NO_FAULT,
    Reason.PENDING: _NO_FAULT,
    Reason.STARTING_REPLICAS: _NO_FAULT,
    Reason.ROLLING_OUT: _NO_FAULT,
    Reason.TERMINATING: _NO_FAULT,
    Reason.ROLLOUT_FAILED: ReasonFacts(Fault.USER, lasts=True),  # the revision before it serves
    Reason.ROLLOUT_ABORTED: _NO_FAULT,
    Reason.ROLLOUT_INCONCLUSIVE: ReasonFacts(Fault.USER),
    Reason.ROLLOUT_HELD: ReasonFacts(Fault.PLATFORM),
    Reason.ROLLOUT_PAUSED: _NO_FAULT,
    Reason.MODEL_NOT_FOUND: _WRONG_MODEL,
    Reason.DIGEST_MISMATCH: _WRONG_MODEL,
    Reason.MODEL_CHANGED: _NO_MODEL_YET,  # the next revision may be of the new one
    Reason.MODEL_INVALID: _WRONG_MODEL,
    Reason.UNSUPPORTED_STORAGE: _WRONG_MODEL,
    Reason.STORAGE_DENIED: _WRONG_MODEL,
    Reason.STORAGE_UNREACHABLE: _NO_MODEL_YET,
    Reason.CACHE_UNAVAILABLE: _NO_MODEL_YET,
    Reason.SECRET_NOT_FOUND: _NO_MODEL_YET,  # a new one reaches running pods within a minute
    Reason.SIGNATURE_MISSING: _WRONG_MODEL,
    Reason.SIGNATURE_INVALID: _WRONG_MODEL,
    Reason.KEY_NOT_TRUSTED: _WRONG_MODEL,
    Reason.HARDWARE_MISMATCH: _WRONG_MODEL,
    Reason.ENGINE_UNAVAILABLE: _WRONG_MODEL,
    Reason.OPTIMIZED: _NO_FAULT,
    Reason.VERDICT_REACHED: _NO_FAULT,
    Reason.PROFILE_ACCEPTED: _NO_FAULT,
    Reason.OPTIMIZING: _NO_FAULT,
    Reason.OPTIMIZATION_RETRIED: ReasonFacts(Fault.CLUSTER),
    Reason.WAITING_FOR_OPTIMIZATION: _NOTHING_TO_SERVE,
    Reason.PROFILE_REJECTED: _NOTHING_TO_SERVE,  # a model that cannot be made faster is no fault
    Reason.NO_DECISION: _NOTHING_TO_SERVE,
    Reason.OPTIMIZATION_FAILED: _PLATFORM_IN_THE_WAY,
    Reason.OPTIMIZATION_UNAVAILABLE: _PLATFORM_IN_THE_WAY,
    Reason.PROFILE_NOT_FOUND: _OF_ANOTHER_OBJECT,
    Reason.PROFILE_INVALID: _OF_ANOTHER_OBJECT,
    Reason.ARTIFACT_REFUSED: ReasonFacts(Fault.MODEL),  # the model itself serves
    Reason.API_REFUSED: _PLATFORM_IN_THE_WAY,
    Reason.POOL_NOT_FOUND: _OF_ANOTHER_OBJECT,
    Reason.POOL_UNREACHABLE: _CLUSTER_IN_THE_WAY,
    Reason.POOL_UNAUTHORIZED: _OF_ANOTHER_OBJECT,
    Reason.UNSCHEDULABLE: _CLUSTER_IN_THE_WAY,
    Reason.PODS_REFUSED: _OF_ANOTHER_OBJECT,
    Reason.SUSPENDED: _NOTHING_TO_SERVE,
    Reason.STARTING_POOL: _NO_FAULT,
    Reason.CHANGING_IN_PLACE: _NO_FAULT,
    Reason.CHANGED_BY_ANOTHER: ReasonFacts(Fault.CLUSTER),  # what runs goes on
    Reason.REPLACING: ReasonFacts(Fault.CLUSTER),  # False where the second Ray cluster does not get its pods
    Reason.SURGE_DOES_NOT_FIT: ReasonFacts(Fault.CLUSTER),
    Reason.KUBERAY_MISSING: _CLUSTER_IN_THE_WAY,
    Reason.QUOTA_EXCEEDED: _OF_ANOTHER_OBJECT,
    Reason.WITHIN_QUOTA: _NO_FAULT,
    Reason.KEY_ACCEPTED: _NO_FAULT,
    Reason.KEY_EXPIRED: ReasonFacts(Fault.USER, lasts=True),
    Reason.KEY_DISABLED: ReasonFacts(Fault.USER, lasts=True),
    Reason.REPLICA_FAILED: ReasonFacts(Fault.USER),  # Ray starts another
    Reason.DEPLOY_FAILED: ReasonFacts(Fault.PLATFORM, lasts=True, refuses=True),
    Reason.GATEWAY_UNREACHABLE: ReasonFacts(Fault.PLATFORM),
    Reason.NAME_CONFLICT: _WRONG_SPEC,
    Reason.INVALID_SPEC: _WRONG_SPEC,
}
"""Every reason."""
_OF_A_NEWER_RELEASE: Final = ReasonFacts(Fault.PLATFORM)


def facts_of(reason: str) -> ReasonFacts:
    """What follows from a condition's reason. One that only a newer release knows warns, and is waited for."""
    return REASONS.get(reason, _OF_A_NEWER_RELEASE)
