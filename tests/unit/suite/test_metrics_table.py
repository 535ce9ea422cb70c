"""The table of metrics: every metric that the product tells, with its kind and labels, and no other."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from prometheus_client.metrics import MetricWrapperBase

from penstock.telemetry import names
from penstock_operator.runtime import metrics, rollout_metrics

ROOT = Path(__file__).parents[3]
ROWS = {
    found[1]: (found[2], set(re.findall(r"`(\w+)`", found[3])))
    for line in (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8").splitlines()
    if (found := re.match(r"\| `(penstock_\w+)` \| (\w+)([^|]*) \| [^|]+ \|$", line))
}
"""Kind and labels by name."""


def own(module: object) -> Iterator[MetricWrapperBase]:
    return (each for each in vars(module).values() if isinstance(each, MetricWrapperBase))


def test_each_metric_stands_in_the_table_and_nothing_else_does() -> None:
    told = {value for name, value in vars(names).items() if name.startswith("METRIC_")}
    assert set(ROWS) == told


def test_what_the_operator_counts_has_the_kind_and_the_labels_that_the_table_says() -> None:
    found = {}
    for each in (*own(metrics), *own(rollout_metrics)):
        (family,) = each.describe()
        name = f"{family.name}_total" if family.type == "counter" else family.name
        found[name] = (family.type, set(each._labelnames))
    assert len(found) >= 8
    assert {name: ROWS[name] for name in found} == found
