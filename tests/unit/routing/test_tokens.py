from __future__ import annotations

import pytest

from penstock.routing.tokens import (
    TokenSubject,
    admin_token,
    authority_seed,
    data_token,
    former_admin_token,
    former_replica_token,
    may_be_former,
    replica_token,
    secret_digest,
    subject_of,
)

TOKEN = replica_token("secret", "ns", "m", "u1")


def test_a_token_says_whose_it_is() -> None:
    assert subject_of("secret", TOKEN) == TokenSubject("ns", "m", "u1")
    assert subject_of("secret", replica_token("secret", "ns", "m")) == TokenSubject("ns", "m")


@pytest.mark.parametrize(
    "token",
    [
        pytest.param("not-a-token", id="nothing like it"),
        pytest.param("", id="nothing"),
        pytest.param("r1/ns/m/u1/" + "0" * 64, id="another signature"),
        pytest.param(TOKEN.replace("/m/", "/other/"), id="another model"),
        pytest.param(TOKEN.replace("/ns/", "/other/"), id="another namespace"),
        pytest.param(TOKEN.replace("/u1/", "/u2/"), id="another deployment of the same name"),
        pytest.param(TOKEN.replace("/u1/", "//"), id="no deployment"),
        pytest.param(replica_token("other", "ns", "m", "u1"), id="another secret"),
        pytest.param(TOKEN + "/", id="one part more"),
        pytest.param("r1/" + "x" * 5000, id="far too long"),
        pytest.param(TOKEN.upper(), id="capitals"),
        pytest.param("r1/é/m/u1/" + "é" * 64, id="no ASCII"),
        pytest.param(former_replica_token("secret", "ns", "m"), id="a former release's"),
        pytest.param(admin_token("secret"), id="the operator's"),
    ],
)
def test_no_token_is(token: str) -> None:
    assert subject_of("secret", token) is None


def test_no_token_of_one_purpose_is_worth_anything_to_another() -> None:
    made = [
        *(each("secret", "ns", "m") for each in (replica_token, former_replica_token)),
        replica_token("secret", "ns", "m", "u1"),
        data_token(replica_token("secret", "ns", "m")),
        data_token(TOKEN),
        admin_token("secret"),
        former_admin_token("secret"),
    ]
    assert len({token.rsplit("/", 1)[-1][:32] for token in made}) == len(made)


def test_a_digest_tells_whether_two_secrets_are_one_and_nothing_of_them() -> None:
    shown = secret_digest("secret")
    assert shown == secret_digest("secret") != secret_digest("secret ")
    assert len(shown) == 12
    assert not any(shown in token for token in (admin_token("secret"), TOKEN, authority_seed("secret").hex()))


def test_only_a_former_token_is_looked_at_with_its_body() -> None:
    assert may_be_former(former_replica_token("secret", "ns", "m"))
    assert not any(may_be_former(each) for each in ("not-a-token", TOKEN, "G" * 64, "0" * 63, "٣" * 64))
