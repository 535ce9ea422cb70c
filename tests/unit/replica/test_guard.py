from __future__ import annotations

import pytest

from penstock.routing.shadowing import Shown, shadow_words
from penstock.routing.tokens import former_replica_token, replica_token, word_for
from penstock_serving.replica.front.guard import GatewayGuard

RIGHT = word_for("secret", ("ns", "m"), "u1").encode()


@pytest.mark.parametrize(
    ("shown", "url", "passes"),
    [
        pytest.param(RIGHT, b"/v2/models/m/infer", True, id="its gateway"),
        pytest.param(b"", b"/v2/models/m/infer", False, id="who shows nothing"),
        pytest.param(RIGHT[:-1], b"/v2/models/m/infer", False, id="who shows less"),
        pytest.param(RIGHT.replace(b"ns/", b"other/"), b"/v2/models/m/infer", False, id="who names another namespace"),
        pytest.param(word_for("secret", ("ns", "n"), "u1").encode(), b"/v2", False, id="the gateway, of another model"),
        pytest.param(word_for("secret", ("ns", "m"), "u2").encode(), b"/v2", False, id="of another deployment"),
        pytest.param(b"", b"/metrics", False, id="who would read its metrics"),
        pytest.param(b"", b"/v2/health/live", True, id="who asks whether it lives"),
        pytest.param(b"\xff" * 40, b"/v2", False, id="who shows no text"),
    ],
)
def test_a_replica_lets_in(shown: bytes, url: bytes, *, passes: bool) -> None:
    guard = GatewayGuard("ns", replica_token("secret", "ns", "m", "u1"))
    guard.follow(True)
    assert guard.admits(shown, url) is passes


def test_nothing_is_asked_for_until_every_gateway_shows_it() -> None:
    guard = GatewayGuard("ns", replica_token("secret", "ns", "m", "u1"))
    for showing in (None, True, False):
        if showing is not None:
            guard.follow(showing)
        assert guard.admits(b"", b"/v2") is (showing is not True)


@pytest.mark.parametrize("token", ["", "secret", former_replica_token("secret", "ns", "m")])
def test_a_replica_of_a_former_token_asks_for_nothing(token: str) -> None:
    guard = GatewayGuard("ns", token)
    guard.follow(True)
    assert guard.admits(b"", b"/v2")


@pytest.mark.parametrize(
    ("word", "why"),
    [
        pytest.param(
            shadow_words(replica_token("secret", "ns", "m", "u1"))[Shown.SAMPLED], Shown.SAMPLED, id="a sample"
        ),
        pytest.param(
            shadow_words(replica_token("secret", "ns", "m", "u1"))[Shown.REPLAYED], Shown.REPLAYED, id="replayed"
        ),
        pytest.param(
            shadow_words(replica_token("secret", "ns", "n", "u1"))[Shown.SAMPLED], None, id="of another model"
        ),
        pytest.param("sampled", None, id="who does not know the word"),
        pytest.param(RIGHT.decode(), None, id="who knows the gateway's"),
        pytest.param("", None, id="who says nothing"),
    ],
)
def test_what_another_replica_shows_is_known_by_a_word(word: str, why: Shown | None) -> None:
    guard = GatewayGuard("ns", replica_token("secret", "ns", "m", "u1"))
    assert guard.why_shown(word.encode()) is why


@pytest.mark.parametrize("token", ["", "secret", former_replica_token("secret", "ns", "m")])
def test_a_replica_of_a_former_token_knows_no_such_word(token: str) -> None:
    assert GatewayGuard("ns", token).why_shown(b"") is None
