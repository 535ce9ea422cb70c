"""Several gateways behind one name: where each of them is, and whether it has been told all that it must know.

A fresh gateway says by headers of `GET` and `HEAD /v1/routes` which process it is, for how long it has run, and whether the
operator has called its routes complete. They are headers so that an older operator, which refuses fields that it does not
know, can still read the answer; a gateway that sends none is an older one, and counts as complete. What a gateway can take that
former releases could not stands there too, and an operator that knows such words says so in the same header.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit, urlunsplit

from penstock.routing.leases import Route, RouteList, RouteStatus
from penstock.routing.table import ModelKey

INSTANCE_HEADER: Final = "x-penstock-instance"
COMPLETE_HEADER: Final = "x-penstock-complete"
AGE_HEADER: Final = "x-penstock-age-seconds"
FEATURES_HEADER: Final = "x-penstock-features"
NAMESPACE_KEYS: Final = "namespace-keys"
"""Keys are told once for a namespace, and routes say whether they open them."""
OWNERS: Final = "owners"
"""Routes say whose they are, by the deployment's uid."""
DIGESTS: Final = "digests"
"""Routes say which model each revision is."""
GATEWAY_WORD: Final = "gateway-word"
"""Each request to a replica shows the token of its model (`penstock.routing.tokens.data_token`)."""
ROOM: Final = "room"
"""A replica's lease may say how many requests it has room for."""
ORDERS: Final = "orders"
"""Routes may compare revisions, and replicas are told what to count and to show for it."""
SHOWN: Final = "shown"
"""What becomes of requests that replicas show each other is told apart from clients', and of made inputs apart from those; how answers
are compared may go by the output, and samples be named. Replicas say it, too, of what they are ordered."""
UNRUN: Final = "unrun"
"""Of requests that failed, those are told apart that no model ever ran."""
FEATURES: Final = frozenset({NAMESPACE_KEYS, OWNERS, DIGESTS, GATEWAY_WORD, ROOM, ORDERS, SHOWN, UNRUN})

REPLICAS_WITHIN_SECONDS: Final = 20.0
"""Replicas look for new gateways every few seconds; one that has not found a gateway of this age will not soon."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One gateway's agent."""

    url: str
    """The stable URL by which it was found, without a trailing slash."""
    base_url: str
    """The same with this gateway's own address for a host."""

    @property
    def host(self) -> str:
        """The name (and port) that it is asked for, which is also what its certificate is for."""
        return urlsplit(self.url).netloc

    @property
    def server_name(self) -> str:
        """`host` without the port."""
        return urlsplit(self.url).hostname or ""


@dataclass(frozen=True, slots=True)
class GatewayState:
    """What a gateway says of itself."""

    instance: str = ""
    """Another after each start of its process; empty where it does not say."""
    complete: bool = True
    """Whether it has been told all routes that there are."""
    age_seconds: float = float("inf")
    """Since its process started."""
    features: frozenset[str] = frozenset()
    """What it can take that former releases could not."""

    def headers(self) -> dict[str, str]:
        """As it goes over the wire."""
        return {
            INSTANCE_HEADER: self.instance,
            COMPLETE_HEADER: "true" if self.complete else "false",
            AGE_HEADER: f"{self.age_seconds:.1f}",
            FEATURES_HEADER: " ".join(sorted(self.features)),
        }

    @staticmethod
    def read(headers: Mapping[str, str]) -> GatewayState:
        """From an answer's headers, which may be looked up in lower case."""
        try:
            age = float(headers.get(AGE_HEADER, "inf"))
        except ValueError:
            age = float("inf")
        features = frozenset(headers.get(FEATURES_HEADER, "").split())
        return GatewayState(headers.get(INSTANCE_HEADER, ""), headers.get(COMPLETE_HEADER) != "false", age, features)


def name_to_resolve(url: str) -> str | None:
    """The host of a URL, where it is a name that may stand for several gateways.

    None for an IP address, which is one gateway, and for `localhost`, whose addresses are all this one machine.
    """
    host = urlsplit(url).hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return None
    try:
        ip_address(host)
    except ValueError:
        return host
    return None


def endpoints(url: str, addresses: Iterable[str]) -> tuple[Endpoint, ...]:
    """The gateways that a URL stands for.

    Args:
        url: base URL of gateway agents.
        addresses: IP addresses of its host. Where there are some of both families only IPv4 counts: a Pod of a
            dual-stack cluster has one of each, and is one gateway.

    Returns:
        In order of their addresses; without addresses, the URL itself.
    """
    parts = urlsplit(url.rstrip("/"))
    plain = urlunsplit(parts)
    found = sorted({ip_address(each.partition("%")[0]) for each in addresses}, key=lambda ip: (ip.version, ip.packed))
    one_family = [each for each in found if each.version == found[0].version]
    if not one_family:
        return (Endpoint(plain, plain),)
    port = f":{parts.port}" if parts.port is not None else ""
    hosts = (f"[{each}]" if each.version == 6 else str(each) for each in one_family)  # noqa: PLR2004 -- IPv6
    return tuple(Endpoint(plain, urlunsplit(parts._replace(netloc=f"{host}{port}"))) for host in hosts)


def downgrade_route(features: Collection[str], route: Route) -> Route:
    """A route without what a release with these features does not know, since it refuses the whole for one such word."""
    access = route.access
    if access is not None and NAMESPACE_KEYS not in features:
        access = access.model_copy(update={"shared": False})
    owner = route.owner if OWNERS in features else ""
    digests = route.digests if DIGESTS in features else {}
    comparison = route.comparison if ORDERS in features else None
    if comparison is not None and SHOWN not in features:
        comparison = comparison.downgrade()
    return route.model_copy(update={"access": access, "owner": owner, "digests": digests, "comparison": comparison})


def downgrade_status(features: Collection[str], status: RouteStatus) -> RouteStatus:
    """How a route stands, likewise."""
    declared = None if status.declared is None else downgrade_route(features, status.declared)
    replicas = status.replicas
    if ORDERS not in features and any(each.outcomes is not None or each.stats.capacity for each in replicas):
        replicas = [
            each.model_copy(update={"outcomes": None, "stats": each.stats.model_copy(update={"capacity": 0.0})})
            for each in replicas
        ]
    elif not {SHOWN, UNRUN} <= set(features):
        shown, unrun = SHOWN in features, UNRUN in features
        replicas = [
            each
            if each.outcomes is None
            else each.model_copy(update={"outcomes": each.outcomes.downgrade(knows_shown=shown, knows_unrun=unrun)})
            for each in replicas
        ]
    return status.model_copy(update={"declared": declared, "replicas": replicas})


def missing_routes(own: RouteList, peers: Iterable[RouteList]) -> tuple[Route, ...]:
    """Routes that were declared to other gateways and not to this one; where those differ, the first one's."""
    had = {(each.namespace, each.model) for each in own.routes if each.declared is not None}
    found: dict[ModelKey, Route] = {}
    for peer in peers:
        for each in peer.routes:
            if each.declared is not None and (each.namespace, each.model) not in had:
                found.setdefault((each.namespace, each.model), each.declared)
    return tuple(found.values())


def lacks_replicas(own: RouteList, peers: Iterable[RouteList]) -> bool:
    """Whether replicas of some model receive requests elsewhere, and none of that model's here."""
    here = _receiving_models(own)
    return any(not _receiving_models(peer) <= here for peer in peers)


def stale_routes(listed: RouteList, known: Collection[ModelKey], namespaces: Collection[str]) -> tuple[ModelKey, ...]:
    """Declared routes of models that are not known (any more).

    Args:
        listed: a gateway's routes.
        known: all models that there are.
        namespaces: where `known` is all; none: everywhere.
    """
    return tuple(
        key
        for each in listed.routes
        if each.declared is not None
        and (key := (each.namespace, each.model)) not in known
        and (not namespaces or each.namespace in namespaces)
    )


def _receiving_models(listed: RouteList) -> set[ModelKey]:
    return {
        (each.namespace, each.model) for each in listed.routes if any(replica.receiving for replica in each.replicas)
    }
