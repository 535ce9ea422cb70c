"""Gateway, replica and operator answer by IPv6 where there is nothing else, and by both families where there are both."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from tests.integration.gateway_parts import Replica, gateway
from tests.ports import free_port

_ROOT = Path(__file__).resolve().parents[2]
_APART = ["unshare", *(() if os.geteuid() == 0 else ("--map-root-user",)), "--net", "--uts"]
_ONLY_IPV6 = 'ip link set lo up && ip addr del 127.0.0.1/8 dev lo && exec "$0" "$@"'


def test_a_model_answers_where_there_is_nothing_but_ipv6(tmp_path: Path) -> None:
    if shutil.which("ip") is None or subprocess.run([*_APART, "true"], check=False).returncode != 0:
        pytest.skip("a network namespace needs iproute2, and the right to make one")
    python = [sys.executable, "-m", "tests.integration.only_ipv6", str(tmp_path), "::1"]
    environment = os.environ | {"PYTHONPATH": str(_ROOT)}
    done = subprocess.run(
        [*_APART, "sh", "-c", _ONLY_IPV6, *python],
        cwd=_ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "right": True,
        "replica": "[::1]",
        "gateway's probe": 200,
        "operator's probe": 200,
        "Ray is not asked without a name": True,
        "refuses IPv4": True,  # there is none: what answered did so by IPv6
    }


def test_a_gateway_answers_both_families_and_counts_addresses_of_ipv4_one_by_one() -> None:
    if not socket.has_ipv6 or not Path("/proc/net/if_inet6").exists():
        pytest.skip("this machine has no IPv6")

    async def run() -> None:
        limit = "--max-connections-per-client=1"
        async with Replica() as behind, gateway("--host=*", limit) as running:
            await running.lease("a", behind.address)
            ((_, holding), one, other, six) = [
                await _ask(running.port, *each)
                for each in (
                    ("127.0.0.1", "127.0.0.2"), ("127.0.0.1", "127.0.0.2"), ("127.0.0.1", "127.0.0.3"), ("::1", "::1"),
                )
            ]  # fmt: skip
            holding.close()
            # The first one's second connection is too many; in one network of IPv6 all others would be, too.
            assert [each[0] for each in (one, other, six)] == [429, 200, 200]
            for _, writer in (one, other, six):
                writer.close()

    asyncio.run(run())


async def _ask(port: int, host: str, own: str) -> tuple[int, asyncio.StreamWriter]:
    """The status that a client at an address of its own gets, and its connection, which stays open."""
    reader, writer = await asyncio.open_connection(host, port, local_addr=(own, free_port()))
    writer.write(b"GET /v2/models/m HTTP/1.1\r\nHost: gateway\r\n\r\n")
    head = await reader.readuntil(b"\r\n\r\n")
    return int(head.split()[1]), writer
