"""CEL rules of `ServingPool`, `APIKey` and `TenantQuota`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pydantic import BaseModel

from penstock.api import access, meta, pool, quota
from penstock.api.rule import (
    LABEL_KEY,
    LABEL_VALUE,
    SUBDOMAIN,
    Rule,
    immutable,
    labels,
    matches,
    positive_quantity,
)

_BASE_URL: Final = r"^https?://[^/?#@ ]+(/[^?# ]*)?$"
_HTTPS_URL: Final = r"^https://[^/?#@ ]+(/[^?# ]*)?$"
_RFC_3339: Final = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$"


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
        matches("^[-A-Za-z0-9.]+:[0-9]{1,5}$", "redisAddress must be host:port, such as redis.ray.svc:6379"),
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
