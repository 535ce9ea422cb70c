"""All gateways there are now: each URL stands for every address that its host has."""

from __future__ import annotations

import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from penstock.routing.fleet import Endpoint, endpoints, name_to_resolve
from penstock_operator.clients.gateway import GatewayClient
from penstock_operator.deployment.observed import GatewayProblem, ObservedGateway
from penstock_operator.gateway.view import GatewayView

log = logging.getLogger(__name__)

_KEEP_CLOSED_SECONDS: Final = 60.0
"""A reconcile may still hold the view of a gateway that is gone; its connections are given back only after this."""

Resolve = Callable[[str], tuple[str, ...]]
"""From a host's name to its IP addresses. Raises `OSError` where it has none."""


def resolve(host: str) -> tuple[str, ...]:
    """A host's IP addresses, as the system finds them."""
    return tuple(str(each[4][0]) for each in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM))


@dataclass(frozen=True, slots=True)
class Look:
    """What all gateways know of one model."""

    gateways: tuple[ObservedGateway | GatewayProblem, ...]
    """Those that requests come through."""
    joining: tuple[ObservedGateway, ...]
    """Those that have not been told all routes yet: they are told, and not judged by."""


@dataclass(slots=True)
class _Site:
    """A URL and its gateways."""

    url: str
    host: str | None
    views: dict[Endpoint, GatewayView] = field(default_factory=dict)
    problem: str = ""


class Fleet:
    """The gateways. Safe for several threads.

    Args:
        urls: base URLs of gateway agents.
        token: the admin token.
        find: asked about each URL whose host is a name.
        former: the admin token that gateways of a former release take.
        trust: of gateways that have certificates of the platform's own; None: those of https have others' that the system trusts.
    """

    def __init__(
        self,
        urls: Sequence[str],
        token: str,
        find: Resolve = resolve,
        former: str = "",
        trust: ssl.SSLContext | None = None,
    ) -> None:
        self._trust = trust
        self._token = token
        self._former = former
        self._find = find
        self._sites = tuple(_Site(url, name_to_resolve(url)) for url in urls)
        self._gone: list[tuple[float, GatewayView]] = []
        self._lock = threading.Lock()
        self._resolved = False

    @property
    def urls(self) -> tuple[str, ...]:
        """The URLs, which stay the same whichever gateways come and go."""
        return tuple(site.url for site in self._sites)

    def refresh(self) -> None:
        """Find out which gateways there are. Where a name cannot be resolved, those last known stay."""
        found = [self._endpoints(site) for site in self._sites]
        with self._lock:
            for site, present in zip(self._sites, found, strict=True):
                if present is not None:
                    self._update(site, present)
            self._resolved = True
            now = time.monotonic()
            closing = [view for since, view in self._gone if now - since > _KEEP_CLOSED_SECONDS]
            self._gone = [(since, view) for since, view in self._gone if now - since <= _KEEP_CLOSED_SECONDS]
        for view in closing:
            view.client.close()

    def sites(self) -> tuple[tuple[GatewayView, ...], ...]:
        """The gateways of each URL."""
        with self._lock:
            return tuple(tuple(site.views.values()) for site in self._sites)

    def find(self, address: str) -> GatewayView | None:
        """The gateway with this address, where it is still there."""
        return next((view for views in self.sites() for view in views if view.address == address), None)

    def look(self, namespace: str, model: str) -> Look:
        """What all gateways know of one model.

        Of the gateways of one URL, one that does not answer is left out while another does: it is going, or it is cut
        off from here, and is told when it answers again. One that refuses the operator takes requests all the same.
        """
        if not self._resolved:
            self.refresh()
        gateways: list[ObservedGateway | GatewayProblem] = []
        joining: list[ObservedGateway] = []
        for site, views in zip(self._sites, self.sites(), strict=True):
            answers = [view.look(namespace, model) for view in views]
            answering = [each for each in answers if isinstance(each, ObservedGateway)]
            complete = [each for each in answering if each.complete]
            joining += [each for each in answering if complete and not each.complete]
            problems = [each for each in answers if isinstance(each, GatewayProblem)]
            unknown = GatewayProblem(f"The gateway {site.url} cannot be found: {site.problem}")
            heard = complete or answering or problems[:1] or [unknown]
            gateways += [*heard, *(each for each in problems if each.refuses and each not in heard)]
        return Look(tuple(gateways), tuple(joining))

    def close(self) -> None:
        """Give all connections back."""
        for view in (*(view for views in self.sites() for view in views), *(view for _, view in self._gone)):
            view.client.close()

    def _endpoints(self, site: _Site) -> tuple[Endpoint, ...] | None:
        """The gateways of a URL, or None where its name cannot be resolved."""
        if site.host is None:
            return endpoints(site.url, ())
        try:
            found = endpoints(site.url, self._find(site.host))
        except OSError as error:
            if not site.problem:
                log.warning("cannot resolve %s: %s; keeping its %d known gateways", site.host, error, len(site.views))
            site.problem = f"its name cannot be resolved: {error}"
            return None
        site.problem = ""
        return found

    def _update(self, site: _Site, present: Sequence[Endpoint]) -> None:
        now = time.monotonic()
        for endpoint in tuple(site.views):
            if endpoint not in present:
                log.info("the gateway %s is gone", endpoint.base_url)
                self._gone.append((now, site.views.pop(endpoint)))
        for endpoint in present:
            if endpoint not in site.views:
                if site.host is not None:
                    log.info("there is a gateway at %s", endpoint.base_url)
                site.views[endpoint] = GatewayView(
                    GatewayClient(endpoint, self._token, former=self._former, trust=self._trust)
                )
