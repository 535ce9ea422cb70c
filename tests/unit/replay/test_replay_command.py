"""`penstock replay`: what it takes, refuses and writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.telling import assert_tells
from typer.testing import CliRunner

from penstock.errors import Invalid
from penstock_cli.main import app
from penstock_cli.replay.loads import read_load
from penstock_cli.replay.model import ReplayCase, ServiceTimes
from penstock_cli.replay.policies import POLICIES
from penstock_cli.replay.search import PolicySearch, price_by

SHORT = ["replay", "--minutes", "2", "--low", "5", "--high", "40"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        pytest.param(["--policy", "mine"], "--policy mine penstock,serve,knative,hpa", id="an unknown policy"),
        pytest.param(["--min", "5", "--max", "2"], "--min --max", id="bounds that cross"),
        pytest.param(["--low", "50", "--high", "20"], "--low --high", id="rates that cross"),
        pytest.param(["--curve", "fast"], "--curve fast ROWS:MILLISECONDS", id="no curve"),
        pytest.param(["--curve", "8:10,1:5"], "growing rows", id="a curve that goes back"),
        pytest.param(["--curve", "1:-5"], "seconds above 0", id="a run that takes less than no time"),
        pytest.param(["--html", "/nowhere/page.html"], "--html /nowhere/page.html folder", id="a page for no folder"),
        pytest.param(["--high", "5000", "--minutes", "60"], "requests shorter", id="more than is replayed"),
    ],
)
def test_what_cannot_come_out_well_is_refused(arguments: list[str], told: str) -> None:
    result = CliRunner().invoke(app, ["replay", *arguments])
    assert result.exit_code == 1
    assert isinstance(result.exception, Invalid), result.exception
    assert_tells(result.exception.message, told)


def test_the_document_has_every_policy_with_its_defaults_and_its_best(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    result = CliRunner().invoke(app, [*SHORT, "--search", "--json", "--html", str(page)])
    assert result.exit_code == 0, result.exception
    document = json.loads(result.output)
    assert [(each["policy"], each["searched"]) for each in document["policies"]] == [
        (family.title, searched) for family in POLICIES.values() for searched in (False, True)
    ]
    for each in document["policies"]:
        assert each["answered"] + each["refused"] + each["lost"] == each["requests"]
        assert len(each["wanted"]) == len(each["running"]) == len(each["violating"]) == len(document["rates"])
    text = page.read_text(encoding="utf-8")
    assert text.count("<svg") == 1 + 2 * len(document["policies"])
    assert "http://" not in text
    assert "https://" not in text


def test_a_table_has_a_row_for_each_policy() -> None:
    result = CliRunner().invoke(app, [*SHORT, "--policy", "penstock,hpa"])
    assert_tells(result.output, "VIOLATIONS REPLICA-HOURS Penstock weight=16 Kubernetes target=0.8")
    assert "Knative" not in result.output


def test_a_policy_without_a_forecast_is_told_as_such_and_decides_otherwise() -> None:
    growing = ["replay", "--shape", "slow-start", "--minutes", "4", "--high", "60", "--policy", "penstock", "--json"]
    with_it, without = (
        json.loads(CliRunner().invoke(app, [*growing, option]).output)["policies"][0]
        for option in ("--forecast", "--no-forecast")
    )
    assert (with_it["setting"]["forecast"], without["setting"]["forecast"]) == (1.0, 0.0)
    assert without["moves"] != with_it["moves"]


@pytest.mark.parametrize(
    ("text", "count"),
    [("10\n10.5\n\n12\n", 3), ("# second,rate\n0,10\n100,0\n200,0\n", 1000)],
    ids=["times of requests", "rates from then on"],
)
def test_a_recorded_load_is_read(text: str, count: int, tmp_path: Path) -> None:
    file = tmp_path / "load.csv"
    file.write_text(text, encoding="utf-8")
    times = read_load(file, 0)
    assert len(times) == pytest.approx(count, rel=0.2)
    assert times[0] == pytest.approx(0.0, abs=1.0)
    assert times == sorted(times)


@pytest.mark.parametrize("text", ["", "a\n", "1,2,3\n", "5\n6,7\n", "5,1\n4,1\n", "nan\n"])
def test_what_is_no_load_is_refused(text: str, tmp_path: Path) -> None:
    file = tmp_path / "load.csv"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(Invalid, match=r"load\.csv"):
        read_load(file, 0)


def test_a_curve_is_read_from_a_manifest(tmp_path: Path) -> None:
    file = tmp_path / "manifest.json"
    points = [{"rows": 1, "p50Milliseconds": 100.0}, {"rows": 4, "p50Milliseconds": 200.0}]
    file.write_text(json.dumps({"optimization": {"capacity": {"curve": points, "maxBatchSize": 4}}}), encoding="utf-8")
    result = CliRunner().invoke(app, [*SHORT, "--curve", str(file), "--json", "--policy", "serve"])
    assert json.loads(result.output)["capacity"] == 20.0


def test_a_search_finds_what_is_better_than_the_defaults_by_its_price() -> None:
    case = ReplayCase(ServiceTimes(((1, 0.12), (8, 0.5)), 8), slo_seconds=1.5)
    arrivals = [number / 30 for number in range(30 * 120)]
    trials = PolicySearch(case, [arrivals], 120, POLICIES["knative"])
    price = price_by(2.0)
    assert price(trials.best(price)) < price(trials.default())
