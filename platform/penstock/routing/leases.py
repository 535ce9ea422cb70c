"""Messages of the gateway agent's control API.

A replica holds a place behind the gateway by a short lease that it renews; the operator declares a route.
Both speak JSON over HTTP to the agent:

    PUT    /v1/replicas/{replica_id}             ReplicaLease      (replica token)  -> LeaseGranted
    DELETE /v1/replicas/{replica_id}                               (replica token)  -> 204, once no new request goes there
    POST   /v1/replicas/{replica_id}/certificate CertificateRequest (replica token) -> CertificateGranted; over TLS alone
    PUT    /v1/routes/{namespace}/{model}        Route             (admin token)    -> 204, once requests go that way
    DELETE /v1/routes/{namespace}/{model}                          (admin token)    -> 204
    GET    /v1/routes                                              (admin token)    -> RouteList
    HEAD   /v1/routes                                              (admin token)    -> headers of `penstock.routing.fleet`
    POST   /v1/routes                            RouteSet          (admin token)    -> 204; routes that it has, stay
    PUT    /v1/complete                          Completion        (admin token)    -> 204, 403 for another instance
    PUT    /v1/keys/{namespace}                  KeyChange         (admin token)    -> 204, once it holds; 403: tell all anew
    DELETE /v1/keys/{namespace}                                    (admin token)    -> 204
    GET    /v1/keys                                                (admin token)    -> KeyDigests

An access that cannot be taken lets nobody in: a refused route's model, or a namespace whose keys could not be taken, is closed
until it is told anew.

With `Prefer: respond-async` (RFC 7240), a route's PUT is answered as soon as the route is kept: 202 and `RouteStatus`.
"""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field

from penstock.errors import Invalid
from penstock.models import Frozen
from penstock.routing.access import RouteAccess
from penstock.routing.outcomes import FINITE, Orders, ReplicaOutcomes, RevisionComparison

PREFER: Final = "Prefer"
ASK_JOINING: Final = "joining"
"""Parameter of `GET /v1/routes` that asks for it."""
ASYNCHRONOUS: Final = "respond-async"
MOST_CHARACTERS: Final = 253
"""Of each text in a lease, as of a name in Kubernetes. A gateway keeps them for every replica, and all tenants share its
memory; a revision of ours has 12, a replica's id of Ray's 8, a digest 71.
"""
MOST_METADATA_CHARACTERS: Final = 8192
"""Of a model's metadata in a lease. Longer ones are not told: of such a model, a gateway knows none while it sleeps."""
Text = Annotated[str, Field(max_length=MOST_CHARACTERS)]


class ReplicaStats(Frozen):
    """What a replica saw lately. Also what the scaling policy reads."""

    model_config = FINITE

    in_flight: float = 0.0
    """Mean requests in the replica (queued and executing) over the last reporting interval."""
    queued: float = 0.0
    """Requests waiting for the engine now."""
    queue_wait_p95_seconds: float = 0.0
    arrival_rate: float = 0.0
    """Requests a second over the last reporting interval."""
    interval_seconds: Annotated[float, Field(exclude_if=lambda seconds: seconds == 0)] = 0.0
    """Of that interval, which a replica that has just come cannot have had; 0: not told. No lease says it: it is for the
    scaling policy, which adds up what replicas of different age were asked."""
    full_share: Annotated[float, Field(exclude_if=lambda share: share == 0)] = 0.0
    """Of that interval, in which it held as many as gateways may send it. No lease says it, either."""
    idle_seconds: float = 0.0
    """Seconds since the last request ended; 0 while one is in flight."""
    capacity: Annotated[float, Field(exclude_if=lambda capacity: capacity == 0)] = 0.0
    """Requests a second that it can answer within the objective, by its own curve of run times; 0: not known. Only for gateways
    and operators that know the word (`fleet.ORDERS`)."""


class RequestsJoined(Frozen):
    """Whether a replica joins requests into one run of its engine."""

    joined: bool
    reason: Text
    """The axes along which it does, or why it does not."""


_WORTH_TELLING: Final = 0.2
"""Of a limit: a smaller change is none, since each costs the gateway a round for all models."""


class ReplicaRoom(Frozen):
    """How much a replica takes at once from the gateway that it tells."""

    requests: Annotated[int, Field(ge=1, le=1_000_000)]
    """In flight, waiting ones among them. The gateway refuses what is above that where no replica has room."""
    retry_after_seconds: Annotated[int, Field(ge=1, le=3600)] = 1
    """When one that was refused may come again: until then one of these should have been answered."""

    def following(self, former: ReplicaRoom | None) -> ReplicaRoom:
        """This, or what was told before where that is about the same."""
        if former is None or former.retry_after_seconds != self.retry_after_seconds:
            return self
        close = abs(self.requests - former.requests) <= _WORTH_TELLING * former.requests
        return former if close else self


class ReplicaLease(Frozen):
    """A replica asks to receive, or goes on receiving, a model's requests."""

    namespace: Text
    model: Text
    version: Text
    revision: Text
    digest: Text = ""
    """Of the model that it loaded."""
    address: Text
    """host:port of the replica's own HTTP socket."""
    lease_seconds: Annotated[float, Field(gt=0, le=60)] = 5.0
    stats: ReplicaStats = ReplicaStats()
    metadata: Annotated[str, Field(max_length=MOST_METADATA_CHARACTERS)] | None = None
    """The protocol's document on the model, which a gateway answers with once no replica is left. None: as told before."""
    joining: RequestsJoined | None = None
    """Whether requests are joined into one run. None: as told before."""
    room: ReplicaRoom | None = None
    """None: as much as comes."""
    encrypted: bool | None = None
    """Whether the socket speaks TLS, by a certificate that a gateway granted. None: it does not; a former release's has no word
    for it."""
    obeys: Annotated[bool, Field(exclude_if=lambda obeys: not obeys)] = False
    """Whether it understands `LeaseGranted.orders`. Said only to gateways that know the word (`fleet.ORDERS`)."""
    outcomes: Annotated[ReplicaOutcomes | None, Field(exclude_if=lambda told: told is None)] = None
    """While the gateway orders them."""
    features: Annotated[tuple[Text, ...], Field(max_length=16, exclude_if=lambda words: not words)] = ()
    """What of orders it understands that former releases did not. Said only to gateways that know the word (`fleet.SHOWN`)."""


class CertificateRequest(Frozen):
    """A replica asks for a certificate that gateways know it by."""

    namespace: Text
    model: Text
    request: Annotated[str, Field(max_length=4096)]
    """PKCS #10 in PEM. Only the public key counts: the name is the gateway's to say."""


class CertificateGranted(Frozen):
    """A replica's certificate."""

    certificate: str
    """In PEM."""
    lifetime_seconds: float
    """From now until it ends."""


def check_replica_id(replica_id: str) -> None:
    """Refuse an id that is too long to be kept.

    Raises:
        Invalid: it is.
    """
    if len(replica_id) > MOST_CHARACTERS:
        raise Invalid("InvalidLease", f"a replica's id has {MOST_CHARACTERS} characters at most, not {len(replica_id)}")


class LeaseGranted(Frozen):
    """The agent's answer to a lease: how long it holds."""

    lease_seconds: float
    orders: Annotated[Orders | None, Field(exclude_if=lambda orders: orders is None)] = None
    """None: none; those that were given before end."""


class Route(Frozen):
    """How the operator wants a model's requests to flow."""

    namespace: str
    model: str
    revisions: dict[str, int] = Field(default={})
    """Weight by revision (0 to 100). A revision that is not named gets no request. Empty: every revision does."""
    digests: Annotated[dict[str, str], Field(exclude_if=lambda digests: not digests)] = Field(default={})
    """By revision, the digest of the model that it is: a replica that loaded another gets no request. Empty text: that is not
    decided, and none of the revision gets any. Of a revision that is not named, the first replica that came decides."""
    wake_url: str | None = None
    """A GET here makes a model at zero replicas start one; it may block until one is up."""
    unavailable: str | None = None
    """Why no replica can start, for as long as that is so. Requests that find none are then refused with it, not held."""
    hold_seconds: Annotated[float, Field(gt=0)] = 120.0
    """How long a request waits for a first replica before it gets 503."""
    max_held_requests: Annotated[int, Field(ge=0)] = 1024
    sampling_ratio: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the requests that came without a traceparent whose trace is kept."""
    access: RouteAccess | None = None
    """Who may ask, and how often. None: nothing is said, and the gateway's default holds."""
    owner: Annotated[str, Field(max_length=MOST_CHARACTERS, exclude_if=lambda uid: not uid)] = ""
    """The deployment's uid: replicas whose token is of another one are not taken. Empty: nothing is said."""
    comparison: Annotated[RevisionComparison | None, Field(exclude_if=lambda told: told is None)] = None
    """While revisions are compared. Only for gateways that know the word (`fleet.ORDERS`)."""


class RouteSet(Frozen):
    """Routes for a gateway that may not have them yet."""

    routes: list[Route]


class Completion(Frozen):
    """The operator's word that a gateway has been told all routes."""

    instance: str
    """The gateway's process that it is true of."""


class RouteReplica(Frozen):
    """A replica as the gateway knows it."""

    replica_id: str
    version: str
    revision: str
    digest: str = ""
    address: str
    receiving: bool
    expires_in_seconds: float
    stats: ReplicaStats
    joining: Annotated[RequestsJoined | None, Field(exclude_if=lambda told: told is None)] = None
    """As its lease says; only where that was asked for (`ASK_JOINING`), since a reader of a former release refuses it."""
    outcomes: Annotated[ReplicaOutcomes | None, Field(exclude_if=lambda told: told is None)] = None
    """As its lease says, while its route compares revisions; only for operators that know the word (`fleet.ORDERS`)."""


class RouteStatus(Frozen):
    """A route and what stands behind it now."""

    namespace: str
    model: str
    declared: Route | None
    replicas: list[RouteReplica]
    held_requests: int
    settled: bool = True
    """Whether requests go as `declared.revisions` says already, or the gateway is still about it."""


class RouteList(Frozen):
    """All routes that the gateway knows, declared or held by a replica's lease."""

    url: str
    """Where clients reach this gateway, without a trailing slash."""
    routes: list[RouteStatus]
