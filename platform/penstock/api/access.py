"""Who may ask a model: `spec.access` of a deployment, and `APIKey`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from penstock.api.meta import Condition, Described, ObjectMeta


class Authentication(StrEnum):
    """Whether callers must say who they are."""

    REQUIRED = "Required"
    """With an API key of this namespace, or a token of one of the issuers in `jwt`."""
    ANONYMOUS = "Anonymous"
    """Anyone who reaches the gateway is answered."""


class JwtIssuer(Described):
    """An OpenID Connect provider whose tokens are accepted as `Authorization: Bearer`."""

    issuer: Annotated[str, Field(max_length=512)]
    """The `iss` claim, an https URL. Keys are found by OpenID Connect Discovery."""
    audiences: Annotated[tuple[Annotated[str, Field(max_length=253)], ...], Field(min_length=1, max_length=8)]
    """One of these must be in the `aud` claim."""
    jwks_uri: Annotated[str, Field(max_length=512)] | None = None
    """Where the keys are, for issuers without discovery."""
    required_claims: Annotated[dict[str, Annotated[str, Field(max_length=253)]], Field(max_length=8)] = Field(
        default_factory=dict
    )
    """Claims that a token must have, with these values."""


class RateLimit(Described):
    """Bound on each caller: an API key, a token's subject, or where neither is, a client's address."""

    requests_per_second: Annotated[int, Field(ge=1, le=100_000)]
    """Above this, over a second, requests get 429. Each gateway counts for itself."""


class Access(Described):
    """Who may ask this model and how often."""

    authentication: Authentication | None = None
    """Left out: what the gateway is set to, `Required` where it was installed by the chart."""
    jwt: Annotated[tuple[JwtIssuer, ...], Field(max_length=4)] = ()
    """Whose tokens are accepted beside API keys."""
    rate_limit: RateLimit | None = None
    """Left out: none but the key's own."""


class APIKeySpec(Described):
    """A key of which only the hash is known: there is nothing secret in this object."""

    sha256: Annotated[str, Field(max_length=64)]
    """SHA-256 of the key, in hex. `penstock key create` makes key and object. Cannot be changed."""
    deployments: Annotated[tuple[Annotated[str, Field(max_length=40)], ...], Field(max_length=64)] = ()
    """InferenceDeployments of this namespace that it opens. Empty: all."""
    requests_per_second: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """Above this, over a second, requests with this key get 429. Each gateway counts for itself."""
    expires_at: Annotated[str, Field(max_length=32)] | None = None
    """RFC 3339 in UTC, such as `2027-01-31T00:00:00Z`. Left out: never."""
    disabled: bool = False
    """Refuse it, and keep the object."""


class APIKeyStatus(Described):
    """Whether the key opens anything."""

    observed_generation: int = 0
    """The `metadata.generation` that this status is about."""
    conditions: tuple[Condition, ...] = ()
    """`Ready`: whether requests with this key are let in."""


class APIKey(Described):
    """A caller's key to a namespace's models."""

    api_version: Literal["penstock.dev/v1alpha1"] = "penstock.dev/v1alpha1"
    kind: Literal["APIKey"] = "APIKey"
    metadata: ObjectMeta
    spec: APIKeySpec
    status: APIKeyStatus = APIKeyStatus()
