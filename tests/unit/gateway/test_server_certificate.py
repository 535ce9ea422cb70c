"""Which certificates the gateway takes for TLS, and what it says of the others."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from tests.certificates import DAY, Authority, Pair

from penstock.errors import Invalid
from penstock_serving.gateway.tls.certificate import parse_authorities, parse_certificate

AUTHORITY = Authority()
GOOD = AUTHORITY.sign()
OTHER = AUTHORITY.sign()
NOW = datetime.now(UTC)


def _encrypted() -> bytes:
    key = rsa.generate_private_key(65537, 2048)
    encryption = serialization.BestAvailableEncryption(b"secret")
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


def test_a_chain_and_its_key_are_one_file_for_haproxy() -> None:
    found = parse_certificate(GOOD.chain + AUTHORITY.pem, GOOD.key)
    assert found.pem.count(b"BEGIN CERTIFICATE") == 2
    assert found.pem.count(b"BEGIN PRIVATE KEY") == 1
    assert found.names == ("localhost", "127.0.0.1")
    assert "PRIVATE" not in repr(found)


@pytest.mark.parametrize(
    ("chain", "key", "named"),
    [
        pytest.param(GOOD.chain, OTHER.key, "tls.key", id="the key of another"),
        pytest.param(AUTHORITY.pem + GOOD.chain, GOOD.key, "tls.crt", id="the authority before the server's own"),
        pytest.param(b"nothing", GOOD.key, "tls.crt", id="no certificate"),
        pytest.param(b"", GOOD.key, "tls.crt", id="an empty file"),
        pytest.param(GOOD.chain, b"nothing", "tls.key", id="no key"),
        pytest.param(GOOD.chain, GOOD.chain, "tls.key", id="a certificate for a key"),
        pytest.param(GOOD.chain, _encrypted(), "unencrypted", id="a key under a password"),
    ],
)
def test_what_cannot_serve_is_refused_without_telling_the_key(chain: bytes, key: bytes, named: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse_certificate(chain, key)
    assert caught.value.reason == "InvalidCertificate"
    assert named in caught.value.message
    assert all(line not in caught.value.message for line in GOOD.key.decode().splitlines()[1:-1])


@pytest.mark.parametrize(
    ("pair", "complains"),
    [
        pytest.param(AUTHORITY.sign(ends=30 * DAY), False, id="a month left"),
        pytest.param(AUTHORITY.sign(ends=6 * DAY), True, id="six days left"),
        pytest.param(AUTHORITY.sign(begins=-9 * DAY, ends=-DAY), True, id="ended"),
        pytest.param(AUTHORITY.sign(begins=DAY), True, id="not begun"),
    ],
)
def test_what_ends_soon_is_told_of(pair: Pair, *, complains: bool) -> None:
    assert bool(parse_certificate(pair.chain, pair.key).complaint(NOW)) is complains


def test_a_chain_ends_with_what_ends_first_in_it() -> None:
    short = AUTHORITY.sign(ends=2 * DAY)
    found = parse_certificate(GOOD.chain + short.chain, GOOD.key)
    assert found.not_after < NOW + 3 * DAY


def test_authorities_of_clients_are_certificates() -> None:
    assert len(parse_authorities(AUTHORITY.pem * 2)) == 2
    with pytest.raises(Invalid):
        parse_authorities(GOOD.key)
