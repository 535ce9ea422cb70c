"""The HTML page of a rollout."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.unit.report.test_report_page import Balance

from penstock.api.rollout import RolloutStatus
from penstock.api.v1alpha1 import InferenceDeployment
from penstock_cli.rollouts.page import render

SAMPLE = Path(__file__).resolve().parents[3] / "manifests" / "samples" / "judged.yaml"
NOW = datetime(2026, 11, 30, 20, 0, tzinfo=UTC)
HISTORY = [
    {"after": 0, "phase": "Starting"},
    {"after": 60, "phase": "Shadowing", "harm": "-0.5", "proof": {"parity": "0.6"}},
    {"after": 240, "phase": "Stepping", "weight": 1, "harm": "0.2", "proof": {"parity": "1.4", "errors": "0.1"}},
    {
        "after": 300,
        "phase": "Stepping",
        "weight": 10,
        "harm": "9",
        "proof": {"parity": "200", "errors": "0.7", "shares": "0"},
    },
]
METRICS = [
    {"name": "errors", "candidate": "0.1 %", "baseline": "0.2 %", "samples": 12345, "harm": "-0.2", "proof": "0.7"},
    {"name": "parity", "candidate": "0.4 %", "baseline": "0.3 %", "samples": 800, "proof": "200", "proved": True},
    {"name": "shares", "samples": 12345, "harm": "0.1"},
]


SPEC = {"model": {"storageUri": "file:///m", "modelFormat": "onnx"}, "rollout": {"type": "Canary"}}


def page(*, deployment: InferenceDeployment | None = None, **changes: Any) -> str:
    told = {
        "type": "Canary", "phase": "Stepping", "candidate": "v2", "stable": "v1", "weight": 10,
        "startedAt": "2026-11-30T19:55:00Z", "deadline": "2026-11-30T20:55:00Z", "message": "It gets <10 %> of the requests.",
        "harm": "0.6", "harmBound": "3", "proofBound": "1.3", "metrics": METRICS, "history": HISTORY,
        "worst": [{"at": "2026-11-30T19:58:00Z", "loss": "0.31", "output": "logits", "told": "3 of 10 rows differ."}],
    }  # fmt: skip
    given = deployment or InferenceDeployment.model_validate(yaml.safe_load(SAMPLE.read_text()))
    return render(given, RolloutStatus.model_validate(told | changes), NOW)


def text_of(html: str) -> str:
    parser = Balance()
    parser.feed(html)
    assert parser.open == []
    return " ".join(" ".join(parser.text).split())


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"history": []},
        {"history": HISTORY[:1], "metrics": [], "worst": [], "deadline": "", "startedAt": ""},
        {"harm": "inf", "harmBound": "", "proofBound": "0"},
        {"phase": "RolledBack", "replayed": True, "baseline": "Fleet"},
    ],
    ids=["as it goes", "without a history", "one that begins", "figures that are none", "one that was rolled back"],
)
def test_the_page_is_balanced_html_and_asks_nothing_of_any_network(changes: dict[str, Any]) -> None:
    html = page(**changes)
    text_of(html)
    assert "<script" not in html
    assert re.findall(r"""(?:src|href)\s*=|url\(|@import|https?://""", html) == []


@pytest.mark.parametrize(
    "wanted",
    [
        pytest.param("It gets <10 %> of the requests.", id="where it stands, as text"),
        pytest.param("10 % of the requests go to the new revision", id="its share"),
        pytest.param("1 of 2 metrics are proved", id="what is proved, but for the guard of shares"),
        pytest.param("0.6 of 3 evidence that it is worse", id="evidence of harm against its bound"),
        pytest.param("errors 0.1 % 0.2 % 12,345", id="the metrics of both revisions"),
        pytest.param("200.0 proved", id="what was proved"),
        pytest.param("logits 0.31 0 3 of 10 rows differ.", id="answers that differed"),
        pytest.param("1, 10, 50 % for at least 60 s each", id="the steps that were asked for"),
        pytest.param("one in 1,000 no worse is rolled back", id="how sure it is"),
        pytest.param("minutes since it began", id="time in a unit that suits"),
    ],
)
def test_the_page_says(wanted: str) -> None:
    assert wanted in text_of(page())


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        pytest.param({"outputParity": "0.99", "loss": "Cosine"}, "Agreement of answers 0.99 (Auto), compared by Cosine", id="what agreement Auto comes to"),
        pytest.param({"outputParity": "0", "loss": "Auto"}, "Agreement of answers not asked for (Auto)", id="that Auto asks for none"),
        pytest.param({}, "Agreement of answers Auto", id="of a former release's rollout what the spec says"),
        pytest.param({"metrics": [METRICS[1] | {"provedBy": "MadeInputs"}]}, "200.0 proved by made inputs", id="by what it was proved"),
        pytest.param({"metrics": [{"name": "latency", "baseline": "1 %"}]}, "latency \u2013 1 % 0", id="that nothing was seen of a revision"),
        pytest.param({"shown": "8 answers were compared, 7 of them to inputs that no client sent", "replayed": True}, "8 answers were compared, 7 of them to", id="how many answers were compared"),
        pytest.param({}, "in 55 min it is to be proved by 2026-11-30T20:55:00Z", id="how long there is"),
        pytest.param({"phase": "Watching"}, "All of it is of the time before it took over.", id="that evidence is of before"),
    ],
)  # fmt: skip
def test_the_page_says_of_others(changes: dict[str, Any], wanted: str) -> None:
    deployment = InferenceDeployment.model_validate(yaml.safe_load(SAMPLE.read_text()) | {"spec": SPEC})
    assert wanted in text_of(page(deployment=deployment, **changes))


def test_evidence_far_beyond_its_bound_stays_within_the_picture() -> None:
    points = re.findall(r'points="([^"]*)"', page())
    heights = [float(corner.split(",")[1]) for line in points for corner in line.split()]
    assert len(points) == 4  # the share, all harm, and what is proved of two metrics
    assert min(heights) >= 14
    assert max(heights) <= 192


def test_a_rollout_that_has_just_begun_has_no_pictures() -> None:
    assert "<svg" not in page(history=HISTORY[:1])


def test_of_shares_nothing_is_to_be_proved() -> None:
    assert page().count(">shares<") == 1, "its row, and no curve"
