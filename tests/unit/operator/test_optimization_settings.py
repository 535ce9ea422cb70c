"""The operator's options on optimization: with an artifact store, all that a Job needs must be there."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.errors import Invalid
from penstock_operator.settings import OptimizationSettings, read

STORE = ["--artifact-store", "file:///artifacts"]
REFUSED = [
    ("standalone without a key", ["--standalone", "s", *STORE], "--signing-key-file, --optimizer-workspace"),
    ("a cluster without an image", [*STORE, "--signing-key-secret", "k"], "--optimizer-image, --trusted-key-file"),
    ("a trusted key that is not there", ["--trusted-key-file", "/nonexistent"], "cannot read --trusted-key-file"),
]


@pytest.mark.parametrize(("arguments", "words"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_refused(arguments: list[str], words: str) -> None:
    with pytest.raises(Invalid, match=words):
        read(arguments)


def test_without_a_store_nothing_is_optimized() -> None:
    assert read([]).optimization == OptimizationSettings()


def test_all_of_it_is_read(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).write_text(f"key {name}\n")
    trusted = ["--trusted-key-file", str(tmp_path / "a"), "--trusted-key-file", str(tmp_path / "b")]
    key = ["--signing-key-file", "k", "--optimizer-workspace", "w"]
    settings = read(["--standalone", "s", *STORE, *trusted, *key])
    assert settings.trusted_keys == ("key a", "key b")
    assert settings.optimization == OptimizationSettings(
        store="file:///artifacts", signing_key_file=Path("k"), workspace=Path("w")
    )
