"""Builds the Serve application of one revision, complete and normalised.

Every field that we mean is written out, so that two specs which mean the same are equal, and equal to the
`deployed_app_config` that Serve echoes.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final

from penstock import names
from penstock.api.meta import AUTO
from penstock.api.pool import WorkerGroup
from penstock.api.quantity import number
from penstock.api.v1alpha1 import InferenceDeployment, UpdatePolicy
from penstock.serving.arguments import (
    Attempt,
    BuildArguments,
    Owner,
    ReplicaArguments,
    ScalingSettings,
    StaffingSettings,
    UserConfig,
)
from penstock.serving.settings import DEFAULT_MAX_BODY_BYTES, BatchingSettings, CacheSettings
from penstock_operator.deployment import defaults as automatic
from penstock_operator.deployment.number import given_number
from penstock_operator.deployment.signers import Signer, signer_of
from penstock_operator.pool.placement import actor_options

ServeApplication = dict[str, Any]
"""A `ServeApplicationSchema` as it travels."""

DRAIN_SECONDS: Final = 20.0
_SHUTDOWN_MARGIN_SECONDS: Final = 10.0
_METRICS_SECONDS: Final = 1.0
_LOOK_BACK_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class ReplicaNetwork:
    """Where replicas listen and register, and whom they trust."""

    gateways: tuple[str, ...] = ()
    registration_token: str = ""
    former_token: str = ""
    """The same as former releases made it. What runs with it goes on with it: another would start its replicas anew."""
    host: str | None = None
    trusted_keys: tuple[str, ...] = ()
    """Public keys in PEM, one of which must have signed an optimized model."""
    artifact_secret: str | None = None
    """A Secret of the deployment's namespace by which an optimized model is read; None: the pods' own credentials."""
    signers: tuple[Signer, ...] = ()
    """Of the models that the deployment's own runs made."""
    max_body_bytes: int = DEFAULT_MAX_BODY_BYTES
    """Of a request, as the gateways are told."""
    gateway_authority: str = ""
    """Certificate in PEM of the platform's own authority. Empty: replicas speak no TLS."""
    plain_gateways: tuple[str, ...] = ()
    """The gateways as replicas reach them that speak no TLS, for as long as both are taken: what runs so goes on so."""


def replica_bounds(deployment: InferenceDeployment) -> tuple[int, int]:
    """Least and greatest number of replicas; (0, 0) where somebody scaled to none."""
    scaling, given = deployment.spec.scaling, given_number(deployment)
    if given is not None:
        return given, given
    return scaling.min_replicas, max(scaling.min_replicas, scaling.max_replicas)


def build(
    deployment: InferenceDeployment,
    revision: str,
    attempt: Attempt,
    network: ReplicaNetwork,
    groups: Sequence[WorkerGroup] = (),
    *,
    model_digest: str | None = None,
    known: Collection[str] | None = None,
) -> ServeApplication:
    """The Serve application of the present spec, which is of `revision`, for a pool with these worker groups.

    Args:
        deployment: whose it is.
        revision: of its spec.
        attempt: which this is.
        network: where replicas listen and register.
        groups: worker groups of the pool.
        model_digest: of the model that the revision is, where that is known.
        known: settings that its replicas take in place; None: all.

    Raises:
        Invalid: a quantity in the spec is none, or a share is asked of an accelerator that cannot be shared.
    """
    metadata, model = deployment.metadata, deployment.spec.model
    signer = signer_of(model, network.signers)
    name = names.application_name(metadata.namespace, metadata.name, revision)
    arguments = BuildArguments(
        owner=Owner(namespace=metadata.namespace, name=metadata.name, uid=metadata.uid),
        attempt=attempt,
        replica=ReplicaArguments(
            version=model.version,
            revision=revision,
            storage_uri=model.storage_uri,
            model_format=model.model_format,
            # What is to follow the file is fetched whatever it is, and held against the revision's model then.
            digest=model.digest if model.update_policy is UpdatePolicy.PINNED else None,
            credentials=model.credentials_secret_ref.name if model.credentials_secret_ref else None,
            engine_threads=max(1, int(number(deployment.spec.resources.cpu))),
            host=network.host,
            gateways=network.gateways,
            registration_token=network.registration_token,
            gateway_authority=network.gateway_authority,
            trusted_keys=network.trusted_keys if signer is None else (signer.public_key,),
            require_signature=signer is not None,
            drain_seconds=DRAIN_SECONDS,
        ),
    )
    return {
        "name": name,
        "route_prefix": names.route_prefix(name),
        "import_path": names.IMPORT_PATH,
        "runtime_env": {},
        "args": arguments.model_dump(mode="json"),
        "deployments": [_deployment(deployment, network, groups, model_digest, known)],
    }


def adjust(
    deployed: ServeApplication,
    deployment: InferenceDeployment,
    network: ReplicaNetwork,
    *,
    model_digest: str | None = None,
    known: Collection[str] | None = None,
) -> ServeApplication:
    """A deployed application of an older revision, with what changes in place taken from the present spec.

    What its replicas were started with stays.
    """
    ours = [each for each in deployed.get("deployments", ()) if each.get("name") == names.SERVE_DEPLOYMENT]
    if not ours:
        return deployed
    present = _deployment(deployment, network, (), model_digest, known)
    present["ray_actor_options"] = ours[0].get("ray_actor_options", present["ray_actor_options"])
    return {**deployed, "deployments": [present]}


def _deployment(
    deployment: InferenceDeployment,
    network: ReplicaNetwork,
    groups: Sequence[WorkerGroup],
    model_digest: str | None,
    known: Collection[str] | None,
) -> dict[str, Any]:
    spec = deployment.spec
    settings = UserConfig(
        batching=BatchingSettings(
            max_batch_size=automatic.max_batch_size(deployment),
            max_delay_milliseconds=automatic.max_delay_milliseconds(deployment),
            max_queued_requests=spec.batching.max_queued_requests,
        ),
        cache=CacheSettings(
            mode=spec.cache.mode, max_bytes=int(number(spec.cache.max_bytes)), ttl_seconds=float(spec.cache.ttl_seconds)
        ),
        slo_milliseconds=spec.slo.latency_p99_milliseconds if spec.slo else None,
        scaling=ScalingSettings(
            stabilization_window_seconds=spec.scaling.stabilization_window_seconds,
            scale_to_zero_after_seconds=spec.scaling.scale_to_zero_after_seconds,
        ),
        staffing=StaffingSettings(
            miss_weight=spec.scaling.miss_weight,
            is_target_set=spec.scaling.target_in_flight_requests != AUTO,
            forecast=spec.scaling.forecast,
        ),
        max_body_bytes=network.max_body_bytes,
        digest=model_digest,
    )
    config = settings.model_dump(mode="json")
    if known is not None:
        config = {name: value for name, value in config.items() if name in known}
    return {
        "name": names.SERVE_DEPLOYMENT,
        # Only wake-ups pass through Serve, and each returns at once.
        "max_ongoing_requests": 1000,
        "max_queued_requests": -1,
        "user_config": config,
        "autoscaling_config": _autoscaling(deployment),
        "graceful_shutdown_wait_loop_s": 0.5,
        "graceful_shutdown_timeout_s": DRAIN_SECONDS + _SHUTDOWN_MARGIN_SECONDS,
        "health_check_period_s": 2.0,
        "health_check_timeout_s": 30.0,
        "ray_actor_options": actor_options(spec.resources, groups),
        "max_surge_percent": 100,
    }


def _autoscaling(deployment: InferenceDeployment) -> dict[str, Any]:
    """Always present, also for a fixed number: adding or removing it would restart every replica.

    The delays are 0 since the policy has a window of its own. Serve restarts replicas when `policy` changes, so it is
    the same for all.
    """
    low, high = replica_bounds(deployment)
    return {
        "min_replicas": low,
        "max_replicas": max(1, high),
        "target_ongoing_requests": float(automatic.target_in_flight_requests(deployment)),
        "metrics_interval_s": _METRICS_SECONDS,
        "look_back_period_s": _LOOK_BACK_SECONDS,
        "upscale_delay_s": 0.0,
        "downscale_delay_s": 0.0,
        "downscale_to_zero_delay_s": 0.0,
        "policy": {"policy_function": names.POLICY_PATH, "policy_kwargs": {}},
    }
