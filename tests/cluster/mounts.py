"""What the cluster's processes see of the host's files: everything, but what they write to its system folders is theirs."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.cluster.layout import Layout

_SYSTEM_FOLDERS = ("/etc", "/opt", "/usr", "/var")
_TUNABLES = (
    "kernel/keys/root_maxbytes", "kernel/keys/root_maxkeys", "kernel/panic", "kernel/panic_on_oops",
    "vm/overcommit_memory", "vm/panic_on_oom",
)  # fmt: skip
"""What a kubelet sets and no namespace holds: it writes to files of ours instead."""


def mount(*arguments: str) -> None:
    """Run mount(8)."""
    subprocess.run(["mount", *arguments], check=True, timeout=30)


def private_view(layout: Layout) -> None:
    """Give this mount namespace an own /run, copies on write of the system folders, and the cluster's resolver."""
    mount("--make-rshared", "/")
    mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run")
    for folder in _SYSTEM_FOLDERS:
        if Path(folder).is_dir():
            upper, work = Path(f"/run/written{folder}"), Path(f"/run/work{folder}")
            upper.mkdir(parents=True)
            work.mkdir(parents=True)
            options = f"lowerdir={folder},upperdir={upper},workdir={work}"
            mount("-t", "overlay", "-o", options, "overlay", folder)
    for folder in ("containerd", "lock", "netns"):
        Path("/run", folder).mkdir()
    for tunable in _TUNABLES:
        real, ours = Path("/proc/sys", tunable), Path("/run/tunables", tunable)
        if real.exists():
            ours.parent.mkdir(parents=True, exist_ok=True)
            ours.write_bytes(real.read_bytes())
            mount("--bind", str(ours), str(real))
    resolver = Path(os.path.realpath("/etc/resolv.conf"))
    resolver.parent.mkdir(parents=True, exist_ok=True)
    resolver.touch()
    mount("--bind", str(layout.configuration / "resolv.conf"), str(resolver))
