"""A replica whose model lies in a store: credentials, the node's cache, and what stays in its process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.integration.replica_process import ReplicaProcess, document, failure, save_linear
from tests.stores.kits import Kit, kit
from tests.telling import assert_tells

from penstock.api.conditions import Reason
from penstock.serving.control import Ready
from penstock.serving.mounts import CACHE_VARIABLE, CLAIMS_VARIABLE, CREDENTIALS_VARIABLE

ROWS = np.ones((1, 64), np.float32)
LIBRARIES = {"fsspec", "s3fs", "aiobotocore", "gcsfs", "huggingface_hub", "oras", "requests"}


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kit]:
    with kit("S3", tmp_path_factory.mktemp("s3")) as found:
        yield found


@pytest.fixture
def uri(s3: Kit, tmp_path: Path) -> str:
    return s3.put({"model.onnx": save_linear(tmp_path / "model.onnx").read_bytes()}) + "/model.onnx"


@pytest.fixture
def node(s3: Kit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a node mounts: a Secret with the store's credentials, and a cache."""
    secret = tmp_path / "secrets" / "model-credentials"
    # As the kubelet lays a Secret out: the keys are links into a folder of the present version.
    (secret / "..2026_01_01").mkdir(parents=True)
    (secret / "..data").symlink_to("..2026_01_01")
    for name, value in s3.environment.items():
        (secret / "..2026_01_01" / name).write_text(value + "\n")
        (secret / name).symlink_to(f"..data/{name}")
        monkeypatch.delenv(name, raising=False)
    # Where the store is may be told to all.
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.environment["AWS_ENDPOINT_URL"])
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    (tmp_path / "claims" / "models" / "digits").mkdir(parents=True)
    monkeypatch.setenv(CREDENTIALS_VARIABLE, str(tmp_path / "secrets"))
    monkeypatch.setenv(CLAIMS_VARIABLE, str(tmp_path / "claims"))
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path


def test_two_replicas_of_a_node_serve_after_one_download_and_hold_no_credentials(s3: Kit, uri: str, node: Path) -> None:
    s3.meddler.behave()
    first = ReplicaProcess({}, storage_uri=uri, credentials="model-credentials")
    fetched = s3.meddler.sent_bytes
    second = ReplicaProcess({}, storage_uri=uri, credentials="model-credentials")
    try:
        for each in (first, second):
            assert isinstance(each.event, Ready), each.event
            assert each.infer(document(ROWS)).status_code == 200
            environment = Path(f"/proc/{each.process.pid}/environ").read_text()
            assert s3.environment["AWS_SECRET_ACCESS_KEY"] not in environment
        size = (node / "model.onnx").stat().st_size
        assert fetched >= size
        assert s3.meddler.sent_bytes - fetched < size
    finally:
        logs = [first.close(), second.close()]
    assert not any(s3.environment["AWS_SECRET_ACCESS_KEY"] in log for log in logs)


@pytest.mark.parametrize(
    ("secret", "reason", "facts"),
    [
        ("another", Reason.SECRET_NOT_FOUND, "'another' managed.credentials"),
        ("../secrets/model-credentials", Reason.SECRET_NOT_FOUND, "not mounted node"),
        (None, Reason.STORAGE_DENIED, "credentials model.credentialsSecretRef"),
    ],
    ids=["a Secret that the pool does not list", "a path in place of a name", "none"],
)
@pytest.mark.usefixtures("node")
def test_without_the_right_secret_a_replica_says_what_to_do(
    uri: str, secret: str | None, reason: Reason, facts: str
) -> None:
    event = failure(storage_uri=uri, credentials=secret)
    assert event.reason == reason
    assert_tells(event.message, facts)


@pytest.mark.parametrize(
    ("uri", "facts"),
    [
        ("pvc://models/digits/2", "nothing digits/2 claim 'models'"),
        ("pvc://others/digits/1", "'others' managed.modelClaims"),
        ("pvc://models/out/model.onnx", "out claim"),
    ],
    ids=["a path that is not there", "a claim that is not mounted", "a link out of the claim"],
)
def test_a_claim_that_has_no_model_says_what_to_do(node: Path, uri: str, facts: str) -> None:
    (node / "claims" / "models" / "out").symlink_to(node)
    save_linear(node / "model.onnx")
    event = failure(storage_uri=uri)
    assert event.reason == Reason.MODEL_NOT_FOUND
    assert_tells(event.message, facts)


def test_a_model_on_a_claim_serves_from_where_it_is(node: Path) -> None:
    save_linear(node / "claims" / "models" / "digits" / "model.onnx")
    started = ReplicaProcess({}, storage_uri="pvc://models/digits")
    try:
        assert isinstance(started.event, Ready), started.event
        assert not (node / "cache").exists()
    finally:
        started.close()


def test_a_killed_replica_takes_its_download_with_it(s3: Kit, node: Path, uri: str) -> None:
    s3.put({"model.onnx": os.urandom(3_000_000)}, replacing=uri.removesuffix("/model.onnx"))
    s3.meddler.behave()
    s3.meddler.hold(after=1_000_000)
    program = "import sys, penstock_runtime.fetching as f, os; f.fetch_in_child(sys.argv[1], os.environ, None, 'model-credentials')"
    process = subprocess.Popen([sys.executable, "-c", program, uri])
    while not s3.meddler.holding:
        assert process.poll() is None
        time.sleep(0.02)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(children) == 1
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    deadline = time.monotonic() + 10
    while Path(f"/proc/{children[0]}/cmdline").exists() and Path(f"/proc/{children[0]}/cmdline").read_bytes():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    s3.meddler.behave()
    assert node.exists()


def test_a_replica_imports_no_stores_library_and_no_type_of_the_api() -> None:
    program = "import sys, penstock_serving.replica.process; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    imported = set(done.stdout.split())
    assert {name.split(".")[0] for name in imported} & LIBRARIES == set()
    assert not {"penstock.api.v1alpha1", "penstock.api.optimization"} & imported
