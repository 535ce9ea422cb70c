"""What a check on a GPU says: figures of one model beside its baseline's, the tests' ends, and both as a page. Pure."""

from __future__ import annotations

import html
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from penstock.optimization.measurements import EnergyMethod, LoadPoint, Timing

NO_GPU = "no GPU found: nothing ran"


@dataclass(frozen=True, slots=True)
class Figures:
    """One variant under load. What could not be read is None."""

    model: str
    what: str
    requests_per_second: float
    p99_ms: float
    joules_per_1000: float | None
    host_mib: float
    gpu_mib: float | None
    """The most that the whole GPU held while it was loaded, less what it held before."""


def figures(
    model: str, what: str, load: LoadPoint, timings: Sequence[Timing], gpu_mib: float | None
) -> Figures:  # fmt: skip
    """Of a load test and the last sessions. Energy is that of the greatest batch that was measured, and measured joules alone."""
    largest = max(timings, key=lambda timing: timing.batch_size, default=None)
    energy = None if largest is None or largest.energy.method is EnergyMethod.ESTIMATED else largest.energy
    joules = None if energy is None or energy.joules_per_sample is None else 1000 * energy.joules_per_sample
    host = max((timing.peak_memory_bytes for timing in timings), default=0) / 2**20
    return Figures(model, what, load.requests_per_second, load.p99_milliseconds, joules, host, gpu_mib)


def ends_of_tests(junit: str) -> dict[str, list[str]]:
    """Names of tests by their end (`passed`, `failed`, `skipped`), from pytest's JUnit XML, with the reason of a skip."""
    found: dict[str, list[str]] = {"passed": [], "failed": [], "skipped": []}
    for case in ET.fromstring(junit).iter("testcase"):
        name = f"{case.get('classname')}::{case.get('name')}"
        skipped = case.find("skipped")
        if skipped is not None:
            found["skipped"].append(f"{name}: {skipped.get('message')}")
        elif case.find("failure") is not None or case.find("error") is not None:
            found["failed"].append(name)
        else:
            found["passed"].append(name)
    return found


def problems(document: Mapping[str, Any]) -> list[str]:
    """What keeps a check from being one of a GPU that is whole: failures, tests that did not run, parts that did not end."""
    tests = document.get("tests") or {"passed": [], "failed": [], "skipped": []}
    found = [f"{name} failed" for name in tests["failed"]] + [f"{name} did not run" for name in tests["skipped"]]
    if not tests["passed"]:
        found.append("no test of a GPU passed")
    found += [f"{name}: {error}" for name, error in document.get("errors", {}).items()]
    return found


def speedups(rows: Sequence[Figures]) -> dict[str, float]:
    """Requests a second over the first row's of the same model."""
    first: dict[str, Figures] = {}
    found = {}
    for row in rows:
        baseline = first.setdefault(row.model, row)
        if row is not baseline and baseline.requests_per_second:
            found[f"{row.model}: {row.what}"] = row.requests_per_second / baseline.requests_per_second
    return found


def page(document: Mapping[str, Any]) -> str:
    """The document as one HTML page without links to anywhere."""
    rows = document.get("rows", [])
    keys = list(rows[0]) if rows else []
    head = "".join(f"<th>{html.escape(key)}</th>" for key in keys)
    body = "".join("<tr>" + "".join(f"<td>{_cell(row[key])}</td>" for key in keys) + "</tr>" for row in rows)
    ends = Counter({end: len(names) for end, names in (document.get("tests") or {}).items()})
    said = [
        *(f"{end}: {count}" for end, count in ends.items()),
        *(f"{name}: {value:.2f} × torch eager fp32" for name, value in document.get("speedups", {}).items()),
        *document.get("notes", []),
        *document.get("problems", []),
    ]
    return (
        f"<!doctype html><meta charset=utf-8><title>{html.escape(document['title'])}</title>"
        "<style>body{font:15px sans-serif;margin:2em}td,th{padding:.3em .8em;text-align:left;border-bottom:1px solid #ccc}</style>"
        f"<h1>{html.escape(document['title'])}</h1><p>{html.escape(document['machine'])}, {html.escape(document['when'])}</p>"
        f"<table><tr>{head}</tr>{body}</table><ul>{''.join(f'<li>{html.escape(each)}</li>' for each in said)}</ul>\n"
    )


def as_rows(rows: Sequence[Figures]) -> list[dict[str, Any]]:
    """For JSON."""
    return [asdict(row) for row in rows]


def _cell(value: Any) -> str:
    if value is None:
        return "not measured"
    return f"{value:,.1f}" if isinstance(value, float) else html.escape(str(value))
