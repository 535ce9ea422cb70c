"""The platform's own authority: what follows from a secret, and what it signs."""

from __future__ import annotations

import socket
import ssl
import threading

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from tests.telling import telling

from penstock.errors import Invalid
from penstock.routing.identities import GATEWAY_NAME, replica_name
from penstock_runtime.authority import OwnKey, PlatformAuthority, client_context, read_request, server_context

OURS, OTHERS = PlatformAuthority("secret"), PlatformAuthority("another")
NAME = replica_name("ns", "m", "u1", "r")


def csr(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> str:
    made = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    return made.public_bytes(serialization.Encoding.PEM).decode()


def damaged(request: str) -> str:
    """With another signature."""
    lines = request.splitlines()
    lines[-2] = lines[-2][:-8] + ("A" if lines[-2][-8] != "A" else "B") + lines[-2][-7:]
    return "\n".join(lines)


def problem_between(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> str:
    """Why a handshake fails at the client; empty where it does not."""
    left, right = socket.socketpair()
    with left, right:
        left.settimeout(20)
        right.settimeout(20)

        def answer() -> None:
            try:
                server.wrap_socket(left, server_side=True).close()
            except OSError:
                left.close()

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            client.wrap_socket(right, server_hostname=name).close()
        except ssl.SSLError as error:
            return str(error)
        finally:
            right.close()
            thread.join()
    return ""


def test_all_who_have_the_secret_have_the_same_authority_to_the_byte() -> None:
    """Else each start of an operator would start all replicas anew."""
    assert PlatformAuthority("secret").pem == OURS.pem != OTHERS.pem


@pytest.mark.parametrize(
    ("authority", "name", "seconds", "asked", "problem"),
    [
        pytest.param(OURS, NAME, 60.0, NAME, "", id="a replica's own"),
        pytest.param(OURS, GATEWAY_NAME, 60.0, GATEWAY_NAME, "", id="a gateway's own"),
        pytest.param(OURS, NAME, 60.0, GATEWAY_NAME, "Hostname mismatch", id="a replica's for a gateway's"),
        pytest.param(
            OURS, replica_name("ns", "m", "u1", "r2"), 60.0, NAME, "Hostname mismatch", id="another replica's"
        ),
        pytest.param(OURS, NAME, -1.0, NAME, "expired", id="one that has ended"),
        pytest.param(OTHERS, NAME, 60.0, NAME, "unable to get local issuer", id="another authority's"),
    ],
)
def test_what_a_client_takes(authority: PlatformAuthority, name: str, seconds: float, asked: str, problem: str) -> None:
    context, key = server_context(), OwnKey()
    key.load_into(context, authority.sign(key.public, name, seconds))
    found = problem_between(context, client_context(OURS.pem), asked)
    assert problem in found
    assert bool(problem) == bool(found)


@pytest.mark.parametrize(
    ("former", "latter"),
    [
        (("ns", "m", "u1", "r"), ("ns", "m", "u2", "r")),
        (("ns", "m", "u1", "r"), ("ns", "m", "u1", "s")),
        (("ns", "m-u", "1", "r"), ("ns", "m", "u-1", "r")),
    ],
    ids=["of another deployment of that name", "another replica", "where a border lies elsewhere"],
)
def test_each_replica_has_a_name_of_its_own(former: tuple[str, ...], latter: tuple[str, ...]) -> None:
    assert replica_name(*former) != replica_name(*latter)
    assert all(len(label) < 64 for label in replica_name(*former).split("."))


@pytest.mark.parametrize(
    ("request_", "told"),
    [
        pytest.param("none", "request PKCS #10 PEM", id="no request"),
        pytest.param(damaged(OwnKey().request()), "request", id="a signature that is not the key's"),
        pytest.param(csr(ec.generate_private_key(ec.SECP384R1())), "request P-256", id="another curve"),
        pytest.param(csr(rsa.generate_private_key(65537, 2048)), "request P-256", id="another kind of key"),
    ],
)
def test_requests_that_are_refused(request_: str, told: str) -> None:
    with pytest.raises(Invalid, match=telling(told)):
        read_request(request_)


def test_a_request_is_for_the_key_that_it_holds() -> None:
    key = OwnKey()
    assert read_request(key.request()).public_numbers() == key.public.public_numbers()


def test_a_certificate_for_another_key_is_not_taken() -> None:
    key, other = OwnKey(), OwnKey()
    with pytest.raises(Invalid, match="certificate"):
        key.load_into(server_context(), OURS.sign(other.public, NAME, 60.0))
    with pytest.raises(Invalid, match="authority"):
        client_context("none")
