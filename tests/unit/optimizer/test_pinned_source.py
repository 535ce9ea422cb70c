"""What a deployment pins is what is optimized, as it is what is served."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.replica.test_external_weights import save, sha256, with_manifest

from penstock.api.conditions import Reason
from penstock.errors import Invalid
from penstock.serving.manifest import ModelFormat
from penstock_optimizer.search.preparation import check_digest
from penstock_runtime.digests import digest_of


def test_a_model_of_the_digest_is_taken(tmp_path: Path) -> None:
    path = save(tmp_path / "plain", 1)
    check_digest(path.parent, digest_of(path, ModelFormat.ONNX).value)
    folder = with_manifest(save(tmp_path / "listed", 1))
    check_digest(folder, sha256(folder / "manifest.json"))


@pytest.mark.parametrize("listed", [False, True], ids=["beside the model", "in a folder with a manifest"])
def test_one_whose_weights_were_swapped_is_refused(tmp_path: Path, *, listed: bool) -> None:
    path = save(tmp_path, 1)
    digest = sha256(with_manifest(path) / "manifest.json") if listed else digest_of(path, ModelFormat.ONNX).value
    save(tmp_path, 2)
    with pytest.raises(Invalid, match=digest) as caught:
        check_digest(tmp_path, digest)
    assert caught.value.reason == Reason.DIGEST_MISMATCH
