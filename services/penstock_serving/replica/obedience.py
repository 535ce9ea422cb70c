"""What gateways order of the replica, each with its answer to a lease."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from pydantic import ValidationError

from penstock.routing.fleet import Endpoint
from penstock.routing.leases import LeaseGranted
from penstock.routing.outcomes import Orders

logger = logging.getLogger(__name__)


def merge_orders(given: Mapping[str, Orders | None]) -> Orders | None:
    """What all gateways together order.

    Args:
        given: by gateway.

    Returns:
        Outcomes if any wants them, and of the samples what the first orders that orders any, in the order of their names, so that
        a request is shown as often as one gateway says, and not as often as there are gateways.
    """
    orders = [each for _, each in sorted(given.items(), key=lambda item: item[0]) if each is not None]
    if not orders:
        return None
    shadow = next((each.shadow for each in orders if each.shadow is not None), None)
    return Orders(outcomes=any(each.outcomes for each in orders), shadow=shadow)


class GatewayOrders:
    """The last orders of each gateway.

    Args:
        obey: told what all together order, as often as that changes; None: nothing.
    """

    def __init__(self, obey: Callable[[Orders | None], None]) -> None:
        self._obey = obey
        self._answers: dict[Endpoint, str] = {}
        self._given: dict[Endpoint, Orders | None] = {}
        self._obeyed: Orders | None = None

    def orders_outcomes(self, gateway: Endpoint) -> bool:
        """Whether this gateway wants to be told outcomes."""
        given = self._given.get(gateway)
        return given is not None and given.outcomes

    def take(self, gateway: Endpoint, answer: str) -> None:
        """A gateway has answered a lease that says that the replica obeys. Mostly it answers as it did before."""
        if self._answers.get(gateway) == answer:
            return
        self._answers[gateway] = answer
        try:
            self._given[gateway] = LeaseGranted.model_validate_json(answer).orders
        except ValidationError as error:
            logger.warning(
                "gateway %s orders what is not understood, so none of it is done: %s", gateway.base_url, error
            )
            self._given[gateway] = None
        self._tell()

    def drop(self, gateway: Endpoint) -> None:
        """A gateway is gone, or has not answered for so long that its orders do not hold."""
        if self._answers.pop(gateway, None) is not None:
            del self._given[gateway]
            self._tell()

    def _tell(self) -> None:
        merged = merge_orders({each.base_url: orders for each, orders in self._given.items()})
        if merged != self._obeyed:
            self._obeyed = merged
            self._obey(merged)
