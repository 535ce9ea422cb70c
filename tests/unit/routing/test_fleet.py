from __future__ import annotations

import pytest
from pydantic import Field, ValidationError

from penstock.models import Frozen
from penstock.routing.access import RouteAccess
from penstock.routing.fleet import (
    DIGESTS,
    FEATURES,
    NAMESPACE_KEYS,
    ORDERS,
    OWNERS,
    SHOWN,
    UNRUN,
    Endpoint,
    GatewayState,
    downgrade_route,
    downgrade_status,
    endpoints,
    lacks_replicas,
    missing_routes,
    name_to_resolve,
    stale_routes,
)
from penstock.routing.leases import ReplicaStats, Route, RouteList, RouteReplica, RouteStatus
from penstock.routing.outcomes import (
    Losses,
    MadeOutcomes,
    ReplicaOutcomes,
    RevisionComparison,
    SampleSource,
    ShadowOutcomes,
    ShownOutcomes,
    UnrunRequests,
)

URL = "http://agents.system.svc:8081"
WORDY = Route(
    namespace="vision",
    model="digits",
    revisions={"v1": 100},
    digests={"v1": f"sha256:{'d' * 64}"},
    owner="u1",
    access=RouteAccess(required=True, shared=True),
    comparison=RevisionComparison(candidate="v2", stable="v1"),
)
"""With a word of each feature."""


@pytest.mark.parametrize(
    ("url", "host"),
    [
        pytest.param(URL, "agents.system.svc", id="a name may stand for several gateways"),
        pytest.param("http://127.0.0.1:8081", None, id="an IPv4 address is one gateway"),
        pytest.param("http://[::1]:8081", None, id="an IPv6 address is one gateway"),
        pytest.param("http://localhost:8081", None, id="localhost is one machine, whatever its addresses"),
    ],
)
def test_what_is_resolved(url: str, host: str | None) -> None:
    assert name_to_resolve(url) == host


@pytest.mark.parametrize(
    ("url", "addresses", "found"),
    [
        pytest.param(
            URL + "/", ["10.0.0.9", "10.0.0.10", "10.0.0.9"], ["http://10.0.0.9:8081", "http://10.0.0.10:8081"],
            id="each address once, in order",
        ),
        pytest.param(
            "https://agents/base", ["fd00::1", "fe80::2%eth0"], ["https://[fd00::1]/base", "https://[fe80::2]/base"],
            id="IPv6 addresses in brackets, with the path and without a port",
        ),
        pytest.param(
            URL, ["fd00::1", "10.0.0.9"], ["http://10.0.0.9:8081"], id="of a dual-stack Pod only the IPv4 address"
        ),
        pytest.param(URL, [], [URL], id="without an address the URL itself"),
    ],
)  # fmt: skip
def test_the_gateways_of_a_url(url: str, addresses: list[str], found: list[str]) -> None:
    assert [each.base_url for each in endpoints(url, addresses)] == found
    assert {each.url for each in endpoints(url, addresses)} == {url.rstrip("/")}


@pytest.mark.parametrize(
    ("features", "left_out"),
    [
        pytest.param(FEATURES, set(), id="one of this release is told all"),
        pytest.param(FEATURES - {DIGESTS}, {"digests"}, id="one that knows no digests, none"),
        pytest.param(FEATURES - {OWNERS}, {"owner"}, id="nor another the owner"),
        pytest.param(FEATURES - {NAMESPACE_KEYS}, {"shared"}, id="or that the namespace's keys open it"),
        pytest.param(FEATURES - {ORDERS}, {"comparison"}, id="or which revisions are compared"),
        pytest.param(
            set(), {"digests", "owner", "shared", "comparison"}, id="one of a former release nothing of all this"
        ),
    ],
)
def test_a_route_is_told_in_words_that_are_known(features: set[str], left_out: set[str]) -> None:
    told = downgrade_route(features, WORDY).model_dump(mode="json")
    whole = WORDY.model_dump(mode="json")
    assert (set(whole) | set(whole["access"])) - set(told) - set(told["access"]) == left_out
    assert all(whole[word] == told[word] for word in set(told) - {"access"})


class FormerComparison(Frozen):
    """`RevisionComparison` of a release that has no word `shown`."""

    candidate: str
    stable: str
    baseline: str = ""
    shadow_share: float = 0.0
    loss: Losses = Losses.AUTO
    replay: bool = False
    keep_payloads: bool = False
    sticky: bool = False


class FormerShadow(Frozen):
    """`ShadowOutcomes` of such a release."""

    revision: str = ""
    samples: int = 0
    candidate_loss: dict[int, int] = Field(default={})
    twin_loss: dict[int, int] = Field(default={})
    excess: dict[int, int] = Field(default={})
    candidate_loss_sum: float = 0.0
    twin_loss_sum: float = 0.0
    failed: int = 0
    dropped: int = 0
    replayed: int = 0
    worst: tuple[dict[str, object], ...] = ()


class FormerOutcomes(Frozen):
    """`ReplicaOutcomes` of such a release."""

    age_seconds: float = 0.0
    answered: int = 0
    failed: int = 0
    seconds: dict[int, int] = Field(default={})
    late: int = 0
    cpu_seconds: float = 0.0
    memory_bytes: int = 0
    shadow: FormerShadow | None = None


COMPARED = RevisionComparison(
    candidate="v2",
    stable="v1",
    loss=Losses.ARGMAX,
    loss_where_it_suits=True,
    samples=SampleSource(uri="s3://data/digits"),
)
COUNTED = ReplicaOutcomes(
    answered=3, shown=ShownOutcomes(answered=2), shadow=ShadowOutcomes(revision="v2", samples=1, made=MadeOutcomes(samples=7)),
    unrun=UnrunRequests(unfit=1),
)  # fmt: skip


def test_what_a_release_without_the_word_shown_is_told_it_understands() -> None:
    """It refuses a lease, a route or a list as a whole for one word that it does not know, though it be null."""
    features = FEATURES - {SHOWN, UNRUN}
    route = downgrade_route(features, WORDY.model_copy(update={"comparison": COMPARED}))
    assert route.comparison is not None
    told = FormerComparison.model_validate_json(route.comparison.model_dump_json())
    assert told.loss is Losses.AUTO, "an output that the loss does not suit would be compared by it"
    status = _status("a", replicas=1)
    counted = status.model_copy(update={"replicas": [status.replicas[0].model_copy(update={"outcomes": COUNTED})]})
    outcomes = downgrade_status(features, counted).replicas[0].outcomes
    assert outcomes is not None
    assert FormerOutcomes.model_validate_json(outcomes.model_dump_json()).answered == 3
    FormerOutcomes.model_validate_json(ReplicaOutcomes(shadow=ShadowOutcomes(revision="v2")).model_dump_json())
    between = downgrade_status(FEATURES - {UNRUN}, counted).replicas[0].outcomes
    assert between == COUNTED.model_copy(update={"unrun": None})


def test_one_with_the_word_is_told_all_which_the_other_would_refuse() -> None:
    route = WORDY.model_copy(update={"comparison": COMPARED})
    assert downgrade_route(FEATURES, route) == route
    with pytest.raises(ValidationError, match="samples"):
        FormerComparison.model_validate_json(COMPARED.model_dump_json())
    with pytest.raises(ValidationError, match="shown"):
        FormerOutcomes.model_validate_json(COUNTED.model_dump_json())


def test_a_gateway_is_asked_by_its_name_wherever_it_is() -> None:
    endpoint = Endpoint("https://agents:8443", "https://10.0.0.9:8443")
    assert (endpoint.host, endpoint.server_name) == ("agents:8443", "agents")


@pytest.mark.parametrize(
    ("headers", "state"),
    [
        pytest.param(
            GatewayState("abc", complete=False, age_seconds=1.5).headers(), GatewayState("abc", False, 1.5),
            id="as it was said",
        ),
        pytest.param({}, GatewayState("", True, float("inf")), id="a gateway that says nothing is complete"),
        pytest.param({"x-penstock-age-seconds": "old"}, GatewayState(), id="nonsense is nothing"),
    ],
)  # fmt: skip
def test_what_a_gateway_says_of_itself(headers: dict[str, str], state: GatewayState) -> None:
    assert GatewayState.read(headers) == state


def _status(model: str, *, declared: str | None = "r1", replicas: int = 0, receiving: bool = True) -> RouteStatus:
    route = None if declared is None else Route(namespace="ns", model=model, revisions={declared: 100})
    there = RouteReplica(
        replica_id="r", version="1", revision="r1", address="10.0.0.1:1", receiving=receiving, expires_in_seconds=1,
        stats=ReplicaStats(),
    )  # fmt: skip
    return RouteStatus(namespace="ns", model=model, declared=route, replicas=[there] * replicas, held_requests=0)


def _listed(*statuses: RouteStatus) -> RouteList:
    return RouteList(url="http://gw", routes=list(statuses))


def test_a_fresh_gateway_misses_what_its_peers_were_told() -> None:
    own = _listed(_status("a", declared="r9"), _status("leased", declared=None, replicas=1))
    peers = [
        _listed(_status("a"), _status("leased"), _status("undeclared", declared=None)),
        _listed(_status("b"), _status("leased", declared="r7")),
    ]
    missing = missing_routes(own, peers)
    assert [(each.model, each.revisions) for each in missing] == [("leased", {"r1": 100}), ("b", {"r1": 100})]


@pytest.mark.parametrize(
    ("own", "peer", "lacks"),
    [
        pytest.param(_status("a", replicas=1), _status("a", replicas=2), False, id="one replica found it"),
        pytest.param(_status("a"), _status("a", replicas=2), True, id="no replica has found it yet"),
        pytest.param(_status("a"), _status("a"), False, id="a model that sleeps has none anywhere"),
        pytest.param(
            _status("a"), _status("a", replicas=1, receiving=False), False, id="one that receives nothing is not missed"
        ),
    ],
)
def test_replicas_that_have_not_found_a_gateway(own: RouteStatus, peer: RouteStatus, *, lacks: bool) -> None:
    assert lacks_replicas(_listed(own), [_listed(peer)]) is lacks


def test_routes_of_models_that_are_gone_are_stale_where_all_models_are_known() -> None:
    listed = _listed(_status("a"), _status("gone"), _status("leased", declared=None, replicas=1))
    assert stale_routes(listed, {("ns", "a")}, ()) == (("ns", "gone"),)
    assert stale_routes(listed, {("ns", "a")}, ("ns",)) == (("ns", "gone"),)
    assert stale_routes(listed, {("ns", "a")}, ("other",)) == ()
