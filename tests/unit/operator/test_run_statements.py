"""What lies in a run's folder counts only where the run's own driver signed it, for this Job, and is bounded."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from tests.telling import Telling

from penstock.api.optimization import OptimizationProfileSpec, OptimizationRun
from penstock.optimization.progress import PROGRESS_FILE, RESULT_FILE, Progress, RunIdentity, RunResult
from penstock.optimization.report import SearchVerdict
from penstock.optimization.statements import (
    DOMAIN,
    MOST_BYTES,
    SignedStatement,
    Statement,
    digest_of_profile,
    signed_bytes,
)
from penstock.optimization.trials import Stage
from penstock_operator.kinds import OPTIMIZATION_RUN
from penstock_operator.optimization.directory import OptimizationDirectory
from penstock_operator.optimization.job import JobSettings, build, run_folder
from penstock_operator.optimization.keys import RunKeys
from penstock_operator.optimization.observe import RunObserver
from penstock_operator.optimization.observed import ObservedRun
from penstock_operator.pool.clusters import RayClusters
from penstock_operator.pool.directory import PoolDirectory
from penstock_operator.runtime.cluster import JOB, NAMESPACE
from penstock_operator.runtime.cluster.embedded import EmbeddedCluster
from penstock_operator.runtime.jobs import job_status
from penstock_runtime.signing import derive_key, make_keys, pem_of, public_key, sign_statement, verify_statement
from penstock_runtime.storage import Store

PROFILE = OptimizationProfileSpec()
OTHER_PROFILE = OptimizationProfileSpec.model_validate({"search": {"budgetMinutes": 7}})
RESULT = RunResult(verdict=SearchVerdict.ACCEPTED, summary="4.10x faster.")
KEYS = RunKeys("a-secret", "signing")


def a_run(namespace: str = "victim", uid: str = "uid-1") -> OptimizationRun:
    return OptimizationRun.model_validate(
        {
            "metadata": {"name": "digits-1", "namespace": namespace, "uid": uid},
            "spec": {"model": {"storageUri": "s3://m", "modelFormat": "onnx"}, "profileRef": {"name": "balanced"}},
        }
    )


RUN = a_run()


@dataclass
class Place:
    """A run whose Job has ended, and its folder."""

    root: Path
    run: OptimizationRun
    settings: JobSettings
    observe: Callable[[], ObservedRun]

    def key_of(self, run: OptimizationRun | None = None, keys: RunKeys = KEYS) -> Path:
        run = run or self.run
        manifest = keys.manifest(run)
        assert manifest is not None
        file = self.root / f"{run.metadata.namespace}-{run.metadata.uid}.pem"
        file.write_bytes(base64.b64decode(manifest["data"]["key.pem"]))
        return file

    def identity(self, **update: str) -> RunIdentity:
        own = RunIdentity(namespace="victim", run=self.run.metadata.uid, job="digits-1-1")
        return own.model_copy(update=update)

    def statement(self, **update: object) -> Statement:
        return Statement(identity=self.identity(), profile_digest=digest_of_profile(PROFILE), result=RESULT).model_copy(
            update=update
        )

    def write(self, body: bytes, name: str = RESULT_FILE) -> None:
        Store(run_folder(self.settings, self.run)).write(name, body)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    cluster = EmbeddedCluster(tmp_path / "cluster.sqlite")
    settings = JobSettings((tmp_path / "store").as_uri(), "", image="optimizer:1", signing_key_secret="signing")
    cluster.create(NAMESPACE, {"metadata": {"name": "victim"}})
    made = cluster.create(OPTIMIZATION_RUN, a_run().model_dump(mode="json", exclude_none=True))
    run = OptimizationRun.model_validate(made)
    job = cluster.create(JOB, build(run, PROFILE, settings, 1))
    about = {name: job["metadata"][name] for name in ("name", "namespace")}
    cluster.apply_status(JOB, {"metadata": about, "status": job_status.exited_status(job, 0, 1e9)}, "kubelet")
    pools = PoolDirectory(cluster, RayClusters(cluster, None, ""))
    directory = OptimizationDirectory(cluster, available=True)
    observer = RunObserver(cluster, directory, settings, Store, pools, keys=KEYS.public_keys)
    yield Place(tmp_path, run, settings, lambda: observer.observe(run))
    cluster.close()


def test_what_the_run_s_own_driver_signed_counts(place: Place) -> None:
    place.write(sign_statement(place.statement(), place.key_of()))
    progress = Progress(stage=Stage.MEASURE, message="it goes")
    place.write(sign_statement(place.statement(result=None, progress=progress), place.key_of()), PROGRESS_FILE)
    seen = place.observe()
    assert (seen.result, seen.progress, seen.refused) == (RESULT, progress, "")
    assert (seen.public_key,) == KEYS.public_keys(place.run), "replicas will demand the same one's signature"


def test_where_there_is_nothing_nothing_is_refused(place: Place) -> None:
    seen = place.observe()
    assert (seen.result, seen.refused) == (None, "")


def another_run_s_key(place: Place) -> bytes:
    return sign_statement(place.statement(), place.key_of(a_run(uid="uid-2")))


def the_key_of_the_same_uid_in_another_namespace(place: Place) -> bytes:
    return sign_statement(place.statement(), place.key_of(a_run("attacker", place.run.metadata.uid)))


def a_key_from_another_root_secret(place: Place) -> bytes:
    return sign_statement(place.statement(), place.key_of(keys=RunKeys("guessed", "signing")))


def a_key_of_one_s_own(place: Place) -> bytes:
    make_keys(place.root / "own.pem")
    return sign_statement(place.statement(), place.root / "own.pem")


def no_signature_as_before(_: Place) -> bytes:
    return RESULT.model_dump_json().encode()


def an_empty_signature(place: Place) -> bytes:
    return SignedStatement(statement=place.statement().model_dump_json(), signature="").model_dump_json().encode()


def figures_that_were_changed(place: Place) -> bytes:
    return sign_statement(place.statement(), place.key_of()).replace(b"4.10x", b"9.10x")


def one_for_another_namespace(place: Place) -> bytes:
    return sign_statement(place.statement(identity=place.identity(namespace="attacker")), place.key_of())


def one_for_another_run(place: Place) -> bytes:
    return sign_statement(place.statement(identity=place.identity(run="uid-0")), place.key_of())


def an_older_one_of_an_earlier_job(place: Place) -> bytes:
    return sign_statement(place.statement(identity=place.identity(job="digits-1-0")), place.key_of())


def one_for_another_profile(place: Place) -> bytes:
    return sign_statement(place.statement(profile_digest=digest_of_profile(OTHER_PROFILE)), place.key_of())


def one_that_is_too_long(place: Place) -> bytes:
    long = RESULT.model_copy(update={"summary": "x" * MOST_BYTES})
    return sign_statement(place.statement(result=long), place.key_of())


def a_signed_thing_of_another_kind(place: Place) -> bytes:
    key = derive_key("a-secret", f"run-signing/victim/{place.run.metadata.uid}")
    assert public_key(place.key_of()) == pem_of(key)[1]
    text = place.statement().model_dump_json()
    signature = key.sign(text.encode(), ec.ECDSA(hashes.SHA256()))
    return SignedStatement(statement=text, signature=base64.b64encode(signature).decode()).model_dump_json().encode()


@pytest.mark.parametrize(
    ("put", "facts"),
    [
        (another_run_s_key, "not key run"),
        (the_key_of_the_same_uid_in_another_namespace, "not key run"),
        (a_key_from_another_root_secret, "not key run"),
        (a_key_of_one_s_own, "not key run"),
        (no_signature_as_before, "not signed"),
        (an_empty_signature, "not key run"),
        (figures_that_were_changed, "not key run"),
        (one_for_another_namespace, "namespace 'attacker' not 'victim'"),
        (one_for_another_run, "run 'uid-0' not"),
        (an_older_one_of_an_earlier_job, "Job 'digits-1-0' not 'digits-1-1'"),
        (one_for_another_profile, "profile not"),
        (one_that_is_too_long, f"{MOST_BYTES} bytes"),
        (a_signed_thing_of_another_kind, "not key run"),
    ],
    ids=lambda value: value.__name__.replace("_", " ") if callable(value) else "",
)
def test_anything_else_in_its_place_does_not_count(place: Place, put: Callable[[Place], bytes], facts: str) -> None:
    place.write(put(place))
    seen = place.observe()
    assert (seen.result, seen.refused) == (None, Telling(facts))


def test_a_signature_covers_what_it_is_for() -> None:
    assert signed_bytes("{}") == DOMAIN + b"{}"


def test_a_statement_is_verified_by_any_of_the_trusted_keys_and_says_by_which(tmp_path: Path) -> None:
    first, second = make_keys(tmp_path / "1"), make_keys(tmp_path / "2")
    statement = Statement(identity=RunIdentity(namespace="n", run="u", job="j"), profile_digest="d", result=RESULT)
    body = sign_statement(statement, tmp_path / "2")
    assert verify_statement(body, [first, second]) == (statement, second)


def test_the_secret_of_a_run_goes_with_it_and_cannot_be_changed() -> None:
    manifest = KEYS.manifest(RUN)
    assert manifest is not None
    assert (manifest["metadata"]["name"], manifest["immutable"]) == ("digits-1-signing", True)
    assert manifest["metadata"]["ownerReferences"][0]["uid"] == "uid-1"
    assert RunKeys("a-secret", None, ("PEM",)).manifest(RUN) is None, "one machine has its own key already"
