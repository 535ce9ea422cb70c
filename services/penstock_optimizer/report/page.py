"""One self-contained HTML page: no script, no font, no request to anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from typing import Final

from penstock.optimization.measurements import AccuracyResult, Ratio
from penstock.optimization.report import CandidateReport, Outcome, Report
from penstock_optimizer.report.charts import (
    TONES,
    batch_curve,
    cpu_milliseconds,
    distributions,
    first_batch_size,
    intervals,
    operators,
    pareto,
    quality,
    timing_at,
)
from penstock_optimizer.report.svg import Markup, element, number
from penstock_optimizer.search.constraints import judgement_in_words

_MEGABYTE: Final = 1e6
_MEBIBYTE: Final = 1 << 20


def render(report: Report) -> str:
    """The page of a report, as HTML text."""
    title = f"{report.model}: {report.verdict}"
    head = element(
        "head",
        Markup('<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'),
        element("title", title),
        element("style", Markup(_stylesheet())),
    )
    body = element("body", element("main", *(part for part in _parts(report) if part)))
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


def _stylesheet() -> str:
    return (resources.files("penstock_optimizer.report") / "page.css").read_text(encoding="utf-8")


def _parts(report: Report) -> list[Markup | None]:
    chosen = report.candidate(report.chosen)
    baseline = report.candidates[0] if report.candidates else None
    parts: list[Markup | None] = [_heading(report), _cards(report, baseline, chosen), _warnings(report.warnings)]
    parts += _section("Candidates", "Every recipe that was tried, and why it ended where it did.", _candidates(report))
    parts += _section(
        "Speed against accuracy",
        "Numbers are those of the table; accuracy is the difference from the baseline on the same samples, of the full test "
        "where there was one, else of the gate. Nothing beats a candidate on the dashed front in both.",
        pareto(report),
    )
    parts += _section("Latency", "The solid mark is the median, the dashed one p99.", distributions(report))
    parts += _section(
        "Accuracy", "The dot is what was seen; the line reaches to what can be ruled out.", intervals(report)
    )
    if baseline is not None:
        profiled = next((each for each in report.candidates if each.operators), baseline)
        parts += _section(
            "Where the time goes",
            "One run, by operator, as the engine's own profiler tells it. Profiling slows small operators: read shares, not sums.",
            operators(profiled, chosen),
        )
    if report.capacity is not None:
        parts += _section(
            "Batch curve", _capacity(report), batch_curve(report.capacity.curve, report.capacity.max_batch_size)
        )
    parts += _section(
        "Controls",
        "A copy of the baseline must read 1, and a change that cannot help must not seem to. The ratio itself decides, one row "
        "for each session; a session whose controls failed was run again, and where none passed, nothing is decided.",
        _controls(report),
    )
    parts += _section(
        "Accuracy controls",
        "The baseline's own outputs, ruined on purpose. Each must be refused by what judges accuracy, or nothing is decided.",
        _judgements(report),
        _accuracy_controls(report),
    )
    return [*parts, *_section("How it was measured", "", _provenance(report))]


def _section(title: str, explanation: str, *content: Markup | None) -> list[Markup]:
    """A heading, a sentence and what follows; nothing where there is no content."""
    shown = [each for each in content if each]
    if not shown:
        return []
    intro = [element("p", explanation, class_="faint")] if explanation else []
    return [element("h2", title), *intro, *shown]


def _heading(report: Report) -> Markup:
    badge = element("span", report.verdict, class_=f"verdict {report.verdict}")
    about = f"{report.profile} on {report.hardware.cores} × {report.hardware.cpu}, {report.started_at}"
    return Markup(
        element("h1", report.model, badge) + element("p", report.summary) + element("p", about, class_="faint")
    )


def _cards(report: Report, baseline: CandidateReport | None, chosen: CandidateReport | None) -> Markup | None:
    after = chosen or baseline
    if baseline is None or after is None:
        return None
    cards = [
        (f"{ratio.value:.2f}×", f"against {name} ({ratio.low:.2f} to {ratio.high:.2f})")
        for name, ratio in after.speedups.items()
        if name.endswith(f"batch {first_batch_size(report)}") and after is not baseline
    ]
    cards += _changes(report, baseline, after)
    return element(
        "div", *(element("div", element("b", a), element("span", b), class_="card") for a, b in cards), class_="cards"
    )


def _changes(report: Report, baseline: CandidateReport, after: CandidateReport) -> list[tuple[str, str]]:
    cards = []
    named = baseline.recipe.label
    result = quality(after)
    if result is not None:
        cards.append((f"{result.candidate:.4f}", f"{result.metric}; baseline {result.baseline:.4f}"))
    before_size = baseline.size_bytes or report.source_size_bytes
    if after.size_bytes is not None:
        cards.append((_megabytes(after.size_bytes), f"on disk; was {_megabytes(before_size)} ({named})"))
    mine, theirs = timing_at(after, first_batch_size(report)), timing_at(baseline, first_batch_size(report))
    if mine and theirs:
        cards.append(
            (_mebibytes(mine.peak_memory_bytes), f"peak memory; was {_mebibytes(theirs.peak_memory_bytes)} ({named})")
        )
        was = f"p99 of one run; was {number(theirs.wall_milliseconds_p99)} ms ({named})"
        cards.append((f"{number(mine.wall_milliseconds_p99)} ms", was))
    if after.load is not None:
        was = (
            f"; was {number(baseline.load.requests_per_second)} ({named})"
            if baseline.load and after is not baseline
            else ""
        )
        cards.append((f"{number(after.load.requests_per_second)}/s", f"requests of one replica under load{was}"))
    return cards


def _warnings(warnings: Sequence[str]) -> Markup | None:
    return element("ul", *(element("li", each) for each in warnings), class_="warnings") if warnings else None


def _candidates(report: Report) -> Markup:
    baselines = list(dict.fromkeys(name for each in report.candidates for name in each.speedups))
    names = [name for name in baselines if name.endswith(f"batch {first_batch_size(report)}")] or baselines
    heads = ["#", "Recipe", "Outcome", *(f"× {name}" for name in names), "CPU ms", "Quality", "Size", "Memory", "Why"]
    numeric = {"CPU ms", "Quality", "Size", "Memory", *(f"× {name}" for name in names)}
    head = element("tr", *(element("th", each, class_="number" if each in numeric else None) for each in heads))
    rows = [_row(index, each, report, names) for index, each in enumerate(report.candidates, 1)]
    return element("div", element("table", element("thead", head), element("tbody", *rows)), class_="scroll")


def _row(index: int, each: CandidateReport, report: Report, names: Sequence[str]) -> Markup:
    timing = timing_at(each, first_batch_size(report))
    figures = [
        *(_ratio(each.speedups.get(name)) for name in names),
        number(cpu_milliseconds(timing)) if timing else "",
        _quality(quality(each)),
        _megabytes(each.size_bytes) if each.size_bytes is not None else "",
        _mebibytes(timing.peak_memory_bytes) if timing else "",
    ]
    notes = "; ".join([*each.notes, *(f"{name} {value:.4g}" for name, value in each.figures.items())])
    why = (
        [each.reason, element("details", element("summary", "notes"), element("p", notes))] if notes else [each.reason]
    )
    return element(
        "tr",
        element("td", str(index)),
        element("td", each.recipe.label, class_="recipe"),
        element("td", element("span", _words(each.outcome), class_=f"pill {TONES[each.outcome]}")),
        *(element("td", text, class_="number") for text in figures),
        element("td", *why, class_="why"),
        class_=str(each.outcome),
    )


def _words(outcome: Outcome) -> str:
    """`AccuracyLost` as people write it."""
    text = "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in outcome.value).strip()
    return text[:1].upper() + text[1:]


def _ratio(ratio: Ratio | None) -> str:
    return f"{ratio.value:.2f}" if ratio else ""


def _quality(result: AccuracyResult | None) -> str:
    if result is None:
        return ""
    return f"{result.candidate:.4f}" if result.split == "test" else f"{result.candidate:.4f} ({result.split})"


def _capacity(report: Report) -> str:
    found = report.capacity
    if found is None:
        return ""
    return (
        f"One replica answers {number(found.requests_per_second)} requests/s with batches of at most "
        f"{found.max_batch_size}, waiting at most {found.max_delay_milliseconds} ms, and should carry "
        f"{found.target_in_flight_requests} requests in flight."
    )


def _controls(report: Report) -> Markup | None:
    if not report.controls:
        return None
    head = element("tr", *(element("th", each) for each in ("Control", "Batch", "Ratio", "95 % interval", "")))
    rows = [
        element(
            "tr",
            element("td", each.name),
            element("td", str(each.batch_size)),
            element("td", f"{each.ratio.value:.3f}"),
            element("td", f"{each.ratio.low:.3f} to {each.ratio.high:.3f}"),
            element("td", "passed" if each.passed else "failed", class_="pass" if each.passed else "fail"),
        )
        for each in report.controls
    ]
    return element("table", element("thead", head), element("tbody", *rows))


def _judgements(report: Report) -> Markup | None:
    if not report.judgements:
        return None
    return element("ul", *(element("li", judgement_in_words(each)) for each in report.judgements))


def _accuracy_controls(report: Report) -> Markup | None:
    if not report.accuracy_controls:
        return None
    head = element("tr", *(element("th", each) for each in ("Control", "Output", "Metric", "Loss", "")))
    rows = [
        element(
            "tr",
            element("td", each.name),
            element("td", each.output or "all"),
            element("td", each.metric),
            element("td", f"{each.loss:.4g}"),
            element("td", "refused" if each.told else "not told", class_="pass" if each.told else "fail"),
        )
        for each in report.accuracy_controls
    ]
    return element("table", element("thead", head), element("tbody", *rows))


def _provenance(report: Report) -> Markup:
    hardware = report.hardware
    samples = ", ".join(f"{count} {split}" for split, count in report.samples.items())
    energy = next((each.energy.method for c in report.candidates for each in c.timings), None)
    rows = [
        ("Model", f"{report.model}, {report.parameters:,} parameters, {report.source_digest}"),
        ("Data", f"{samples}{', made from the signature' if report.synthetic_data else ''}; {report.data_digest}"),
        (
            "Hardware",
            f"{hardware.cores} × {hardware.cpu}; {', '.join(hardware.instruction_sets) or 'no known extensions'}",
        ),
        ("Accelerators", ", ".join(gpu.name for gpu in hardware.gpus) or "none"),
        ("Energy", f"{energy}; CPU seconds are measured" if energy else ""),
        ("Libraries", ", ".join(f"{name} {version}" for name, version in sorted(report.library_versions.items()))),
        ("Took", f"{report.seconds:.0f} s of at most {report.budget_seconds:.0f} s"),
    ]
    table = element(
        "table", *(element("tr", element("th", name), element("td", value)) for name, value in rows if value)
    )
    again = element("p", "The same again:", class_="faint") + element("pre", report.command or "(not recorded)")
    profile = report.profile_spec.model_dump_json(indent=2, exclude_none=True)
    return Markup(
        table
        + again
        + element("details", element("summary", "The profile"), element("pre", profile))
        + element("p", "Every figure of this page, and those behind it, are in report.json beside it.", class_="faint")
    )


def _megabytes(size: int) -> str:
    return f"{number(size / _MEGABYTE)} MB"


def _mebibytes(size: int) -> str:
    return f"{number(size / _MEBIBYTE)} MiB"
