from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.telling import assert_tells
from tests.unit.deployment.world import World, deployment, gateway

from penstock.api.access import APIKey, Authentication
from penstock.api.conditions import Reason
from penstock.routing.access import MAX_KEYS, MAX_NAMED, NEVER, NamespaceKey, RouteAccess, RouteIssuer, RouteKey
from penstock.routing.fleet import FEATURES
from penstock.routing.leases import Route
from penstock.routing.outcomes import RevisionComparison
from penstock_operator.deployment import access
from penstock_operator.deployment.observed import GatewayProblem, PoolProblem
from penstock_operator.deployment.plan import plan

NOW = 1_800_000_000.0
PAST, FUTURE = "2027-01-15T07:59:59Z", "2027-01-15T08:00:01Z"
"""A second before and after `NOW`."""
FORMER_ACCESS = {"required", "keys", "issuers", "requestsPerSecond"}
FORMER_WORDS = {
    "namespace", "model", "revisions", "wakeUrl", "unavailable", "holdSeconds", "maxHeldRequests", "samplingRatio", "access",
}  # fmt: skip
"""All that a gateway knows which names no features. It refuses a route for any other word, and keeps who could ask before."""


def key(name: str = "alice", **more: Any) -> APIKey:
    metadata = {"name": name, "namespace": "vision", "creationTimestamp": "2026-11-21T00:00:00Z"} | more.pop(
        "metadata", {}
    )
    return APIKey.model_validate({"metadata": metadata, "spec": {"sha256": "a" * 64, **more}})


def opened(name: str = "alice", **more: Any) -> RouteKey:
    return RouteKey.model_validate({"name": name, "sha256": "a" * 64, **more})


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ([key()], [opened()]),
        ([key(deployments=["letters", "digits"])], [opened()]),
        ([key(deployments=["letters"])], []),
        ([key(disabled=True)], []),
        ([key(expiresAt=PAST)], []),
        ([key(expiresAt=FUTURE)], [opened(expiresAt=int(NOW) + 1)]),
        ([key(expiresAt="2027-02-30T00:00:00Z")], []),
        ([key(metadata={"deletionTimestamp": PAST})], []),
        ([key(requestsPerSecond=5)], [opened(requestsPerSecond=5)]),
        ([key("b"), key("a")], [opened("a")]),
        (
            [key("b", sha256="b" * 64), key("a")],
            [opened("a"), opened("b", sha256="b" * 64)],
        ),
    ],
    ids=[
        "a key that names no deployment opens all",
        "a key opens those that it names",
        "and no other",
        "a disabled key opens nothing",
        "nor does one that has ended",
        "until its end it does",
        "a day that no calendar has is past",
        "a key that is being deleted opens nothing",
        "a key brings its limit",
        "two objects for one key are one key",
        "keys come in the order of their names",
    ],
)
def test_which_keys_open_a_deployment(keys: list[APIKey], expected: list[RouteKey]) -> None:
    assert list(access.keys_that_open("digits", keys, NOW)) == expected


@pytest.mark.parametrize(
    ("spec", "default", "expected"),
    [
        ({}, Authentication.ANONYMOUS, RouteAccess(required=False)),
        ({}, Authentication.REQUIRED, RouteAccess(required=True, shared=True)),
        ({"authentication": "Anonymous"}, Authentication.REQUIRED, RouteAccess(required=False)),
        ({"authentication": "Required"}, Authentication.ANONYMOUS, RouteAccess(required=True, shared=True)),
        (
            {"authentication": "Anonymous", "rateLimit": {"requestsPerSecond": 7}},
            Authentication.REQUIRED,
            RouteAccess(required=False, requests_per_second=7),
        ),
        (
            {
                "authentication": "Required",
                "rateLimit": {"requestsPerSecond": 7},
                "jwt": [{"issuer": "https://i", "audiences": ["a"], "requiredClaims": {"team": "vision"}}],
            },
            Authentication.ANONYMOUS,
            RouteAccess(
                required=True,
                shared=True,
                requests_per_second=7,
                issuers=(RouteIssuer(issuer="https://i", audiences=("a",), required_claims={"team": "vision"}),),
            ),
        ),
    ],
    ids=[
        "the operator's default may leave a model open",
        "or closed",
        "a deployment opens itself",
        "or closes itself",
        "an open model may have a limit",
        "tokens of issuers are accepted beside keys",
    ],
)
def test_what_gateways_are_told(spec: dict[str, Any], default: Authentication, expected: RouteAccess) -> None:
    assert access.route_access(deployment(access=spec), default) == expected


def test_every_planned_route_says_who_may_ask() -> None:
    observed = replace(World(deployment()).observed(), keys=(key(),), default_authentication=Authentication.REQUIRED)
    route = plan(observed, NOW).route
    assert route is not None
    assert route.access == RouteAccess(required=True, shared=True)


@pytest.mark.parametrize(
    ("default", "told"),
    [(Authentication.ANONYMOUS, None), (Authentication.REQUIRED, RouteAccess(required=True, shared=True))],
    ids=["nothing is said again to gateways that know", "a change is said, and nothing else changes"],
)
def test_who_may_ask_is_told_although_the_pool_does_not_answer(
    default: Authentication, told: RouteAccess | None
) -> None:
    problem = PoolProblem(Reason.POOL_UNREACHABLE, "no answer")
    present = replace(gateway({"v1": 100}), features=FEATURES)
    known = deployment()
    assert present.route is not None
    assert present.route.declared is not None
    owned = present.route.declared.model_copy(
        update={"access": RouteAccess(required=False), "owner": known.metadata.uid}
    )
    present = replace(present, route=present.route.model_copy(update={"declared": owned}))
    world = World(known, gateways=(present,), problem=problem)
    route = plan(replace(world.observed(), default_authentication=default), NOW).route
    assert route == (None if told is None else owned.model_copy(update={"access": told}))


def test_a_gateway_of_a_former_release_is_told_each_routes_keys_with_it() -> None:
    observed = replace(World(deployment()).observed(), keys=(key(), key("b", sha256="b" * 64, deployments=["letters"])))
    route = Route(
        namespace="vision",
        model="digits",
        owner="u1",
        revisions={"v1": 100},
        digests={"v1": f"sha256:{'d' * 64}"},
        access=RouteAccess(required=True, shared=True, requests_per_second=3),
        comparison=RevisionComparison(candidate="v2", stable="v1"),
    )
    present = gateway({"v1": 100})
    assert access.adapt_to_gateway(route, replace(present, features=FEATURES), observed, NOW) == route
    told = access.adapt_to_gateway(route, present, observed, NOW)
    assert told.access == RouteAccess(required=True, keys=(opened(),), requests_per_second=3)
    assert set(told.model_dump(mode="json")) == FORMER_WORDS
    assert set(told.model_dump(mode="json")["access"]) == FORMER_ACCESS


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        pytest.param([key()], [{}], id="a key that names no deployment opens all"),
        pytest.param([key(deployments=["n", "m"])], [{"deployments": ["m", "n"]}], id="others those that they name"),
        pytest.param([key(disabled=True), key("b", expiresAt=PAST)], [], id="one that opens nothing is not told"),
        pytest.param(
            [key(deployments=["m"], requestsPerSecond=5), key("b", deployments=["n"], expiresAt=FUTURE)],
            [{"deployments": ["m", "n"], "requestsPerSecond": 5, "expiresAt": int(NOW) + 1}],
            id="of two objects for one key the stricter word counts",
        ),
        pytest.param([key(deployments=["m"]), key("b")], [{}], id="and either opens what it opens"),
    ],
)
def test_a_namespaces_keys_are_told_once(keys: list[APIKey], expected: list[dict[str, Any]]) -> None:
    wanted = [NamespaceKey.model_validate({"name": "alice", "sha256": "a" * 64, **each}) for each in expected]
    assert list(access.namespace_keys(keys, NOW)) == wanted


def test_a_key_says_which_gateways_have_not_taken_what_became_of_it() -> None:
    problems = [GatewayProblem(f"The gateway http://g{each} answers HTTP 400") for each in range(3)]
    for subject in (key(), key(disabled=True)):
        (ready,) = access.key_status(subject, [subject], NOW, problems).conditions
        assert (ready.status, ready.reason) == ("False", Reason.GATEWAY_UNREACHABLE)
        assert_tells(ready.message, problems[0].message, "2 more")


@pytest.mark.parametrize(
    ("subject", "reason"),
    [
        (key(), Reason.KEY_ACCEPTED),
        (key(expiresAt=FUTURE), Reason.KEY_ACCEPTED),
        (key(expiresAt=PAST), Reason.KEY_EXPIRED),
        (key(disabled=True, expiresAt=PAST), Reason.KEY_DISABLED),
        (key("late", metadata={"creationTimestamp": "2026-11-22T00:00:00Z"}), Reason.QUOTA_EXCEEDED),
    ],
    ids=[
        "a key that opens something",
        "until its end",
        "after its end",
        "disabled is what the user did",
        "one more than a namespace may have",
    ],
)
def test_what_is_said_of_a_key(subject: APIKey, reason: Reason) -> None:
    crowd = [key(f"k{number}", sha256=f"{number:064x}") for number in range(MAX_KEYS - 1)]
    others = [*crowd, key(), subject]
    status = access.key_status(subject, others, NOW)
    assert [(each.type, each.reason) for each in status.conditions] == [("Ready", reason)]
    assert (status.conditions[0].status == "True") == (reason is Reason.KEY_ACCEPTED)


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        pytest.param([], Reason.KEY_ACCEPTED, id="one that names none takes none"),
        pytest.param(["a", "b"], Reason.KEY_ACCEPTED, id="as many as are left"),
        pytest.param(["a", "b", "c"], Reason.QUOTA_EXCEEDED, id="one more"),
    ],
)
def test_a_namespaces_keys_name_only_so_many_deployments(names: list[str], reason: Reason) -> None:
    named = [f"m{each}" for each in range(64)]
    crowd = [key(f"k{each}", sha256=f"{each:064x}", deployments=named) for each in range(MAX_NAMED // 64 - 1)]
    others = [*crowd, key("almost", sha256="b" * 64, deployments=named[:62])]
    late = key("late", deployments=names, metadata={"creationTimestamp": "2026-11-22T00:00:00Z"})
    assert access.key_status(late, [late, *others], NOW).conditions[0].reason == reason
    told = access.namespace_keys([late, *others], NOW)
    assert sum(len(each.deployments) for each in told) <= MAX_NAMED
    assert ("late" in {each.name for each in told}) is (reason is Reason.KEY_ACCEPTED)


def test_a_key_is_looked_at_again_when_it_ends() -> None:
    assert access.next_look(key(), NOW) is None
    assert access.next_look(key(expiresAt=PAST), NOW) is None
    due = access.next_look(key(expiresAt=FUTURE), NOW)
    assert due is not None
    assert due.after_seconds == 1
    assert access.expiry(key()) == NEVER
