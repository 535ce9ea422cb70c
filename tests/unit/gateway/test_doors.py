from __future__ import annotations

import asyncio
from typing import Any

import pytest

from penstock_serving.gateway.doors import Doors, peer_of


class Line(asyncio.Transport):
    """A connection that only remembers whether it was dropped."""

    def __init__(self, address: str) -> None:
        super().__init__({"peername": (address, 1)})
        self.dropped = False

    def abort(self) -> None:
        self.dropped = True


def connect(doors: Doors, address: str = "10.0.0.1") -> tuple[Line, Any]:
    line, protocol = Line(address), doors.before(asyncio.Protocol)()
    protocol.connection_made(line)
    return line, protocol


def test_of_strangers_the_oldest_makes_room_for_a_new_one() -> None:
    doors = Doors(strangers=2)
    lines = [connect(doors)[0] for _ in range(4)]
    assert [line.dropped for line in lines] == [True, True, False, False]
    assert len(doors) == 2


def test_strangers_of_one_address_put_out_nobody_else() -> None:
    doors = Doors(strangers=2)
    other, _ = connect(doors, "10.0.0.2")
    known, _ = connect(doors)
    doors.known(known)
    flood = [connect(doors)[0] for _ in range(50)]
    assert not other.dropped
    assert not known.dropped
    assert sum(not line.dropped for line in flood) == 2


def test_an_address_has_so_many_connections_whoever_they_are() -> None:
    doors = Doors(strangers=4, of_a_peer=3)
    lines = [connect(doors)[0] for _ in range(3)]
    doors.known(lines[1])
    assert [connect(doors)[0].dropped, *(line.dropped for line in lines)] == [False, True, False, False]
    full = Doors(of_a_peer=2)
    for line in [connect(full)[0] for _ in range(2)]:
        full.known(line)
    assert connect(full)[0].dropped


def test_all_addresses_together_have_so_many() -> None:
    doors = Doors(most=2)
    known, _ = connect(doors, "10.0.0.1")
    doors.known(known)
    stranger, _ = connect(doors, "10.0.0.2")
    late, _ = connect(doors, "10.0.0.3")
    assert [known.dropped, stranger.dropped, late.dropped] == [False, True, False]
    doors.known(late)
    assert connect(doors, "10.0.0.4")[0].dropped


def test_a_connection_that_is_gone_counts_no_more() -> None:
    doors = Doors(strangers=1)
    line, protocol = connect(doors)
    protocol.connection_lost(None)
    assert len(doors) == 0
    assert not connect(doors)[0].dropped
    assert not line.dropped


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        pytest.param("10.0.0.1", "10.0.0.2", False, id="two IPv4 addresses"),
        pytest.param("2001:db8::1", "2001:db8::ffff:1", True, id="two of one IPv6 network"),
        pytest.param("2001:db8::1", "2001:db8:0:1::1", False, id="two IPv6 networks"),
        pytest.param("::ffff:10.0.0.1", "10.0.0.1", True, id="an IPv4 address written as IPv6"),
        pytest.param("::ffff:10.0.0.1", "::ffff:10.0.0.2", False, id="two IPv4 addresses written as IPv6"),
        pytest.param("fe80::1%eth0", "fe80::2%eth0", True, id="two addresses of one link"),
    ],
)
def test_an_address_counts_for(one: str, other: str, *, same: bool) -> None:
    assert (peer_of(one) == peer_of(other)) is same
