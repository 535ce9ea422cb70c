"""What the chart asks Kubernetes for, rendered by a real Helm."""

from __future__ import annotations

import argparse
import json
import re
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from tests.chart.helm import CHART, EVERYTHING, HelmFailedError, Object, Rendered, helm, render

from penstock.api.access import Authentication
from penstock.api.quantity import number
from penstock_operator import command_line as operator_command_line
from penstock_operator import flags as operator_flags
from penstock_serving.gateway import settings as gateway_settings
from penstock_serving.gateway.memory import max_bytes

ROOT = Path(__file__).parents[3]
IN_THE_CLEAR = "http://penstock-gateway-agents.penstock-system.svc:8081"
OVER_TLS = "https://penstock-gateway-agents.penstock-system.svc:8084"
BOTH = [pytest.param({}, id="as it comes"), pytest.param(EVERYTHING, id="with everything turned on")]


def _workloads(chart: Rendered) -> list[Object]:
    return chart.all("Deployment")


def _outside_tmp_and_state(container: Object) -> list[str]:
    return [each["mountPath"] for each in container["volumeMounts"] if not each.get("readOnly")]


@pytest.mark.parametrize("values", BOTH)
@pytest.mark.parametrize(
    "holds",
    [
        pytest.param(
            lambda pod, _: pod["securityContext"]["runAsNonRoot"] is True, id="runs as a user that is not root"
        ),
        pytest.param(
            lambda pod, _: pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"},
            id="makes only system calls that the runtime's profile knows",
        ),
        pytest.param(
            lambda _, each: each["securityContext"]["readOnlyRootFilesystem"] is True, id="cannot write to its root"
        ),
        pytest.param(
            lambda _, each: each["securityContext"]["allowPrivilegeEscalation"] is False, id="cannot gain privileges"
        ),
        pytest.param(
            lambda _, each: each["securityContext"]["capabilities"] == {"drop": ["ALL"]}, id="has no capability"
        ),
        pytest.param(lambda _, each: "memory" in each["resources"]["limits"], id="has a bound on its memory"),
        pytest.param(
            lambda _, each: {"cpu", "memory"} <= set(each["resources"]["requests"]), id="reserves what it needs"
        ),
        pytest.param(lambda _, each: not each["image"].endswith(":latest"), id="has an image with a version"),
        pytest.param(lambda pod, _: not pod.get("hostNetwork"), id="is not on its node's network"),
        pytest.param(
            lambda pod, _: all(
                {"configMap", "secret", "emptyDir"} & set(each) and "hostPath" not in each
                for each in pod.get("volumes", ())
            ),
            id="mounts nothing of its node",
        ),
        pytest.param(
            lambda pod, _: all(
                "sizeLimit" in each["emptyDir"] for each in pod.get("volumes", ()) if "emptyDir" in each
            ),
            id="cannot fill its node's disk",
        ),
    ],
)
def test_every_container(holds: Callable[[Object, Object], bool], values: Object) -> None:
    pods = render(values).pods()
    assert {"Deployment/penstock-operator", "Deployment/penstock-gateway", "Pod/penstock-test"} <= set(pods)
    assert [name for name, pod in pods.items() for container in pod["containers"] if not holds(pod, container)] == []


OPENSHIFT: Object = {"podSecurityContext": {"runAsUser": None, "runAsGroup": None, "fsGroup": None}}


def test_ids_that_the_cluster_gives_are_left_out_and_nothing_else() -> None:
    usual, theirs = (render(EVERYTHING | values).pods() for values in ({}, OPENSHIFT))
    for name, pod in usual.items():
        ids = {each: pod["securityContext"].pop(each) for each in ("runAsUser", "runAsGroup", "fsGroup")}
        assert set(ids.values()) == {65532}
        assert theirs[name] == pod


def test_pods_are_outside_of_meshes_unless_gateways_are_to_be_in_one() -> None:
    templates = {
        mode: {
            each["metadata"]["name"]: each["spec"]["template"]["metadata"]
            for each in render({"mesh": mode}).all("Deployment")
        }
        for mode in ("Outside", "Istio")
    }
    for name, metadata in (
        templates["Outside"] | {"penstock-operator": templates["Istio"]["penstock-operator"]}
    ).items():
        assert metadata["labels"]["sidecar.istio.io/inject"] == "false", name
        assert metadata["labels"]["istio.io/dataplane-mode"] == "none", name
        assert metadata["annotations"]["linkerd.io/inject"] == "disabled", name
    gateway = templates["Istio"]["penstock-gateway"]
    assert gateway["labels"]["sidecar.istio.io/inject"] == "true"
    assert "istio.io/dataplane-mode" not in gateway["labels"]
    (clients,) = (
        port["containerPort"]
        for port in render().pods()["Deployment/penstock-gateway"]["containers"][0]["ports"]
        if port["name"] == "http"
    )
    assert gateway["annotations"]["traffic.sidecar.istio.io/includeInboundPorts"] == str(clients)
    assert json.loads(gateway["annotations"]["proxy.istio.io/config"]) == {"terminationDrainDuration": "45s"}


POD: Object = {
    "podLabels": {"team": "ml"},
    "podAnnotations": {"linkerd.io/inject": "enabled"},
    "nodeSelector": {"kubernetes.io/arch": "amd64"},
    "tolerations": [{"key": "control", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
    "topologySpreadConstraints": [],
    "runtimeClassName": "gvisor",
    "priorityClassName": "system-cluster-critical",
    "serviceAccount": {"annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/r"}},
}


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        pytest.param({}, [["amd64"]] * 3, id="this release's images, which are for one"),
        pytest.param({"images": {"architectures": ["amd64", "arm64"]}}, [["amd64", "arm64"]] * 3, id="images for two"),
        pytest.param({"images": {"architectures": []}}, [None] * 3, id="images for any"),
        pytest.param(
            {"operator": {"nodeSelector": {"kubernetes.io/arch": "arm64"}}}, [["amd64"], None, None],
            id="a component that says itself which",
        ),
    ],
)  # fmt: skip
def test_pods_go_to_nodes_of(values: Object, wanted: list[list[str] | None]) -> None:
    pods = render(values).pods()
    found = []
    for name in ("Deployment/penstock-gateway", "Deployment/penstock-operator", "Pod/penstock-test"):
        required = (
            pods[name].get("affinity", {}).get("nodeAffinity", {}).get("requiredDuringSchedulingIgnoredDuringExecution")
        )
        found.append(required and required["nodeSelectorTerms"][0]["matchExpressions"][0]["values"])
    assert found == wanted


@pytest.mark.parametrize("component", ["operator", "gateway", "collector"])
def test_a_component_takes_what_a_cluster_asks_of_its_pods(component: str) -> None:
    turned_on = {"enabled": True, "image": "otel:1"} if component == "collector" else {}
    chart = render({component: POD | turned_on})
    template = chart.one("Deployment", f"penstock-{component}")["spec"]["template"]
    assert POD["podLabels"].items() <= template["metadata"]["labels"].items()
    assert POD["podAnnotations"].items() <= template["metadata"]["annotations"].items()
    as_it_is = (
        "nodeSelector",
        "tolerations",
        "affinity",
        "topologySpreadConstraints",
        "runtimeClassName",
        "priorityClassName",
    )
    assert {each: template["spec"][each] for each in as_it_is} == {each: POD[each] for each in as_it_is}
    account = chart.one("ServiceAccount", template["spec"]["serviceAccountName"])
    assert account["metadata"]["annotations"] == POD["serviceAccount"]["annotations"]
    assert account["automountServiceAccountToken"] is False


@pytest.mark.parametrize("name", ["penstock-operator", "penstock-gateway"])
@pytest.mark.parametrize(
    "holds",
    [
        pytest.param(lambda _, found: found["spec"]["replicas"] == 2, id="has two replicas"),
        pytest.param(
            lambda chart, found: (
                chart.one("PodDisruptionBudget", found["metadata"]["name"])["spec"]
                == {"maxUnavailable": 1, "selector": found["spec"]["selector"]}
            ),
            id="loses one at a time",
        ),
        pytest.param(
            lambda _, found: (
                found["spec"]["selector"]["matchLabels"].items()
                <= found["spec"]["template"]["metadata"]["labels"].items()
            ),
            id="selects its own pods",
        ),
        pytest.param(
            lambda _, found: "app.kubernetes.io/version" not in found["spec"]["selector"]["matchLabels"],
            id="selects pods of every version, since a selector can never change",
        ),
        pytest.param(
            lambda _, found: "podAntiAffinity" in found["spec"]["template"]["spec"]["affinity"],
            id="prefers nodes apart",
        ),
        pytest.param(
            lambda _, found: all(
                each["labelSelector"]["matchLabels"] == found["spec"]["selector"]["matchLabels"]
                for each in found["spec"]["template"]["spec"]["topologySpreadConstraints"]
            ),
            id="spreads over zones",
        ),
        pytest.param(
            lambda _, found: (
                {"startupProbe", "livenessProbe", "readinessProbe"}
                <= set(found["spec"]["template"]["spec"]["containers"][0])
            ),
            id="is asked whether it has started, lives and is ready",
        ),
        pytest.param(
            lambda _, found: all(
                probe["httpGet"]["port"] in {each["name"] for each in container["ports"]}
                for container in found["spec"]["template"]["spec"]["containers"]
                for probe in (container["startupProbe"], container["livenessProbe"], container["readinessProbe"])
            ),
            id="is asked at a port that it has",
        ),
    ],
)
def test_the_deployment(holds: Callable[[Rendered, Object], bool], name: str) -> None:
    chart = render()
    assert holds(chart, chart.one("Deployment", name))


@pytest.mark.parametrize(
    ("gateway", "wanted"),
    [
        pytest.param({}, 2, id="two where nothing is said"),
        pytest.param({"replicas": 6}, 6, id="what is said"),
        pytest.param({"autoscaling": {"enabled": True}}, 2, id="the least where autoscaling is on from the beginning"),
        pytest.param({"replicas": 6, "autoscaling": {"enabled": True}}, 6, id="what is said, where autoscaling begins"),
        pytest.param({"replicas": 1, "autoscaling": {"enabled": True}}, 2, id="never below the least"),
    ],
)
def test_the_number_of_gateways_without_a_cluster_to_look_at(gateway: Object, wanted: int) -> None:
    assert render({"gateway": gateway}).one("Deployment", "penstock-gateway")["spec"]["replicas"] == wanted


@pytest.mark.parametrize("values", BOTH)
def test_the_operator_understands_its_arguments_and_files(values: Object, tmp_path: Path) -> None:
    read = operator_command_line.read(_in_folder(tmp_path, render(values), "penstock-operator"))
    assert read.identity == "pod-a"
    assert read.pools is not None
    assert read.pools.ipv6, "where the operator's own address is IPv6"
    assert [*read.gateways, *read.gateways_over_tls] == [OVER_TLS if values else IN_THE_CLEAR]
    assert (read.jobs is not None) == ("optimization" in values)
    assert len(read.trusted_keys) == (1 if "optimization" in values else 0)
    assert read.default_pool is not None
    assert read.default_pool.managed is not None


@pytest.mark.parametrize(
    ("mode", "operators_own", "replicas", "gateways"),
    [
        pytest.param("Disabled", (IN_THE_CLEAR,), (), (0, False), id="nobody speaks TLS"),
        pytest.param(
            "Preferred", (IN_THE_CLEAR,), (OVER_TLS,), (8084, False), id="new replicas do, the others need not"
        ),
        pytest.param("Required", (), (OVER_TLS,), (8084, True), id="everybody does"),
    ],
)
def test_who_speaks_tls_to_gateways(
    mode: str, operators_own: tuple[str, ...], replicas: tuple[str, ...], gateways: tuple[int, bool], tmp_path: Path
) -> None:
    chart = render({"gateway": {"replicaTLS": mode}})
    operator = operator_command_line.read(_in_folder(tmp_path / "o", chart, "penstock-operator"))
    gateway = gateway_settings.read_settings(_in_folder(tmp_path / "g", chart, "penstock-gateway"), {})
    assert (operator.gateways, operator.gateways_over_tls) == (operators_own, replicas)
    assert (gateway.control_tls_port, gateway.require_control_tls) == gateways
    rules = chart.one("NetworkPolicy", "penstock-gateway")["spec"]["ingress"]
    (let_in,) = ({port["port"] for port in each["ports"]} for each in rules if each["ports"][0]["port"] == "agent")
    assert let_in == {port["name"] for port in chart.one("Service", "penstock-gateway-agents")["spec"]["ports"]}


def test_gateways_and_replicas_take_bodies_of_the_same_size(tmp_path: Path) -> None:
    chart = render({"gateway": {"maxBodyBytes": 134217728}})
    operator = operator_command_line.read(_in_folder(tmp_path / "o", chart, "penstock-operator"))
    gateway = gateway_settings.read_settings(_in_folder(tmp_path / "g", chart, "penstock-gateway"), {})
    assert (operator.max_body_bytes, gateway.max_body_bytes) == (134217728, 134217728)


def test_the_operator_gets_a_value_as_it_was_written() -> None:
    written = {"HASH": "a # b", "COLON": "k: v", "QUOTE": 'say "yes"', "DOLLAR": "$(HOME)"}
    (operator,) = render({"poolEnv": written}).one("Deployment", "penstock-operator")["spec"]["template"]["spec"][
        "containers"
    ]
    given = dict(
        each.removeprefix("--pool-env=").split("=", 1) for each in operator["args"] if each.startswith("--pool-env=")
    )
    # The kubelet makes one $ of two, and expands nothing after it.
    assert {name: given[name].replace("$$(", "$(") for name in written} == written
    assert given["DOLLAR"] == "$$(HOME)"


@pytest.mark.parametrize("values", BOTH)
def test_the_gateway_understands_its_arguments(values: Object, tmp_path: Path) -> None:
    read = gateway_settings.read_settings(_in_folder(tmp_path, render(values), "penstock-gateway"), {})
    url = "https://models.example.com/models" if values else "http://penstock-gateway.penstock-system.svc"
    assert (read.host, read.port, read.control_port, read.probe_port, read.url) == ("*", 8080, 8081, 8083, url)
    assert read.default_authentication is Authentication.REQUIRED


@pytest.mark.parametrize(
    ("deployment", "parser", "left_out"),
    [
        pytest.param(
            "penstock-operator",
            operator_flags.parser(),
            # A pod has its ServiceAccount, and one machine is no cluster.
            {
                "--kubeconfig",
                "--context",
                "--standalone",
                "--replica-host",
                "--signing-key-file",
                "--optimizer-workspace",
            }
            # One release, one lease.
            | {"--lease-name"},
            id="operator",
        ),
        pytest.param(
            "penstock-gateway",
            gateway_settings._parser(),
            # Defaults that nobody has had a reason to change, and where the image has HAProxy.
            {
                "--default-namespace",
                "--slots",
                "--header-timeout-seconds",
                "--client-timeout-seconds",
                "--haproxy-binary",
                "--certificate-seconds",
            },
            id="gateway",
        ),
    ],
)
def test_each_flag_is_set_or_left_out_on_purpose(
    deployment: str, parser: argparse.ArgumentParser, left_out: set[str]
) -> None:
    known = {option for action in parser._actions for option in action.option_strings if option.startswith("--")}
    everything = EVERYTHING | {"operator": {"watchNamespaces": ["vision"]}}
    charts = (render(everything), render({**everything, "gateway": {"replicaTLS": "Preferred"}}))
    given = {each.partition("=")[0] for chart in charts for each in chart.arguments(deployment)}
    assert given == known - left_out - {"--help"}


@pytest.mark.parametrize(
    ("values", "each"),
    [
        pytest.param({}, 1024, id="clients come by themselves"),
        pytest.param(
            {"httpRoute": {"enabled": True, "parentRefs": [{"name": "a"}]}}, 4096, id="all come through a Gateway"
        ),
        pytest.param({"ingress": {"enabled": True}}, 4096, id="all come through the Ingress"),
        pytest.param({"ingress": {"enabled": True}, "maxConnectionsPerClient": 9}, 9, id="it is said"),
    ],
)
def test_connections_of_one_address_are_bounded_where(values: Object, each: int, tmp_path: Path) -> None:
    arguments = _in_folder(tmp_path, render({"gateway": values}), "penstock-gateway")
    assert gateway_settings.read_settings(arguments, {}).connections_per_client == each


@pytest.mark.parametrize(
    ("gateway", "wanted"),
    [
        pytest.param({}, 0, id="as long as routes say, where nobody stands before the gateway"),
        pytest.param({"ingress": {"enabled": True}}, 50, id="less than the minute of an Ingress"),
        pytest.param({"ingress": {"enabled": True}, "holdSeconds": 20}, 20, id="as long as is said"),
    ],
)
def test_requests_are_held(gateway: Object, wanted: int, tmp_path: Path) -> None:
    read = gateway_settings.read_settings(_in_folder(tmp_path, render({"gateway": gateway}), "penstock-gateway"), {})
    assert read.hold_seconds == wanted
    assert read.keep_alive_seconds > 60, "longer than load balancers keep connections"


def test_a_route_of_the_gateway_api_leads_to_the_service() -> None:
    chart = render(EVERYTHING)
    (rule,) = chart.one("HTTPRoute", "penstock-gateway")["spec"]["rules"]
    (port,) = chart.one("Service", "penstock-gateway")["spec"]["ports"]
    assert rule == {
        "matches": [{"path": {"type": "PathPrefix", "value": "/models"}}],
        "backendRefs": [{"name": "penstock-gateway", "port": port["port"]}],
        "timeouts": {"request": "60s"},
    }
    (path,) = chart.one("Ingress", "penstock-gateway")["spec"]["rules"][0]["http"]["paths"]
    assert path["path"] == "/models"


@pytest.mark.parametrize("values", BOTH)
def test_a_gateway_has_the_memory_that_it_may_take(values: Object, tmp_path: Path) -> None:
    chart = render(values)
    read = gateway_settings.read_settings(_in_folder(tmp_path, chart, "penstock-gateway"), {})
    (container,) = chart.pods()["Deployment/penstock-gateway"]["containers"]
    assert max_bytes(read) <= number(container["resources"]["limits"]["memory"])


@pytest.mark.parametrize("values", BOTH)
def test_a_gateway_has_the_time_to_drain(values: Object, tmp_path: Path) -> None:
    chart = render(values)
    read = gateway_settings.read_settings(_in_folder(tmp_path, chart, "penstock-gateway"), {})
    grace = chart.pods()["Deployment/penstock-gateway"]["terminationGracePeriodSeconds"]
    assert grace >= read.shutdown_delay_seconds + read.drain_seconds + 15


def _in_folder(folder: Path, chart: Rendered, deployment: str) -> list[str]:
    """A Deployment's arguments, with the files that its pods have in a folder here."""
    pod = chart.pods()[f"Deployment/{deployment}"]
    sources = {each["name"]: each for each in pod["volumes"]}
    for mount in pod["containers"][0]["volumeMounts"]:
        target, source = folder / mount["mountPath"].strip("/"), sources[mount["name"]]
        target.mkdir(parents=True)
        items = (source.get("configMap") or source.get("secret") or {}).get("items", ())
        if "configMap" in source and not items:
            for name, content in chart.one("ConfigMap", source["configMap"]["name"])["data"].items():
                (target / name).write_text(content)
        for item in items:
            (target / item["path"]).write_text("a secret of some length")
    pairs = [
        each.replace("$(POD_NAME)", "pod-a").replace("$(POD_IP)", "fd00::7").partition("=")
        for each in chart.arguments(deployment)
    ]
    return [
        f"{name}{sign}{folder}{value}" if value.startswith("/etc/") else name + sign + value
        for name, sign, value in pairs
    ]


@pytest.mark.parametrize("values", BOTH)
def test_services_lead_to_ports_that_pods_have(values: Object) -> None:
    chart = render(values)
    for service in chart.all("Service"):
        (target,) = (
            each
            for each in _workloads(chart)
            if service["spec"]["selector"].items() <= each["spec"]["template"]["metadata"]["labels"].items()
        )
        named = {port["name"] for each in target["spec"]["template"]["spec"]["containers"] for port in each["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= named


@pytest.mark.parametrize(
    ("values", "port", "url"),
    [
        pytest.param({}, 80, "http://penstock-gateway.penstock-system.svc", id="plain"),
        pytest.param({"tls": {"secretName": "t"}}, 443, "https://penstock-gateway.penstock-system.svc", id="with TLS"),
        pytest.param(
            {"tls": {"secretName": "t"}, "service": {"port": 8443}},
            8443,
            "https://penstock-gateway.penstock-system.svc:8443",
            id="with TLS at a port of one's own",
        ),
    ],
)
def test_where_clients_reach_the_gateway(values: Object, port: int, url: str) -> None:
    chart = render({"gateway": values})
    assert [each["port"] for each in chart.one("Service", "penstock-gateway")["spec"]["ports"]] == [port]
    assert f"--public-url={url}" in chart.arguments("penstock-gateway")


def test_gateways_that_are_not_ready_are_found_by_operator_and_replicas_alone() -> None:
    chart = render()
    agents = chart.one("Service", "penstock-gateway-agents")["spec"]
    assert (agents["clusterIP"], agents["publishNotReadyAddresses"]) == ("None", True)
    assert "publishNotReadyAddresses" not in chart.one("Service", "penstock-gateway")["spec"]


@pytest.mark.parametrize("values", BOTH)
def test_only_the_operator_the_test_and_the_guard_have_a_token_of_the_kubernetes_api(values: Object) -> None:
    pods = render(values).pods()
    assert {name for name, pod in pods.items() if pod["automountServiceAccountToken"]} == {
        "Deployment/penstock-operator",
        "Pod/penstock-test",
        "Job/penstock-deployments-or-pools-are-still-there",
    }


def test_nobody_comes_in_but_by_a_policy_of_its_own() -> None:
    policies = {each["metadata"]["name"]: each["spec"] for each in render().all("NetworkPolicy")}
    deny = policies.pop("penstock-deny")
    assert "ingress" not in deny
    assert deny["policyTypes"] == ["Ingress", "Egress"]
    for deployment in _workloads(render()):
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        assert deny["podSelector"]["matchLabels"].items() <= labels.items()
        assert labels["app.kubernetes.io/component"] in {
            each["podSelector"]["matchLabels"]["app.kubernetes.io/component"] for each in policies.values()
        }


def test_no_pod_reaches_the_clouds_credentials_unless_asked_for() -> None:
    def refused(values: Object) -> list[str]:
        (rule,) = (
            each for each in render(values).one("NetworkPolicy", "penstock-deny")["spec"]["egress"] if "to" in each
        )
        return [cidr for each in rule["to"] for cidr in each.get("ipBlock", {}).get("except", ())]

    assert "169.254.0.0/16" in refused({})
    assert refused({"networkPolicy": {"metadataServices": True}}) == []


def test_the_agents_port_is_not_open_to_clients() -> None:
    rules = render().one("NetworkPolicy", "penstock-gateway")["spec"]["ingress"]
    (agent,) = (each for each in rules if each["ports"][0]["port"] == "agent")
    (clients,) = (each for each in rules if each["ports"][0]["port"] == "http")
    assert "from" not in clients
    assert {"podSelector", "namespaceSelector"} >= {key for each in agent["from"] for key in each}
    assert {} not in agent["from"]


def test_resources_and_profiles_are_those_of_the_manifests() -> None:
    shown = list(yaml.safe_load_all(helm("show", "crds", str(CHART))))
    assert sorted(each["metadata"]["name"] for each in shown if each) == sorted(
        yaml.safe_load(path.read_text())["metadata"]["name"] for path in (ROOT / "manifests" / "crds").glob("*.yaml")
    )
    rendered = {each["metadata"]["name"]: each["spec"] for each in render().all("ClusterOptimizationProfile")}
    assert rendered == {
        path.stem: yaml.safe_load(path.read_text())["spec"] for path in (ROOT / "manifests" / "profiles").glob("*.yaml")
    }


def test_admission_policies_are_those_of_the_manifests() -> None:
    kinds = ("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")
    rendered = {(each["kind"], each["metadata"]["name"]): each["spec"] for each in render().all(*kinds)}
    for kind in kinds:
        rendered.pop((kind, "penstock-operator-bounds"))  # it names the release's ServiceAccount
    files = (ROOT / "manifests" / "policies").glob("*.yaml")
    objects = [each for path in files for each in yaml.safe_load_all(path.read_text())]
    assert rendered == {(each["kind"], each["metadata"]["name"]): each["spec"] for each in objects}
    assert rendered


def test_the_package_holds_them_too(tmp_path: Path) -> None:
    helm("package", str(CHART), "--destination", str(tmp_path))
    (package,) = tmp_path.glob("*.tgz")
    assert helm("show", "crds", str(package)) == helm("show", "crds", str(CHART))
    profiles = list((ROOT / "manifests" / "profiles").glob("*.yaml"))
    assert helm("template", "p", str(package)).count("kind: ClusterOptimizationProfile") == len(profiles)


def test_chart_and_code_have_the_same_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert (chart["version"], chart["appVersion"]) == (project, project)


def test_every_value_is_described() -> None:
    """Above each key is a comment, or a key that stands under the same comment, or its group alone."""
    lines = (CHART / "values.yaml").read_text().splitlines()
    assert [line for number, line in enumerate(lines) if _is_value(line) and not _described(lines, number)] == []


def _is_value(line: str) -> bool:
    return re.match(r" {0,4}\w+:", line) is not None


def _described(lines: list[str], number: int) -> bool:
    line, above = lines[number], lines[number - 1]
    depth = len(line) - len(line.lstrip())
    if line.endswith(":"):
        return True  # a group; what is in it is looked at by itself
    if above.lstrip().startswith("#") or (above.endswith(":") and lines[number - 2].lstrip().startswith("#")):
        return True
    # Within a default value, or beside a key that is described.
    same = len(above) - len(above.lstrip()) == depth
    return (same and _is_value(above) and _described(lines, number - 1)) or _in_a_default(lines, number, depth)


def _in_a_default(lines: list[str], number: int, depth: int) -> bool:
    """Whether the key is within a value that is described as a whole, such as `resources`."""
    group = next(each for each in reversed(lines[:number]) if len(each) - len(each.lstrip()) < depth)
    return group.strip() in {"resources:", "config:", "spec:", "managed:", "metrics:"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        pytest.param({"gatway": {}}, "'gatway' not allowed", id="a name that there is not"),
        pytest.param(
            {"gateway": {"service": {"prot": 1}}}, "'prot' not allowed", id="a name that there is not, within"
        ),
        pytest.param({"operator": {"replicas": "2"}}, "got string, want integer", id="a text for a number"),
        pytest.param({"operator": {"replicas": 0}}, "minimum", id="no operator"),
        pytest.param({"access": {"defaultAuthentication": "None"}}, "value must be one of", id="a word of no meaning"),
        pytest.param({"gateway": {"replicaTLS": "Off"}}, "value must be one of", id="a word for TLS that there is not"),
        pytest.param({"images": {"operator": {"digest": "abc"}}}, "does not match pattern", id="half a digest"),
        pytest.param(
            {"optimization": {"artifactStore": "s3://models", "signingKeySecret": "one-for-all"}},
            "'signingKeySecret' not allowed",
            id="one key for all namespaces, as there was",
        ),
        pytest.param(
            {"optimization": {**EVERYTHING["optimization"], "jobEgress": []}},
            "needs optimization.jobEgress",
            id="a store, and searches that may connect to all the world",
        ),
        pytest.param(
            {"access": {"anonymous": "ByRight"}, "admissionPolicies": {"enabled": False}},
            "ByRight needs admissionPolicies.enabled",
            id="a right that nothing would ask for",
        ),
        pytest.param({"collector": {"enabled": True}}, "needs collector.image", id="a collector without an image"),
        pytest.param(
            {"gateway": {"httpRoute": {"enabled": True}}},
            "needs gateway.httpRoute.parentRefs: the Gateways",
            id="a route by no Gateway",
        ),
        pytest.param(
            {"gateway": {"tls": {"clientCAConfigMap": "authorities"}}},
            "needs gateway.tls.secretName",
            id="clients that must show certificates where nobody speaks TLS",
        ),
        pytest.param(
            {"gateway": {"autoscaling": {"enabled": True, "minReplicas": 12}}},
            "minReplicas 12 is more than maxReplicas 10",
            id="more gateways at least than at most",
        ),
    ],
)
def test_values_are_refused(values: Object, message: str) -> None:
    with pytest.raises(HelmFailedError, match=message):
        render(values)


@pytest.mark.parametrize(
    ("image", "reference"),
    [
        pytest.param({}, "penstock/operator:0.1.0", id="the chart's version"),
        pytest.param({"tag": "edge"}, "penstock/operator:edge", id="a tag"),
        pytest.param({"digest": f"sha256:{'0' * 64}"}, f"penstock/operator@sha256:{'0' * 64}", id="a digest"),
    ],
)
def test_an_image_is_named_by(image: Object, reference: str) -> None:
    operator = render({"images": {"operator": image}}).one("Deployment", "penstock-operator")
    assert operator["spec"]["template"]["spec"]["containers"][0]["image"] == reference


DIGEST = f"sha256:{'a' * 64}"


@pytest.mark.parametrize(
    ("images", "reference"),
    [
        pytest.param({}, "penstock/runtime-gpu:0.1.0", id="as it comes: beside the plain one"),
        pytest.param(
            {"registry": "r.example.com", "runtime": {"repository": "ray/serve", "tag": "7"}},
            "r.example.com/ray/serve-gpu:7",
            id="a plain one of another name and tag",
        ),
        pytest.param(
            {"runtime": {"digest": DIGEST, "tag": "7"}}, "penstock/runtime-gpu:7", id="a digest, which is of one image"
        ),
        pytest.param({"runtimeGpu": {"digest": DIGEST}}, f"penstock/runtime-gpu@{DIGEST}", id="a digest of its own"),
        pytest.param(
            {"runtimeGpu": {"repository": "penstock/runtime"}}, "penstock/runtime:0.1.0", id="the plain one itself"
        ),
    ],
)
def test_the_image_for_gpus_is(images: Object, reference: str) -> None:
    """By one rule for workers and Jobs."""
    jobs = json.loads(json.dumps(images).replace("runtime", "optimizer"))
    store = {"artifactStore": "s3://models/penstock", "jobEgress": ["0.0.0.0/0:443"]}
    arguments = render({"images": {**images, **jobs}, "optimization": store}).arguments("penstock-operator")
    assert f"--runtime-gpu-image={reference}" in arguments
    assert f"--optimizer-gpu-image={reference.replace('runtime', 'optimizer')}" in arguments


@pytest.mark.parametrize("values", BOTH)
def test_helm_lint_finds_nothing(values: Object) -> None:
    assert "0 chart(s) failed" in helm("lint", "--strict", str(CHART), values=values)
