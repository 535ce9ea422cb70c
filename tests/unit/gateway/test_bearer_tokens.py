from __future__ import annotations

import asyncio
import base64
import hmac
import json
import secrets
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from tests.integration.access_parts import AUDIENCE, Issuer
from tests.stores.outside import proxying
from tests.telling import telling

from penstock.errors import Unavailable
from penstock.routing.access import RouteIssuer, token_caller
from penstock_serving.gateway.access.bearer import ADMITTED_SECONDS, LEEWAY_SECONDS, MOST_CANDIDATES, verify
from penstock_serving.gateway.access.documents import is_public
from penstock_serving.gateway.access.issuers import FRESH_SECONDS, RESTRAINT_SECONDS, STALE_SECONDS, Issuers
from penstock_serving.gateway.access.jwks import usable_keys


class World:
    """A real issuer over HTTPS and the keys that a gateway has of it, with a clock that can be set."""

    def __init__(self, issuer: Issuer, keys: Issuers) -> None:
        self.issuer = issuer
        self.keys = keys
        self.monotonic = 0.0

    def entry(self, **more: Any) -> RouteIssuer:
        return RouteIssuer.model_validate(self.issuer.entry(**more))

    async def accepts(self, token: str, **entry: Any) -> bool:
        return await verify(token, (self.entry(**entry),), self.keys, "ns", time.time()) is not None


def run(scenario: Callable[[World], Awaitable[None]], *, allow_private: bool = True) -> None:
    async def main() -> None:
        async with asyncio.timeout(60), AsyncExitStack() as stack:
            issuer = Issuer()
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="iss-")))
            crt = await issuer.start(stack, folder)
            issuer.add_key("k")
            world = World(issuer, Issuers(allow_private=allow_private, ca_file=crt, clock=lambda: world.monotonic))
            stack.push_async_callback(world.keys.close)
            await scenario(world)

    asyncio.run(main())


def part(value: bytes | dict[str, Any]) -> str:
    content = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def number(value: int) -> str:
    """As a JWK has it."""
    return part(value.to_bytes((value.bit_length() + 7) // 8, "big"))


def unsigned(**claims: Any) -> str:
    return f"{part({'alg': 'none', 'kid': 'k'})}.{part(claims)}."


def shared(public: rsa.RSAPublicKey, claims: dict[str, Any]) -> str:
    """Signed with what everyone knows, as if it were a shared secret."""
    signed = f"{part({'alg': 'HS256', 'kid': 'k'})}.{part(claims)}"
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return f"{signed}.{part(hmac.digest(pem, signed.encode(), 'sha256'))}"


def in_seconds(seconds: float) -> int:
    return int(time.time() + seconds)


def claims_and_entries() -> dict[str, tuple[dict[str, Any], dict[str, Any], bool]]:
    """What a token says, what the model's entry asks for, and whether it is accepted now."""
    return {
        "a good token": ({}, {}, True),
        "one of several audiences": ({"aud": ["else", AUDIENCE]}, {}, True),
        "one of several that the model takes": ({"aud": "b"}, {"audiences": ["a", "b"]}, True),
        "another audience": ({"aud": "else"}, {}, False),
        "no audience": ({"aud": None}, {}, False),
        "another issuer": ({"iss": "https://else"}, {}, False),
        "no issuer": ({"iss": None}, {}, False),
        "no subject": ({"sub": None}, {}, False),
        "no end": ({"exp": None}, {}, False),
        "ended": ({"exp": in_seconds(-LEEWAY_SECONDS - 5)}, {}, False),
        "ended a moment ago, by clocks that differ": ({"exp": in_seconds(-LEEWAY_SECONDS + 15)}, {}, True),
        "not yet": ({"nbf": in_seconds(LEEWAY_SECONDS + 30)}, {}, False),
        "a moment too early": ({"nbf": in_seconds(LEEWAY_SECONDS - 15)}, {}, True),
        "the claim that is asked for": ({"team": "vision"}, {"requiredClaims": {"team": "vision"}}, True),
        "among others": ({"groups": ["a", "b"]}, {"requiredClaims": {"groups": "b"}}, True),
        "a truth": ({"email_verified": True}, {"requiredClaims": {"email_verified": "true"}}, True),
        "another value of it": ({"team": "sound"}, {"requiredClaims": {"team": "vision"}}, False),
        "without it": ({}, {"requiredClaims": {"team": "vision"}}, False),
        "one of two": ({"team": "vision"}, {"requiredClaims": {"team": "vision", "role": "x"}}, False),
    }


def test_what_a_token_must_say() -> None:
    async def scenario(world: World) -> None:
        for what, (claims, entry, accepted) in claims_and_entries().items():
            assert (what, await world.accepts(world.issuer.token(**claims), **entry)) == (what, accepted)

    run(scenario)


@pytest.mark.parametrize("algorithm", ["RS256", "RS512", "PS256", "ES256", "ES384", "ES512", "EdDSA"])
def test_signatures(algorithm: str) -> None:
    async def scenario(world: World) -> None:
        world.issuer.add_key("other", algorithm)
        token = world.issuer.token("other")
        assert await world.accepts(token)
        head, body, signature = token.split(".")
        raw = jwt.utils.base64url_decode(signature)
        forged = jwt.utils.base64url_encode(raw[:-1] + bytes([raw[-1] ^ 1])).decode()
        assert not await world.accepts(f"{head}.{body}.{forged}")

    run(scenario)


def test_who_a_token_stands_for_and_until_when() -> None:
    async def scenario(world: World) -> None:
        now = time.time()
        for lifetime, until in ((3600, int(now) + ADMITTED_SECONDS), (60, int(now) + 60 + LEEWAY_SECONDS)):
            token = world.issuer.token(exp=int(now) + lifetime)
            admitted = await verify(token, (world.entry(),), world.keys, "ns", now)
            assert admitted is not None
            assert (admitted.caller, admitted.until) == (token_caller(world.issuer.url, "alice"), until)
            assert "alice" not in admitted.caller

    run(scenario)


def test_forgeries() -> None:
    async def scenario(world: World) -> None:
        issuer = world.issuer
        claims = {"iss": issuer.url, "sub": "a", "aud": AUDIENCE, "exp": in_seconds(600)}
        stranger = Issuer()
        stranger.url = issuer.url
        stranger.add_key("k")
        public = issuer.keys["k"][1].public_key()
        bound = jwt.encode(claims, issuer.keys["k"][1], algorithm="PS256", headers={"kid": "k"})
        for what, token in {
            "not signed at all": unsigned(**claims),
            "signed with the public key as if it were shared": shared(public, claims),
            "signed with a key that says it is the issuer's": stranger.token(),
            "signed by an algorithm that the key is not for": bound,
            "with a key of its own in it": issuer.token(headers={"jwk": stranger.jwk("k"), "kid": "x"}),
            "with what must be understood and is not": issuer.token(headers={"crit": ["b64"], "b64": True}),
            "no token": "a.b.c",
            "no text": "\u00e9.\u00e9.\u00e9",
        }.items():
            assert (what, await world.accepts(token)) == (what, False)

    run(scenario)


def test_keys_are_kept_and_asked_for_with_restraint() -> None:
    async def scenario(world: World) -> None:
        issuer = world.issuer
        assert await world.accepts(issuer.token())
        assert issuer.asked == ["/.well-known/openid-configuration", "/keys"]
        issuer.asked.clear()
        issuer.add_key("new")
        for _ in range(3):
            assert await world.accepts(issuer.token())
            assert not await world.accepts(issuer.token("new"))
        assert issuer.asked == []
        world.monotonic += RESTRAINT_SECONDS
        assert await asyncio.gather(*(world.accepts(issuer.token("new")) for _ in range(5))) == [True] * 5
        assert issuer.asked == ["/.well-known/openid-configuration", "/keys"]
        del issuer.keys["new"]
        world.monotonic += FRESH_SECONDS + 1
        assert await world.accepts(issuer.token())
        issuer.status = 500
        world.monotonic += FRESH_SECONDS + 1
        assert await world.accepts(issuer.token())
        world.monotonic += STALE_SECONDS
        with pytest.raises(Unavailable, match=telling("status 500")):
            await world.accepts(issuer.token())

    run(scenario)


def test_a_token_is_tried_against_one_key_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = 0
    decode = jwt.decode

    def counting(token: str, *args: Any, **kwargs: Any) -> Any:
        nonlocal tried
        tried += bool(args)
        return decode(token, *args, **kwargs)

    monkeypatch.setattr(jwt, "decode", counting)

    async def scenario(world: World) -> None:
        nonlocal tried
        issuer, unnamed = world.issuer, {"kid": None}
        for each in range(MOST_CANDIDATES):
            issuer.add_key(f"k{each}", "ES256")
        issuer.add_key("only", "ES384")
        stranger = Issuer()
        stranger.url = issuer.url
        stranger.add_key("k0", "ES256")
        four = tuple(world.entry(requiredClaims={"team": str(each)}) for each in range(4))
        for what, token, accepted, most in (
            ("signed by nobody, with no name", stranger.token("k0", unnamed, team="3"), False, 0),
            ("signed by nobody, with a name", stranger.token("k0", team="3"), False, 1),
            ("signed by the named key", issuer.token("k0", team="3"), True, 1),
            ("signed by one of several, with no name", issuer.token("k0", unnamed, team="3"), False, 0),
            ("signed by the only one of its kind, with no name", issuer.token("only", unnamed, team="3"), True, 1),
            ("with the claims of no entry", issuer.token("k0", team="9"), False, 1),
        ):
            tried = 0
            found = await verify(token, four, world.keys, "ns", time.time())
            assert (what, found is not None, tried) == (what, accepted, most)

    run(scenario)


def test_of_two_entries_of_one_issuer_each_asks_for_its_own_audience() -> None:
    async def scenario(world: World) -> None:
        entries = (world.entry(audiences=["a"], requiredClaims={"team": "x"}), world.entry(audiences=["b"]))
        for what, (claims, accepted) in {
            "the second's audience": ({"aud": "b"}, True),
            "the first's audience and claim": ({"aud": "a", "team": "x"}, True),
            "the first's audience without its claim": ({"aud": "a"}, False),
            "the first's claim for nobody": ({"aud": "c", "team": "x"}, False),
        }.items():
            found = await verify(world.issuer.token(**claims), entries, world.keys, "ns", time.time())
            assert (what, found is not None) == (what, accepted)

    run(scenario)


def test_a_key_that_a_token_names_is_tried_before_those_without_a_name() -> None:
    async def scenario(world: World) -> None:
        issuer = world.issuer
        for each in range(MOST_CANDIDATES):
            issuer.add_key(f"k{each}")
            issuer.nameless.add(f"k{each}")
        issuer.add_key("named")
        assert await world.accepts(issuer.token("named"))

    run(scenario)


@pytest.mark.parametrize(
    ("discovery", "facts"),
    [
        ({"issuer": "https://else", "jwks_uri": "https://else/keys"}, "another issuer"),
        ({"jwks_uri": 1}, "another issuer"),
        ([], "no JSON object"),
        (b"x" * 300_000, "262144 bytes"),
        (b"{", "EOF while parsing"),
        (b"[" * 200_000, "recursion limit"),
        (b'{"a":' * 40_000, "recursion limit"),
        ("plain", "http://127.0.0.1/keys https://"),
        ("none", "no jwks_uri"),
        ("redirect", "status 302"),
    ],
    ids=[
        "another issuer's document",
        "no document of an issuer",
        "no object",
        "too much",
        "no JSON",
        "lists without end in one another",
        "objects without end in one another",
        "keys without TLS",
        "no keys",
        "a way to somewhere else",
    ],
)
def test_what_a_discovery_must_be(discovery: Any, facts: str) -> None:
    async def scenario(world: World) -> None:
        issuer = world.issuer
        issuer.discovery = json.dumps(discovery).encode() if not isinstance(discovery, bytes) else discovery
        if discovery == "plain":
            issuer.discovery = {"issuer": issuer.url, "jwks_uri": "http://127.0.0.1/keys"}
        if discovery == "none":
            issuer.discovery = {"issuer": issuer.url}
        if discovery == "redirect":
            issuer.redirect = f"{issuer.url}/keys"
        with pytest.raises(Unavailable, match=telling(facts)):
            await world.accepts(issuer.token())

    run(scenario)


def test_an_issuer_inside_the_network_is_not_asked_unless_that_is_allowed() -> None:
    async def scenario(world: World) -> None:
        with pytest.raises(Unavailable, match=telling("127.0.0.1 no public address")):
            await world.accepts(world.issuer.token())
        assert world.issuer.asked == []
        port = world.issuer.url.rpartition(":")[2]
        world.issuer.url = f"https://localhost:{port}"
        with pytest.raises(Unavailable, match=telling("localhost no public address")):
            await world.accepts(world.issuer.token())
        assert world.issuer.asked == []

    run(scenario, allow_private=False)


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("::1", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("::ffff:10.0.0.1", False),
        ("64:ff9b::a00:1", False),
    ],
)
def test_public_addresses(address: str, *, public: bool) -> None:
    assert is_public(address) == public


def test_only_sound_keys_that_are_meant_for_it_verify() -> None:
    def entry(bits: int = 2048, exponent: int = 65537, **more: Any) -> dict[str, Any]:
        # Odd and of this size is all that a key must be here; whose private half it is, nobody asks.
        modulus = secrets.randbits(bits) | 1 << (bits - 1) | 1
        return {"kty": "RSA", "n": number(modulus), "e": number(exponent), **more}

    rows = [
        entry(kid="good", use="sig"),
        entry(kid="bound", alg="RS384"),
        entry(4096, kid="large"),
        entry(exponent=3, kid="quick"),
        entry(1024, kid="short"),
        entry(8192, kid="slow"),
        entry(4104, kid="too large"),
        entry(exponent=65539, kid="slower"),
        entry(exponent=(1 << 33) - 1, kid="slowest"),
        entry(kid="other", use="enc"),
        {"kty": "oct", "k": "AAAA", "kid": "shared", "alg": "HS256"},
        {"kty": "RSA", "kid": "broken"},
        "nothing",
    ]
    found = usable_keys({"keys": rows})
    assert {key.key_id: len(key.algorithms) for key in found} == {"good": 6, "bound": 1, "large": 6, "quick": 6}
    with pytest.raises(ValueError, match="list of keys"):
        usable_keys({})


BEHIND = [
    ("a name that no resolver here knows", "issuer.example.test", True),
    ("a name of this machine's own", "localhost", False),
    ("an address that is not public", "127.0.0.1", False),
]


@pytest.mark.parametrize(("host", "asked"), [row[1:] for row in BEHIND], ids=[row[0] for row in BEHIND])
def test_behind_a_proxy_an_issuer_is_asked_through_it(
    host: str, monkeypatch: pytest.MonkeyPatch, *, asked: bool
) -> None:
    """The proxy resolves names. What is known here to be private, it is not asked for."""

    async def scenario(world: World) -> None:
        port = world.issuer.url.rpartition(":")[2]
        with proxying(int(port)) as proxy:
            monkeypatch.setenv("HTTPS_PROXY", proxy.url)
            monkeypatch.setenv("NO_PROXY", ".svc")
            world.issuer.url = f"https://{host}:{port}"
            # The issuer's certificate is for 127.0.0.1: that the name is another's is told only by who spoke to it.
            with pytest.raises(Unavailable, match="certificate" if asked else telling("no public address")):
                await world.accepts(world.issuer.token())
            assert proxy.asked == ([f"CONNECT {host}:{port}"] if asked else [])

    run(scenario, allow_private=False)


def test_an_issuer_that_needs_no_proxy_is_asked_past_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(world: World) -> None:
        with proxying(9) as proxy:
            monkeypatch.setenv("HTTPS_PROXY", proxy.url)
            monkeypatch.setenv("NO_PROXY", "127.0.0.1")
            assert await world.accepts(world.issuer.token())
            assert proxy.asked == []

    run(scenario)
