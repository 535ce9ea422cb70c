"""Lets requests in that HAProxy handed over: those that it knows the caller of, and tokens that it has not seen yet."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial

from penstock.api.access import Authentication
from penstock.errors import Unavailable
from penstock.routing.access import Allow, Denial, RouteIssuer, Verify, credential, decide, fingerprint, is_valid
from penstock.routing.table import ModelKey
from penstock_serving.gateway.access.admissions import Admissions
from penstock_serving.gateway.access.bearer import verify
from penstock_serving.gateway.access.issuers import Issuers
from penstock_serving.gateway.access.verification import BudgetExhausted, Verification
from penstock_serving.gateway.haproxy.access_rules import (
    API_KEY_HEADER,
    CALLER_HEADER,
    CREDENTIAL_HEADER,
    SOURCE_HEADER,
)
from penstock_serving.gateway.table.registry import Registry


class AccessDenied(Exception):
    """The request is not let in."""

    def __init__(self, refusal: Denial) -> None:
        super().__init__(refusal.value)
        self.refusal = refusal


class Gatekeeper:
    """Decides by the table, as HAProxy does by its maps, and verifies tokens.

    Args:
        registry: what is declared.
        admissions: where verified tokens go.
        issuers: keys to verify them by.
        verification: where that is done.
        default_authentication: of models of which nothing is declared.
    """

    def __init__(
        self,
        registry: Registry,
        admissions: Admissions,
        issuers: Issuers,
        verification: Verification,
        default_authentication: Authentication,
    ) -> None:
        self._registry = registry
        self._admissions = admissions
        self._issuers = issuers
        self._verification = verification
        self._default_required = default_authentication is Authentication.REQUIRED

    def admit_to_unknown(self, headers: Mapping[str, str], namespace: str) -> None:
        """Whether a caller may learn that there is no such model.

        Where models are closed unless they say otherwise, their names are nothing for strangers either.

        Raises:
            AccessDenied: the caller has no key of the namespace.
        """
        if not self._default_required:
            return
        given = credential(headers.get("authorization"), headers.get(API_KEY_HEADER))
        if given is None:
            raise AccessDenied(Denial.MISSING)
        if not is_valid(self._registry.keyring.uses(namespace, fingerprint(given)), time.time()):
            raise AccessDenied(Denial.UNKNOWN)

    async def admit(self, headers: Mapping[str, str], key: ModelKey) -> str | None:
        """Who asks, where that is known.

        Raises:
            AccessDenied: the request may not pass.
            Unavailable: it cannot be decided now, since its issuer does not answer, or HAProxy does not know the key yet.
        """
        caller = headers.get(CALLER_HEADER)
        if caller is not None:
            # HAProxy's word: it takes this header from every request that comes in.
            return caller
        namespace, model = key
        given = credential(headers.get("authorization"), headers.get(API_KEY_HEADER))
        seen = headers.get(CREDENTIAL_HEADER)
        if seen is not None and (given is None or fingerprint(given) != seen.lower()):
            # What HAProxy reads otherwise, it could not count the next time either.
            raise AccessDenied(Denial.UNKNOWN)
        if not self._registry.keyring.is_decided(key):
            raise AccessDenied(Denial.NOT_YET)
        uses = {} if given is None else self._registry.keyring.uses(namespace, fingerprint(given))
        route, now = self._registry.table.routes.get(key), time.time()
        verdict = decide(
            route.access if route else None, model, uses, given, now, default_required=self._default_required
        )
        match verdict:
            case Allow() if seen is not None:
                # HAProxy counts keys, and knows this one in a moment.
                raise Unavailable("KeyNotTakenYet", "the gateway is just being told of this change; try again")
            case Allow(caller=name):
                return name
            case Verify(token=token, issuers=issuers):
                return await self._verify_token(key, token, issuers, headers.get(SOURCE_HEADER, ""), now)
            case Denial():
                raise AccessDenied(verdict)

    async def choose_visible(self, headers: Mapping[str, str], namespace: str) -> list[ModelKey]:
        """Models of a namespace that a caller may ask, in order.

        A token is verified once for all models that take the same issuers', and HAProxy is told of none.

        Raises:
            AccessDenied: the caller may ask none, and where models are closed, none of them may be told of either; or its token
                cannot be looked at now.
            Unavailable: an issuer does not answer.
        """
        given = credential(headers.get("authorization"), headers.get(API_KEY_HEADER))
        table, keyring, now = self._registry.table, self._registry.keyring, time.time()
        uses = {} if given is None else keyring.uses(namespace, fingerprint(given))
        verified: list[tuple[tuple[RouteIssuer, ...], bool]] = []
        found: list[ModelKey] = []
        for key in table.keys_of(namespace):
            if not keyring.is_decided(key):
                continue
            route = table.routes.get(key)
            access = route.access if route else None
            verdict = decide(access, key[1], uses, given, now, default_required=self._default_required)
            if isinstance(verdict, Verify):
                known = next((good for issuers, good in verified if issuers == verdict.issuers), None)
                if known is None:
                    known = await self._is_genuine(key, verdict, headers.get(SOURCE_HEADER, ""), now)
                    verified.append((verdict.issuers, known))
                if known:
                    found.append(key)
            elif isinstance(verdict, Allow):
                found.append(key)
        if not found:
            self.admit_to_unknown(headers, namespace)
        return found

    async def _is_genuine(self, key: ModelKey, asked: Verify, source: str, now: float) -> bool:
        if self._admissions.find(key, fingerprint(asked.token), asked.issuers, now) is not None:
            return True
        run = partial(self._verification.run, key[0], source)
        try:
            return await verify(asked.token, asked.issuers, self._issuers, key[0], now, run=run) is not None
        except BudgetExhausted:
            raise AccessDenied(Denial.TOO_OFTEN) from None

    async def _verify_token(
        self, key: ModelKey, token: str, issuers: tuple[RouteIssuer, ...], source: str, now: float
    ) -> str:
        """Who a token stands for; HAProxy is told of it soon."""
        digest = fingerprint(token)
        admitted = self._admissions.find(key, digest, issuers, now)
        if admitted is None:
            run = partial(self._verification.run, key[0], source)
            try:
                admitted = await verify(token, issuers, self._issuers, key[0], now, run=run)
            except BudgetExhausted:
                raise AccessDenied(Denial.TOO_OFTEN) from None
            if admitted is None:
                raise AccessDenied(Denial.UNKNOWN)
            self._admissions.admit(key, digest, admitted)
        return admitted.caller
