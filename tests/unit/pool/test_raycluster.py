"""What a managed pool's RayCluster and NetworkPolicies look like."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.unit.pool.pools import CPU, GPU, NOW, SECRET, SETTINGS, UID, manifest_of, pool

from penstock.addresses import is_ipv6
from penstock.api.meta import Manifest
from penstock.errors import Invalid
from penstock_operator.pool import names as pool_names
from penstock_operator.pool.network import policies
from penstock_operator.pool.raycluster import GroupCount, build, group_hashes, managed_spec, replacement_hash
from penstock_operator.pool.raypods import PoolSettings, ray_resources, worker_demand


def built(*groups: dict[str, Any], **managed: Any) -> Manifest:
    return manifest_of(pool(*groups, **managed))


def pods(manifest: Manifest) -> list[Manifest]:
    spec = manifest["spec"]
    return [spec["headGroupSpec"]["template"], *(each["template"] for each in spec["workerGroupSpecs"])]


def worker(manifest: Manifest, index: int = 0) -> Manifest:
    spec: Manifest = manifest["spec"]["workerGroupSpecs"][index]["template"]["spec"]
    return spec


def test_it_goes_with_its_pool_and_carries_its_label() -> None:
    metadata = built()["metadata"]
    assert metadata["name"] == "penstock-default"
    assert metadata["ownerReferences"][0]["uid"] == UID
    assert metadata["ownerReferences"][0]["controller"]
    assert metadata["labels"][pool_names.POOL_LABEL] == "default"


def test_no_replica_runs_on_the_head_and_the_token_is_required() -> None:
    spec = built()["spec"]
    assert spec["headGroupSpec"]["resources"] == {"CPU": "0"}
    assert spec["authOptions"] == {"mode": "token", "secretName": SECRET}


def test_all_pods_are_confined_and_have_no_service_account_token() -> None:
    for template in pods(built(CPU, GPU)):
        pod = template["spec"]
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["runAsUser"] == 1000
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        (container,) = pod["containers"]
        assert container["securityContext"]["readOnlyRootFilesystem"]
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert not container["securityContext"]["allowPrivilegeEscalation"]
        assert {"name": "temporary", "mountPath": "/tmp"} in container["volumeMounts"]


def test_only_the_autoscaler_mounts_a_token() -> None:
    manifest = built()
    head = manifest["spec"]["headGroupSpec"]["template"]["spec"]
    projected = [each["name"] for each in head["volumes"] if "projected" in each]
    assert projected == ["autoscaler-credentials"]
    assert projected[0] not in {each["name"] for each in head["containers"][0]["volumeMounts"]}
    mounted = {each["name"]: each["mountPath"] for each in manifest["spec"]["autoscalerOptions"]["volumeMounts"]}
    assert mounted[projected[0]] == "/var/run/secrets/kubernetes.io/serviceaccount"
    assert not any("projected" in each for each in worker(manifest)["volumes"])


PLACED = [
    (
        "a GPU counts as Ray's GPU and is found by the default label",
        GPU,
        {"GPU": "1"},
        {"penstock.dev/accelerator-type": "nvidia-l4"},
        {"ray.io/accelerator-type": "nvidia-l4"},
    ),
    (
        "a MIG slice is a GPU of a type of its own",
        {**GPU, "accelerator": {"type": "nvidia-a100-mig-1g.5gb", "resource": "nvidia.com/mig-1g.5gb", "count": 2}},
        {"GPU": "2"},
        {"penstock.dev/accelerator-type": "nvidia-a100-mig-1g.5gb"},
        {"ray.io/accelerator-type": "nvidia-a100-mig-1g.5gb"},
    ),
    (
        "any other accelerator is counted by its type",
        {**GPU, "accelerator": {"type": "google-tpu-v5e", "resource": "google.com/tpu", "count": 4}},
        {"google-tpu-v5e": "4"},
        {"penstock.dev/accelerator-type": "google-tpu-v5e"},
        {"ray.io/accelerator-type": "google-tpu-v5e"},
    ),
    (
        "a node selector takes the default's place, and replicas can ask for it",
        {**GPU, "nodeSelector": {"cloud/gpu": "l4"}},
        {"GPU": "1"},
        {"cloud/gpu": "l4"},
        {"cloud/gpu": "l4", "ray.io/accelerator-type": "nvidia-l4"},
    ),
    ("a group without accelerator goes anywhere", CPU, {}, None, None),
]


@pytest.mark.parametrize(
    ("group", "accelerators", "selector", "labels"), [row[1:] for row in PLACED], ids=[row[0] for row in PLACED]
)
def test_a_group_is_placed_and_counted(
    group: dict[str, Any], accelerators: dict[str, str], selector: dict[str, str] | None, labels: dict[str, str] | None
) -> None:
    manifest = built(group)
    entry = manifest["spec"]["workerGroupSpecs"][0]
    assert {name: count for name, count in entry["resources"].items() if name not in {"CPU", "memory"}} == accelerators
    assert worker(manifest).get("nodeSelector") == selector
    assert entry.get("labels") == labels
    container = worker(manifest)["containers"][0]
    accelerator = group.get("accelerator")
    if accelerator:
        resource = accelerator.get("resource", "nvidia.com/gpu")
        assert container["resources"]["limits"][resource] == str(accelerator.get("count", 1))


def test_part_of_a_workers_memory_is_rays_own_and_cores_are_whole() -> None:
    of = pool({**CPU, "cpu": "2500m", "memory": "8Gi"})
    spec = managed_spec(of)
    (group,) = spec.worker_groups
    assert ray_resources(group) == {"CPU": "2", "memory": str(8 * 2**30 - 512 * 2**20)}
    needed = worker_demand(of.metadata, spec, group, SETTINGS).requests
    assert needed == {"cpu": 2.5, "memory": 8 * 2**30, "ephemeral-storage": (25 + 10 + 0.25) * 2**30}


def test_tolerations_and_spread_are_as_the_group_says() -> None:
    manifest = built({**GPU, "tolerations": [{"key": "nvidia.com/gpu"}], "topologySpreadKey": "zone"})
    assert worker(manifest)["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists"}]
    (spread,) = worker(manifest)["topologySpreadConstraints"]
    assert spread["topologyKey"] == "zone"
    assert spread["labelSelector"]["matchLabels"] == {"penstock.dev/pool": "default", "ray.io/group": "l4"}


def test_models_are_cached_and_credentials_and_claims_mounted_on_workers_only() -> None:
    manifest = built(CPU, credentials=[{"name": "s3"}], modelClaims=[{"name": "models"}], cache={"maxBytes": "10Gi"})
    pod = worker(manifest)
    mounts = {each["mountPath"]: each for each in pod["containers"][0]["volumeMounts"]}
    volumes = {each["name"]: each for each in pod["volumes"]}
    assert volumes[mounts["/var/run/secrets/penstock/s3"]["name"]]["secret"]["optional"]
    assert mounts["/var/run/secrets/penstock/s3"]["readOnly"]
    assert mounts["/mnt/penstock/claims/models"]["readOnly"]
    cache = volumes[mounts["/var/cache/penstock/models"]["name"]]["emptyDir"]
    assert int(cache["sizeLimit"]) > 10 * 2**30
    environment = {each["name"]: each["value"] for each in pod["containers"][0]["env"]}
    assert environment["PENSTOCK_MODEL_CACHE_BYTES"] == str(10 * 2**30)
    head = manifest["spec"]["headGroupSpec"]["template"]["spec"]
    assert not any("secret" in each or "persistentVolumeClaim" in each for each in head["volumes"])


@pytest.mark.parametrize("listed", [[], [{"name": "reader"}]], ids=["listed by no pool", "listed by the pool, too"])
def test_the_secret_for_optimized_models_is_mounted_once_in_every_pool(listed: list[dict[str, str]]) -> None:
    settings = PoolSettings(image="penstock/runtime:1.0.0", artifact_secret="reader")
    pod = worker(build(pool(CPU, credentials=listed), settings, SECRET, "penstock-default"))
    assert [each["secret"]["secretName"] for each in pod["volumes"] if "secret" in each] == ["reader"]
    paths = [each["mountPath"] for each in pod["containers"][0]["volumeMounts"]]
    assert paths.count("/var/run/secrets/penstock/reader") == 1


def test_a_cache_of_the_nodes_is_a_folder_of_theirs() -> None:
    pod = worker(built(CPU, cache={"hostPath": "/var/cache/models"}))
    (cache,) = [each for each in pod["volumes"] if each["name"] == "cache"]
    assert cache["hostPath"] == {"path": "/var/cache/models", "type": "Directory"}
    (mount,) = [each for each in pod["containers"][0]["volumeMounts"] if each["name"] == "cache"]
    assert mount["subPath"] == "vision", "a pod must not see another namespace's models"


def test_redis_keeps_the_heads_state_where_there_is_one() -> None:
    assert "gcsFaultToleranceOptions" not in built()["spec"]
    tolerant = built(
        CPU, gcsFaultTolerance={"redisAddress": "redis:6379", "passwordSecretRef": {"name": "r", "key": "p"}}
    )
    options = tolerant["spec"]["gcsFaultToleranceOptions"]
    assert options["redisAddress"] == "redis:6379"
    assert options["redisPassword"] == {"valueFrom": {"secretKeyRef": {"name": "r", "key": "p"}}}


def test_a_pool_without_any_image_is_told_what_to_do() -> None:
    with pytest.raises(Invalid, match=r"spec\.managed\.image"):
        build(pool(), PoolSettings(), SECRET, "penstock-default")


def test_what_the_autoscaler_wrote_stays() -> None:
    counts = {"cpu": GroupCount(replicas=2, leaving=("w-1",))}
    (group,) = manifest_of(pool(), counts=counts)["spec"]["workerGroupSpecs"]
    assert group["replicas"] == 2
    assert group["scaleStrategy"] == {"workersToDelete": ["w-1"]}


def test_a_lower_maximum_ends_no_worker_that_runs() -> None:
    counts = {"cpu": GroupCount(replicas=3)}
    (group,) = manifest_of(pool({**CPU, "maxWorkers": 1}), counts=counts)["spec"]["workerGroupSpecs"]
    assert group["maxReplicas"] == 3


def test_a_group_that_left_the_spec_stays_while_it_has_workers_and_keeps_its_place() -> None:
    before = manifest_of(pool(GPU, CPU))["spec"]["workerGroupSpecs"]
    counts = {
        "l4": GroupCount(replicas=1, template=before[0]),
        "cpu": GroupCount(replicas=1, template=before[1]),
    }
    groups = manifest_of(pool(CPU), counts=counts)["spec"]["workerGroupSpecs"]
    assert [each["groupName"] for each in groups] == ["l4", "cpu"]
    assert (groups[0]["minReplicas"], groups[0]["maxReplicas"]) == (0, 1)
    counts["l4"] = GroupCount(replicas=0, template=before[0])
    groups = manifest_of(pool(CPU), counts=counts)["spec"]["workerGroupSpecs"]
    assert [each["groupName"] for each in groups] == ["cpu"]


BOTH = replace(SETTINGS, gpu_image="penstock/runtime-gpu:1.0.0")
IMAGES = [
    ("GPUs have the one with CUDA", "nvidia.com/gpu", {}, BOTH, BOTH.gpu_image),
    ("and so have slices of them", "nvidia.com/mig-1g.5gb", {}, BOTH, BOTH.gpu_image),
    ("what is not NVIDIA's has no use for it", "google.com/tpu", {}, BOTH, BOTH.image),
    ("nor another maker's GPU", "amd.com/gpu", {}, BOTH, BOTH.image),
    ("a pool's own image is all of its pods'", "nvidia.com/gpu", {"image": "mine:2"}, BOTH, "mine:2"),
    ("an operator that was told of one image has one", "nvidia.com/gpu", {}, SETTINGS, SETTINGS.image),
]


@pytest.mark.parametrize(
    ("resource", "managed", "settings", "image"), [row[1:] for row in IMAGES], ids=[row[0] for row in IMAGES]
)
def test_workers_have_the_image_for_what_they_run_on(
    resource: str, managed: dict[str, Any], settings: PoolSettings, image: str
) -> None:
    special = {**GPU, "accelerator": {"type": "special", "resource": resource}}
    manifest = build(pool(CPU, special, **managed), settings, SECRET, "penstock-default")
    head, cpu, gpu = (each["spec"]["containers"][0]["image"] for each in pods(manifest))
    assert (head, cpu, gpu) == (managed.get("image", SETTINGS.image), managed.get("image", SETTINGS.image), image)


def test_another_image_for_gpus_needs_other_pods_where_there_are_some() -> None:
    newer = replace(BOTH, gpu_image="penstock/runtime-gpu:1.0.1")
    for group, same in ((CPU, True), (GPU, False)):
        spec = managed_spec(pool(group))
        assert (group_hashes(spec, BOTH) == group_hashes(spec, newer)) is same
        assert (group_hashes(spec, BOTH) == group_hashes(spec, SETTINGS)) is same
    own = managed_spec(pool(GPU, image="mine:2"))
    assert group_hashes(own, BOTH) == group_hashes(own, SETTINGS)


SAME = [
    ("another minimum", {**CPU, "minWorkers": 0}, {}),
    ("another maximum", {**CPU, "maxWorkers": 9}, {}),
    ("another idle time", CPU, {"idleTimeoutSeconds": 60}),
]
OTHER = [
    ("another image", CPU, {"image": "mine:2"}),
    ("another head", CPU, {"head": {"cpu": "2"}}),
    ("a Redis", CPU, {"gcsFaultTolerance": {"redisAddress": "r:6379"}}),
    ("more cores for workers", {**CPU, "cpu": "8"}, {}),
    ("another accelerator", {**CPU, "accelerator": {"type": "nvidia-l4"}}, {}),
]


def kinds(group: dict[str, Any], managed: dict[str, Any]) -> tuple[str, str]:
    spec = pool(group, **managed).spec.managed
    assert spec is not None
    return replacement_hash(spec, SETTINGS, SECRET), group_hashes(spec, SETTINGS)["cpu"]


@pytest.mark.parametrize(("group", "managed"), [row[1:] for row in SAME], ids=[row[0] for row in SAME])
def test_what_changes_in_place_is_in_no_hash(group: dict[str, Any], managed: dict[str, Any]) -> None:
    assert kinds(group, managed) == kinds(CPU, {})


@pytest.mark.parametrize(("group", "managed"), [row[1:] for row in OTHER], ids=[row[0] for row in OTHER])
def test_what_needs_other_pods_is_in_a_hash(group: dict[str, Any], managed: dict[str, Any]) -> None:
    assert kinds(group, managed) != kinds(CPU, {})


NAMES = ["default", "a" * 60, "team.a", "a" * 41 + "b", "a" * 41 + "c", "x" * 34, "9lives"]


@pytest.mark.parametrize("name", NAMES)
def test_names_are_short_enough_for_kuberay(name: str) -> None:
    for kind in (None, "0123456789ab"):
        made = pool_names.ray_cluster(name, kind)
        assert len(made) <= 50
        assert made.replace("-", "").isalnum()
        assert made.startswith("penstock-")


def test_names_differ_where_pools_do() -> None:
    assert len({pool_names.ray_cluster(name) for name in NAMES}) == len(NAMES)


def test_another_pool_of_the_same_name_has_another_token() -> None:
    first, second = pool_names.ray_token("s", "uid-1"), pool_names.ray_token("s", "uid-2")
    assert first != second
    assert pool_names.token_secret("default", first) != pool_names.token_secret("default", second)


def admitted(policy: Manifest, component: str) -> list[int]:
    """Ports at which pods of Penstock's own with this component may ask."""
    found = []
    for rule in policy["spec"]["ingress"]:
        for source in rule["from"]:
            labels = source.get("podSelector", {}).get("matchLabels", {})
            if labels.get("app.kubernetes.io/component") == component:
                assert source["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "penstock-system"}
                found += [port["port"] for port in rule["ports"]]
    return found


@pytest.mark.parametrize(
    ("own", "listens"), [pytest.param("10.0.0.1", "0.0.0.0", id="IPv4"), pytest.param("fd00::1", "::", id="IPv6")]
)
def test_the_head_listens_for_the_family_of_services(own: str, listens: str) -> None:
    built = build(pool(), replace(SETTINGS, ipv6=is_ipv6(own)), SECRET, "penstock-default")
    assert built["spec"]["headGroupSpec"]["rayStartParams"]["dashboard-host"] == listens


def test_only_the_operator_reaches_the_dashboard_and_only_gateways_reach_replicas() -> None:
    head, workers = policies(pool(), "penstock-system")
    assert head["spec"]["podSelector"]["matchLabels"]["ray.io/node-type"] == "head"
    assert 8265 in admitted(head, "operator")
    assert admitted(head, "gateway") == [8000]
    assert admitted(workers, "operator") == []
    assert 32768 in admitted(workers, "gateway")
    for policy in (head, workers):
        others = [rule for rule in policy["spec"]["ingress"] if "ports" not in rule]
        own = {"podSelector": {"matchLabels": {"penstock.dev/pool": "default"}}}
        assert others == [{"from": [own]}], "only the pool's own pods reach every port"


def test_no_pod_reaches_the_clouds_metadata() -> None:
    for policy in policies(pool(), "penstock-system"):
        peers = [each for rule in policy["spec"]["egress"] for each in rule.get("to", ())]
        assert {"namespaceSelector": {}} in peers, "blocks are not of pods in every network"
        blocks = [each["ipBlock"] for each in peers if "ipBlock" in each]
        assert blocks == [
            {"cidr": "0.0.0.0/0", "except": ["169.254.0.0/16"]},
            {"cidr": "::/0", "except": ["fe80::/10", "fd00:ec2::/32"]},
        ]


def test_a_setting_opens_the_places_where_clouds_give_pods_an_identity() -> None:
    for shut, opened in zip(policies(pool(), "p"), policies(pool(), "p", cloud_identity=True), strict=True):
        before, after = shut["spec"]["egress"], opened["spec"]["egress"]
        assert after[: len(before)] == before
        places = [(rule["to"][0]["ipBlock"]["cidr"], rule["ports"][0]["port"]) for rule in after[len(before) :]]
        assert {("169.254.169.254/32", 80), ("169.254.170.23/32", 80)} <= set(places)
        assert all(cidr.endswith(("/32", "/128")) for cidr, _ in places)


def test_when_it_took_over_is_written_on_it() -> None:
    serving, candidate = manifest_of(pool(), took_over=NOW), manifest_of(pool(), took_over=None)
    assert serving["metadata"]["annotations"][pool_names.TOOK_OVER] == str(int(NOW))
    assert pool_names.TOOK_OVER not in candidate["metadata"]["annotations"]
