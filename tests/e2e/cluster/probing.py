"""Connections from a pod in a namespace of its own: which ports of other pods' answer it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from images.catalogue import ImageName
from tests.e2e.cluster.installation import Installation, Object

_PYTHON = "/opt/penstock/bin/python"
_PROBE = """
import json, socket, sys
from concurrent.futures import ThreadPoolExecutor
def answered(place):
    try:
        socket.create_connection(place, 3).close()
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    return True
places = json.loads(sys.argv[1])
with ThreadPoolExecutor(64) as pool:
    print(json.dumps([place for place, told in zip(places, pool.map(answered, map(tuple, places))) if told]))
"""
"""A port that refuses has answered: a policy that lets nothing in does not even do that."""
_LISTENING = "0A"

Place = tuple[str, int]
"""Address and port."""


@dataclass(frozen=True)
class Prober:
    """A pod that tries to connect."""

    installation: Installation
    namespace: str

    def answered(self, places: Sequence[Place]) -> set[Place]:
        """Those of the places from which anything came back within three seconds."""
        arguments = ("exec", "probe", "-n", self.namespace, "--", _PYTHON, "-c", _PROBE, json.dumps(places))
        return {(host, port) for host, port in json.loads(self.installation.cluster.kubectl(*arguments))}


@contextmanager
def prober(installation: Installation, **labels: str) -> Iterator[Prober]:
    """A pod in a fresh namespace with labels."""
    cluster = installation.cluster
    pod: Object = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "probe"},
        "spec": {
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 0,
            "containers": [
                {
                    "name": "probe",
                    "image": installation.images[ImageName.OPERATOR],
                    "command": [_PYTHON, "-c", "import time; time.sleep(3600)"],
                }
            ],
        },
    }
    with cluster.namespace("probe") as namespace:
        if labels:
            named = (f"penstock.dev/{key}={value}" for key, value in labels.items())
            cluster.kubectl("label", "namespace", namespace, *named)
        cluster.kubectl("apply", "-n", namespace, "-f", "-", manifest=pod)
        cluster.kubectl("wait", "--for=condition=Ready", "--timeout=120s", "pod/probe", "-n", namespace)
        yield Prober(installation, namespace)


@contextmanager
def opened(installation: Installation, *namespaces: str) -> Iterator[None]:
    """A policy in each namespace that lets everything in to all of its pods: what no policy did, another does not forbid."""
    policy: Object = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "open"},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{}]},
    }
    kubectl = installation.cluster.kubectl
    try:
        for namespace in namespaces:
            kubectl("apply", "-n", namespace, "-f", "-", manifest=policy)
        yield
    finally:
        for namespace in namespaces:
            kubectl("delete", "networkpolicy", "open", "-n", namespace, "--ignore-not-found")


def listening(installation: Installation, namespace: str, pod: Object) -> list[Place]:
    """Every place at which a pod takes connections from elsewhere."""
    name, address = pod["metadata"]["name"], pod["status"]["podIP"]
    table = installation.cluster.kubectl("exec", name, "-n", namespace, "--", "cat", "/proc/net/tcp", "/proc/net/tcp6")
    return [(address, port) for port in listening_ports(table)]


def listening_ports(table: str) -> list[int]:
    """The ports of a /proc/net/tcp that take connections by another address than loopback."""
    rows = [line.split() for line in table.splitlines() if line.strip() and not line.lstrip().startswith("sl")]
    ports = {
        int(row[1].rpartition(":")[2], 16)
        for row in rows
        if row[3] == _LISTENING and not row[1].startswith(("0100007F:", "00000000000000000000000001000000:"))
    }
    return sorted(ports)
