"""The test control plane is a real one: identities, rights and clean-up."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.cluster.controlplane import ControlPlane

pytestmark = pytest.mark.apiserver


def test_a_service_account_may_do_only_what_it_was_granted(api_server: ControlPlane, namespace: str) -> None:
    api_server.kubectl("create", "serviceaccount", "reader", "-n", namespace)
    api_server.kubectl("create", "role", "read", "--verb=get,list", "--resource=configmaps", "-n", namespace)
    api_server.kubectl(
        "create", "rolebinding", "read", "--role=read", f"--serviceaccount={namespace}:reader", "-n", namespace
    )
    reader = api_server.kubeconfig_for("reader", namespace)
    assert api_server.kubectl("get", "configmaps", kubeconfig=reader).returncode == 0
    refused = api_server.kubectl("get", "secrets", kubeconfig=reader, check=False)
    assert refused.returncode != 0
    assert "Forbidden" in refused.stderr


def test_nothing_is_left_when_the_process_that_booted_it_is_killed(control_plane_binary: Path) -> None:
    booter = subprocess.Popen(
        [sys.executable, "-m", "tests.cluster.controlplane", "up"], stdout=subprocess.PIPE, text=True
    )
    assert booter.stdout is not None
    try:
        kubeconfig = Path(booter.stdout.readline().strip().removeprefix("export KUBECONFIG="))
        assert kubeconfig.exists()
        assert _processes_in(kubeconfig.parent) >= 3
    finally:
        booter.send_signal(signal.SIGKILL)
        booter.wait(10)
        booter.stdout.close()
    deadline = time.monotonic() + 20
    while _processes_in(kubeconfig.parent) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert _processes_in(kubeconfig.parent) == 0
    with ControlPlane(control_plane_binary):
        assert not kubeconfig.parent.exists()


def _processes_in(folder: Path) -> int:
    """How many processes work in a folder."""
    count = 0
    for entry in Path("/proc").iterdir():
        try:
            count += entry.name.isdigit() and (entry / "cwd").readlink() == folder
        except OSError:
            continue  # it ended meanwhile, or is another user's
    return count
