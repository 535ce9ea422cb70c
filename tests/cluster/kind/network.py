"""The network of kind's nodes where their image is ours: kind's own plug-in and its image are not to be had here."""

from __future__ import annotations

import json

from tests.cluster.configuration import cni
from tests.cluster.crds import Kubectl
from tests.cluster.kind.docker import Docker

_COREFILE = """.:53 {
    errors
    health {
        lameduck 5s
    }
    ready
    kubernetes cluster.local in-addr.arpa ip6.arpa {
        pods insecure
        ttl 5
    }
}
"""
"""kubeadm's without the plugins that our CoreDNS is built without; there is no server to forward to."""
_CONFIGURATION = "/etc/cni/net.d/10-penstock.conflist"
_ADDRESS = (
    '{range .items[*]}{.metadata.name} {.spec.podCIDR} {.status.addresses[?(@.type=="InternalIP")].address}{"\\n"}{end}'
)


def connect(docker: Docker, kubectl: Kubectl) -> None:
    """Give each node its range of pods' addresses, and a route to each other's."""
    corefile = json.dumps({"data": {"Corefile": _COREFILE}})
    kubectl("patch", "configmap", "coredns", "-n", "kube-system", "--type=merge", "-p", corefile)
    # A range is given once a node has registered, by a controller that has just begun.
    kubectl("wait", "node", "--all", "--for=jsonpath={.spec.podCIDR}", "--timeout=60s")
    rows = [line.split() for line in kubectl("get", "nodes", "-o", f"jsonpath={_ADDRESS}").splitlines()]
    for name, pods, _ in rows:
        for _, others, address in (row for row in rows if row[0] != name):
            docker.run("exec", name, "ip", "route", "replace", others, "via", address)
        docker.run("exec", "-i", name, "cp", "/dev/stdin", _CONFIGURATION, text=json.dumps(cni(pods)))
