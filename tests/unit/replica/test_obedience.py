from __future__ import annotations

import pytest

from penstock.routing.fleet import Endpoint
from penstock.routing.leases import LeaseGranted
from penstock.routing.outcomes import Orders, ShadowOrders, ShadowPeer
from penstock_serving.replica.obedience import GatewayOrders, merge_orders

_TELL = Orders(outcomes=True)
_SHADOW = ShadowOrders(revision="r2", candidate=(ShadowPeer(address="10.0.0.2:1"),), share=0.1)
_OTHER = ShadowOrders(revision="r2", candidate=(ShadowPeer(address="10.0.0.3:1"),), share=0.1)
_A, _B = Endpoint("http://a", "http://10.0.0.8"), Endpoint("http://a", "http://10.0.0.9")


@pytest.mark.parametrize(
    ("given", "merged"),
    [
        pytest.param({}, None, id="no gateway"),
        pytest.param({"a": None, "b": None}, None, id="none orders anything"),
        pytest.param({"a": None, "b": _TELL}, _TELL, id="one wants outcomes"),
        pytest.param(
            {"b": Orders(outcomes=True, shadow=_OTHER), "a": Orders(shadow=_SHADOW)},
            Orders(outcomes=True, shadow=_SHADOW),
            id="both want samples shown: the first one's peers, whoever came first",
        ),
        pytest.param(
            {"a": _TELL, "b": Orders(shadow=_OTHER)}, Orders(outcomes=True, shadow=_OTHER), id="the second alone does"
        ),
    ],
)
def test_several_gateways_orders_are_one(given: dict[str, Orders | None], merged: Orders | None) -> None:
    assert merge_orders(given) == merged


def _answer(orders: Orders | None) -> str:
    return LeaseGranted(lease_seconds=5, orders=orders).model_dump_json()


def test_what_is_ordered_is_told_once_as_often_as_it_changes() -> None:
    heard: list[Orders | None] = []
    orders = GatewayOrders(heard.append)
    for gateway, answer in ((_A, None), (_A, _TELL), (_A, _TELL), (_B, _TELL), (_A, None)):
        orders.take(gateway, _answer(answer))
    assert heard == [_TELL]
    assert (orders.orders_outcomes(_A), orders.orders_outcomes(_B)) == (False, True)
    orders.drop(_B)
    orders.drop(_B)
    assert heard == [_TELL, None]


def test_orders_that_are_not_understood_are_none(caplog: pytest.LogCaptureFixture) -> None:
    heard: list[Orders | None] = []
    orders = GatewayOrders(heard.append)
    orders.take(_A, _answer(_TELL))
    orders.take(_A, '{"leaseSeconds":5,"orders":{"dance":true}}')
    assert heard == [_TELL, None]
    assert "not understood" in caplog.text
