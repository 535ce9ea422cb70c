"""What a cluster asks of pods, laid over those of pools and Jobs; and the disk that they ask for."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.pool.pools import CPU, GPU, SECRET, pool

from penstock.api.meta import Manifest
from penstock.api.pod_template import PodTemplate
from penstock_operator.nodes.forecast import KubernetesNode, describe_closest
from penstock_operator.pods.disk import with_volumes
from penstock_operator.pods.merge import merge
from penstock_operator.pods.template import with_templates
from penstock_operator.pool.raycluster import build, group_hashes, managed_spec, replacement_hash
from penstock_operator.pool.raypods import PoolSettings, head_demand, worker_demand

MEBI, GIBI = 2**20, 2**30
IMAGE = "penstock/runtime:1.0.0"
COST = {"metadata": {"labels": {"example.com/cost-center": "42"}}}


def cluster(*groups: dict[str, Any], platform: Manifest | None = None, **managed: Any) -> Manifest:
    template = PodTemplate.model_validate(platform) if platform is not None else None
    spec: Manifest = build(pool(*groups, **managed), PoolSettings(image=IMAGE, template=template), SECRET, "p")["spec"]
    return spec


def head(spec: Manifest) -> Manifest:
    template: Manifest = spec["headGroupSpec"]["template"]
    return template


def worker(spec: Manifest, index: int = 0) -> Manifest:
    template: Manifest = spec["workerGroupSpecs"][index]["template"]
    return template


def own(template: Manifest) -> Manifest:
    container: Manifest = template["spec"]["containers"][0]
    return container


def test_a_template_of_all_reaches_every_pod_and_one_of_a_group_its_workers_alone() -> None:
    nvidia = {"spec": {"runtimeClassName": "nvidia"}}
    spec = cluster(CPU, {**GPU, "podTemplate": nvidia}, podTemplate=COST)
    for template in (head(spec), worker(spec, 0), worker(spec, 1)):
        assert template["metadata"]["labels"]["example.com/cost-center"] == "42"
        assert template["metadata"]["labels"]["penstock.dev/pool"] == "default"
    assert worker(spec, 1)["spec"]["runtimeClassName"] == "nvidia"
    assert not any("runtimeClassName" in each["spec"] for each in (head(spec), worker(spec, 0)))


def test_an_annotation_of_the_head_alone_keeps_a_node_autoscaler_from_it() -> None:
    keep = {"karpenter.sh/do-not-disrupt": "true"}
    spec = cluster(head={"podTemplate": {"metadata": {"annotations": keep}}})
    assert head(spec)["metadata"]["annotations"] == keep
    assert "annotations" not in worker(spec)["metadata"]


def test_the_platforms_own_template_lies_under_what_the_pool_says() -> None:
    platform = {"metadata": {"labels": {"team": "platform", "site": "north"}}, "spec": {"runtimeClassName": "gvisor"}}
    spec = cluster(platform=platform, podTemplate={"metadata": {"labels": {"team": "vision"}}})
    labels = worker(spec)["metadata"]["labels"]
    assert (labels["team"], labels["site"]) == ("vision", "north")
    assert worker(spec)["spec"]["runtimeClassName"] == "gvisor"


def test_a_container_of_ours_is_changed_and_any_other_added_behind_it() -> None:
    containers = [
        {"name": "proxy", "image": "proxy:1"},
        {"name": "ray-worker", "env": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}]},
    ]
    spec = cluster(podTemplate={"spec": {"containers": containers}})
    # KubeRay takes the first container for Ray's.
    assert [each["name"] for each in worker(spec)["spec"]["containers"]] == ["ray-worker", "proxy"]
    assert [each["name"] for each in head(spec)["spec"]["containers"]] == ["ray-head", "proxy"]
    assert {"name": "HTTPS_PROXY", "value": "http://proxy:3128"} in own(worker(spec))["env"]
    assert {"name": "HOME", "value": "/tmp"} in own(worker(spec))["env"]


def test_limits_may_differ_from_requests_and_ray_goes_by_the_groups_own() -> None:
    limits = [{"name": "ray-worker", "resources": {"limits": {"cpu": "16"}}}]
    spec = cluster({**CPU, "podTemplate": {"spec": {"containers": limits}}})
    resources = own(worker(spec))["resources"]
    assert (resources["requests"]["cpu"], resources["limits"]["cpu"]) == ("4", "16")
    assert spec["workerGroupSpecs"][0]["resources"]["CPU"] == "4"


def test_the_autoscalers_container_is_kuberays_to_add_and_takes_a_template_too() -> None:
    container = {"name": "autoscaler", "resources": {"limits": {"cpu": "300m"}}}
    options = cluster(podTemplate={"spec": {"containers": [container]}})["autoscalerOptions"]
    assert options["resources"]["limits"] == {"cpu": "300m", "memory": "512Mi"}
    assert "name" not in options, "KubeRay has no such field"


def test_ids_are_left_to_the_cluster_where_that_is_asked_for() -> None:
    asked = {"idsFromCluster": True, "securityContext": {"supplementalGroups": [5]}}
    pod = worker(cluster(podTemplate={"spec": asked}))["spec"]
    assert "idsFromCluster" not in pod
    context = pod["securityContext"]
    assert context["supplementalGroups"] == [5]
    assert not {"runAsUser", "runAsGroup", "fsGroup"} & context.keys()
    assert context["runAsNonRoot"]


def test_a_null_takes_nothing_away() -> None:
    confined = {
        "name": "ray-worker",
        "securityContext": {"allowPrivilegeEscalation": None, "capabilities": {"drop": None}},
    }
    spec = cluster(podTemplate={"spec": {"securityContext": {"runAsNonRoot": None}, "containers": [confined]}})
    assert worker(spec)["spec"] == worker(cluster())["spec"]


def test_tolerations_are_added_to_a_groups_own() -> None:
    dedicated = {"key": "dedicated", "operator": "Exists"}
    spec = cluster(
        {**GPU, "tolerations": [{"key": "nvidia.com/gpu"}]}, podTemplate={"spec": {"tolerations": [dedicated]}}
    )
    assert worker(spec)["spec"]["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists"}, dedicated]


def test_a_job_gets_no_container_beside_its_own() -> None:
    built: Manifest = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "optimizer"}]}}
    sidecars = {"containers": [{"name": "logs", "image": "l"}], "initContainers": [{"name": "net", "image": "n"}]}
    made = with_templates(built, [PodTemplate.model_validate({**COST, "spec": sidecars})], sidecars=False)
    assert made["spec"] == {"containers": [{"name": "optimizer"}], "initContainers": [{"name": "net", "image": "n"}]}
    assert made["metadata"]["labels"] == {"a": "b", "example.com/cost-center": "42"}


def test_a_pool_that_says_nothing_has_the_hashes_that_it_had_before_there_were_templates() -> None:
    """Else an upgrade would replace every pool."""
    spec = managed_spec(pool(CPU))
    assert replacement_hash(spec, PoolSettings(image=IMAGE), "s") == "9ed528f8923c"
    assert group_hashes(spec, PoolSettings(image=IMAGE)) == {"cpu": "12af53182ed5"}


def test_another_template_needs_other_pods() -> None:
    plain, labelled = managed_spec(pool(CPU)), managed_spec(pool(CPU, podTemplate=COST))
    settings, platform = PoolSettings(image=IMAGE), PoolSettings(image=IMAGE, template=PodTemplate.model_validate(COST))
    kinds = {replacement_hash(plain, settings, "s"), replacement_hash(labelled, settings, "s")}
    assert len(kinds | {replacement_hash(plain, platform, "s")}) == 3
    of_group = managed_spec(pool({**CPU, "podTemplate": COST}))
    assert group_hashes(of_group, settings) != group_hashes(plain, settings)


def test_the_head_has_a_limit_on_cores_which_the_pool_may_set() -> None:
    assert own(head(cluster()))["resources"]["limits"]["cpu"] == "4"
    assert own(head(cluster(head={"cpu": "500m"})))["resources"]["limits"]["cpu"] == "2"
    assert own(head(cluster(head={"cpuLimit": "1"})))["resources"]["limits"]["cpu"] == "1"


def test_every_container_has_limits_so_that_a_quota_on_them_can_count_it() -> None:
    spec = cluster(CPU, GPU)
    for container in (own(head(spec)), own(worker(spec)), own(worker(spec, 1)), spec["autoscalerOptions"]):
        assert {"cpu", "memory"} <= container["resources"]["limits"].keys()
        assert {"cpu", "memory"} <= container["resources"]["requests"].keys()


def disk(template: Manifest) -> tuple[str, str]:
    resources = own(template)["resources"]
    return resources["requests"]["ephemeral-storage"], resources["limits"]["ephemeral-storage"]


def test_pods_ask_for_the_disk_that_their_volumes_may_hold_and_some_for_logs() -> None:
    spec = cluster(cache={"maxBytes": "20Gi"})
    assert disk(worker(spec)) == (f"{(25 + 10) * 1024 + 256}Mi",) * 2
    assert disk(head(spec)) == (f"{(10 + 1) * 1024 + 256}Mi",) * 2
    assert disk(worker(cluster(cache={"hostPath": "/var/cache/penstock"}))) == (f"{10 * 1024 + 256}Mi",) * 2


def test_a_volume_that_a_template_makes_smaller_asks_for_less() -> None:
    volumes = [{"name": "temporary", "emptyDir": {"sizeLimit": "1Gi"}}]
    spec = cluster(podTemplate={"spec": {"volumes": volumes}}, cache={"maxBytes": "4Gi"})
    assert disk(worker(spec))[0] == f"{(5 + 1) * 1024 + 256}Mi"


def test_a_memory_backed_volume_is_memory_on_top_of_the_workers() -> None:
    volumes = [{"name": "temporary", "emptyDir": {"sizeLimit": "2Gi", "medium": "Memory"}}]
    spec = cluster(podTemplate={"spec": {"volumes": volumes}}, cache={"maxBytes": "4Gi"})
    assert own(worker(spec))["resources"]["limits"]["memory"] == f"{(8 + 2) * 1024}Mi"
    assert disk(worker(spec))[0] == f"{5 * 1024 + 256}Mi"


def test_a_container_that_says_how_much_disk_keeps_that() -> None:
    said = [{"name": "ray-worker", "resources": {"requests": {"ephemeral-storage": "3Gi"}}}]
    resources = own(worker(cluster(podTemplate={"spec": {"containers": said}})))["resources"]
    assert resources["requests"]["ephemeral-storage"] == "3Gi"
    assert "ephemeral-storage" not in resources["limits"]


def test_only_the_named_container_asks() -> None:
    spec = {"containers": [{"name": "a"}, {"name": "b"}], "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1Gi"}}]}
    made = with_volumes(spec, "b")
    assert [("resources" in each) for each in made["containers"]] == [False, True]


SMALL = KubernetesNode(
    "small", allocatable={"cpu": 8.0, "memory": 32.0 * GIBI, "pods": 50.0, "ephemeral-storage": 5.0 * GIBI}
)


def test_the_forecast_knows_disk() -> None:
    of = pool({**CPU, "cpu": "2", "memory": "4Gi"}, cache={"maxBytes": "20Gi"})
    demand = worker_demand(of.metadata, managed_spec(of), managed_spec(of).worker_groups[0], PoolSettings(image=IMAGE))
    assert "small: has 5Gi ephemeral-storage in all" in str(describe_closest(demand, [SMALL]))


def test_the_forecast_counts_sidecars_the_autoscaler_and_where_a_template_sends_pods() -> None:
    sidecar = {"name": "proxy", "image": "p", "resources": {"requests": {"cpu": "250m", "memory": "64Mi"}}}
    template = {"spec": {"containers": [sidecar], "nodeSelector": {"zone": "a"}, "tolerations": [{"key": "k", "operator": "Exists"}]}}  # fmt: skip
    of = pool(CPU, podTemplate=template)
    settings, spec = PoolSettings(image=IMAGE), managed_spec(of)
    demand = worker_demand(of.metadata, spec, spec.worker_groups[0], settings)
    assert demand.requests["cpu"] == pytest.approx(4.25)
    assert demand.node_selector == {"zone": "a"}
    assert [each.key for each in demand.tolerations] == ["k"]
    assert head_demand(of.metadata, spec, settings).requests["cpu"] == pytest.approx(1 + 0.1 + 0.25)


def test_merging_changes_neither_side() -> None:
    base, patch = {"a": {"b": [1]}, "env": [{"name": "A"}]}, {"a": {"c": 2}, "env": [{"name": "A", "value": "1"}]}
    merge(base, patch)
    assert base == {"a": {"b": [1]}, "env": [{"name": "A"}]}
    assert patch == {"a": {"c": 2}, "env": [{"name": "A", "value": "1"}]}
