"""Who may ask a deployment's model, from `spec.access` and the namespace's API keys; and what is said of each key."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from penstock.api.access import APIKey, APIKeyStatus, Authentication
from penstock.api.conditions import KeyCondition, Reason
from penstock.api.v1alpha1 import InferenceDeployment
from penstock.api.verdicts import Verdict, condition, epoch, false, timestamp, true
from penstock.routing.access import MAX_KEYS, MAX_NAMED, NEVER, NamespaceKey, RouteAccess, RouteIssuer, RouteKey
from penstock.routing.fleet import NAMESPACE_KEYS, downgrade_route
from penstock.routing.leases import Route
from penstock_operator.deployment.observed import GatewayProblem, Observed, ObservedGateway
from penstock_operator.runtime.loop.requeue import Requeue

_LONGEST_WAIT_SECONDS: Final = 86_400.0
"""Until a key's end is looked at again; clocks are set anew meanwhile."""


def expiry(key: APIKey) -> int:
    """When a key ends, in epoch seconds.

    What is no time of this calendar, such as the 30th of February, is long past: such a key opens nothing.
    """
    text = key.spec.expires_at
    if text is None:
        return NEVER
    try:
        return max(0, min(NEVER, int(epoch(text))))
    except ValueError:
        return 0


def countable_keys(keys: Iterable[APIKey]) -> list[APIKey]:
    """The keys that a namespace may have, without those that are going: its oldest, within `MAX_KEYS` and `MAX_NAMED`."""
    present = [key for key in keys if key.metadata.deletion_timestamp is None]
    found: list[APIKey] = []
    named = 0
    for key in sorted(present, key=lambda key: (key.metadata.creation_timestamp or "", key.metadata.name)):
        if len(found) < MAX_KEYS and named + len(key.spec.deployments) <= MAX_NAMED:
            found.append(key)
            named += len(key.spec.deployments)
    return found


def keys_that_open(deployment: str, keys: Sequence[APIKey], now: float) -> tuple[RouteKey, ...]:
    """The keys that open a deployment now, by name; of two objects for the same key the first.

    Args:
        deployment: its name.
        keys: of its namespace.
        now: epoch seconds.
    """
    found: dict[str, RouteKey] = {}
    for key in sorted(countable_keys(keys), key=lambda each: each.metadata.name):
        spec = key.spec
        if spec.disabled or expiry(key) <= now or (spec.deployments and deployment not in spec.deployments):
            continue
        route_key = RouteKey(
            name=key.metadata.name,
            sha256=spec.sha256,
            expires_at=expiry(key),
            requests_per_second=spec.requests_per_second,
        )
        found.setdefault(spec.sha256, route_key)
    return tuple(found.values())


def namespace_keys(keys: Sequence[APIKey], now: float) -> tuple[NamespaceKey, ...]:
    """What gateways are told of a namespace's keys, by name. Two objects for the same key open what either does.

    Args:
        keys: every key of the namespace.
        now: epoch seconds.
    """
    found: dict[str, NamespaceKey] = {}
    for key in sorted(countable_keys(keys), key=lambda each: each.metadata.name):
        spec = key.spec
        if spec.disabled or expiry(key) <= now:
            continue
        told = NamespaceKey(
            name=key.metadata.name,
            sha256=spec.sha256,
            expires_at=expiry(key),
            requests_per_second=spec.requests_per_second,
            deployments=tuple(sorted(spec.deployments)),
        )
        known = found.get(told.sha256)
        found[told.sha256] = told if known is None else _merge(known, told)
    return tuple(found.values())


def _merge(known: NamespaceKey, more: NamespaceKey) -> NamespaceKey:
    """What two objects say of the same key; where they differ, the stricter word counts."""
    limits = [each.requests_per_second for each in (known, more) if each.requests_per_second is not None]
    everything = not (known.deployments and more.deployments)
    return known.model_copy(
        update={
            "deployments": () if everything else tuple(sorted({*known.deployments, *more.deployments})),
            "expires_at": min(known.expires_at, more.expires_at),
            "requests_per_second": min(limits, default=None),
        }
    )


def adapt_to_gateway(route: Route, gateway: ObservedGateway, observed: Observed, now: float) -> Route:
    """A route in words that a gateway knows: one of a former release is told each route's keys with it.

    Args:
        route: as it is wanted.
        gateway: which is told.
        observed: what the route was planned from.
        now: epoch seconds.
    """
    told = downgrade_route(gateway.features, route)
    if route.access is None or not route.access.shared or NAMESPACE_KEYS in gateway.features:
        return told
    keys = keys_that_open(route.model, observed.keys, now)
    return told.model_copy(update={"access": route.access.model_copy(update={"shared": False, "keys": keys})})


def route_access(deployment: InferenceDeployment, default: Authentication) -> RouteAccess:
    """What gateways are told of a deployment. Its namespace's keys are told for themselves.

    Args:
        deployment: with its `spec.access`.
        default: where the deployment says nothing of authentication.
    """
    access = deployment.spec.access
    limit = access.rate_limit.requests_per_second if access.rate_limit else None
    if (access.authentication or default) is Authentication.ANONYMOUS:
        return RouteAccess(required=False, requests_per_second=limit)
    issuers = tuple(
        RouteIssuer(
            issuer=each.issuer,
            audiences=each.audiences,
            jwks_uri=each.jwks_uri,
            required_claims=dict(sorted(each.required_claims.items())),
        )
        for each in access.jwt
    )
    return RouteAccess(required=True, shared=True, issuers=issuers, requests_per_second=limit)


def with_access(route: Route | None, observed: Observed, now: float) -> Route | None:
    """The route to declare, with who may ask.

    A key that was taken away must stop although nothing else can be planned now, say because the pool does not answer:
    then it is the route that the gateways have, with access as it is now; None where they all have that already.

    Args:
        route: as it was planned, or None where the present one is to stay.
        observed: what the plan was made from.
        now: epoch seconds.
    """
    metadata = observed.deployment.metadata
    who = {
        "access": route_access(observed.deployment, observed.default_authentication),
        "owner": metadata.uid,
    }
    if route is not None:
        return route.model_copy(update=who)
    gateways = [each for each in (*observed.gateways, *observed.joining) if isinstance(each, ObservedGateway)]
    declared = [each.route.declared if each.route else None for each in gateways]
    present = next((each for each in declared if each is not None), None)
    if present is None or metadata.deletion_timestamp is not None:
        return None
    route = present.model_copy(update=who)
    told = [adapt_to_gateway(route, gateway, observed, now) for gateway in gateways]
    return route if declared != told else None


def judge_key(key: APIKey, others: Sequence[APIKey], now: float, problems: Sequence[GatewayProblem] = ()) -> Verdict:
    """Whether requests with a key are let in.

    Args:
        key: the key.
        others: every key of its namespace.
        now: epoch seconds.
        problems: gateways that have not taken what was told of the namespace's keys.
    """
    if problems:
        more = f" (and {len(problems) - 1} gateways more)" if len(problems) > 1 else ""
        return false(
            Reason.GATEWAY_UNREACHABLE,
            f"{problems[0].message}{more}. It has not taken what became of this namespace's keys: one that refuses them lets "
            "none of them in until it takes them; one that cannot be reached goes by what it was told last. Telling it again.",
        )
    if key.spec.disabled:
        return false(Reason.KEY_DISABLED, "spec.disabled is true; requests with this key get 401.")
    if expiry(key) <= now:
        return false(
            Reason.KEY_EXPIRED,
            f"It ended at {key.spec.expires_at}; requests with it get 401. Create another and delete this one.",
        )
    if key.metadata.name not in {each.metadata.name for each in countable_keys(others)}:
        return false(
            Reason.QUOTA_EXCEEDED,
            f"The namespace has more than {MAX_KEYS} keys, or they name more than {MAX_NAMED} deployments in all, and this is "
            "not among the oldest; delete those not in use, or leave out deployments of keys that may open every one.",
        )
    opens = ", ".join(key.spec.deployments) or "every InferenceDeployment of the namespace"
    return true(Reason.KEY_ACCEPTED, f"It opens {opens}.")


def key_status(
    key: APIKey, others: Sequence[APIKey], now: float, problems: Sequence[GatewayProblem] = ()
) -> APIKeyStatus:
    """The status of a key; see `judge_key`."""
    generation = key.metadata.generation
    ready = condition(KeyCondition.READY, judge_key(key, others, now, problems), key.status.conditions, generation, now)
    return APIKeyStatus(observed_generation=generation, conditions=(ready,))


def next_look(key: APIKey, now: float) -> Requeue | None:
    """When a key's end is due."""
    due = expiry(key) - now
    if key.spec.expires_at is None or due <= 0:
        return None
    return Requeue(min(due, _LONGEST_WAIT_SECONDS), f"the key ends at {timestamp(expiry(key))}")
