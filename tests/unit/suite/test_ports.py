"""Ports that tests give their servers: none is given twice, by one worker or by two."""

from __future__ import annotations

import socket

import pytest
from tests.ports import free_port, free_ports, share


@pytest.mark.parametrize("workers", [1, 2, 3, 7])
def test_workers_have_no_port_in_common(workers: int) -> None:
    shares = [set(share(20_000, 32_767, worker, workers)) for worker in range(workers)]
    assert sum(map(len, shares)) == len(set.union(*shares))
    assert min(map(len, shares)) > 1000


def test_no_port_is_given_twice() -> None:
    found = free_ports(50)
    assert len(set(found)) == 50


def test_a_port_that_somebody_has_is_not_given() -> None:
    following = free_port() + 1
    with socket.socket() as other:
        other.bind(("127.0.0.2", following))
        assert free_port() != following
