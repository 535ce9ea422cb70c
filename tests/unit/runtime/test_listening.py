"""Where a program listens whose host is `*`."""

from __future__ import annotations

import pytest

from penstock.errors import Invalid
from penstock_runtime.listening import EVERYWHERE, expand_host, listen

NOT_HERE = "2001:db8::1"
"""An address for documentation (RFC 3849), which no machine has: what binding fails at, as `::` does without IPv6."""


@pytest.mark.parametrize(
    ("host", "families", "wanted"),
    [
        pytest.param("127.0.0.1", ("0.0.0.0", "::"), ("127.0.0.1",), id="an address is itself"),
        pytest.param("::1", ("0.0.0.0", "::"), ("::1",), id="an address of IPv6, too"),
        pytest.param(EVERYWHERE, ("0.0.0.0", NOT_HERE), ("0.0.0.0",), id="IPv4 alone, where there is no IPv6"),
        pytest.param(EVERYWHERE, (NOT_HERE, "127.0.0.1"), ("127.0.0.1",), id="what can be bound"),
    ],
)
def test_a_host_stands_for(host: str, families: tuple[str, ...], wanted: tuple[str, ...]) -> None:
    assert expand_host(host, families) == wanted


def test_a_machine_without_any_is_told_of() -> None:
    with pytest.raises(Invalid, match="neither IPv4 nor IPv6"):
        expand_host(EVERYWHERE, (NOT_HERE,))


def test_both_families_can_have_one_port() -> None:
    first, *others = (each for each in expand_host(EVERYWHERE))
    with listen(first, 0) as one:
        for each in others:
            with listen(each, one.getsockname()[1]) as other:
                assert other.getsockname()[1] == one.getsockname()[1]
