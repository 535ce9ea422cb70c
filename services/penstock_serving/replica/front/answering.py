"""What every front does with a request that is complete, or that cannot be read: no error leaves it."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod

from penstock.errors import Invalid, PenstockError
from penstock.protocol.refusals import Deferred
from penstock_serving.replica.call import defect
from penstock_serving.replica.front.exchange import HttpExchange
from penstock_serving.replica.service import InferenceService

logger = logging.getLogger(__name__)


class ServiceFront(ABC):
    """Hands requests on to the service."""

    def __init__(self, service: InferenceService) -> None:
        self._service = service

    def handle(self, exchange: HttpExchange) -> None:
        """Answer a request, or hand it on."""
        if exchange.refusal is not None:
            self._service.fail(exchange, exchange.refusal)
            return
        try:
            self._carry_out(exchange)
        except PenstockError as error:
            self._service.fail(exchange, error)
        except Exception:
            logger.exception("a request failed by a defect of the replica")
            self._service.fail(exchange, defect())

    @abstractmethod
    def _carry_out(self, exchange: HttpExchange) -> None:
        """Do what is asked."""

    def refuse(self, exchange: HttpExchange, error: Invalid) -> None:
        """Answer a request that is wrong in its protocol, or whose body is not worth reading."""
        if not isinstance(error, Deferred):
            logger.info("refused a request: %s", error.message)
        self._service.fail(exchange, error)
