"""Samples: what fits a signature, what is said of what does not, and that splits share nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.telling import Telling, telling

from penstock.errors import Invalid
from penstock.optimization.variants import DataSplits, PreparedSource
from penstock.serving.manifest import DataType, ModelFormat, Signature, TensorSpec
from penstock_optimizer.samples.arrays import batches, check_samples, make_samples, rows_of_run, sample_axes
from penstock_optimizer.samples.data import prepare_data, read_splits

IMAGES = Signature(
    inputs=(TensorSpec(name="image", datatype=DataType.FP32, shape=(-1, 1, 4, 4)),),
    outputs=(TensorSpec(name="logits", datatype=DataType.FP32, shape=(-1, 10)),),
)
TEXT = Signature(
    inputs=(
        TensorSpec(name="input_ids", datatype=DataType.INT64, shape=(-1, -1)),
        TensorSpec(name="attention_mask", datatype=DataType.INT64, shape=(-1, -1)),
        TensorSpec(name="token_type_ids", datatype=DataType.INT64, shape=(-1, -1)),
    ),
    outputs=(TensorSpec(name="embedding", datatype=DataType.FP32, shape=(-1, 8)),),
)


def source(signature: Signature) -> PreparedSource:
    return PreparedSource(
        name="m", digest="sha256:0", format=ModelFormat.ONNX, signature=signature, onnx="model.onnx", parameters=1,
        size_bytes=4, files={},
    )  # fmt: skip


def pictures(count: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).random((count, 1, 4, 4), dtype=np.float32)


def prepared(uri: Path | None, output: Path, *, signature: Signature = IMAGES, most: int = 1000) -> DataSplits:
    return prepare_data(None if uri is None else str(uri), source(signature), output, max_samples=most, seed=3)


def inputs(splits: DataSplits) -> dict[str, set[bytes]]:
    """The images of each split."""
    found = {}
    for name in ("calibration", "train", "validation", "test"):
        if (path := getattr(splits, name)) is not None:
            with np.load(path) as archive:
                found[name] = {image.tobytes() for image in archive["image"]}
    return found


def test_a_lone_file_is_split_without_overlap_and_alike_each_time(tmp_path: Path) -> None:
    np.savez(tmp_path / "all.npz", image=pictures(200), labels=np.arange(200) % 10)
    first = prepared(tmp_path / "all.npz", tmp_path / "one")
    again = prepared(tmp_path / "all.npz", tmp_path / "two")
    assert first.samples == {"calibration": 20, "train": 60, "validation": 40, "test": 80}
    assert (first.digest, first.labelled, first.synthetic) == (again.digest, True, False)
    parts = inputs(first)
    assert sum(len(part) for part in parts.values()) == 200 == len(set().union(*parts.values()))
    assert inputs(again) == parts


def test_a_uri_is_fetched(tmp_path: Path) -> None:
    np.savez(tmp_path / "all.npz", image=pictures(40))
    for number, uri in enumerate([f"file://{tmp_path}/all.npz", f"local://{tmp_path}/all.npz"]):
        splits = prepare_data(uri, source(IMAGES), tmp_path / f"out{number}", max_samples=9, seed=0)
        assert splits.samples["test"] == 9


def test_labels_stay_with_their_images(tmp_path: Path) -> None:
    images = pictures(50)
    np.savez(tmp_path / "all.npz", image=images, labels=np.arange(50))
    with np.load(prepared(tmp_path / "all.npz", tmp_path / "out").test) as test:
        for image, label in zip(test["image"], test["labels"], strict=True):
            np.testing.assert_array_equal(image, images[label])


def test_a_sample_that_stands_in_two_files_stays_in_the_test_split_only(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    np.savez(folder / "test.npz", image=pictures(20))
    np.savez(folder / "train.npz", image=np.concatenate([pictures(20)[:5], pictures(30, seed=1)]))
    np.savez(folder / "calibration.npz", image=pictures(10, seed=2))
    splits = prepared(folder, tmp_path / "out")
    assert splits.samples == {"calibration": 10, "train": 30, "test": 20}
    assert splits.validation is None
    assert Telling("5 train another split") in splits.notes
    assert Telling("no validation") in splits.notes


def test_a_folder_without_calibration_gets_some_of_its_train_split(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    np.savez(folder / "test.npz", image=pictures(20))
    np.savez(folder / "train.npz", image=pictures(50, seed=1))
    splits = prepared(folder, tmp_path / "out")
    assert splits.samples == {"calibration": 10, "train": 40, "test": 20}
    assert not set.intersection(*inputs(splits).values())


def test_the_same_image_twice_in_a_file_is_one_sample(tmp_path: Path) -> None:
    np.savez(tmp_path / "all.npz", image=np.concatenate([pictures(40), pictures(40)[:7]]))
    splits = prepared(tmp_path / "all.npz", tmp_path / "out")
    assert sum(splits.samples.values()) == 40
    assert Telling("7 of 47") in splits.notes


def test_no_more_are_evaluated_than_asked_for(tmp_path: Path) -> None:
    np.savez(tmp_path / "all.npz", image=pictures(200))
    splits = prepared(tmp_path / "all.npz", tmp_path / "out", most=25)
    assert (splits.samples["validation"], splits.samples["test"]) == (25, 25)


def test_what_is_prepared_is_taken_as_it_is(tmp_path: Path) -> None:
    first = prepared(None, tmp_path / "out")
    assert prepared(tmp_path / "no such file", tmp_path / "out") == first == read_splits(tmp_path / "out")
    assert first.synthetic
    assert [path.name for path in tmp_path.iterdir()] == ["out"], "no scratch folder is left"


def test_text_without_data_needs_an_example_shape(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=telling("'input_ids' axes open")):
        prepared(None, tmp_path / "out", signature=TEXT)
    shapes = {spec.name: (1, 16) for spec in TEXT.inputs}
    splits = prepare_data(None, source(TEXT), tmp_path / "out", max_samples=50, seed=0, example_shapes=shapes)
    with np.load(splits.test) as test:
        assert test["input_ids"].shape == (50, 16)
        assert 0 <= test["input_ids"].min() <= test["input_ids"].max() < 1000
        assert (test["attention_mask"] == 1).all()
        assert (test["token_type_ids"] == 0).all()


@pytest.mark.parametrize(
    ("arrays", "facts"),
    [
        pytest.param({"picture": pictures(9)}, "'picture' 'image'", id="a wrong name"),
        pytest.param({"image": pictures(9), "x": pictures(9)}, "'image' 'x'", id="an array too many"),
        pytest.param({"image": pictures(9)[:, 0]}, "'image' (9, 4, 4) (samples, 1, 4, 4)", id="an axis too few"),
        pytest.param({"image": pictures(9).astype(np.float64)}, "'image' float64 float32 astype", id="a wrong type"),
        pytest.param({"image": pictures(9) * np.float32(np.nan)}, "'image' not finite", id="a value that is no number"),
        pytest.param({"image": pictures(9), "labels": np.arange(8)}, "'image' 9 'labels' 8", id="fewer labels than samples"),
        pytest.param({"image": pictures(9), "labels": np.arange(9) * 1j}, "'labels' numbers strings", id="complex labels"),
        pytest.param({"image": pictures(0)}, "'image' 0", id="no samples"),
    ],
)  # fmt: skip
def test_arrays_that_do_not_fit_are_named(arrays: dict[str, NDArray[np.float32]], facts: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "mine.npz", **arrays)  # type: ignore[arg-type]  # numpy's stub takes allow_pickle for an array
    with pytest.raises(Invalid, match=telling(facts)) as caught:
        prepared(tmp_path / "mine.npz", tmp_path / "out")
    assert "mine.npz" in caught.value.message


def test_pickled_objects_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "mine.npz", image=np.array([{"a": 1}], dtype=object))
    with pytest.raises(Invalid, match=telling("mine.npz plain arrays")):
        prepared(tmp_path / "mine.npz", tmp_path / "out")


@pytest.mark.parametrize(
    ("files", "facts"),
    [
        pytest.param({}, "no test.npz", id="an empty folder"),
        pytest.param({"a": 9, "b": 9}, "no test.npz", id="two files of other names"),
        pytest.param({"test": 9, "train": -9}, "all train.npz", id="a train split that is the test split"),
    ],
)
def test_folders_that_cannot_be_split(files: dict[str, int], facts: str, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    for name, count in files.items():
        np.savez(folder / f"{name}.npz", image=pictures(abs(count), seed=0))
    with pytest.raises(Invalid, match=telling(facts)):
        prepared(folder, tmp_path / "out")


def test_nothing_at_the_path_is_said(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="DataNotFound"):
        prepared(tmp_path / "gone.npz", tmp_path / "out")


def test_batches_of_a_fixed_model_are_filled_up_and_say_how_many_rows_count() -> None:
    fixed = IMAGES.model_copy(
        update={"inputs": (TensorSpec(name="image", datatype=DataType.FP32, shape=(4, 1, 4, 4)),)}
    )
    found = list(batches({"image": pictures(6)}, fixed, 32))
    assert [(rows, batch["image"].shape[0]) for rows, batch in found] == [(4, 4), (2, 4)]
    found = list(batches({"image": pictures(6)}, IMAGES, 4))
    assert [(rows, batch["image"].shape[0]) for rows, batch in found] == [(4, 4), (2, 2)]


def test_strings_reach_the_engine_as_bytes() -> None:
    words = Signature(inputs=(TensorSpec(name="word", datatype=DataType.BYTES, shape=(-1,)),), outputs=IMAGES.outputs)
    samples = check_samples({"word": np.array(["a", "ü"])}, words, "f.npz")
    ((_, batch),) = batches(samples, words, 8)
    assert batch["word"].tolist() == [b"a", "ü".encode()]
    with pytest.raises(Invalid, match="takes strings"):
        make_samples(words, {}, 8, 1000, 0)


def test_where_nothing_is_trained_a_lone_file_goes_to_the_test_split(tmp_path: Path) -> None:
    np.savez(tmp_path / "all.npz", image=pictures(100))
    for training, tested in ((True, 40), (False, 70)):
        out = tmp_path / f"out-{training}"
        found = prepare_data(str(tmp_path / "all.npz"), source(IMAGES), out, max_samples=100, seed=0, training=training)
        assert found.samples["test"] == tested
        assert (found.train is not None) is training


def signature_of(**shapes: tuple[int, ...]) -> Signature:
    return Signature(
        inputs=tuple(TensorSpec(name=name, datatype=DataType.FP32, shape=shape) for name, shape in shapes.items()),
        outputs=(TensorSpec(name="y", datatype=DataType.FP32, shape=(-1, 1)),),
    )


VOICE = signature_of(frame=(-1, 16), state=(2, -1, 8))
AXES: dict[str, tuple[Signature, dict[str, int | None], int, dict[str, tuple[int, ...]]]] = {
    "an open first axis": (IMAGES, {"image": 0}, 32, {"image": (32, 1, 4, 4)}),
    "a fixed first axis": (signature_of(x=(4, 2)), {"x": 0}, 4, {"x": (4, 2)}),
    "a state with the batch on its second axis": (
        VOICE, {"frame": 0, "state": 1}, 1, {"frame": (1, 16), "state": (2, 1, 8)},
    ),
    "a scalar beside": (signature_of(x=(-1, 3), rate=()), {"x": 0, "rate": None}, 1, {"x": (1, 3), "rate": ()}),
    "a whole tensor beside": (signature_of(x=(-1, 3), w=(5, 4)), {"x": 0, "w": None}, 1, {"x": (1, 3), "w": (5, 4)}),
}  # fmt: skip


@pytest.mark.parametrize(("signature", "axes", "rows", "shapes"), AXES.values(), ids=AXES)
def test_samples_are_stacked_where_the_model_counts_them(
    signature: Signature, axes: dict[str, int | None], rows: int, shapes: dict[str, tuple[int, ...]]
) -> None:
    assert sample_axes(signature) == axes
    assert rows_of_run(signature, 32) == rows
    samples = make_samples(signature, {}, most=40, most_bytes=1 << 20, seed=0)
    assert check_samples(samples, signature, "made") is samples
    count, feed = next(batches(samples, signature, 32))
    assert count == rows
    assert {name: array.shape for name, array in feed.items()} == shapes
    for name, axis in axes.items():
        first = feed[name] if axis is None else np.take(feed[name], 0, axis)
        assert np.array_equal(first, samples[name][0])


@pytest.mark.parametrize(
    "example", [(2, 8), (2, 1, 8), (1, 8)], ids=["a sample", "the whole", "without the first axis"]
)
def test_an_example_shape_may_be_told_in_three_ways(example: tuple[int, ...]) -> None:
    samples = make_samples(VOICE, {"state": example}, most=8, most_bytes=1 << 20, seed=0)
    assert samples["state"].shape == (8, 2, 8)
