"""What kind's nodes are given on a host that withholds capabilities, and what a pod is seen to listen on."""

from __future__ import annotations

from typing import Any

import pytest
from tests.cluster.kind.runtime import possible, restricted
from tests.e2e.cluster.probing import listening_ports

_ALL_BUT_RESOURCE = "Name:\tinit\nCapEff:\t0000000000000000\nCapBnd:\t000001fffeffffff\nSeccomp:\t0\n"


def test_the_bounding_set_is_read_by_its_bits() -> None:
    found = possible(_ALL_BUT_RESOURCE)
    assert {"CAP_CHOWN", "CAP_SYS_ADMIN", "CAP_CHECKPOINT_RESTORE"} <= found
    assert "CAP_SYS_RESOURCE" not in found
    assert len(found) == 40


@pytest.mark.parametrize(
    ("process", "wanted"),
    [
        ({"args": ["init"]}, {"args": ["init"]}),
        (
            {"args": ["init"], "capabilities": {"bounding": ["CAP_KILL", "CAP_SYS_RESOURCE"], "effective": []}},
            {"args": ["init"], "capabilities": {"bounding": ["CAP_KILL"], "effective": []}},
        ),
        ({"args": ["init"], "oomScoreAdj": -500}, {"args": ["init"]}),
    ],
    ids=["none asked for", "one that the host has, one that it has not", "a score that only root of the host may give"],
)
def test_a_process_keeps_what_the_host_has(process: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert restricted(process, frozenset({"CAP_KILL"})) == wanted


_TABLE = """\
  sl  local_address rem_address   st tx_queue rx_queue
   0: 0100007F:2260 00000000:0000 0A 00000000:00000000
   1: 00000000:2049 00000000:0000 0A 00000000:00000000
   2: 0200F40A:A001 0300F40A:1F90 01 00000000:00000000
  sl  local_address                         remote_address                        st
   0: 00000000000000000000000000000000:18EB 00000000000000000000000000000000:0000 0A
   1: 00000000000000000000000001000000:9999 00000000000000000000000000000000:0000 0A
"""


def test_ports_are_those_that_take_connections_from_elsewhere() -> None:
    assert listening_ports(_TABLE) == [6379, 8265]
