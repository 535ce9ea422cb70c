"""The components' command lines and configuration files, as Kubernetes' reference documents them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.certificates import ClusterIdentities, Pair, client_certificate, write_kubeconfig
from tests.cluster.layout import API_PORT, CONTROL_ADDRESS, NODES, PODS, SERVICES, WATCHER, Layout, Node

_API = f"https://{CONTROL_ADDRESS}:{API_PORT}"
_ISSUER = "https://kubernetes.default.svc.cluster.local"
PAUSE_IMAGE = "registry.k8s.io/pause:3.10"
"""Containerd's default; the image itself is ours."""


@dataclass(frozen=True)
class Binaries:
    """What the cluster runs."""

    kubernetes: Path
    coredns: Path
    policies: Path


@dataclass(frozen=True)
class Component:
    """One long-running process."""

    name: str
    command: tuple[str, ...]


def write_configuration(layout: Layout, pki: ClusterIdentities, api_url: str, *, overlay: bool) -> None:
    """Write every file that components read.

    Args:
        layout: where to.
        pki: what they authenticate with.
        api_url: the API server as the host reaches it, for the administrator.
        overlay: whether containers may use overlayfs; else each gets a copy of its image.
    """
    folder = layout.configuration
    folder.mkdir(parents=True)
    write_kubeconfig(layout.kubeconfig, api_url, pki.authority, client_certificate(pki.admin))
    users: dict[str, Pair] = {
        "controller-manager": pki.controller_manager, "scheduler": pki.scheduler, "proxy": pki.proxy, "watcher": pki.watcher,
        "admin": pki.admin,
    }  # fmt: skip
    users |= {node.name: identity.client for node, identity in zip(layout.nodes, pki.nodes, strict=True)}
    for name, pair in users.items():
        write_kubeconfig(folder / f"{name}.kubeconfig", _API, pki.authority, client_certificate(pair))
    (folder / "Corefile").write_text(_corefile(folder))
    (folder / "resolv.conf").write_text(
        f"nameserver {CONTROL_ADDRESS}\nsearch svc.cluster.local cluster.local\noptions ndots:3 timeout:1\n"
    )
    (folder / "no-resolv.conf").write_text("")
    for node, identity in zip(layout.nodes, pki.nodes, strict=True):
        own = folder / node.name
        (own / "cni").mkdir(parents=True)
        (own / "containerd.toml").write_text(_containerd(layout, node, overlay=overlay))
        _write_json(own / "cni" / "10-penstock.conflist", cni(node.pods))
        _write_json(own / "kubelet.json", _kubelet(layout, node, pki.authority, identity.server))
        _write_json(own / "proxy.json", _proxy(layout, node))


def control_plane(layout: Layout, binaries: Binaries) -> tuple[Component, ...]:
    """The components that need no node, in the order of their start."""
    return (
        _component("etcd", binaries, _etcd_flags(layout)),
        _component("kube-apiserver", binaries, _api_server_flags(layout)),
        _component("kube-controller-manager", binaries, _controller_manager_flags(layout)),
        _component("kube-scheduler", binaries, _scheduler_flags(layout)),
        Component("coredns", (str(binaries.coredns), "-conf", str(layout.configuration / "Corefile"))),
    )


def node_agents(layout: Layout, node: Node, binaries: Binaries) -> tuple[Component, ...]:
    """What a node runs beside containerd."""
    kubelet = {
        "config": layout.configuration / node.name / "kubelet.json",
        "kubeconfig": layout.configuration / f"{node.name}.kubeconfig",
        "hostname-override": node.name,
        "node-ip": node.address,
        "root-dir": layout.kubelet(node),
        "cert-dir": layout.kubelet(node) / "pki",
    }
    proxy = {"config": layout.configuration / node.name / "proxy.json"}
    # First among all: each new connection waits for it, as it would for the kernel.
    asked = (str(binaries.policies), str(layout.configuration / "watcher.kubeconfig"), node.name)
    return (
        _component("kubelet", binaries, kubelet),
        _component("kube-proxy", binaries, proxy),
        Component("policies", ("nice", "-n", "-15", *asked)),
    )


def asked_about() -> tuple[tuple[str, ...], ...]:
    """Arguments of iptables by which a node asks `policies` about each new connection that it forwards.

    What nodes send themselves is let through, as the kubelet's probes must be; names are, by which all else begins. Where
    `policies` does not run, nothing passes. iptables, since nftables' own queue statement is missing in some kernels.
    """
    rule = ("-A", "FORWARD")
    queue = ("-m", "conntrack", "!", "--ctstate", "ESTABLISHED,RELATED", "-j", "NFQUEUE", "--queue-num", "100")
    return (
        (*rule, "-s", NODES, "-j", "RETURN"),
        *((*rule, "-p", protocol, "--dport", "53", "-j", "RETURN") for protocol in ("udp", "tcp")),
        (*rule, "-s", PODS, *queue),
        (*rule, "-d", PODS, *queue),
    )


def containerd(layout: Layout, node: Node) -> Component:
    """The container runtime."""
    return Component("containerd", ("containerd", "-c", str(layout.configuration / node.name / "containerd.toml")))


def _component(name: str, binaries: Binaries, flags: Mapping[str, object]) -> Component:
    return Component(name, (str(binaries.kubernetes), name, *(f"--{flag}={value}" for flag, value in flags.items())))


def _etcd_flags(layout: Layout) -> dict[str, object]:
    client, peer = "http://127.0.0.1:2379", "http://127.0.0.1:2380"
    return {
        "data-dir": layout.state / "etcd" / "data",
        "unsafe-no-fsync": "true",
        "log-level": "warn",
        "listen-client-urls": client,
        "advertise-client-urls": client,
        "listen-peer-urls": peer,
        "initial-advertise-peer-urls": peer,
        "initial-cluster": f"default={peer}",
    }


def _api_server_flags(layout: Layout) -> dict[str, object]:
    pki = layout.pki
    return {
        "advertise-address": CONTROL_ADDRESS,
        "bind-address": "0.0.0.0",
        "secure-port": API_PORT,
        "etcd-servers": "http://127.0.0.1:2379",
        "authorization-mode": "Node,RBAC",
        "enable-admission-plugins": "NodeRestriction",
        "client-ca-file": pki / "ca.crt",
        "tls-cert-file": pki / "apiserver.crt",
        "tls-private-key-file": pki / "apiserver.key",
        "service-account-key-file": pki / "service-account.key",
        "service-account-signing-key-file": pki / "service-account.key",
        "service-account-issuer": _ISSUER,
        "service-cluster-ip-range": SERVICES,
        "kubelet-client-certificate": pki / "kubelet-client.crt",
        "kubelet-client-key": pki / "kubelet-client.key",
        "kubelet-certificate-authority": pki / "ca.crt",
        "kubelet-preferred-address-types": "InternalIP",
        "allow-privileged": "true",
        "profiling": "false",
    }


def _controller_manager_flags(layout: Layout) -> dict[str, object]:
    pki, config = layout.pki, layout.configuration / "controller-manager.kubeconfig"
    return _own_kubeconfig(config) | {
        "service-account-private-key-file": pki / "service-account.key",
        "root-ca-file": pki / "ca.crt",
        "cluster-signing-cert-file": pki / "ca.crt",
        "cluster-signing-key-file": pki / "ca.key",
        "use-service-account-credentials": "true",
    }


def _scheduler_flags(layout: Layout) -> dict[str, object]:
    return _own_kubeconfig(layout.configuration / "scheduler.kubeconfig")


def _own_kubeconfig(config: Path) -> dict[str, object]:
    return {
        "kubeconfig": config,
        "authentication-kubeconfig": config,
        "authorization-kubeconfig": config,
        "authentication-skip-lookup": "true",
        "leader-elect": "false",
        "bind-address": "127.0.0.1",
        "profiling": "false",
    }


def _corefile(folder: Path) -> str:
    return f""".:53 {{
    bind {CONTROL_ADDRESS}
    errors
    ready 127.0.0.1:8181
    kubernetes cluster.local in-addr.arpa ip6.arpa {{
        kubeconfig {folder / "watcher.kubeconfig"} test
        pods insecure
        ttl 5
    }}
}}
"""


def watcher_rights() -> list[dict[str, object]]:
    """What the DNS server and what enforces policies may read."""
    name, group = "penstock-test:watcher", "rbac.authorization.k8s.io"
    rules = [
        {"apiGroups": [""], "resources": ["services", "pods", "namespaces"], "verbs": ["list", "watch"]},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
        {"apiGroups": ["networking.k8s.io"], "resources": ["networkpolicies"], "verbs": ["list", "watch"]},
    ]
    role: dict[str, object] = {
        "apiVersion": f"{group}/v1",
        "kind": "ClusterRole",
        "metadata": {"name": name},
        "rules": rules,
    }
    binding: dict[str, object] = {
        "apiVersion": f"{group}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": name},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": name},
        "subjects": [{"apiGroup": group, "kind": "User", "name": WATCHER}],
    }
    return [role, binding]


def _containerd(layout: Layout, node: Node, *, overlay: bool) -> str:
    # restrict_oom_score_adj: some hosts withhold CAP_SYS_RESOURCE, and runc would be refused pause's -998.
    cri = 'plugins."io.containerd.grpc.v1.cri"'
    return f"""version = 2
root = "{layout.image_store(node)}"
state = "/run/containerd"
oom_score = 0
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", \
"io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.internal.v1.opt", \
"io.containerd.tracing.processor.v1.otlp"]
[grpc]
  address = "/run/containerd/containerd.sock"
[{cri}]
  sandbox_image = "{PAUSE_IMAGE}"
  max_container_log_line_size = 65536
  restrict_oom_score_adj = true
  [{cri}.containerd]
    snapshotter = "{"overlayfs" if overlay else "native"}"
    default_runtime_name = "runc"
    [{cri}.containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [{cri}.containerd.runtimes.runc.options]
        SystemdCgroup = false
  [{cri}.cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{layout.configuration / node.name / "cni"}"
"""


def cni(pods: str) -> dict[str, object]:
    """A plug-in's configuration that gives pods addresses of a range, and routes them through the node."""
    addresses = {
        "type": "host-local",
        "dataDir": "/run/cni-addresses",
        "ranges": [[{"subnet": pods}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    return {
        "cniVersion": "1.0.0",
        "name": "penstock",
        "plugins": [{"type": "ptp", "ipMasq": False, "mtu": 1500, "ipam": addresses}],
    }


def _kubelet(layout: Layout, node: Node, authority: Path, server: Pair) -> dict[str, object]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": node.address,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(authority)},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(server.certificate),
        "tlsPrivateKeyFile": str(server.key),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{layout.cgroup}/{node.name}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "clusterDNS": [CONTROL_ADDRESS],
        "clusterDomain": "cluster.local",
        "resolvConf": str(layout.configuration / "no-resolv.conf"),
        "volumePluginDir": str(layout.kubelet(node) / "volume-plugins"),
        "healthzBindAddress": "127.0.0.1",
        # The host's disk is not the cluster's: images are never collected, and pods evicted only when it is full.
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "evictionHard": {
            "memory.available": "100Mi",
            "nodefs.available": "1%",
            "imagefs.available": "1%",
            "nodefs.inodesFree": "1%",
        },
        "makeIPTablesUtilChains": False,
    }


def _proxy(layout: Layout, node: Node) -> dict[str, object]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clusterCIDR": PODS,
        "clientConnection": {"kubeconfig": str(layout.configuration / "proxy.kubeconfig")},
        "hostnameOverride": node.name,
        "bindAddress": node.address,
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
        # The host's limits stay as they are.
        "conntrack": {"maxPerCore": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        "nodePortAddresses": [f"{node.address}/32"],
    }


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1))
