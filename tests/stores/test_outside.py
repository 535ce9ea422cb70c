"""Stores outside, through a proxy and behind a private authority: each store's own client, and what it is told where it fails."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
from tests.certificates import Authority
from tests.stores.kits import Kit, kit, model_files
from tests.stores.outside import Proxy, proxying, tls_before
from tests.telling import assert_tells

from penstock.api.conditions import Reason
from penstock.errors import Unavailable
from penstock_runtime import downloading
from penstock_runtime.fetching import ModelCacheSettings, fetch_in_child, fetch_into_cache
from penstock_runtime.trust import trust_named_authorities

NAME = "models.example.test"
"""That no resolver knows: only the proxy does."""
KITS = ("S3", "Google Cloud Storage", "a web server", "the Hub", "ModelPack")
NOBODY = "http://user:secret@127.0.0.1:9"
"""A proxy that is not up."""
PAST = "localhost,127.0.0.1,::1,.svc,.cluster.local,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16"
"""As the chart has it."""


@dataclass
class Place:
    """A store that lies outside: reached by a proxy, over TLS."""

    kit: Kit
    proxy: Proxy
    authority: Path

    def outside(self, text: str) -> str:
        """An address of the kit's as it is seen through the proxy."""
        near = self.kit.meddler.address
        return text.replace(f"http://{near}", f"https://{NAME}").replace(near, NAME)

    @property
    def keys(self) -> dict[str, str]:
        """What a Secret holds for it."""
        return {name: self.outside(value) for name, value in self.kit.environment.items()}

    @property
    def environment(self) -> dict[str, str]:
        return {**self.keys, "HTTPS_PROXY": self.proxy.url}

    def put(self) -> str:
        return self.outside(self.kit.put(model_files()))


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Place]]:
    authority = Authority()
    trusted = tmp_path_factory.mktemp("authority") / "private.pem"
    trusted.write_bytes(authority.pem)
    with ExitStack() as stack:
        found = {}
        for name in KITS:
            folder = tmp_path_factory.mktemp("store")
            of = stack.enter_context(kit(name, folder))
            port = stack.enter_context(tls_before(of.meddler.port, authority, NAME, folder / "tls"))
            found[name] = Place(of, stack.enter_context(proxying(port)), trusted)
        yield found


@pytest.fixture(params=KITS)
def place(request: pytest.FixtureRequest, places: dict[str, Place], monkeypatch: pytest.MonkeyPatch) -> Place:
    found = places[request.param]
    found.proxy.refusal = ""
    found.proxy.asked.clear()
    # Pauses take no time here: ours, and those of Google's library.
    monkeypatch.setattr(downloading, "_FIRST_DELAY_SECONDS", 0.01)
    # S3's client pauses by itself, for each of our tries.
    monkeypatch.setattr("penstock_runtime.sources.objects.TRIES", 2)
    monkeypatch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    monkeypatch.setattr("gcsfs.retry.asyncio", SimpleNamespace(sleep=lambda _: asyncio.sleep(0)))
    return found


def fetch(uri: str, environment: dict[str, str], cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    huggingface_hub.close_session()  # it keeps what it read of the environment
    try:
        fetch_into_cache(uri, ModelCacheSettings(cache))[0].close()
    finally:
        huggingface_hub.close_session()


def refused(uri: str, environment: dict[str, str], cache: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    with pytest.raises(Unavailable) as caught:
        fetch(uri, environment, cache, monkeypatch)
    assert caught.value.reason == Reason.STORAGE_UNREACHABLE
    return caught.value.message


def test_a_model_comes_through_the_proxy_by_an_authority_that_the_pod_names(place: Place, tmp_path: Path) -> None:
    """As a replica does it, in the process that fetches. With a Secret, too, which says nothing of authorities."""
    uri = place.put()
    (tmp_path / "secrets" / "store").mkdir(parents=True)
    for name, value in {**place.keys, "hosts": NAME}.items():
        (tmp_path / "secrets" / "store" / name).write_text(value)
    environment = {
        "PATH": os.environ["PATH"], "HOME": str(tmp_path), "PENSTOCK_MODEL_CACHE": str(tmp_path / "cache"),
        "PENSTOCK_CREDENTIALS_ROOT": str(tmp_path / "secrets"), "PENSTOCK_TRUSTED_CA": str(place.authority),
        "HTTPS_PROXY": place.proxy.url,
    }  # fmt: skip
    trust_named_authorities(environment)
    with fetch_in_child(uri, environment, credentials="store") as held:
        assert (held.path / "model.onnx").read_bytes() == b"weights"
    assert set(place.proxy.asked) == {f"CONNECT {NAME}:443"}


def test_an_authority_that_nobody_named_is_refused_with_what_to_do(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = refused(place.put(), place.environment, tmp_path / "cache", monkeypatch)
    assert_tells(said, "certificate trustedCA ca.crt PENSTOCK_TRUSTED_CA")
    assert place.proxy.asked


def test_a_proxy_that_refuses_is_told_of_and_credentials_are_not(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.proxy.refusal = "403 Forbidden"
    said = refused(place.put(), place.environment, tmp_path / "cache", monkeypatch)
    assert_tells(said, "proxy NO_PROXY", place.proxy.url)
    assert "credentials" not in said


def test_a_proxy_that_is_not_up_is_told_of_and_what_needs_none_is_reached_past_it(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    near = {**place.kit.environment, "HTTP_PROXY": NOBODY, "HTTPS_PROXY": NOBODY}
    uri = place.kit.put(model_files())
    said = refused(uri, near, tmp_path / "cache", monkeypatch)
    assert_tells(said, "proxy http://127.0.0.1:9 HTTP_PROXY NO_PROXY")
    assert "secret" not in said
    fetch(uri, {**near, "NO_PROXY": PAST}, tmp_path / "cache", monkeypatch)
