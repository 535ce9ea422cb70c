"""Samples that a deployment names, as requests that can be shown."""

from __future__ import annotations

import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penstock.errors import Invalid
from penstock.routing.outcomes import SampleSource
from penstock.serving.manifest import DataType, Signature, TensorSpec
from penstock_serving.replica.shadow import supplying
from penstock_serving.replica.shadow.supplying import ENOUGH_SAMPLES, MOST_SAMPLES, read_supplied


def signature(*shape: int, datatype: DataType = DataType.FP32) -> Signature:
    return Signature(inputs=(TensorSpec(name="x", datatype=datatype, shape=shape),), outputs=())


def save(path: Path, **arrays: Any) -> SampleSource:
    np.savez(path, **arrays)
    return SampleSource(uri=path.as_uri())


ROWS = np.arange(12.0).reshape(6, 2)


def test_each_row_is_a_request_of_the_models_type_and_each_replica_has_a_part(tmp_path: Path) -> None:
    source = save(tmp_path / "digits.npz", x=ROWS, labels=np.arange(6))
    found = read_supplied(source, signature(-1, 2)).inputs
    assert [each["x"].tolist() for each in found] == [[row.tolist()] for row in ROWS]
    assert {each["x"].dtype for each in found} == {np.dtype(np.float32)}
    parts = [read_supplied(source.model_copy(update={"part": part, "parts": 4}), signature(-1, 2)) for part in range(4)]
    assert [len(each.inputs) for each in parts] == [2, 2, 1, 1]
    assert sorted(each["x"][0, 0] for part in parts for each in part.inputs) == ROWS[:, 0].tolist()


def test_of_a_folder_the_test_split_is_shown_and_so_many_at_most(tmp_path: Path) -> None:
    save(tmp_path / "test.npz", x=np.zeros((MOST_SAMPLES + 9, 2)))
    save(tmp_path / "train.npz", x=np.ones((1, 2)))
    found = read_supplied(SampleSource(uri=f"{tmp_path.as_uri()}/"), signature(1, 2))
    assert (len(found.inputs), found.inputs[0]["x"].sum()) == (MOST_SAMPLES, 0)


@pytest.mark.parametrize(("count", "enough"), [(ENOUGH_SAMPLES - 1, False), (ENOUGH_SAMPLES, True)])
def test_whether_samples_are_enough_is_told_of_all_parts(tmp_path: Path, count: int, *, enough: bool) -> None:
    source = save(tmp_path / "a.npz", x=np.zeros((count, 2))).model_copy(update={"parts": 3})
    assert read_supplied(source, signature(-1, 2)).enough is enough


def test_texts_are_shown_as_texts(tmp_path: Path) -> None:
    source = save(tmp_path / "a.npz", x=np.array([["ä"]]))
    (found,) = read_supplied(source, signature(-1, 1, datatype=DataType.BYTES)).inputs
    assert found["x"].tolist() == [["ä"]]


@pytest.mark.parametrize(
    ("arrays", "wanted", "said"),
    [
        pytest.param({"y": ROWS}, signature(-1, 2), "no arrays by the names of the model's inputs", id="another name"),
        pytest.param(
            {"x": ROWS}, signature(-1, 3), r"have shape \[6, 2\], and the model takes \[-1, 3\]", id="another shape"
        ),
        pytest.param(
            {"x": ROWS}, signature(2), "whose first axes do not count samples", id="a model that takes no rows"
        ),
        pytest.param(
            {"x": np.array([{}], dtype=object)}, signature(-1), "no arrays", id="objects, which would run code"
        ),
    ],
)
def test_what_is_no_such_file_is_refused(tmp_path: Path, arrays: dict[str, Any], wanted: Signature, said: str) -> None:
    with pytest.raises(Invalid, match=said):
        read_supplied(save(tmp_path / "a.npz", **arrays), wanted)


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=r"nothing\.npz"):
        read_supplied(SampleSource(uri=(tmp_path / "nothing.npz").as_uri()), signature(-1, 2))


def test_what_a_store_has_is_fetched_unless_it_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "a.npz", x=ROWS)
    monkeypatch.setenv("PENSTOCK_MODEL_CACHE", str(tmp_path / "cache"))
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        source = SampleSource(uri=f"http://127.0.0.1:{server.server_port}/a.npz")
        monkeypatch.setattr(supplying, "MOST_BYTES", 100)
        with pytest.raises(Invalid, match="are fetched"):
            read_supplied(source, signature(-1, 2))
        assert not any((tmp_path / "cache").rglob("*.npz")), "it would take others' room"
        monkeypatch.undo()
        monkeypatch.setenv("PENSTOCK_MODEL_CACHE", str(tmp_path / "cache"))
        assert len(read_supplied(source, signature(-1, 2)).inputs) == 6
        server.shutdown()
