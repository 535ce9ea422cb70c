"""The user's samples, checked against the model's signature and split; or samples made from the signature.

The folder that is made holds one `.npz` a split, and `data.json` (a `DataSplits` whose paths are relative to it).
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from penstock.errors import Invalid
from penstock.optimization.variants import DataSplits, PreparedSource
from penstock_optimizer.samples.arrays import LABELS, Samples, check_samples, make_samples, read, rows_of, write_arrays
from penstock_runtime.atomic import stage_folder

DATA_FILE: Final = "data.json"
SPLITS: Final = ("calibration", "train", "validation", "test")
INVALID: Final = "DataInvalid"

_KEPT_FIRST: Final = ("test", "validation", "train", "calibration")
"""Which split keeps a sample that stands in several."""
_SHARES: Final = {"calibration": 0.1, "train": 0.3, "validation": 0.2}
"""Of a lone file; the test split gets the rest."""
_TRAIN: Final = "train"
_CALIBRATION_SHARE: Final = 0.2
"""Of a folder's train split, or of another, where it has no calibration split of its own."""
_MOST_CALIBRATION: Final = 1000
_FEWEST: Final = 4
_SYNTHETIC: Final = 640
_SYNTHETIC_BYTES: Final = 256 * 1024 * 1024


@dataclass
class _Splits:
    """The splits while they are put together."""

    arrays: dict[str, Samples]
    synthetic: bool = False
    notes: list[str] = field(default_factory=list)


def prepare_data(
    uri: str | None,
    source: PreparedSource,
    output: Path,
    *,
    max_samples: int,
    seed: int,
    example_shapes: Mapping[str, tuple[int, ...]] | None = None,
    training: bool = True,
) -> DataSplits:
    """Prepare the samples of a search.

    Args:
        uri: a `.npz` file, or a folder with `test.npz` and perhaps `calibration.npz`, `train.npz` and `validation.npz`;
            a local path or an fsspec URI. None: samples are made from the signature.
        source: whose signature the arrays must fit.
        output: the folder to make. One that is there already is taken as it is.
        max_samples: of the validation and of the test split, at most; what a lone file has more goes to the train split.
        seed: of the shuffle, of a lone file's split, and of made samples. The same gives the same splits.
        training: whether anything may be trained. Where nothing is, a lone file's samples go to the test split instead.
        example_shapes: shape by input, with or without the batch axis, for axes that the signature leaves open.

    Returns:
        The splits, with absolute paths.

    Raises:
        Invalid: DataInvalid or DataNotFound: which file, which array, what was found and what is expected; or what the
            storage says.
    """
    if not (output / DATA_FILE).is_file():
        with stage_folder(output) as scratch:
            shares = {name: share for name, share in _SHARES.items() if training or name != _TRAIN}
            splits = (
                _make_splits(source, seed, example_shapes or {})
                if uri is None
                else _load_splits(uri, source, scratch, seed=seed, shares=shares)
            )
            _drop_shared(splits)
            _cap(splits, max_samples)
            _write(splits, scratch)
    return read_splits(output)


def read_splits(folder: Path) -> DataSplits:
    """What `prepare_data` left in a folder, with absolute paths."""
    splits = DataSplits.model_validate_json((folder / DATA_FILE).read_bytes())
    paths = {name: str(folder.resolve() / found) for name in SPLITS if (found := getattr(splits, name)) is not None}
    return splits.model_copy(update=paths)


def _make_splits(source: PreparedSource, seed: int, example_shapes: Mapping[str, tuple[int, ...]]) -> _Splits:
    if source.unsuited is not None:
        names = ", ".join(f"'{spec.name}'" for spec in source.signature.inputs)
        raise Invalid(
            "DataNeeded",
            f"no data was given, and samples that were made up do not suit the model ({source.unsuited}): give --data, a .npz"
            f" file (in a profile: data.storageUri) with {names} whose first axes count samples",
        )
    samples = make_samples(source.signature, example_shapes, _SYNTHETIC, _SYNTHETIC_BYTES, seed, rows=source.vocabulary)
    note = "no data was given: samples were made from the signature, which show speed and agreement, not accuracy"
    return _Splits(_divide(samples, seed, {"calibration": 0.15, "validation": 0.15}), synthetic=True, notes=[note])


def _load_splits(uri: str, source: PreparedSource, cache: Path, *, seed: int, shares: Mapping[str, float]) -> _Splits:
    path = _locate(uri, cache)
    if path.is_dir():
        files = {file.stem: file for file in sorted(path.glob("*.npz"))}
        unknown = sorted(set(files) - set(SPLITS))
        if "test" in files:
            return _split_folder({name: files[name] for name in SPLITS if name in files}, source, seed)
        if len(files) != 1 or not unknown:
            raise Invalid(INVALID, f"{uri} has no test.npz: a folder of samples needs it, or holds a single .npz file")
        path = files[unknown[0]]
    if not path.is_file():
        raise Invalid("DataNotFound", f"there is nothing at {uri}: name a .npz file or a folder of them")
    return _split_file(path, source, seed, shares)


def _locate(uri: str, cache: Path) -> Path:
    if "://" not in uri:
        return Path(uri).expanduser()
    from penstock_runtime.storage import fetch  # noqa: PLC0415 -- fsspec is loaded only where a URI is given

    return fetch(uri, cache / "fetched")


def _split_file(path: Path, source: PreparedSource, seed: int, shares: Mapping[str, float]) -> _Splits:
    samples = check_samples(read(path), source.signature, path.name)
    keys = _keys(samples)
    _, first = np.unique(keys, return_index=True)
    splits = _Splits({})
    if len(first) < len(keys):
        splits.notes.append(
            f"{len(keys) - len(first)} of {len(keys)} samples of {path.name} stood there twice: dropped"
        )
        samples = rows_of(samples, np.sort(first))
    count = len(first)
    if count < _FEWEST:
        raise Invalid(
            INVALID, f"{path.name} has {count} different samples: at least {_FEWEST} are needed to split them"
        )
    splits.arrays = _divide(samples, seed, shares)
    splits.notes.append(f"{path.name} was split by seed {seed} into {', '.join(shares)} and test")
    return splits


def _split_folder(files: Mapping[str, Path], source: PreparedSource, seed: int) -> _Splits:
    found = {name: check_samples(read(path), source.signature, path.name) for name, path in files.items()}
    labelled = {name: LABELS in samples for name, samples in found.items()}
    if labelled["test"] and not labelled.get("validation", True):
        raise Invalid(INVALID, f"test.npz has '{LABELS}' and validation.npz has none: give both or neither")
    splits = _Splits({name: _shuffle(samples, seed) for name, samples in found.items()})
    if "calibration" not in found:
        donor = next(name for name in ("train", "validation", "test") if name in found)
        parts = _divide(found[donor], seed, {"calibration": _CALIBRATION_SHARE}, rest=donor)
        splits.arrays |= parts
        taken = len(_keys(parts["calibration"]))
        splits.notes.append(
            f"there is no calibration.npz: {taken} samples of {donor}.npz were set apart for calibration"
        )
    return splits


def _divide(samples: Samples, seed: int, shares: Mapping[str, float], rest: str = "test") -> dict[str, Samples]:
    """Parts that share no row. Each gets a row at least, and calibration no more than it can use."""
    count = len(next(iter(samples.values())))
    order = np.random.default_rng(seed).permutation(count)
    parts: dict[str, Samples] = {}
    start = 0
    for name, share in shares.items():
        take = max(1, int(count * share))
        take = min(take, _MOST_CALIBRATION) if name == "calibration" else take
        parts[name] = rows_of(samples, order[start : start + take])
        start += take
    if start >= count:
        raise Invalid(INVALID, f"{count} samples are too few to set {', '.join(shares)} apart from {rest}")
    return parts | {rest: rows_of(samples, order[start:])}


def _shuffle(samples: Samples, seed: int) -> Samples:
    """In random order: an evaluation may look at the first samples only, and files are often sorted by label."""
    count = len(next(iter(samples.values())))
    return rows_of(samples, np.random.default_rng(seed).permutation(count))


def _drop_shared(splits: _Splits) -> None:
    """Drop a sample from all splits but the first that has it, so that nothing is tested on what it was trained on."""
    seen: set[bytes] = set()
    for name in _KEPT_FIRST:
        if name not in splits.arrays:
            continue
        keys = _keys(splits.arrays[name])
        fresh = np.array([key not in seen for key in keys], dtype=bool)
        seen.update(keys)
        dropped = int((~fresh).sum())
        if dropped == len(fresh):
            raise Invalid(
                INVALID, f"all samples of {name}.npz stand in another split too: splits may not share samples"
            )
        if dropped:
            splits.arrays[name] = rows_of(splits.arrays[name], np.flatnonzero(fresh))
            splits.notes.append(f"{dropped} samples of {name} stood in another split too: dropped from {name}")


def _cap(splits: _Splits, max_samples: int) -> None:
    for name in ("validation", "test"):
        samples = splits.arrays.get(name)
        count = 0 if samples is None else len(next(iter(samples.values())))
        if samples is not None and count > max_samples:
            splits.arrays[name] = rows_of(samples, np.arange(max_samples))
            splits.notes.append(f"{max_samples} of {count} samples of {name} are used: maxSamples")
    if "validation" not in splits.arrays:
        splits.notes.append("there is no validation split: candidates are compared on the test split")


def _write(splits: _Splits, folder: Path) -> None:
    shutil.rmtree(folder / "fetched", ignore_errors=True)
    digest = hashlib.sha256()
    for name in SPLITS:
        if name in splits.arrays:
            digest.update(f"{name}\n".encode())
            for array, values in sorted(splits.arrays[name].items()):
                digest.update(f"{array} {values.dtype.str} {values.shape}\n".encode())
                digest.update(np.ascontiguousarray(values).data)
            write_arrays(splits.arrays[name], folder / f"{name}.npz")
    described = DataSplits(
        digest=f"sha256:{digest.hexdigest()}",
        synthetic=splits.synthetic,
        labelled=LABELS in splits.arrays["test"],
        calibration="calibration.npz",
        train="train.npz" if "train" in splits.arrays else None,
        validation="validation.npz" if "validation" in splits.arrays else None,
        test="test.npz",
        samples={name: len(_keys(splits.arrays[name])) for name in SPLITS if name in splits.arrays},
        notes=tuple(splits.notes),
    )
    (folder / DATA_FILE).write_text(described.model_dump_json(indent=2) + "\n", encoding="utf-8")


def _keys(samples: Samples) -> list[bytes]:
    """A digest of each sample's inputs. Labels do not count: an image twice with two labels is still the same image."""
    inputs = [np.ascontiguousarray(array) for name, array in sorted(samples.items()) if name != LABELS]
    keys: list[bytes] = []
    for index in range(len(inputs[0])):
        digest = hashlib.blake2b(digest_size=16)
        for array in inputs:
            digest.update(array[index].tobytes())
        keys.append(digest.digest())
    return keys
