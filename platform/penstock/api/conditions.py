"""Condition types and reasons. `Ready` is derived from the others and never set by itself."""

from __future__ import annotations

from enum import StrEnum


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
    STARTING_POOL = "StartingPool"
    CHANGING_IN_PLACE = "ChangingInPlace"
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
