"""The operator's options on optimization: with an artifact store, all that a Job needs must be there."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from tests.telling import telling

from penstock.errors import Invalid
from penstock_operator.command_line import read
from penstock_operator.optimization.job import JobSettings
from penstock_operator.optimization.job_settings import Egress

STORE = ["--artifact-store", "file:///artifacts"]
REFUSED = [
    ("standalone without a key", ["--standalone", "s", *STORE], "--signing-key-file --optimizer-workspace"),
    ("a cluster without an image", STORE, "--gateway-secret-file --optimizer-image"),
    ("a trusted key that is not there", ["--trusted-key-file", "/nonexistent"], "--trusted-key-file /nonexistent"),
]


@pytest.mark.parametrize(("arguments", "facts"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_refused(arguments: list[str], facts: str) -> None:
    with pytest.raises(Invalid, match=telling(facts)):
        read(arguments)


def test_without_a_store_nothing_is_optimized() -> None:
    assert (read([]).jobs, read([]).job_folder) == (None, None)


def test_on_one_machine_a_job_is_a_process_with_this_interpreter(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).write_text(f"key {name}\n")
    trusted = ["--trusted-key-file", str(tmp_path / "a"), "--trusted-key-file", str(tmp_path / "b")]
    key = ["--signing-key-file", "/k", "--optimizer-workspace", "/w"]
    settings = read(["--standalone", str(tmp_path / "store"), *STORE, *trusted, *key])
    assert settings.trusted_keys == ("key a", "key b")
    assert settings.jobs == JobSettings("file:///artifacts", "/k", "/w", python=sys.executable)
    assert settings.job_folder == tmp_path / "jobs"


def test_in_a_cluster_a_job_is_a_pod(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("key")
    pods = [
        "--optimizer-image",
        "i",
        "--optimizer-gpu-image",
        "g",
        "--gateway-secret-file",
        str(tmp_path / "key"),
        "--optimizer-workspace-claim",
        "c",
    ]
    more = [
        "--model-volume",
        "models=/models",
        "--optimizer-env",
        "A=b=c",
        "--optimizer-env-secret",
        "e",
        "--shared-store",
        "--optimizer-no-sandbox",
    ]
    more += ["--artifact-secret", "r", "--optimizer-queue", "q", "--optimizer-egress", "namespace/storage:9000"]
    settings = read([*STORE, "--trusted-key-file", str(tmp_path / "key"), *pods, *more])
    assert settings.jobs == JobSettings(
        "file:///artifacts", "", image="i", gpu_image="g", signing_key_secret="signing", workspace_claim="c",
        model_volumes=(("models", "/models"),), environment=(("A", "b=c"),), environment_secret="e", queue="q", shared_store=True, sandbox=False,
        egress=(Egress(9000, namespace="storage"),),
    )  # fmt: skip
    assert settings.artifact_secret == "r"
    assert settings.pools is not None
    assert settings.pools.artifact_secret == "r"
    assert settings.job_folder is None
