"""CEL rules of `ServingPool`, `APIKey` and `TenantQuota`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pydantic import BaseModel

from penstock.api import access, meta, pod_template, pool, quota
from penstock.api.rule import (
    LABEL_KEY,
    LABEL_VALUE,
    SUBDOMAIN,
    Rule,
    immutable,
    is_none_of,
    labels,
    matches,
    positive_quantity,
)

_BASE_URL: Final = r"^https?://[^/?#@ ]+(/[^?# ]*)?$"
_HTTPS_URL: Final = r"^https://[^/?#@ ]+(/[^?# ]*)?$"
_RFC_3339: Final = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$"
_IS_ANOTHER: Final = is_none_of("self.name", pod_template.OWN_CONTAINERS)
_PROTECTED: Final = (
    "image", "command", "args", "workingDir", "ports", "lifecycle", "livenessProbe", "readinessProbe", "startupProbe",
    "restartPolicy",
)  # fmt: skip
"""Of our containers, what the platform relies on."""
_TAKEN_LABELS: Final = ("app.kubernetes.io/name", "app.kubernetes.io/component", "app.kubernetes.io/managed-by")
_TAKEN: Final = "!key.startsWith('ray.io/') && !key.startsWith('penstock.dev/')"


def _protect(field: str) -> Rule:
    return Rule(
        f"{_IS_ANOTHER} || !has(self.{field})",
        f"{field} of the containers {', '.join(pod_template.OWN_CONTAINERS)} is Penstock's own: leave it out, or give another "
        "container",
        reason="FieldValueForbidden",
        field_path=f".{field}",
    )


MODEL_RULES: Final[Mapping[type[BaseModel], tuple[Rule, ...]]] = {
    pool.ServingPoolSpec: (
        Rule(
            "has(self.existing) != has(self.managed)",
            "a pool is either managed, a Ray cluster that Penstock makes, or existing, one that someone else runs: give "
            "exactly one of the two",
        ),
        Rule(
            "has(self.existing) == has(oldSelf.existing)",
            "a managed pool cannot become an existing one, nor the other way round: create another ServingPool and move "
            "the deployments there",
            reason="FieldValueForbidden",
        ),
        Rule(
            "!self.suspend || has(self.managed)",
            "suspend goes with managed only: Penstock does not own the nodes of an existing Ray cluster",
            field_path=".suspend",
        ),
    ),
    pool.ManagedRayCluster: (
        Rule(
            "self.workerGroups.all(each, self.workerGroups.exists_one(other, other.name == each.name))",
            "names of workerGroups must differ: rename one of those that share a name",
            field_path=".workerGroups",
        ),
    ),
    pool.WorkerGroup: (
        Rule(
            "self.minWorkers <= self.maxWorkers",
            "minWorkers must not be more than maxWorkers (1 where it is left out): lower the one or raise the other",
            field_path=".minWorkers",
        ),
    ),
    pool.GcsFaultTolerance: (
        Rule(
            "!(has(self.username) && has(self.usernameSecretRef))",
            "a Redis has one user: give username or usernameSecretRef, not both",
            field_path=".username",
        ),
        Rule(
            "has(self.passwordSecretRef) || !(has(self.username) || has(self.usernameSecretRef))",
            "a user of a Redis has a password: give passwordSecretRef too",
        ),
        Rule(
            "!has(self.caSecretRef) || self.redisAddress.startsWith('rediss://')",
            "caSecretRef goes with TLS only: write redisAddress as rediss://host:port",
            field_path=".caSecretRef",
        ),
    ),
    pool.HeadNode: (
        Rule(
            "!has(self.cpuLimit) || !isQuantity(string(self.cpuLimit)) || !isQuantity(string(self.cpu)) || "
            "!quantity(string(self.cpuLimit)).isLessThan(quantity(string(self.cpu)))",
            "cpuLimit must not be less than cpu (1 where it is left out): raise the one or lower the other",
            field_path=".cpuLimit",
        ),
    ),
    pod_template.ContainerTemplate: (
        *(_protect(field) for field in _PROTECTED),
        Rule(
            f"{_IS_ANOTHER} || !has(self.env) || self.env.all(each, each.name != 'HOME' && !each.name.startsWith('RAY_') && "
            "!each.name.startsWith('PENSTOCK_'))",
            f"variables of the containers {', '.join(pod_template.OWN_CONTAINERS)} that begin with RAY_ or PENSTOCK_, and HOME, are "
            "Penstock's own: leave them out; the platform's poolEnv may set them",
            reason="FieldValueForbidden",
            field_path=".env",
        ),
    ),
    pod_template.TemplateMetadata: (
        Rule(
            f"!has(self.labels) || self.labels.all(key, {_TAKEN} && {is_none_of('key', _TAKEN_LABELS)})",
            f"labels of ray.io and penstock.dev, and {', '.join(_TAKEN_LABELS)}, are how pods are found: choose others, such "
            "as example.com/cost-center",
            reason="FieldValueForbidden",
            field_path=".labels",
        ),
        Rule(
            f"!has(self.annotations) || self.annotations.all(key, {_TAKEN})",
            "annotations of ray.io and penstock.dev are how pods are managed: choose others, such as "
            "karpenter.sh/do-not-disrupt",
            reason="FieldValueForbidden",
            field_path=".annotations",
        ),
    ),
    pool.Toleration: (
        Rule(
            "self.operator == 'Exists' ? !has(self.value) : has(self.key)",
            "a toleration with operator Exists has no value; one with Equal needs the key of the taint",
        ),
    ),
}

FIELD_RULES: Final[Mapping[tuple[type[BaseModel], str], tuple[Rule, ...]]] = {
    (pool.ExistingRayCluster, "address"): (
        matches(
            _BASE_URL,
            "address must be the http:// or https:// URL of the Ray dashboard, without user, query or fragment, such as "
            "http://ray-head:8265",
        ),
        immutable(
            "address cannot be changed, since what runs at the old one would be lost: create another ServingPool and "
            "move the deployments there"
        ),
    ),
    (pool.ExistingRayCluster, "serve_address"): (
        matches(
            _BASE_URL,
            "serveAddress must be the http:// or https:// URL of Ray Serve's proxy, without user, query or fragment, "
            "such as http://ray-head:8000",
        ),
    ),
    (meta.SecretKeyReference, "name"): (
        matches(SUBDOMAIN, "name must be that of a Secret in this namespace: a-z, 0-9, - and ., such as ray-token"),
    ),
    (meta.SecretKeyReference, "key"): (
        matches(
            "^[-._a-zA-Z0-9]+$", "key must be a key of the Secret's data: letters, digits, - _ and ., such as token"
        ),
    ),
    (meta.CertificateReference, "name"): (
        matches(SUBDOMAIN, "name must be that of a Secret in this namespace: a-z, 0-9, - and ., such as redis-ca"),
    ),
    (meta.CertificateReference, "key"): (
        matches(
            "^[-._a-zA-Z0-9]+$", "key must be a key of the Secret's data: letters, digits, - _ and ., such as ca.crt"
        ),
    ),
    (pool.WorkerGroup, "name"): (
        matches(
            "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
            "name must be a-z, 0-9 and - between them, since pods carry it: such as l4",
        ),
    ),
    (pool.WorkerGroup, "cpu"): positive_quantity("cpu", "4"),
    (pool.WorkerGroup, "memory"): positive_quantity("memory", "16Gi"),
    (pool.WorkerGroup, "node_selector"): labels("nodeSelector"),
    (pool.WorkerGroup, "topology_spread_key"): (
        matches(LABEL_KEY, "topologySpreadKey must be a node label, such as topology.kubernetes.io/zone"),
    ),
    (pool.HeadNode, "cpu"): positive_quantity("cpu", "1"),
    (pool.HeadNode, "cpu_limit"): positive_quantity("cpuLimit", "2"),
    (pool.HeadNode, "memory"): positive_quantity("memory", "2Gi"),
    (pool.HeadNode, "node_selector"): labels("nodeSelector"),
    (pool.GroupAccelerator, "type"): (
        matches(LABEL_VALUE, "type must be letters, digits, - _ and . between them, such as nvidia-l4"),
    ),
    (pool.GroupAccelerator, "resource"): (
        matches(
            r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$",
            "resource must be an extended resource of Kubernetes, with its domain, such as nvidia.com/gpu or google.com/tpu",
        ),
    ),
    (pool.GcsFaultTolerance, "redis_address"): (
        matches(
            "^(rediss?://)?[-A-Za-z0-9.]+:[0-9]{1,5}$",
            "redisAddress must be host:port, such as redis.ray.svc:6379, or rediss://host:port for TLS, without user and "
            "password, which have fields of their own",
        ),
    ),
    (pool.NodeCache, "max_bytes"): positive_quantity("maxBytes", "20Gi"),
    (pool.NodeCache, "host_path"): (
        matches(
            r"^/[-A-Za-z0-9_./]*[-A-Za-z0-9_]$",
            "hostPath must be an absolute path of the nodes, such as /var/cache/penstock",
        ),
        Rule("!self.contains('..')", "hostPath must be without .., such as /var/cache/penstock"),
    ),
    (access.JwtIssuer, "issuer"): (
        matches(
            _HTTPS_URL, "issuer must be an https:// URL, as tokens have it in iss, such as https://login.example.org"
        ),
    ),
    (access.JwtIssuer, "jwks_uri"): (
        matches(_HTTPS_URL, "jwksUri must be an https:// URL, such as https://login.example.org/keys"),
    ),
    (access.APIKeySpec, "sha256"): (
        matches(
            "^[0-9a-f]{64}$",
            "sha256 must be 64 lower-case hex digits, the SHA-256 of the key: `penstock key create` makes both",
        ),
        immutable("sha256 cannot be changed, since it is what the key is: create another APIKey, then delete this one"),
    ),
    (access.APIKeySpec, "expires_at"): (
        matches(_RFC_3339, "expiresAt must be RFC 3339 in UTC, in quotes, such as 2027-01-31T00:00:00Z"),
    ),
    (quota.QuotaAmounts, "memory"): positive_quantity("memory", "64Gi"),
}
