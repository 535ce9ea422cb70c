"""runc, for hosts that withhold capabilities: containers are not given what this host does not have.

    runtime.py RUNC-ARGUMENT...

Docker gives a privileged container every capability that there is, and runc fails on each that its own process lacks.
Run by file name, isolated, by Docker: nothing but Python's own modules may be imported here.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

_NAMES = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
]
"""By their bits, as linux/capability.h numbers them."""


def possible(status: str) -> frozenset[str]:
    """The capabilities in the bounding set of a process, from its /proc/PID/status."""
    found = re.search(r"^CapBnd:\s*([0-9a-f]+)$", status, re.MULTILINE)
    bits = int(found[1], 16) if found else 0
    return frozenset(f"CAP_{name}" for number, name in enumerate(_NAMES) if bits >> number & 1)


def restricted(process: dict[str, Any], allowed: frozenset[str]) -> dict[str, Any]:
    """An OCI process without capabilities that are not allowed, and with the OOM score it would have anyway."""
    sets = {
        kind: [each for each in names if each in allowed] for kind, names in process.get("capabilities", {}).items()
    }
    kept = {key: value for key, value in process.items() if key not in {"capabilities", "oomScoreAdj"}}
    return kept | ({"capabilities": sets} if sets else {})


def _value(arguments: list[str], *options: str) -> str | None:
    for number, argument in enumerate(arguments):
        name, given, value = argument.partition("=")
        if name in options:
            return value if given else arguments[number + 1]
    return None


def _rewrite(path: Path, key: str | None, allowed: frozenset[str]) -> None:
    """Restrict the process that a file describes, under a key of it or as a whole."""
    content = json.loads(path.read_text())
    content = content | {key: restricted(content[key], allowed)} if key else restricted(content, allowed)
    path.write_text(json.dumps(content))


def main() -> None:
    """Restrict what is to be created or executed, and become runc."""
    arguments = sys.argv[1:]
    allowed = possible(Path("/proc/self/status").read_text())
    bundle, process = _value(arguments, "--bundle", "-b"), _value(arguments, "--process", "-p")
    if bundle and ("create" in arguments or "run" in arguments):
        _rewrite(Path(bundle, "config.json"), "process", allowed)
    elif process and "exec" in arguments:
        _rewrite(Path(process), None, allowed)
    os.execv(shutil.which("runc") or "/usr/sbin/runc", ["runc", *arguments])


if __name__ == "__main__":
    main()
