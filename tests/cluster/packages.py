"""Debian packages that the test cluster needs, installed where they are missing."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from tests.cluster.binary import Report, cache_directory, locked

_PROGRAMS = {
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "nft": "nftables",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "setpriv": "util-linux",
    "mount": "mount",
    "mmdebstrap": "mmdebstrap",  # the base of the images that tests build
}
_CNI = Path("/usr/lib/cni/ptp")
_CNI_PACKAGE = "containernetworking-plugins"
_SECONDS = 600


class NotPossibleError(Exception):
    """This machine cannot run the test cluster; the message says why, and what would help."""


def ensure(report: Report) -> None:
    """Install what is missing.

    Raises:
        NotPossibleError: not root, or not a Debian with a package index, and something is missing.
    """
    if os.geteuid() != 0:
        raise NotPossibleError("the test cluster makes namespaces, mounts and control groups: run it as root")
    if not _missing():
        return
    cache_directory().mkdir(parents=True, exist_ok=True)
    # Of several workers on a bare machine one installs; apt-get would turn the others away.
    with locked(cache_directory() / "packages.lock", report):
        if names := _missing():
            _install(names, report)


def install_docker(report: Report) -> None:
    """Install Docker's daemon, and its command line where there is none.

    Raises:
        NotPossibleError: not root, or not a Debian with a package index.
    """
    ensure(report)
    if shutil.which("dockerd", path=_path()) is None:
        _install(["docker.io"], report)


def _missing() -> list[str]:
    found = {package for program, package in _PROGRAMS.items() if shutil.which(program, path=_path()) is None}
    return sorted(found if _CNI.exists() else found | {_CNI_PACKAGE})


def _install(names: list[str], report: Report) -> None:
    if shutil.which("apt-get") is None:
        raise NotPossibleError(f"the test cluster needs {', '.join(names)} (Debian's names), and there is no apt-get")
    report(f"installing {', '.join(names)}")
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for arguments in (["update", "-qq"], ["install", "-qq", "-y", "--no-install-recommends", *names]):
        done = subprocess.run(
            ["apt-get", *arguments], capture_output=True, text=True, timeout=_SECONDS, check=False, env=environment
        )
        if done.returncode != 0:
            raise NotPossibleError(f"apt-get {arguments[0]} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


def _path() -> str:
    return os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
