"""How a pod finds the API server of its own cluster."""

from __future__ import annotations

from pathlib import Path

import pytest
from kubernetes.config import incluster_config
from tests.certificates import Authority

from penstock_operator.runtime.cluster.kubernetes import KubernetesCluster


def test_it_is_asked_past_every_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "token").write_text("t")
    (tmp_path / "ca.crt").write_bytes(Authority().pem)
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(tmp_path / "ca.crt"))
    for name, value in {
        "KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443", "HTTPS_PROXY": "http://proxy:3128",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    cluster = KubernetesCluster.connect()
    try:
        manager = cluster._client.rest_client.pool_manager
        assert (cluster._client.configuration.host, manager.proxy) == ("https://10.96.0.1:443", None)
    finally:
        cluster.close()
