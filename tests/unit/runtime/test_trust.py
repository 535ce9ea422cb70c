"""Private authorities beside those that this machine trusts."""

from __future__ import annotations

import ssl
from pathlib import Path

import httpx
import pytest
from tests.certificates import Authority
from tests.stores.outside import tls_before
from tests.stores.web_server import FolderServer, serving

from penstock_operator.clients import connections
from penstock_operator.clients.bounds import Bounds
from penstock_operator.clients.exchange import BoundedClient
from penstock_runtime.trust import CA_VARIABLES, trust_named_authorities

BOUNDS = Bounds(seconds=60.0, most_bytes=1000)


def names(bundle: str) -> set[str]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(bundle)
    return {each["subject"][0][0][1] for each in context.get_ca_certs()}


def write(path: Path, *names_: str) -> str:
    path.write_bytes(b"".join(Authority(name).pem for name in names_))
    return str(path)


def test_what_is_named_is_trusted_beside_the_machines_own_by_every_library(tmp_path: Path) -> None:
    environment = {
        "SSL_CERT_FILE": write(tmp_path / "own.pem", "public"), "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "PENSTOCK_TRUSTED_CA": write(tmp_path / "ca.pem", "first", "second"),
    }  # fmt: skip
    trust_named_authorities(environment)
    (bundle,) = {environment[each] for each in CA_VARIABLES}
    assert names(bundle) == {"public", "first", "second"}


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE"])
def test_what_one_library_was_told_to_trust_stays_trusted(tmp_path: Path, variable: str) -> None:
    environment = {
        variable: write(tmp_path / "one.pem", "company"), "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "PENSTOCK_TRUSTED_CA": write(tmp_path / "ca.pem", "private"),
    }  # fmt: skip
    trust_named_authorities(environment)
    assert names(environment[variable]) > {"company", "private"}


@pytest.mark.parametrize("letters", ["utf-8", "latin-1"])
def test_a_bundle_may_name_its_authorities_in_any_letters(tmp_path: Path, letters: str) -> None:
    (tmp_path / "ca.pem").write_bytes("# Tanúsítvány\n".encode(letters) + Authority("private").pem)
    environment = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "PENSTOCK_TRUSTED_CA": str(tmp_path / "ca.pem")}
    trust_named_authorities(environment)
    assert "private" in names(environment["SSL_CERT_FILE"])


def test_a_process_that_another_started_goes_by_the_same_file(tmp_path: Path) -> None:
    environment = {
        "SSL_CERT_FILE": write(tmp_path / "own.pem", "public"), "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "PENSTOCK_TRUSTED_CA": write(tmp_path / "ca.pem", "private"),
    }  # fmt: skip
    trust_named_authorities(environment)
    of_the_first = dict(environment)
    trust_named_authorities(environment)
    assert environment == of_the_first


def test_a_machine_that_says_nothing_has_its_usual_authorities(tmp_path: Path) -> None:
    environment = {
        "XDG_CACHE_HOME": str(tmp_path / "cache"), "PENSTOCK_TRUSTED_CA": write(tmp_path / "ca.pem", "private"),
    }  # fmt: skip
    trust_named_authorities(environment)
    assert names(environment["SSL_CERT_FILE"]) > {"private"}


@pytest.mark.parametrize(
    "content", [None, "no certificate", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_what_cannot_be_used_is_left_out_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: str | None
) -> None:
    named = tmp_path / "ca.pem"
    if content is not None:
        named.write_text(content)
    environment = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "PENSTOCK_TRUSTED_CA": str(named), "SSL_CERT_FILE": "own"}
    before = dict(environment)
    trust_named_authorities(environment)
    assert environment == before
    assert str(named) in caplog.text


def test_a_ray_cluster_of_somebody_elses_may_have_its_certificate_from_there_and_is_asked_past_every_proxy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority()
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    (tmp_path / "version").write_text("2")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    with serving(FolderServer(tmp_path)) as server, tls_before(server.server_port, authority, "ray", tmp_path) as port:

        def ask() -> int:
            connections._trust_authorities.cache_clear()
            client = BoundedClient(f"https://127.0.0.1:{port}", {})
            try:
                return client.exchange("GET", "/version", BOUNDS).status
            finally:
                client.close()
                connections._trust_authorities.cache_clear()

        with pytest.raises(httpx.HTTPError, match=r"(?i)certificate.verify.failed"):
            ask()
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        assert ask() == 200
