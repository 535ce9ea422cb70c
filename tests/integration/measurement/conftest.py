"""Small variants, built once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.integration.measurement.small_models import SOURCE, digits_model, images, variant

from penstock.optimization.variants import DataSplits
from penstock_optimizer.samples.data import prepare_data


@dataclass(frozen=True)
class Small:
    """Variant folders and their data."""

    baseline: Path
    near: Path
    """The baseline with a little noise on its weights."""
    other: Path
    """Other weights altogether."""
    fixed: Path
    """The baseline, exported for batches of four only."""
    damaged: Path
    """A file that is no model."""
    data: DataSplits


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    """All of them."""
    root = tmp_path_factory.mktemp("variants")
    data = prepare_data(str(images(root / "all.npz", 500)), SOURCE, root / "data", max_samples=200, seed=0)
    return Small(
        baseline=variant(root / "baseline", digits_model()),
        near=variant(root / "near", digits_model(noise=0.02), label="near"),
        other=variant(root / "other", digits_model(seed=9), label="other"),
        fixed=variant(root / "fixed", digits_model(batch=4), label="fixed"),
        damaged=variant(root / "damaged", digits_model(), label="damaged", body=b"no model"),
        data=data,
    )
