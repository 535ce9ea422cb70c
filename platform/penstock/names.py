"""Every name that the control plane gives to something, and the revision hash."""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING, Any, Final

from penstock.api.quantity import canonical_quantity
from penstock.optimization.recipes import canonical_json

if TYPE_CHECKING:  # replicas want the names alone, and these take a tenth of a second to import
    from penstock.api.meta import Manifest, ObjectMeta
    from penstock.api.optimization import OptimizationProfileSpec
    from penstock.api.v1alpha1 import InferenceDeployment, Resources

IMPORT_PATH: Final = "penstock_serving.replica.app:build"
POLICY_PATH: Final = "penstock_serving.replica.policy:desired_replicas"
SERVE_DEPLOYMENT: Final = "replica"
FINALIZER: Final = "penstock.dev/release"
DEPLOYMENT_MANAGER: Final = "penstock-deployment"
POOL_MANAGER: Final = "penstock-pool"
RUN_MANAGER: Final = "penstock-run"
QUOTA_MANAGER: Final = "penstock-quota"
KEY_MANAGER: Final = "penstock-keys"
RUN_LABEL: Final = "penstock.dev/run"
PROFILE_ANNOTATION: Final = "penstock.dev/profile-digest"
"""On a Job: what it was told to do."""
QUEUE_LABEL: Final = "kueue.x-k8s.io/queue-name"
"""Kueue's own: the LocalQueue of an object."""
REPLICAS_ANNOTATION: Final = "penstock.dev/replicas"
"""On an InferenceDeployment: the number in `spec.replicas`, where Penstock wrote it."""
SCALING_MANAGER: Final = "penstock-scaling"
MODEL_LABEL: Final = "penstock.dev/deployment"
ACCELERATOR_LABEL: Final = "ray.io/accelerator-type"

LONGEST_MODEL: Final = 40
"""Characters of an `InferenceDeployment`'s name, by its rule."""

_MODEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_USUAL: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]*")
_HASH_VERSION: Final = "v1"
_RUN_HASH_VERSION: Final = "v2"
"""Since v2 a result is signed by its run's own key: what an older run found is measured anew."""


def is_model(name: str) -> bool:
    """Whether an `InferenceDeployment` may be called so."""
    return len(name) <= LONGEST_MODEL and _MODEL.fullmatch(name) is not None


def model_of(text: str) -> str:
    """A name that an `InferenceDeployment` takes, made from another, such as a file's.

    What is too long, or has letters that no name may have, gets six hex digits of its hash, so that two stay two.
    """
    plain = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    if plain and len(plain) <= LONGEST_MODEL and _USUAL.fullmatch(text) is not None:
        return plain
    end = hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:6]
    start = plain[: LONGEST_MODEL - len(end) - 1].strip("-")
    return f"{start or 'model'}-{end}"


def revision(deployment: InferenceDeployment) -> str:
    """`v1` and ten hex digits over all that needs new replicas.

    The prefix versions the rule: an operator with a new rule can still compute the old one, so that an upgrade does
    not roll every model. Namespace and name are hashed too, since `a-b/c` and `a/b-c` would otherwise share a name.
    """
    model, resources = deployment.spec.model, deployment.spec.resources
    content: dict[str, Any] = {
        "namespace": deployment.metadata.namespace,
        "name": deployment.metadata.name,
        "storageUri": model.storage_uri,
        "modelFormat": model.model_format.value,
        "digest": model.digest,
        "version": model.version,
        **_canonical_resources(resources),
        "pool": deployment.spec.pool_ref.name,
    }
    if model.credentials_secret_ref is not None:
        content["credentials"] = model.credentials_secret_ref.name
    encoded = json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
    return _HASH_VERSION + hashlib.sha256(encoded).hexdigest()[:10]


def run_name(deployment: InferenceDeployment, profile: OptimizationProfileSpec) -> str:
    """The `OptimizationRun` of a deployment: its name and ten hex digits over all that a measurement depends on.

    Fields of the model and of the profile at their defaults are left out, so that a release that adds one runs nothing anew.
    """
    spec = deployment.spec
    reference = spec.optimization_profile_ref
    content = {
        "rule": _RUN_HASH_VERSION,
        "model": spec.model.model_dump(mode="json", exclude={"update_policy"}, exclude_defaults=True),
        "profile": [reference.kind.value, reference.name] if reference else None,
        "profileSpec": profile.model_dump(mode="json", exclude_defaults=True),
        "resources": _canonical_resources(spec.resources),
        "slo": spec.slo.latency_p99_milliseconds if spec.slo else None,
    }
    return f"{deployment.metadata.name}-{hashlib.sha256(canonical_json(content)).hexdigest()[:10]}"


def signing_secret(run: ObjectMeta, suffix: str) -> str:
    """The Secret with the key of one run."""
    return f"{run.name}-{suffix}"


def owner_reference(api_version: str, kind: str, owner: ObjectMeta) -> Manifest:
    """An `ownerReferences` entry that makes an object go with its controller `owner`."""
    return {
        "apiVersion": api_version,
        "kind": kind,
        "name": owner.name,
        "uid": owner.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


def _canonical_resources(resources: Resources) -> dict[str, Any]:
    accelerator = resources.accelerator
    # Younger fields count only where they are set, so that a release that adds one rolls and measures nothing anew.
    labels = {"nodeLabels": dict(sorted(resources.node_labels.items()))} if resources.node_labels else {}
    return {
        "cpu": canonical_quantity(resources.cpu),
        "memory": canonical_quantity(resources.memory) if resources.memory else None,
        "accelerator": [accelerator.type, canonical_quantity(accelerator.count)] if accelerator else None,
        **labels,
    }


def application_name(namespace: str, name: str, revision_name: str) -> str:
    """The Serve application of one revision."""
    return f"penstock-{namespace}-{name}-{revision_name}"


def route_prefix(application_name: str) -> str:
    """Where Serve's own proxy reaches an application. Only wake-ups go there."""
    return f"/-/penstock/{application_name}"


def wake_url(serve_address: str, application_name: str) -> str:
    """A GET here makes an application at zero replicas start one."""
    return serve_address.rstrip("/") + route_prefix(application_name)


def selector(name: str) -> str:
    """The scale subresource's label selector."""
    return f"{MODEL_LABEL}={name}"


def model_url(gateway_url: str, namespace: str, name: str) -> str:
    """Where clients reach a model."""
    return f"{gateway_url.rstrip('/')}/{namespace}/v2/models/{name}"
