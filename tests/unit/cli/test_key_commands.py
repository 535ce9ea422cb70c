from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from tests.telling import assert_tells
from typer.testing import CliRunner, Result

from penstock.errors import Invalid
from penstock_cli.keys import expiry
from penstock_cli.main import app
from penstock_cli.standalone.state import StateFolder
from penstock_cli.target import open_embedded

Cli = Callable[..., Result]


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Runs a command with a state folder of its own, in which a store is."""
    monkeypatch.setenv("PENSTOCK_STATE_DIR", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    open_embedded(StateFolder(tmp_path)).close()

    def invoke(*arguments: str) -> Result:
        return CliRunner().invoke(app, list(arguments))

    return invoke


def test_a_key_is_shown_once_and_only_its_hash_is_kept(cli: Cli) -> None:
    made = cli("key", "create", "shop", "-d", "digits", "--requests-per-second", "5", "--expires-in", "30d")
    assert made.exit_code == 0, made.output
    secret = made.stdout.strip()
    assert secret.startswith("pk_")
    assert len(secret) == 46
    assert_tells(made.stderr, "no deployment digits default")  # of a name that was misspelt nobody else tells
    kept = cli("get", "apikey", "shop", "-o", "yaml").stdout
    spec = yaml.safe_load(kept)["spec"]
    assert secret not in kept
    assert spec["sha256"] == hashlib.sha256(secret.encode()).hexdigest()
    assert (spec["deployments"], spec["requestsPerSecond"]) == (["digits"], 5)
    row = cli("key", "list").stdout.splitlines()[1]
    assert [row.split()[0], *row.split()[1:3]] == ["shop", "digits", "5"]


def test_two_keys_are_never_the_same_and_a_name_is_taken_once(cli: Cli) -> None:
    first, second = cli("key", "create", "a").stdout, cli("key", "create", "b").stdout
    assert first != second
    again = cli("key", "create", "a")
    assert isinstance(again.exception, Invalid)
    assert_tells(again.exception.message, "APIKey a namespace default")
    assert cli("key", "delete", "a", "b").stdout == "apikey/a deleted\napikey/b deleted\n"
    assert "No apikeys found" in cli("key", "list").output


def test_as_yaml_nothing_is_applied_and_the_key_is_no_part_of_it(cli: Cli) -> None:
    made = cli("key", "create", "shop", "-o", "yaml")
    document = yaml.safe_load(made.stdout)
    assert (document["kind"], document["metadata"]) == ("APIKey", {"name": "shop", "namespace": "default"})
    secret = made.stderr.split()[-1]
    assert document["spec"] == {"sha256": hashlib.sha256(secret.encode()).hexdigest()}
    assert "No apikeys found" in cli("key", "list").output


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["Shop"], "RFC 1123"),
        (["shop", "--expires-in", "soon"], "such as 30d"),
        (["shop", "--expires-in", "0d"], "such as 30d"),
        (["shop", "--expires-in", "999999w"], "after the year"),
    ],
    ids=["a name that is none", "no number", "no time at all", "after the end of time"],
)
def test_what_is_refused_shows_no_key(cli: Cli, arguments: list[str], says: str) -> None:
    refused = cli("key", "create", *arguments)
    assert isinstance(refused.exception, Invalid)
    assert says in refused.exception.message
    assert "pk_" not in refused.output


@pytest.mark.parametrize(
    ("lifetime", "end"),
    [
        ("90s", "2027-01-01T00:01:30Z"),
        ("5m", "2027-01-01T00:05:00Z"),
        ("12h", "2027-01-01T12:00:00Z"),
        ("30d", "2027-01-31T00:00:00Z"),
        ("2w", "2027-01-15T00:00:00Z"),
    ],
)
def test_lifetimes(lifetime: str, end: str) -> None:
    assert expiry(lifetime, datetime(2027, 1, 1, tzinfo=UTC)) == end
