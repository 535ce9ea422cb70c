"""Of a folder with versions below it the one that is named is the model, wherever the folder lies."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.telling import telling

from penstock.api.conditions import Reason
from penstock.errors import Invalid
from penstock.serving.manifest import MANIFEST_NAME, ModelFormat
from penstock.serving.mounts import CLAIMS_VARIABLE
from penstock.serving.versions import Wanted, version_folder
from penstock_runtime.files import resolve_version
from penstock_runtime.local_models import find_local
from penstock_serving.replica.model.location import locate


def wanted(version: str) -> Wanted:
    return Wanted(version=version, suffixes=(".onnx",))


@pytest.mark.parametrize(
    ("files", "folders", "version", "found"),
    [
        ([], ["1", "2"], "2", "2"),
        (["config.pbtxt", "labels.txt"], ["1"], "1", "1"),
        ([], ["2026-03.b"], "2026-03.b", "2026-03.b"),
        (["model.onnx"], ["1"], "1", None),
        ([MANIFEST_NAME], ["1"], "1", None),
        (["model.bin"], [], "1", None),
        ([], [".cache"], "1", None),
    ],
    ids=[
        "the one of that name", "other servers' files beside them", "a name that is no number", "the folder is a model",
        "the folder has a manifest", "no folders", "hidden folders are no versions",
    ],
)  # fmt: skip
def test_which_folder_is_the_model(files: list[str], folders: list[str], version: str, found: str | None) -> None:
    assert version_folder(files, folders, wanted(version), "churn") == found


def test_folders_are_named_where_none_is_of_the_version() -> None:
    with pytest.raises(Invalid, match=telling("version '3' 1, 2, 10")) as caught:
        version_folder([], ["10", "2", "1"], wanted("3"), "churn")
    assert caught.value.reason == Reason.MODEL_NOT_FOUND
    with pytest.raises(Invalid, match=telling(".onnx folders 12 more")):
        version_folder([], map(str, range(20)), wanted(""), "churn")


@pytest.fixture
def churn(tmp_path: Path) -> Path:
    for version in ("1", "2"):
        (tmp_path / "churn" / version).mkdir(parents=True)
        (tmp_path / "churn" / version / "model.onnx").write_bytes(version.encode())
    return tmp_path / "churn"


def test_a_replica_serves_the_version(churn: Path) -> None:
    assert locate(churn, ModelFormat.ONNX, "2").entrypoint == churn / "2" / "model.onnx"
    with pytest.raises(Invalid, match=telling("version '3' 1, 2")):
        locate(churn, ModelFormat.ONNX, "3")


def test_a_version_that_leads_out_is_refused(churn: Path) -> None:
    (churn / "3").symlink_to(churn.parent)
    with pytest.raises(Invalid, match=telling("3 link folder")):
        resolve_version(churn, wanted("3"))


@pytest.mark.parametrize("uri", ["pvc://churn", "pvc://churn/"])
def test_all_of_a_claim_may_be_the_model(churn: Path, uri: str) -> None:
    assert find_local(uri, {CLAIMS_VARIABLE: str(churn.parent)}) == churn
