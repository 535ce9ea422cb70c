"""Who may ask a model: what the operator declares, and what follows from it for one request. Pure.

Times are seconds since the Unix epoch: keys and tokens say themselves when they end.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field

from penstock.models import Frozen

MAX_KEYS: Final = 4096
"""Of a namespace. A route is one message, and HAProxy keeps every key in memory."""
MAX_NAMED: Final = 2 * MAX_KEYS
"""Deployments that a namespace's keys may name in all: a gateway has a row for each key and deployment, for its agent to go through."""
NEVER: Final = 253_402_300_799
"""The end of the year 9999: a key that does not expire."""
MAX_TOKEN_CHARACTERS: Final = 16_384


class RouteKey(Frozen):
    """An API key that opens a model. Only its hash is known."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", max_length=253)]
    """Of the `APIKey`; who calls, in traces."""
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    expires_at: Annotated[int, Field(ge=0, le=NEVER)] = NEVER
    requests_per_second: Annotated[int, Field(ge=1)] | None = None
    """Over all models that it opens."""


class NamespaceKey(RouteKey):
    """An API key as a gateway is told of it once for its namespace, whatever the number of models."""

    deployments: Annotated[tuple[str, ...], Field(exclude_if=lambda names: not names)] = ()
    """The models that it opens. Empty: all that the namespace's keys open."""

    def opens(self, model: str) -> bool:
        """Whether it opens a model."""
        return not self.deployments or model in self.deployments


class RouteIssuer(Frozen):
    """Whose tokens are accepted. See `penstock.api.access.JwtIssuer`."""

    issuer: str
    audiences: tuple[str, ...]
    jwks_uri: str | None = None
    required_claims: dict[str, str] = Field(default={})


class RouteAccess(Frozen):
    """Who may ask one model, as the operator declares it."""

    required: bool
    """Whether callers must say who they are."""
    keys: Annotated[tuple[RouteKey, ...], Field(max_length=MAX_KEYS)] = ()
    """Those that are told with the route; former releases know no other way."""
    shared: Annotated[bool, Field(exclude_if=lambda shared: not shared)] = False
    """Whether the namespace's keys open it, which are told for themselves."""
    issuers: tuple[RouteIssuer, ...] = ()
    requests_per_second: Annotated[int, Field(ge=1)] | None = None
    """Of each caller, to this model."""


class Denial(StrEnum):
    """Why a request is not let in, as its caller is told."""

    MISSING = "this model needs an API key or a token: send it as 'Authorization: Bearer KEY'"
    UNKNOWN = "the API key or token is not known here, was disabled, or has expired"
    OTHER_MODELS = "the API key is valid, but it does not open this model"
    NOT_YET = "the gateway has not been told yet who may ask this model; try again"
    TOO_OFTEN = "this caller sends more requests than its limit allows; try again in a second"

    @property
    def status(self) -> int:
        """The HTTP status that goes with it."""
        return _STATUS[self]


_STATUS: Final = {
    Denial.MISSING: 401,
    Denial.UNKNOWN: 401,
    Denial.OTHER_MODELS: 403,
    Denial.NOT_YET: 503,
    Denial.TOO_OFTEN: 429,
}


@dataclass(frozen=True, slots=True)
class Allow:
    """The request may pass."""

    caller: str | None
    """Who asks, where that is known: `key/NAME` or `jwt/HASH`."""


@dataclass(frozen=True, slots=True)
class Verify:
    """The credential may be a token of one of these issuers."""

    token: str
    issuers: tuple[RouteIssuer, ...]


def credential(authorization: str | None, api_key: str | None) -> str | None:
    """The key or token that a request carries, by `Authorization: Bearer` or else `X-API-Key`; None where there is none."""
    scheme, _, value = (authorization or "").strip().partition(" ")
    if scheme.lower() == "bearer" and value.strip():
        return value.strip()
    return (api_key or "").strip() or None


def fingerprint(secret: str) -> str:
    """SHA-256 of a key or token, in lower-case hex."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def key_caller(name: str) -> str:
    """Who a key stands for."""
    return f"key/{name}"


def token_caller(issuer: str, subject: str) -> str:
    """Who a token stands for: a hash, since a subject may be a person's name or address."""
    return "jwt/" + hashlib.sha256(f"{issuer}\n{subject}".encode()).hexdigest()[:16]


def decide(
    access: RouteAccess | None,
    model: str,
    uses: Mapping[str, RouteKey],
    given: str | None,
    now: float,
    *,
    default_required: bool,
) -> Allow | Verify | Denial:
    """Whether a request to one model may pass.

    Args:
        access: what is declared of the model; None: nothing yet.
        model: its name.
        uses: what the namespace's models say of the credential as a key; a valid one may open others only.
        given: the credential.
        now: the present.
        default_required: whether a model of which nothing is declared is closed.
    """
    if access is None:
        return Denial.NOT_YET if default_required else Allow(None)
    if not access.required:
        return Allow(None)
    return Denial.MISSING if given is None else _judge(access, model, uses, given, now)


def _judge(
    access: RouteAccess, model: str, uses: Mapping[str, RouteKey], given: str, now: float
) -> Allow | Verify | Denial:
    key = uses.get(model)
    if key is not None and key.expires_at > now:
        return Allow(key_caller(key.name))
    if is_valid(uses, now):
        return Denial.OTHER_MODELS
    if access.issuers and looks_like_token(given):
        return Verify(given, access.issuers)
    return Denial.UNKNOWN


def is_valid(uses: Mapping[str, RouteKey], now: float) -> bool:
    """Whether a key opens any model of its namespace now.

    Args:
        uses: what the models say of it.
        now: the present.
    """
    return any(key.expires_at > now for key in (uses.words() if isinstance(uses, Uses) else uses.values()))


class Uses(Mapping[str, RouteKey]):
    """What a namespace's models say of one key, found model by model: there may be many.

    Args:
        of_model: what one says of the key; None: it is not opened by it.
        models: those that ask for a key.
        words: what all say of it, each once.
    """

    def __init__(
        self, of_model: Callable[[str], RouteKey | None], models: Collection[str], words: Collection[RouteKey]
    ) -> None:
        self._of_model = of_model
        self._models = models
        self._words = words

    def words(self) -> Collection[RouteKey]:
        """What all models say of it, each once."""
        return self._words

    def __getitem__(self, model: str) -> RouteKey:
        """What a model says of it. Raises KeyError: it is not opened by it."""
        found = self._of_model(model)
        if found is None:
            raise KeyError(model)
        return found

    def __iter__(self) -> Iterator[str]:
        """Models that it opens."""
        return (model for model in self._models if self._of_model(model) is not None)

    def __len__(self) -> int:
        """How many it opens."""
        return sum(1 for _ in self)


def looks_like_token(given: str) -> bool:
    """Whether this may be a JSON Web Token in compact form (RFC 7519)."""
    return given.count(".") == 2 and len(given) <= MAX_TOKEN_CHARACTERS  # noqa: PLR2004 -- three parts


@dataclass(frozen=True, slots=True)
class Admitted:
    """A token that was verified a moment ago."""

    caller: str
    until: int
    """It is verified anew after this."""
    issuers: tuple[RouteIssuer, ...]
    """Those of the model when it was verified; with others, it is verified anew."""


ModelKey = tuple[str, str]
"""Namespace and model."""


@dataclass(frozen=True, slots=True)
class Lock:
    """How one model is guarded, as a data path needs it."""

    authentication: Authenticity
    requests_per_second: int
    """Of each caller; 0: no bound."""


class Authenticity(StrEnum):
    """What a caller must show. The values stand in HAProxy's map."""

    ANYONE = "-"
    KEY = "k"
    KEY_OR_JWT = "j"
    UNDECIDED = "?"
    """Nothing is declared yet, and what is not declared is closed."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What a credential is worth in a namespace or at one model."""

    caller: str
    requests_per_second: int
    """Over all models; 0: no bound."""
    until: int
    everywhere: bool
    """Whether it opens every guarded model of the namespace."""


@dataclass(frozen=True, slots=True)
class Locks:
    """Every model that is guarded or bounded, and every credential.

    A credential that opens all guarded models of its namespace is kept once, whatever their number; any other once for
    the namespace (so that it is known to be valid) and once for each model that it opens.
    """

    models: Mapping[ModelKey, Lock]
    namespaces: Mapping[tuple[str, str], Grant]
    """By namespace and the credential's SHA-256."""
    single: Mapping[tuple[str, str, str], Grant]
    """By namespace, model and the credential's SHA-256."""
