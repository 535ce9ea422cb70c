"""Each rule, refused and allowed: by our own admission and, with the same table, by the real API server."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from tests.cluster.controlplane import ControlPlane
from tests.telling import assert_tells

from penstock.api.crds import root_schema
from penstock.api.kinds import KINDS, Kind
from penstock.api.meta import Manifest
from penstock.api.problems import Problem
from penstock_cli.validation import structural
from penstock_cli.validation.admission import validate

ROOT = Path(__file__).parents[2]
DIGEST = "sha256:" + "0123456789abcdef" * 4


def deployment(**spec: Any) -> Manifest:
    model = {"storageUri": "file:///models/digits/1", "modelFormat": "onnx"} | spec.pop("model", {})
    return {
        "apiVersion": "penstock.dev/v1alpha1",
        "kind": "InferenceDeployment",
        "metadata": {"name": "rules", "namespace": "default"},
        "spec": {"model": {key: value for key, value in model.items() if value is not ...}, **spec},
    }


def named(name: str) -> Manifest:
    return deployment() | {"metadata": {"name": name, "namespace": "default"}}


def rollout(**fields: Any) -> Manifest:
    return deployment(rollout=fields)


def judged(**analysis: Any) -> Manifest:
    return rollout(analysis=analysis)


def pool(**existing: Any) -> Manifest:
    return {
        "apiVersion": "penstock.dev/v1alpha1",
        "kind": "ServingPool",
        "metadata": {"name": "rules", "namespace": "default"},
        "spec": {"existing": {"address": "http://ray-head:8265"} | existing},
    }


def managed(head: Manifest | None = None, **group: Any) -> Manifest:
    groups = [{"name": "a100", "cpu": "4", "memory": "16Gi", **group}]
    return top(pool(), spec={"managed": {"workerGroups": groups} | ({"head": head} if head else {})})


def redis(address: str, **fields: Any) -> Manifest:
    made = managed()
    made["spec"]["managed"]["gcsFaultTolerance"] = {"redisAddress": address, **fields}
    return made


def templated(metadata: Manifest | None = None, **spec: Any) -> Manifest:
    return managed(podTemplate={"metadata": metadata or {}, "spec": spec})


def container(name: str, **fields: Any) -> Manifest:
    return templated(containers=[{"name": name, **fields}])


def selecting(labels: Manifest) -> Manifest:
    return managed(nodeSelector=labels)


def accelerator(count: Any) -> Manifest:
    return deployment(resources={"accelerator": {"type": "nvidia-l4", "count": count}})


def uri(value: Any) -> Manifest:
    return deployment(model={"storageUri": value})


def profile(kind: str = "ClusterOptimizationProfile", **spec: Any) -> Manifest:
    metadata = {"name": "rules"} | ({"namespace": "default"} if kind == "OptimizationProfile" else {})
    return {"apiVersion": "penstock.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec}


def step(name: str, **fields: Any) -> Manifest:
    return profile(steps={name: fields})


def accuracy(**fields: Any) -> Manifest:
    return profile(constraints={"accuracy": fields})


def run(**spec: Any) -> Manifest:
    model = {"storageUri": "file:///models/digits/1", "modelFormat": "onnx"} | spec.pop("model", {})
    return {
        "apiVersion": "penstock.dev/v1alpha1",
        "kind": "OptimizationRun",
        "metadata": {"name": "rules", "namespace": "default"},
        "spec": {"model": model, "profileRef": {"name": "balanced"}, **spec},
    }


def of_format(name: str, **spec: Any) -> Manifest:
    return deployment(model={"modelFormat": name}, **spec)


def top(manifest: Manifest, **fields: Any) -> Manifest:
    return {**manifest, **fields}


@dataclass(frozen=True, eq=False)
class Case:
    name: str
    manifest: Manifest
    refusals: tuple[str, ...] = ()
    """What the answer tells: the field's path, the value, the limit, the remedy. Empty: the object is taken."""
    old: Manifest | None = None


def taken(name: str, manifest: Manifest, *, old: Manifest | None = None) -> Case:
    return Case(name, manifest, (), old)


def refused(name: str, manifest: Manifest, *facts: str, old: Manifest | None = None) -> Case:
    return Case(name, manifest, facts, old)


def scheduled(**floor: object) -> Manifest:
    times = {"start": "07:30", "end": "19:00", "timeZone": "Europe/Zurich", "minReplicas": 2}
    return deployment(scaling={"maxReplicas": 4, "schedule": [times | floor]})


CASES = (
    taken("a floor by the time of the week", scheduled(days=["Mon", "Fri"])),
    taken("one over midnight, in the usual time zone", scheduled(end="02:00", timeZone="Etc/UTC")),
    taken("UTC by its usual name", scheduled(timeZone="UTC")),
    refused("a floor above the greatest number", scheduled(minReplicas=5), "spec.scaling.schedule maxReplicas"),
    refused("a floor of no time", scheduled(end="07:30"), "schedule[0].end start differ"),
    refused("a time that no clock shows", scheduled(start="24:30"), 'schedule[0].start "07:30"'),
    refused("a place without a name", scheduled(timeZone="Local"), "schedule[0].timeZone Europe/Zurich"),
    taken("the least deployment is taken", deployment()),
    taken("a pool is taken", pool()),
    # Unknown fields and types.
    refused("an unknown field in spec", deployment(modle={}), 'unknown field "spec.modle"'),
    refused(
        "an unknown field deep in spec", deployment(batching={"maxSize": 4}), 'unknown field "spec.batching.maxSize"'
    ),
    refused("an unknown field at the root", top(deployment(), extra=1), 'unknown field "extra"'),
    refused("an unknown field in a pool", pool(adress="http://x"), 'unknown field "spec.existing.adress"'),
    refused("no spec", {k: v for k, v in deployment().items() if k != "spec"}, "spec: Required value"),
    refused("no storageUri", deployment(model={"storageUri": ...}), "spec.model.storageUri: Required value"),
    refused("an SLO without a latency", deployment(slo={}), "spec.slo.latencyP99Milliseconds: Required value"),
    refused("a null where a value is required", uri(None), "spec.model.storageUri: Required value"),
    taken("a null where there is a default", deployment(batching=None, scaling={"replicas": None})),
    refused("a list for an object", deployment(scaling=[1]), "spec.scaling type object"),
    refused("a number for a string", uri(4), "spec.model.storageUri type string"),
    refused(
        "a string for a number",
        deployment(batching={"maxQueuedRequests": "8"}),
        "spec.batching.maxQueuedRequests type integer",
    ),
    refused(
        "two faults are both named",
        deployment(model={"modelFormat": "tf"}, batching={"maxQueuedRequests": 0}),
        'spec.model.modelFormat: Unsupported value: "tf" "onnx"',
        "spec.batching.maxQueuedRequests: Invalid value: 0",
    ),
    taken("a status beside the spec is left out", top(deployment(), status={"url": "http://x"})),
    # The model.
    refused(
        "an unknown format",
        deployment(model={"modelFormat": "pickle"}),
        'spec.model.modelFormat: Unsupported value: "pickle" "onnx"',
    ),
    refused(
        "a scheme that is not supported",
        uri("ftp://models/digits/1"),
        'spec.model.storageUri: Invalid value: "ftp://models/digits/1"',
        "file:// pvc:// s3:// gs:// https:// hf:// oci://",
    ),
    refused("a bare path", uri("/models/digits"), 'spec.model.storageUri "/models/digits" s3:// file:///'),
    refused(
        "a relative file URI",
        uri("file://models/digits"),
        'spec.model.storageUri "file://models/digits" absolute file:///',
    ),
    refused("a file URI with nothing after it", uri("file:///"), 'spec.model.storageUri "file:///" absolute path'),
    refused("a file URI with a query", uri("file:///a?b=1"), 'spec.model.storageUri "file:///a?b=1" absolute path'),
    taken("a folder in S3", uri("s3://models/digits/1")),
    taken("all of a bucket", uri("s3://models")),
    taken("all of a bucket, with a slash", uri("s3://models/")),
    refused("no bucket", uri("s3:///digits"), 'spec.model.storageUri "s3:///digits" bucket'),
    refused(
        "a password before a bucket",
        uri("s3://key:secret@models/x"),
        'spec.model.storageUri "s3://key:secret@models/x" bucket',
    ),
    taken("a folder in Google Cloud Storage", uri("gs://models/digits/1")),
    taken("all of a Google bucket", uri("gs://models/")),
    taken("a folder on a web server", uri("https://models.example.com:8443/digits/1")),
    refused(
        "a web page without TLS",
        uri("http://models.example.com/digits"),
        'spec.model.storageUri "http://models.example.com/digits" https://',
    ),
    refused(
        "a signed address",
        uri("https://x/y?signature=z"),
        'spec.model.storageUri "https://x/y?signature=z" no query',
    ),
    refused(
        "a password in an address",
        uri("https://me:secret@x/y"),
        'spec.model.storageUri "https://me:secret@x/y" no password',
    ),
    taken("a repository of the Hub", uri("hf://org/repo")),
    taken("a file at a revision of the Hub", uri("hf://org/repo@v1.0/onnx/model.onnx")),
    refused(
        "a repository without its organization",
        uri("hf://repo"),
        'spec.model.storageUri "hf://repo" organization repository',
    ),
    taken("a tag in a registry", uri("oci://registry.example.com:5000/models/digits:1")),
    taken("a digest in a registry", uri("oci://registry.example.com/digits@" + DIGEST)),
    refused(
        "neither tag nor digest",
        uri("oci://registry.example.com/digits"),
        'spec.model.storageUri "oci://registry.example.com/digits" tag digest',
    ),
    taken("a folder of a claim", uri("pvc://models/digits/1")),
    taken("all of a claim", uri("pvc://models/")),
    refused("no claim", uri("pvc:///digits"), 'spec.model.storageUri "pvc:///digits" PersistentVolumeClaim'),
    refused("a URI of 2,100 characters", uri("file:///" + "a" * 2100), "spec.model.storageUri: Too long 2048"),
    taken("a digest", deployment(model={"digest": DIGEST})),
    refused(
        "a digest without its algorithm",
        deployment(model={"digest": "0" * 64}),
        "spec.model.digest: sha256: 64 sha256sum",
    ),
    refused(
        "a digest in capitals", deployment(model={"digest": DIGEST.upper()}), "spec.model.digest: sha256: lower-case"
    ),
    refused("a digest cut short", deployment(model={"digest": DIGEST[:-1]}), "spec.model.digest: sha256: 64"),
    taken("a version with dots and dashes", deployment(model={"version": "2026-03.b"})),
    refused("a version with a slash", deployment(model={"version": "1/2"}), 'spec.model.version: "1/2" URL segment'),
    refused("a version that climbs", deployment(model={"version": ".."}), 'spec.model.version: ".." URL segment'),
    refused("an empty version", deployment(model={"version": ""}), 'spec.model.version: "" URL segment'),
    # The name.
    taken("a name of 40 characters", named("a" * 40)),
    refused("a name of 41 characters", named("a" * 41), "metadata.name 40"),
    refused("a name with a dot", named("digits.v2"), "metadata.name 40 a-z 0-9"),
    refused("a name in capitals", named("Digits"), 'metadata.name: Invalid value "Digits"', "RFC 1123"),
    refused(
        "a misspelt field in metadata",
        top(deployment(), metadata={"name": "rules", "namespace": "default", "lables": {}}),
        'unknown field "metadata.lables"',
    ),
    # The pool's reference.
    taken("another poolRef at creation", deployment(poolRef={"name": "gpu"})),
    taken("the same poolRef again", deployment(poolRef={"name": "default"}), old=deployment()),
    refused(
        "a change of poolRef",
        deployment(poolRef={"name": "gpu"}),
        "spec.poolRef.name Forbidden",
        "poolRef cannot changed create InferenceDeployment",
        old=deployment(),
    ),
    refused(
        "a poolRef that is no name",
        deployment(poolRef={"name": "GPU pool"}),
        'spec.poolRef.name: Invalid value "GPU pool"',
    ),
    # Resources.
    taken("half a core", deployment(resources={"cpu": "500m"})),
    taken("a whole core without quotes", deployment(resources={"cpu": 2, "memory": "1Gi"})),
    refused("no core", deployment(resources={"cpu": 0}), "spec.resources.cpu: more than 0 500m"),
    refused("less than no core", deployment(resources={"cpu": "-1"}), 'spec.resources.cpu: "-1" more than 0'),
    refused("cpu in words", deployment(resources={"cpu": "two"}), 'spec.resources.cpu: "two" quantity 500m'),
    refused("a fraction without quotes", deployment(resources={"cpu": 0.5}), "spec.resources.cpu type"),
    refused("no memory", deployment(resources={"memory": "0Gi"}), 'spec.resources.memory: "0Gi" more than 0 1Gi'),
    refused("memory in GB", deployment(resources={"memory": "1GB"}), 'spec.resources.memory: "1GB" quantity 1Gi'),
    # Accelerators.
    taken("a whole accelerator", accelerator(1)),
    taken("eight accelerators in quotes", accelerator("8")),
    taken("half an accelerator", accelerator("0.5")),
    taken("a quarter of one, with two decimals", accelerator("0.25")),
    taken("two accelerators written as 2.0", accelerator("2.0")),
    refused("one and a half accelerators", accelerator("1.5"), 'spec.resources.accelerator.count: "1.5" whole'),
    refused("no accelerator", accelerator(0), "spec.resources.accelerator.count: more than 0"),
    refused("no accelerator in decimals", accelerator("0.00"), 'spec.resources.accelerator.count: "0.00" more than 0'),
    refused(
        "more accelerators than a number holds",
        accelerator(10**20),
        "spec.resources.accelerator.count type integer,string",
    ),
    refused("less than no accelerator", accelerator("-1"), 'spec.resources.accelerator.count: "-1" more than 0'),
    refused(
        "a third, to three decimals",
        accelerator("0.333"),
        'spec.resources.accelerator.count: "0.333" two decimals "0.25"',
    ),
    refused("a count in words", accelerator("half"), 'spec.resources.accelerator.count: "half" whole share'),
    refused("a count with a suffix", accelerator("500m"), 'spec.resources.accelerator.count: "500m" whole share'),
    refused(
        "an accelerator type that is no label",
        deployment(resources={"accelerator": {"type": "nvidia/l4"}}),
        'spec.resources.accelerator.type: "nvidia/l4" label',
    ),
    # Batching and the SLO.
    taken("a measured batch, in words", deployment(batching={"maxBatchSize": "Auto", "maxDelayMilliseconds": "Auto"})),
    taken("a batch size in quotes", deployment(batching={"maxBatchSize": "8"})),
    refused(
        "a negative batch", deployment(batching={"maxBatchSize": -1}), 'spec.batching.maxBatchSize: "-1" Auto 1 4096'
    ),
    refused("an empty batch", deployment(batching={"maxBatchSize": 0}), 'spec.batching.maxBatchSize: "0" Auto 1 4096'),
    refused(
        "a huge batch", deployment(batching={"maxBatchSize": 5000}), 'spec.batching.maxBatchSize: "5000" Auto 1 4096'
    ),
    refused(
        "auto in small letters",
        deployment(batching={"maxBatchSize": "auto"}),
        'spec.batching.maxBatchSize: "auto" 1 4096',
    ),
    refused(
        "a batch and a half",
        deployment(batching={"maxBatchSize": 1.5}),
        "spec.batching.maxBatchSize type integer,string",
    ),
    refused(
        "a negative wait",
        deployment(batching={"maxDelayMilliseconds": -1}),
        'spec.batching.maxDelayMilliseconds: "-1" Auto 0 10000',
    ),
    refused(
        "a wait with a unit",
        deployment(batching={"maxDelayMilliseconds": "5ms"}),
        'spec.batching.maxDelayMilliseconds: "5ms" Auto 0 10000',
    ),
    refused(
        "no queue", deployment(batching={"maxQueuedRequests": 0}), "spec.batching.maxQueuedRequests greater equal 1"
    ),
    taken(
        "a wait within the promise",
        deployment(batching={"maxDelayMilliseconds": 49}, slo={"latencyP99Milliseconds": 50}),
    ),
    refused(
        "a wait as long as the promise",
        deployment(batching={"maxDelayMilliseconds": 50}, slo={"latencyP99Milliseconds": 50}),
        "spec.batching.maxDelayMilliseconds: less slo.latencyP99Milliseconds",
    ),
    refused(
        "a promise of no time",
        deployment(slo={"latencyP99Milliseconds": 0}),
        "spec.slo.latencyP99Milliseconds greater equal 1",
    ),
    # Scaling.
    taken("one to four replicas", deployment(scaling={"minReplicas": 1, "maxReplicas": 4})),
    taken("scale to zero", deployment(scaling={"minReplicas": 0})),
    taken("a fixed number of replicas", deployment(scaling={"replicas": 3})),
    refused(
        "min over max",
        deployment(scaling={"minReplicas": 3, "maxReplicas": 2}),
        "spec.scaling.minReplicas: maxReplicas 1 lower raise",
    ),
    refused(
        "min over the default max", deployment(scaling={"minReplicas": 2}), "spec.scaling.minReplicas: maxReplicas 1"
    ),
    taken("a miss weighs as much as an answer", deployment(scaling={"missWeight": 1})),
    taken("a miss weighs as much as a thousand", deployment(scaling={"missWeight": 1000})),
    refused("a miss weighs nothing", deployment(scaling={"missWeight": 0}), "spec.scaling.missWeight greater equal 1"),
    refused(
        "a miss weighs too much", deployment(scaling={"missWeight": 1001}), "spec.scaling.missWeight less equal 1000"
    ),
    refused("a miss weighs a part", deployment(scaling={"missWeight": 2.5}), "spec.scaling.missWeight type integer"),
    taken("no forecast", deployment(scaling={"forecast": False})),
    refused("a forecast by a word", deployment(scaling={"forecast": "Off"}), "spec.scaling.forecast type boolean"),
    taken("a measured target", deployment(scaling={"targetInFlightRequests": "Auto"})),
    refused(
        "a target of nothing",
        deployment(scaling={"targetInFlightRequests": 0}),
        'spec.scaling.targetInFlightRequests: "0" Auto 1 100000',
    ),
    refused("fewer than no replicas", deployment(scaling={"replicas": -1}), "spec.scaling.replicas greater equal 0"),
    refused(
        "a maximum of none",
        deployment(scaling={"minReplicas": 0, "maxReplicas": 0}),
        "spec.scaling.maxReplicas greater equal 1",
    ),
    # Tracing.
    taken("a ratio in decimals", deployment(tracing={"samplingRatio": "0.05"})),
    taken("every request, without quotes", deployment(tracing={"samplingRatio": 1})),
    taken("no request", deployment(tracing={"samplingRatio": "0"})),
    refused(
        "a ratio above 1", deployment(tracing={"samplingRatio": "1.01"}), 'spec.tracing.samplingRatio: "1.01" "0" "1"'
    ),
    refused(
        "a negative ratio", deployment(tracing={"samplingRatio": "-0.1"}), 'spec.tracing.samplingRatio: "-0.1" "0" "1"'
    ),
    refused(
        "a ratio in per cent", deployment(tracing={"samplingRatio": "5%"}), 'spec.tracing.samplingRatio: "5%" "0" "1"'
    ),
    # Pools.
    refused("a pool of no kind", top(pool(), spec={}), "spec: managed existing exactly one"),
    refused(
        "an address without a scheme",
        pool(address="ray-head:8265"),
        'spec.existing.address: "ray-head:8265" http:// https://',
    ),
    refused(
        "Ray's own scheme",
        pool(address="ray://ray-head:10001"),
        'spec.existing.address: "ray://ray-head:10001" http:// https://',
    ),
    refused(
        "a password in the address",
        pool(address="http://a:b@ray:8265"),
        'spec.existing.address: "http://a:b@ray:8265" without user',
    ),
    refused(
        "a change of address",
        pool(address="http://other:8265"),
        "spec.existing.address: Forbidden",
        "cannot changed create ServingPool",
        old=pool(),
    ),
    taken("the same address again", pool(), old=pool()),
    taken("a serve address and a token", pool(serveAddress="https://serve/x", tokenSecretRef={"name": "ray-token"})),
    taken("a change of the serve address", pool(serveAddress="http://b:8000"), old=pool(serveAddress="http://a:8000")),
    refused(
        "a serve address without a scheme", pool(serveAddress="serve"), 'spec.existing.serveAddress: "serve" http://'
    ),
    refused(
        "a Secret that is no name",
        pool(tokenSecretRef={"name": "Ray Token"}),
        'spec.existing.tokenSecretRef.name: "Ray Token" Secret',
    ),
    refused(
        "a Secret's key that is none",
        pool(tokenSecretRef={"name": "t", "key": "a b"}),
        'spec.existing.tokenSecretRef.key: "a b" Secret',
    ),
    # What a cluster asks of pods.
    taken(
        "a template with what clusters ask for",
        templated(
            {"labels": {"example.com/cost-center": "42"}, "annotations": {"karpenter.sh/do-not-disrupt": "true"}},
            runtimeClassName="nvidia",
            securityContext={"runAsUser": None, "supplementalGroups": [5]},
            idsFromCluster=True,
            tolerations=[{"key": "dedicated", "operator": "Exists", "tolerationSeconds": 5}],
            containers=[
                {
                    "name": "ray-worker",
                    "resources": {"limits": {"cpu": 8}},
                    "env": [{"name": "HTTPS_PROXY", "value": "p"}],
                },
                {"name": "proxy", "image": "proxy:1", "command": ["/proxy"], "ports": [{"containerPort": 3128}]},
            ],
            volumes=[{"name": "temporary", "emptyDir": {"sizeLimit": "1Gi"}}],
        ),
    ),
    *(
        refused(
            f"the {field} of a container of ours",
            container("ray-worker", **{field: value}),
            f"spec.managed.workerGroups[0].podTemplate.spec.containers[0].{field}: Forbidden",
            f"{field} ray-worker Penstock's own leave out",
        )
        for field, value in {
            "image": "mine:1",
            "command": ["sh"],
            "args": ["-c"],
            "workingDir": "/",
            "ports": [{"containerPort": 1}],
            "lifecycle": {},
            "livenessProbe": {},
            "readinessProbe": {},
            "startupProbe": {},
            "restartPolicy": "Always",
        }.items()
    ),
    *(
        refused(
            f"the variable {name} in a container of ours",
            container("ray-head", env=[{"name": name, "value": "1"}]),
            "podTemplate.spec.containers[0].env: Forbidden RAY_ PENSTOCK_ HOME poolEnv",
        )
        for name in ("RAY_AUTH_MODE", "PENSTOCK_MODEL_CACHE", "HOME")
    ),
    taken("the variable RAY_X in another container", container("other", env=[{"name": "RAY_X", "value": "1"}])),
    *(
        refused(
            f"the label {key} of pods",
            templated({"labels": {key: "x"}}),
            "podTemplate.metadata.labels: Forbidden ray.io penstock.dev choose others",
        )
        for key in ("ray.io/node-type", "penstock.dev/pool", "app.kubernetes.io/component")
    ),
    refused(
        "an annotation of Ray's",
        templated({"annotations": {"ray.io/ft-enabled": "false"}}),
        "podTemplate.metadata.annotations: Forbidden ray.io",
    ),
    refused(
        "the network of the node",
        templated(hostNetwork=True),
        'unknown field "spec.managed.workerGroups[0].podTemplate.spec.hostNetwork"',
    ),
    refused(
        "the time that a worker has to leave",
        templated(terminationGracePeriodSeconds=1),
        'unknown field "spec.managed.workerGroups[0].podTemplate.spec.terminationGracePeriodSeconds"',
    ),
    refused("a container without a name", templated(containers=[{"image": "x"}]), "containers[0].name: Required value"),
    taken("a limit on the head's cores", managed(head={"cpu": "500m", "cpuLimit": 1})),
    refused(
        "a limit on the head's cores below what it asks for",
        managed(head={"cpuLimit": "500m"}),
        "spec.managed.head.cpuLimit: cpuLimit less than cpu raise",
    ),
    # A Redis.
    taken("a Redis", redis("redis.ray.svc:6379", passwordSecretRef={"name": "redis"})),
    taken(
        "a Redis behind TLS, with a user and an authority of its own",
        redis(
            "rediss://redis.storage.svc:6379",
            username="penstock",
            passwordSecretRef={"name": "redis", "key": "password"},
            caSecretRef={"name": "redis-ca"},
        ),
    ),
    taken("a Redis' scheme without TLS", redis("redis://redis:6379")),
    refused("a Redis with a path", redis("rediss://redis:6379/0"), "redisAddress: host:port rediss://"),
    refused("a Redis with a user in its address", redis("rediss://u:p@redis:6379"), "redisAddress: user fields of own"),
    refused(
        "two users of a Redis",
        redis("r:1", username="a", usernameSecretRef={"name": "b"}, passwordSecretRef={"name": "b"}),
        "gcsFaultTolerance.username: username usernameSecretRef not both",
    ),
    refused("a Redis' user without a password", redis("r:1", username="a"), "gcsFaultTolerance: passwordSecretRef"),
    refused(
        "an authority where there is no TLS",
        redis("r:1", caSecretRef={"name": "ca"}),
        "gcsFaultTolerance.caSecretRef: rediss://host:port",
    ),
    # Labels of nodes.
    taken(
        "labels of every form",
        selecting(
            {"model": "A100-80GB", "kubernetes.io/arch": "arm64", "node-role.kubernetes.io/gpu": "", "a_B.c": "1"}
        ),
    ),
    taken("a label's value that looks like a number, in quotes", selecting({"example.com/cores": "0.5"})),
    taken(
        "labels of the greatest length",
        selecting({".".join(["a" * 63] * 3 + ["b" * 61]) + "/" + "c" * 63: "d" * 63}),
    ),
    taken("labels for the head", managed(head={"nodeSelector": {"kubernetes.io/arch": "amd64"}})),
    taken("labels for a replica", deployment(resources={"nodeLabels": {"kubernetes.io/arch": "arm64", "spot": ""}})),
    refused(
        "a space in a label's value",
        selecting({"model": "A100 80GB"}),
        "spec.managed.workerGroups[0].nodeSelector: values A100-80GB",
    ),
    refused(
        "a label's value that begins with a dash",
        selecting({"model": "-a"}),
        "spec.managed.workerGroups[0].nodeSelector: values",
    ),
    refused(
        "a label's value of 64 characters",
        selecting({"model": "a" * 64}),
        "spec.managed.workerGroups[0].nodeSelector.model: Too long 63",
    ),
    refused(
        "a label's value without quotes",
        selecting({"cores": 8}),
        "spec.managed.workerGroups[0].nodeSelector.cores type string",
    ),
    refused(
        "a space in a label's key",
        selecting({"the model": "a"}),
        "spec.managed.workerGroups[0].nodeSelector: keys kubernetes.io/arch",
    ),
    refused("a label without a key", selecting({"": "a"}), "spec.managed.workerGroups[0].nodeSelector: keys"),
    refused(
        "a label's key with two slashes", selecting({"a/b/c": "d"}), "spec.managed.workerGroups[0].nodeSelector: keys"
    ),
    refused(
        "a label's key of a prefix alone",
        selecting({"kubernetes.io/": "d"}),
        "spec.managed.workerGroups[0].nodeSelector: keys",
    ),
    refused(
        "a label's prefix in capitals",
        selecting({"Example.com/a": "b"}),
        "spec.managed.workerGroups[0].nodeSelector: keys",
    ),
    refused(
        "a label's prefix with two dots",
        selecting({"example..com/a": "b"}),
        "spec.managed.workerGroups[0].nodeSelector: keys",
    ),
    refused(
        "a label's name of 64 characters",
        selecting({"a.b/" + "c" * 64: "d"}),
        "spec.managed.workerGroups[0].nodeSelector: keys 63",
    ),
    refused(
        "a label's prefix of 254 characters",
        selecting({".".join(["a" * 63] * 3 + ["b" * 62]) + "/c": "d"}),
        "spec.managed.workerGroups[0].nodeSelector: keys",
    ),
    refused(
        "seventeen labels",
        selecting({f"label-{number}": "a" for number in range(17)}),
        "spec.managed.workerGroups[0].nodeSelector: Too many: 17: 16",
    ),
    refused(
        "a space in a label of the head's nodes",
        managed(head={"nodeSelector": {"model": "A 1"}}),
        "spec.managed.head.nodeSelector: values",
    ),
    refused(
        "a key that is none, of the head's nodes",
        managed(head={"nodeSelector": {"-a": "b"}}),
        "spec.managed.head.nodeSelector: keys",
    ),
    refused(
        "a space in a label that a replica needs",
        deployment(resources={"nodeLabels": {"model": "A100 80GB"}}),
        "spec.resources.nodeLabels: values",
    ),
    refused(
        "Ray's own sign for what a label is not",
        deployment(resources={"nodeLabels": {"kubernetes.io/arch": "!arm64"}}),
        "spec.resources.nodeLabels: values",
    ),
    refused(
        "a key that is none, of a label that a replica needs",
        deployment(resources={"nodeLabels": {"kubernetes.io/arch/x": "arm64"}}),
        "spec.resources.nodeLabels: keys",
    ),
    refused(
        "a label of a search's replica",
        run(resources={"nodeLabels": {"a": "b c"}}),
        "spec.resources.nodeLabels: values",
    ),
    refused(
        "a label of a zone that is none",
        managed(topologySpreadKey="example..com/zone"),
        'spec.managed.workerGroups[0].topologySpreadKey: "example..com/zone" label',
    ),
    # Kinds.
    refused("an unknown kind", top(deployment(), kind="InferenceDeploymnt"), 'kind "InferenceDeploymnt"'),
    refused(
        "an unknown version",
        top(deployment(), apiVersion="penstock.dev/v9"),
        'kind "InferenceDeployment" version "penstock.dev/v9"',
    ),
)

PROFILE_CASES = (
    taken("the least profile is taken", profile()),
    taken("a profile of a namespace is taken", profile("OptimizationProfile")),
    taken(
        "a profile that says everything",
        profile(
            steps={
                "distil": {"studentImportPath": "models.digits:small", "widths": ["0.5", "0.25"], "temperature": 2},
                "prune": {"methods": ["Structured", "Unstructured"], "sparsities": ["0.25"]},
                "graphOptimize": {"simplify": False},
                "quantize": {"methods": ["Static", "Dynamic", "BF16"], "calibrationSamples": 100},
                "compile": {"mode": "MaxAutotune"},
            },
            engines=["ONNXRuntime", "OpenVINO", "TorchCompile"],
            hardware={"architectures": ["x86_64"], "instructionSets": ["avx512_vnni"]},
            data={"storageUri": "s3://data/digits", "maxSamples": 500},
            workload={"scenario": "Offline", "batchSizes": [1, 8, 32], "maxBatchSize": 64},
            constraints={
                "accuracy": {"metric": "Accuracy", "minRatio": "0.99", "maxLossPoints": "0.5", "minValue": "0.9"},
                "latencyP99Milliseconds": 10,
                "memory": "512Mi",
                "minSpeedup": "1.5",
            },
            objective="Energy",
            search={"strategy": "Thorough", "budgetMinutes": 60, "finalists": 3},
        ),
    ),
    taken("a run is taken", run(resources={"cpu": 2}, latencyP99Milliseconds=10)),
    # Lists.
    refused("no method", step("quantize", methods=[]), "spec.steps.quantize.methods at least 1"),
    refused("no methods at all", step("quantize"), "spec.steps.quantize.methods: Required value"),
    refused(
        "an unknown method",
        step("quantize", methods=["Int8"]),
        'spec.steps.quantize.methods[0]: Unsupported value: "Int8" "Dynamic" "Static"',
    ),
    refused(
        "too many batch sizes", profile(workload={"batchSizes": [1] * 9}), "spec.workload.batchSizes: Too many: 9: 8"
    ),
    refused("no engine", profile(engines=[]), "spec.engines at least 1"),
    # Decimals.
    refused(
        "a sparsity of all",
        step("prune", methods=["Structured"], sparsities=["1"]),
        'spec.steps.prune.sparsities: "0" "1" quotes',
    ),
    refused(
        "a sparsity in per cent",
        step("prune", methods=["Structured"], sparsities=[50]),
        'spec.steps.prune.sparsities: "0" "1" quotes',
    ),
    refused("a width of nothing", step("distil", widths=["0.0"]), 'spec.steps.distil.widths: "0" "1" quotes'),
    refused("no temperature", step("distil", temperature=0), 'spec.steps.distil.temperature: "0" more than 0 quotes'),
    refused(
        "a weight above 1", step("distil", softLabelWeight="1.5"), 'spec.steps.distil.softLabelWeight: "1.5" "0" "1"'
    ),
    refused("a ratio in per cent", accuracy(minRatio=99), 'spec.constraints.accuracy.minRatio: "99" "0" "1"'),
    refused("points below 0", accuracy(maxLossPoints="-1"), 'spec.constraints.accuracy.maxLossPoints: "-1" 0 or more'),
    refused(
        "a ratio without quotes", accuracy(minRatio=0.99), "spec.constraints.accuracy.minRatio type integer,string"
    ),
    refused(
        "certainty", accuracy(minRatio="0.99", confidence="1"), 'spec.constraints.accuracy.confidence: "1" "0.5" below'
    ),
    refused(
        "a speed-up in words",
        profile(constraints={"minSpeedup": "2x"}),
        'spec.constraints.minSpeedup: "2x" more than 0',
    ),
    refused("memory in MB", profile(constraints={"memory": "100MB"}), 'spec.constraints.memory: "100MB" quantity 1Gi'),
    # Accuracy.
    refused(
        "a metric without a bound",
        accuracy(metric="Cosine"),
        "spec.constraints.accuracy: minRatio maxLossPoints minValue",
    ),
    refused(
        "a metric of one's own without its code",
        accuracy(metric="ImportPath", minValue="1"),
        "spec.constraints.accuracy.importPath: metric ImportPath needed",
    ),
    refused(
        "code without its metric",
        accuracy(importPath="a.b:c", minValue="1"),
        "spec.constraints.accuracy.importPath: write metric: ImportPath",
    ),
    taken("a metric of one's own", accuracy(metric="ImportPath", importPath="a.b:c.d", minValue="1")),
    refused(
        "code by a path",
        accuracy(metric="ImportPath", importPath="a/b.py:c", minValue="1"),
        'spec.constraints.accuracy.importPath: "a/b.py:c" package.module:callable',
    ),
    # What can never work together.
    refused("LiteRT alone", profile(engines=["LiteRT"]), "spec.engines: LiteRT alone ONNXRuntime OpenVINO"),
    refused(
        "FP8 for ONNX Runtime alone",
        step("quantize", methods=["FP8"]),
        "spec.steps.quantize.methods: FP8 INT4WeightOnly engines TorchEager",
    ),
    refused(
        "int8 for torch alone",
        profile(engines=["TorchEager"], steps={"quantize": {"methods": ["Static"]}}),
        "spec.steps.quantize.methods: Static Dynamic engines ONNXRuntime OpenVINO",
    ),
    refused(
        "int8 for LiteRT, which no step makes",
        profile(engines=["LiteRT", "TorchEager"], steps={"quantize": {"methods": ["Static"]}}),
        "spec.steps.quantize.methods: Static Dynamic engines ONNXRuntime OpenVINO",
    ),
    refused(
        "2:4 for a CPU",
        step("prune", methods=["SemiStructured24"]),
        "spec.steps.prune.methods: SemiStructured24 GPUs Structured",
    ),
    refused("compiling without a compiler", step("compile"), "spec.steps.compile: engines TorchCompile TorchExport"),
    refused(
        "an accelerator that no engine uses",
        profile(hardware={"acceleratorRequired": True}),
        "spec.hardware.acceleratorRequired: engines ONNXRuntimeCUDA",
    ),
    refused(
        "Docker's name of an architecture",
        profile(hardware={"architectures": ["amd64"]}),
        "spec.hardware.architectures: x86_64 aarch64 amd64",
    ),
    refused(
        "an unknown flag", profile(hardware={"instructionSets": ["vnni"]}), "spec.hardware.instructionSets: avx512_vnni"
    ),
    refused(
        "a batch above the greatest",
        profile(workload={"batchSizes": [64]}),
        "spec.workload.batchSizes: maxBatchSize 32 lower raise",
    ),
    refused(
        "data by FTP", profile(data={"storageUri": "ftp://x/y"}), 'spec.data.storageUri: "ftp://x/y" file:// pvc://'
    ),
    # What stays.
    refused(
        "a change of a profile",
        profile(objective="Memory"),
        "spec: Forbidden",
        "profile cannot changed new name optimizationProfileRef",
        old=profile(),
    ),
    taken("a profile again", profile(), old=profile()),
    taken("a profile again, with a default written out", profile(objective="Latency"), old=profile()),
    refused(
        "a change of a run", run(resources={"cpu": 2}), "spec: Forbidden", "run cannot changed new name", old=run()
    ),
    # Runs.
    refused(
        "a run from a result",
        run(model={"modelFormat": "openvino"}),
        "spec.model.modelFormat: onnx torch-export torchscript safetensors",
    ),
    refused(
        "a run of no profile", top(run(), spec={"model": run()["spec"]["model"]}), "spec.profileRef: Required value"
    ),
    refused(
        "a profile that is no name", run(profileRef={"name": "Balanced"}), 'spec.profileRef.name: "Balanced" profile'
    ),
    # Deployments.
    taken("a profile of the cluster", deployment(optimizationProfileRef={"name": "balanced"})),
    taken(
        "a profile of the namespace", deployment(optimizationProfileRef={"kind": "OptimizationProfile", "name": "own"})
    ),
    refused(
        "a profile of another kind",
        deployment(optimizationProfileRef={"kind": "Profile", "name": "x"}),
        'spec.optimizationProfileRef.kind: Unsupported value: "Profile"',
    ),
    taken("another profile", deployment(optimizationProfileRef={"name": "small"}), old=deployment()),
    refused(
        "weights without their code",
        of_format("safetensors", optimizationProfileRef={"name": "balanced"}),
        "spec.model.importPath: needed safetensors",
    ),
    taken(
        "weights with their code",
        deployment(
            model={"modelFormat": "safetensors", "importPath": "models.digits:build"},
            optimizationProfileRef={"name": "balanced"},
        ),
    ),
    refused(
        "code with ONNX", deployment(model={"importPath": "a:b"}), "spec.model.importPath: safetensors only leave out"
    ),
    refused(
        "code by a path, in a model",
        deployment(
            model={"modelFormat": "safetensors", "importPath": "build"}, optimizationProfileRef={"name": "balanced"}
        ),
        'spec.model.importPath: "build" package.module:callable',
    ),
    refused(
        "A torch export without a profile",
        of_format("torch-export"),
        "spec.model.modelFormat: torch-export optimizationProfileRef digest onnx",
    ),
    taken(
        "A torch export that a search may have signed",
        deployment(model={"modelFormat": "torch-export", "digest": f"sha256:{'a' * 64}"}),
    ),
    taken("A torch export with a profile", of_format("torch-export", optimizationProfileRef={"name": "balanced"})),
    taken("a model that is followed", deployment(model={"updatePolicy": "Automatic"})),
    refused(
        "a model that is followed and pinned",
        deployment(model={"updatePolicy": "Automatic", "digest": "sha256:" + "0" * 64}),
        "spec.model.updatePolicy: Automatic digest one out",
    ),
    refused(
        "TorchScript without a profile",
        of_format("torchscript"),
        "spec.model.modelFormat: torchscript optimizationProfileRef onnx",
    ),
    taken("TorchScript with a profile", of_format("torchscript", optimizationProfileRef={"name": "balanced"})),
    refused("LiteRT in a replica", of_format("litert"), "spec.model.modelFormat: litert onnx"),
    taken("an OpenVINO model as it is", of_format("openvino")),
    refused(
        "an OpenVINO model with a profile",
        of_format("openvino", optimizationProfileRef={"name": "balanced"}),
        "spec.model.modelFormat: openvino onnx optimizationProfileRef out",
    ),
    taken("data for the measurement", deployment(model={"dataUri": "file:///data/digits.npz"})),
    refused(
        "data by a bare path", deployment(model={"dataUri": "/data"}), 'spec.model.dataUri: "/data" file:// pvc://'
    ),
    # The cache.
    taken("a cache", deployment(cache={"mode": "Exact", "maxBytes": "16Mi", "ttlSeconds": 60})),
    refused("a cache of no size", deployment(cache={"maxBytes": "0"}), 'spec.cache.maxBytes: "0" more than 0 64Mi'),
    refused("a cache that is on", deployment(cache={"mode": "On"}), 'spec.cache.mode: Unsupported value: "On"'),
    refused("a cache without time", deployment(cache={"ttlSeconds": 0}), "spec.cache.ttlSeconds greater equal 1"),
)

ROLLOUT_CASES = (
    taken("a rollout of each type's defaults", rollout()),
    *(taken(f"type {each} by itself", rollout(type=each)) for each in ("Canary", "Shadow", "BlueGreen", "Immediate")),
    refused(
        "a type that there is not", rollout(type="Rolling"), 'spec.rollout.type: Unsupported value: "Rolling" "Canary"'
    ),
    taken("one step", rollout(steps=[10])),
    taken("steps up to all of it", rollout(steps=[1, 99, 100])),
    refused("no step", rollout(steps=[]), "spec.rollout.steps at least 1"),
    refused("a step of nothing", rollout(steps=[0, 5]), "spec.rollout.steps[0] greater equal 1"),
    refused("a step of more than all", rollout(steps=[50, 101]), "spec.rollout.steps[1] less equal 100"),
    refused("steps that fall", rollout(steps=[5, 25, 10]), "spec.rollout.steps: rise above before [1, 5, 25, 50]"),
    refused("a step twice", rollout(steps=[5, 25, 25]), "spec.rollout.steps: rise above before"),
    refused("all of it before the last step", rollout(steps=[5, 100, 50]), "spec.rollout.steps: rise 100"),
    refused("eleven steps", rollout(steps=[*range(1, 12)]), "spec.rollout.steps at most 10"),
    taken("a deadline just after the last step", rollout(steps=[5, 50], stepSeconds=20, deadlineSeconds=51)),
    refused(
        "a deadline with the last step",
        rollout(steps=[5, 50], stepSeconds=20, deadlineSeconds=50),
        "spec.rollout.deadlineSeconds: more warmUpSeconds stepSeconds each of steps raise lower",
    ),
    refused(
        "an hour's steps by the default deadline",
        rollout(stepSeconds=3600),
        "spec.rollout.deadlineSeconds: stepSeconds 3600",
    ),
    taken("an hour's steps that another type does not have", rollout(type="BlueGreen", stepSeconds=3600)),
    refused(
        "a deadline within the warm-up",
        rollout(type="Shadow", deadlineSeconds=60, analysis={"warmUpSeconds": 60}),
        "spec.rollout.deadlineSeconds: warmUpSeconds nothing is judged",
    ),
    taken(
        "a deadline of what is not judged",
        rollout(type="Immediate", deadlineSeconds=60, analysis={"warmUpSeconds": 60}),
    ),
    refused("a deadline of a moment", rollout(deadlineSeconds=9), "spec.rollout.deadlineSeconds greater equal 10"),
    refused("steps of no time", rollout(stepSeconds=0), "spec.rollout.stepSeconds greater equal 1"),
    taken("a former revision that goes at once", rollout(keepSeconds=0)),
    refused("a former revision for ever", rollout(keepSeconds=604_801), "spec.rollout.keepSeconds less equal 604800"),
    refused("a failure that is let pass", rollout(onFailure="Ignore"), 'onFailure: Unsupported value: "Ignore" "Hold"'),
    # What is judged, and how surely.
    *(taken(f"an agreement of {each!r}", judged(outputParity=each)) for each in ("Auto", "0", 0, "0.999", "0.5")),
    *(
        refused(
            f"an agreement of {each!r}", judged(outputParity=each), 'outputParity: Auto decimal "0" below "1" "0.99"'
        )
        for each in ("1", 1, "1.0", "99%", "auto", "-0.1", ".9", "", "0.9 ")
    ),
    refused(
        "a shadow whose answers are not compared",
        rollout(type="Shadow", analysis={"outputParity": "0.0"}),
        'spec.rollout.analysis.outputParity: "0" type Shadow "0.99" Canary',
    ),
    taken("a shadow whose answers are compared", rollout(type="Shadow", analysis={"outputParity": "0.9"})),
    taken("a canary whose answers are not compared", rollout(type="Canary", analysis={"outputParity": "0"})),
    *(
        case
        for field in ("shadowRatio", "maxErrorIncrease", "maxSlowIncrease")
        for case in (
            taken(f"{field} of all", judged(**{field: 1})),
            taken(f"{field} of little", judged(**{field: "0.0001"})),
            refused(
                f"{field} of none", judged(**{field: "0"}), f'spec.rollout.analysis.{field}: "0" above "0" at most "1"'
            ),
            refused(
                f"{field} of none, in decimals",
                judged(**{field: "0.00"}),
                f'spec.rollout.analysis.{field}: "0.00" above',
            ),
            refused(
                f"{field} above all", judged(**{field: "1.5"}), f'spec.rollout.analysis.{field}: "1.5" at most "1"'
            ),
        )
    ),
    *(
        case
        for field in ("maxCpuIncrease", "maxMemoryIncrease")
        for case in (
            taken(f"{field} to thrice as much", judged(**{field: 2})),
            refused(f"{field} of none", judged(**{field: "0"}), f"spec.rollout.analysis.{field}: more than 0"),
            refused(
                f"{field} with a unit", judged(**{field: "50%"}), f'spec.rollout.analysis.{field}: "50%" decimal "0.5"'
            ),
        )
    ),
    *(
        case
        for field in ("alpha", "beta")
        for case in (
            taken(f"{field} of one half", judged(**{field: "0.5"})),
            refused(
                f"{field} of none", judged(**{field: 0}), f'spec.rollout.analysis.{field}: "0" above "0" at most "0.5"'
            ),
            refused(f"{field} of more than half", judged(**{field: "0.51"}), f'analysis.{field}: "0.51" at most "0.5"'),
            refused(f"{field} as a power", judged(**{field: "1e-3"}), f'analysis.{field}: "1e-3" decimal'),
        )
    ),
    refused(
        "a loss that there is not", judged(loss="KL"), 'spec.rollout.analysis.loss: Unsupported value: "KL" "Argmax"'
    ),
    refused("a field that there is not", judged(maxErrors="1"), 'unknown field "spec.rollout.analysis.maxErrors"'),
)

by_sentence = pytest.mark.parametrize("case", [*CASES, *PROFILE_CASES, *ROLLOUT_CASES], ids=lambda case: case.name)


@by_sentence
def test_our_admission_gives_the_verdict(case: Case) -> None:
    problems = our_verdict(case)
    said = "\n".join(str(problem) for problem in problems)
    assert bool(problems) == bool(case.refusals), said
    assert_tells(said, *case.refusals)


@cache
def our_verdict(case: Case) -> list[Problem]:
    """What our admission says; two tests ask, and CEL's rules take long."""
    before = copy.deepcopy(case.manifest)
    problems = validate(case.manifest, old=case.old)
    assert case.manifest == before
    return problems


@pytest.fixture(scope="module")
def api(crds: ControlPlane) -> Iterator[httpx.Client]:
    with crds.client() as client:
        yield client


@pytest.mark.apiserver
@by_sentence
def test_the_real_api_server_gives_the_same_verdict(
    case: Case, crds: ControlPlane, request: pytest.FixtureRequest
) -> None:
    """Only by a dry run: it is validated in full, and nothing is left behind."""
    resource = _RESOURCES.get((case.manifest["apiVersion"], case.manifest["kind"]))
    if case.old is None and resource is not None:
        said = refusal_by_the_api(request.getfixturevalue("api"), resource, case.manifest)
    else:
        said = refusal_by_kubectl(crds, case)
    assert bool(said) == bool(case.refusals), said
    assert_tells(said, *case.refusals)
    assert [each for each in words(case) if each not in said] == [], said


_RESOURCES = {("penstock.dev/v1alpha1", kind.name): kind for kind in KINDS.values()}


def refusal_by_the_api(api: httpx.Client, kind: Kind, manifest: Manifest) -> str:
    """What the server says against an object, as strictly as kubectl asks it; nothing where it takes it."""
    namespace = f"/namespaces/{manifest['metadata']['namespace']}" if kind.namespaced else ""
    answer = api.post(
        f"/apis/{manifest['apiVersion']}{namespace}/{kind.plural}", json=manifest,
        params={"dryRun": "All", "fieldValidation": "Strict"},
    )  # fmt: skip
    return "" if answer.is_success else str(answer.json()["message"])


def refusal_by_kubectl(crds: ControlPlane, case: Case) -> str:
    """What kubectl says, which knows changes and kinds; nothing where the object is taken."""
    if case.old is not None:
        crds.kubectl("apply", "-f", "-", input=json.dumps(case.old))
    try:
        answer = crds.kubectl("apply", "--dry-run=server", "-f", "-", input=json.dumps(case.manifest), check=False)
    finally:
        if case.old is not None:
            crds.kubectl("delete", "-f", "-", "--wait=false", "--ignore-not-found", input=json.dumps(case.old))
    return answer.stderr if answer.returncode else ""


def words(case: Case) -> list[str]:
    """What our admission says where it says it in the server's own words: all but the hints after a wrong name."""
    return [
        f"{problem.field}: {problem.message}"
        for problem in our_verdict(case)
        if not problem.message.startswith(("unknown field", "no matches for kind"))
        and "RFC 1123" not in problem.message
    ]


@pytest.mark.apiserver
@pytest.mark.parametrize("sample", sorted((ROOT / "manifests" / "samples").glob("*.yaml")), ids=lambda path: path.name)
def test_the_real_api_server_takes_the_sample(sample: Path, crds: ControlPlane) -> None:
    answer = crds.kubectl("apply", "--dry-run=server", "-f", str(sample), check=False)
    assert answer.returncode == 0, answer.stderr


@pytest.mark.apiserver
def test_get_and_scale_show_and_set_what_people_expect(crds: ControlPlane, namespace: str) -> None:
    manifest = deployment() | {"metadata": {"name": "columns", "namespace": namespace}}
    status = {
        "conditions": [{"type": "Ready", "status": "True", "reason": "Ready"}],
        "url": "http://gateway/columns",
        "replicas": {"desired": 3, "ready": 2},
        "selector": "penstock.dev/deployment=columns",
    }
    crds.kubectl("apply", "-f", "-", input=json.dumps(manifest))
    crds.kubectl(
        "patch",
        "infdep/columns",
        "-n",
        namespace,
        "--subresource=status",
        "--type=merge",
        "-p",
        json.dumps({"status": status}),
    )

    heading, row = crds.kubectl("get", "infdep", "-n", namespace).stdout.splitlines()
    crds.kubectl("scale", "infdep/columns", "-n", namespace, "--replicas=4")
    scale = json.loads(
        crds.kubectl("get", "infdep/columns", "-n", namespace, "--subresource=scale", "-o", "json").stdout
    )

    assert heading.split() == ["NAME", "READY", "MODEL", "REPLICAS", "URL", "AGE"]
    assert row.split()[:-1] == ["columns", "True", "file:///models/digits/1", "2", "http://gateway/columns"]
    assert scale["spec"] == {"replicas": 4}
    assert scale["status"] == {"replicas": 2, "selector": "penstock.dev/deployment=columns"}


@pytest.mark.apiserver
def test_the_server_fills_in_the_defaults_that_we_fill_in(crds: ControlPlane, namespace: str) -> None:
    manifest = deployment() | {"metadata": {"name": "filled", "namespace": namespace}}
    crds.kubectl("apply", "-f", "-", input=json.dumps(manifest))

    stored = json.loads(crds.kubectl("get", "infdep/filled", "-n", namespace, "-o", "json").stdout)

    schema = root_schema(KINDS["InferenceDeployment"])
    assert structural.stored_form(manifest, schema)["spec"] == stored["spec"]


@pytest.mark.apiserver
def test_get_shows_what_a_run_found(crds: ControlPlane, namespace: str) -> None:
    manifest = run() | {"metadata": {"name": "columns", "namespace": namespace}}
    status = {
        "verdict": "Accepted",
        "progress": {"stage": "Publish"},
        "figures": {"speedup": "8.40x", "accuracy": "Accuracy 0.9926", "size": "102 MB"},
    }
    crds.kubectl("apply", "-f", "-", input=json.dumps(manifest))
    patch = ("--subresource=status", "--type=merge", "-p", json.dumps({"status": status}))
    crds.kubectl("patch", "optrun/columns", "-n", namespace, *patch)

    heading, row = crds.kubectl("get", "optrun", "-n", namespace).stdout.splitlines()

    assert heading.split() == ["NAME", "VERDICT", "SPEEDUP", "STAGE", "ACCURACY", "AGE"]
    assert row.split()[:-1] == ["columns", "Accepted", "8.40x", "Publish", "Accuracy", "0.9926"]


@pytest.mark.apiserver
def test_the_profiles_that_ship_are_taken_with_the_defaults_that_we_fill_in(crds: ControlPlane) -> None:
    crds.kubectl("apply", "--server-side", "-f", str(ROOT / "manifests" / "profiles"))

    stored = json.loads(crds.kubectl("get", "coptprof", "-o", "json").stdout)["items"]

    schema = root_schema(KINDS["ClusterOptimizationProfile"])
    ours = {path.stem: yaml.safe_load(path.read_text()) for path in (ROOT / "manifests" / "profiles").glob("*.yaml")}
    assert {item["metadata"]["name"]: item["spec"] for item in stored if item["metadata"]["name"] in ours} == {
        name: structural.stored_form(manifest, schema)["spec"] for name, manifest in ours.items()
    }


@pytest.mark.apiserver
@pytest.mark.parametrize("field", ["spec.steps.quantize.methods", "spec.constraints.accuracy", "spec.objective"])
def test_explain_says_what_a_field_is_for(crds: ControlPlane, field: str) -> None:
    crds.kubectl("get", "coptprof")  # makes kubectl look anew at what the server has; `explain` alone does not
    said = crds.kubectl("explain", f"coptprof.{field}").stdout
    assert "DESCRIPTION:" in said
    assert "<empty>" not in said
