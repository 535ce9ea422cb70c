"""The HTML page of a report."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from tests.unit.report.reports import CHOSEN, LOSSY, accuracy, report, timing

from penstock.optimization.measurements import OperatorShare
from penstock.optimization.report import SearchVerdict
from penstock_optimizer.report.axes import axis, number
from penstock_optimizer.report.charts import distributions, pareto
from penstock_optimizer.report.page import render

VOID = {"meta", "br", "hr", "img", "link"}


class Balance(HTMLParser):
    """Checks that every element that opens closes, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, _attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_the_page_is_balanced_html_and_asks_nothing_of_any_network() -> None:
    page = render(report())
    parser = Balance()
    parser.feed(page)
    assert parser.open == []
    assert "<script" not in page
    assert re.findall(r"""(?:src|href)\s*=|url\(|@import|https?://""", page) == []


@pytest.mark.parametrize(
    "wanted",
    [
        pytest.param("12.60×", id="the speed-up against torch eager"),
        pytest.param("2.50×", id="the speed-up against ONNX Runtime"),
        pytest.param(CHOSEN.label, id="what was chosen"),
        pytest.param(LOSSY.label, id="what was refused"),
        pytest.param("lost 8.2 points, at most 1 is allowed", id="why it was refused"),
        pytest.param("no CUDA device", id="why something could not be tried"),
        pytest.param("failed", id="a control that failed"),
        pytest.param("only 700 samples", id="what limits the verdict"),
        pytest.param("penstock optimize digits --profile balanced", id="the command that reproduces it"),
        pytest.param("QLinearConv", id="operators after"),
        pytest.param("Conv", id="operators before"),
    ],
)
def test_the_page_says(wanted: str) -> None:
    parser = Balance()
    parser.feed(render(report()))
    assert wanted in " ".join(parser.text)


@pytest.mark.parametrize(
    "picture",
    ["Speed against accuracy", "Latency distributions", "Accuracy intervals", "Time by operator", "Batch curve"],
)
def test_the_page_draws(picture: str) -> None:
    assert f'aria-label="{picture}"' in render(report())


def test_a_search_without_a_single_measurement_still_has_a_page() -> None:
    bare = report().model_copy(
        update={
            "candidates": (),
            "controls": (),
            "capacity": None,
            "chosen": None,
            "verdict": SearchVerdict.NO_DECISION,
        }
    )
    assert "NoDecision" in render(bare)


def test_names_from_outside_are_escaped() -> None:
    page = render(report(model="<img onerror=alert(1)>"))
    assert "<img" not in page
    assert "&lt;img" in page


def test_names_in_pictures_are_escaped_too() -> None:
    found = report()
    share = OperatorShare(operator='"><script>', calls=1, milliseconds=0.4, share=0.8)
    hostile = found.candidates[0].model_copy(update={"operators": (share,)})
    page = render(found.model_copy(update={"candidates": (hostile, *found.candidates[1:])}))
    assert "<script" not in page
    assert "&gt;&lt;script&gt;" in page


def test_a_better_candidate_stands_above_the_baseline_though_that_did_better_on_other_samples() -> None:
    found = report()
    gate = accuracy(1.0, 0.02).model_copy(update={"baseline": 1.0, "loss": 0.0, "split": "validation"})
    better = accuracy(0.9986, 0.0025)
    baseline, second, chosen, *rest = found.candidates
    changed = (
        baseline,
        second.model_copy(update={"gate": gate}),
        chosen.model_copy(update={"accuracy": better}),
        *rest,
    )
    drawing = pareto(found.model_copy(update={"candidates": changed}))
    assert drawing is not None
    heights = [float(y) for y in re.findall(r'<circle cx="[^"]+" cy="([^"]+)"', drawing)]
    assert heights[2] < heights[1] == heights[0], "pixels count downwards"


def test_the_median_stands_within_its_distribution() -> None:
    found = timing(CHOSEN, 0.04).model_copy(
        update={"histogram_milliseconds": ((0.036, 10), (0.044, 80), (0.053, 10)), "wall_milliseconds_p50": 0.04}
    )
    only = report().candidates[2].model_copy(update={"timings": (found,)})
    drawing = distributions(report().model_copy(update={"candidates": (only,)}))
    assert drawing is not None
    corners = re.findall(r"([\d.]+),([\d.]+)", drawing.partition('points="')[2].partition('"')[0])
    (mode, _) = min(corners, key=lambda corner: float(corner[1]))
    median = float(re.findall(r'<line x1="([^"]+)"[^>]*class="mark p50"', drawing)[0])
    assert median == pytest.approx(float(mode), abs=12)


@pytest.mark.parametrize("picture", ["Latency distributions", "Accuracy intervals"])
def test_pictures_hold_no_escaped_markup(picture: str) -> None:
    drawing = render(report()).partition(f'aria-label="{picture}"')[2].partition("</svg>")[0]
    assert "<line" in drawing
    assert "&lt;" not in drawing


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (1234.5, "1,234"),
        (0.04, "0.04"),
        (12.64, "12.6"),
        (0.00123456, "0.00123"),
        (100, "100"),
        (-2.5, "-2.5"),
    ],
)
def test_numbers_have_three_digits(value: float, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize("logarithmic", [False, True])
@pytest.mark.parametrize("values", [[1.0], [0.02, 3.0], [5.0, 5.0], [0.9929, 0.9111, 0.98]])
def test_every_value_lies_on_its_axis_and_there_are_labels(values: list[float], *, logarithmic: bool) -> None:
    found = axis(values, 10.0, 110.0, logarithmic=logarithmic)
    assert all(10.0 <= found(value) <= 110.0 for value in values)
    assert all(found.low <= tick <= found.high for tick in found.ticks)
    assert [found(value) for value in sorted(values)] == sorted(found(value) for value in values)
