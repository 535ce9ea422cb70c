"""One self-contained HTML page: no script, no font, no request to anywhere."""

from __future__ import annotations

from penstock.optimization.report import Report
from penstock_optimizer.report import charts
from penstock_optimizer.report.templates import TEMPLATES
from penstock_optimizer.search.constraints import judgement_in_words


def render(report: Report) -> str:
    """The page of a report, as HTML text."""
    baseline = report.candidates[0] if report.candidates else None
    batch_size = charts.first_batch_size(report)
    baselines = list(dict.fromkeys(name for each in report.candidates for name in each.speedups))
    return TEMPLATES.get_template("page.html").render(
        report=report,
        baseline=baseline,
        chosen=report.candidate(report.chosen),
        after=report.candidate(report.chosen) or baseline,
        profiled=next((each for each in report.candidates if each.operators), baseline),
        batch_size=batch_size,
        shown=[name for name in baselines if name.endswith(f"batch {batch_size}")] or baselines,
        energy=next((each.energy.method for c in report.candidates for each in c.timings), None),
        charts=charts,
        judgement_in_words=judgement_in_words,
    )
