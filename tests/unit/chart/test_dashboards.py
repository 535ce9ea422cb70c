"""The dashboards ask for what our programs export, in PromQL that Prometheus' own engine carries out."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client import REGISTRY, CollectorRegistry, generate_latest
from tests.chart.helm import CHART, render
from tests.chart.promeval import evaluate

from penstock.api.rollout import MetricEvidence, RolloutPhase, RolloutStatus, RolloutType
from penstock.cost.allocation import add_counts
from penstock.cost.usage import EnergySource, ReservedResources, UsageCounts
from penstock.protocol.refusals import Refusal
from penstock.routing.leases import ReplicaLease, Route
from penstock.routing.table import Table
from penstock.serving.control import ActorFacts, ReplicaSettings
from penstock.serving.manifest import Signature
from penstock.serving.settings import CacheMode, CacheSettings
from penstock_operator.runtime import metrics as operator_metrics
from penstock_operator.runtime.rollout_metrics import show_rollout
from penstock_serving.gateway.haproxy.access_log import AccessLog
from penstock_serving.replica.cache.cache import PredictionCache
from penstock_serving.replica.cache.keys import InputKeys
from penstock_serving.replica.call import Call
from penstock_serving.replica.telemetry.load import LoadMeter
from penstock_serving.replica.telemetry.metrics import ReplicaMetrics
from penstock_serving.replica.telemetry.usage import UsageMetrics

DASHBOARDS = {path.stem: json.loads(path.read_text()) for path in sorted((CHART / "dashboards").glob("*.json"))}
JUDGED = RolloutStatus(
    type=RolloutType.CANARY, phase=RolloutPhase.STEPPING, candidate="v2", stable="v1", weight=25, harm="1", harm_bound="3",
    proof_bound="1.3", metrics=(MetricEvidence(name="errors", proof="0.65"),),
)  # fmt: skip
USED = UsageCounts(
    seconds=30, answered=300, cpu_seconds=12, overhead_cpu_seconds=3, memory_byte_seconds=30 * 2.0**30,
    accelerator_seconds=6, joules={EnergySource.ESTIMATED: 60.0}, reserved_cpu_seconds=60,
    reserved_memory_byte_seconds=60 * 2.0**30, reserved_accelerator_seconds=30,
)  # fmt: skip
"""In half a minute: half a core of two, one of two gigabytes, a fifth of an accelerator."""
_INTERVAL = "1m"
_SECONDS = 60.0
_START, _END = 1795226437414777, 1795226437415777
"""Of a request at the gateway, in microseconds."""


def panels() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, dashboard in DASHBOARDS.items():
        for panel in dashboard["panels"]:
            if panel["type"] != "row":
                yield name, panel


def expressions() -> list[str]:
    """Every query of every panel and variable, with everything chosen."""
    queries = [target["expr"] for _, panel in panels() for target in panel["targets"]]
    return [_fill_in(query) for query in queries]


def _fill_in(query: str) -> str:
    """With everything chosen, and prices of 2."""
    chosen = re.sub(r"\$(namespace|model|kind)", ".+", query).replace("$__rate_interval", _INTERVAL)
    return re.sub(r"\$\w+_hour", "2", chosen)


class Exported:
    """What gateway, replica and operator show of the same minute."""

    def __init__(self) -> None:
        route = Route(namespace="vision", model="digits")
        lease = ReplicaLease(namespace="vision", model="digits", version="1", revision="r", address="10.0.0.1:1")
        table = Table().with_route(route).with_lease("a", lease, 0.0)
        self.log = AccessLog(lambda: table, None, lambda: {("vision", "digits"): 1})
        self.gateway = CollectorRegistry()
        self.gateway.register(self.log)
        self.load = LoadMeter(10.0, 0.0)
        keys = InputKeys("sha256:0", "vision", Signature(inputs=(), outputs=()))
        cache: PredictionCache[Call] = PredictionCache(keys, CacheSettings(mode=CacheMode.EXACT))
        self.replica = ReplicaMetrics("vision", "digits", "1", self.load, cache)
        self.usage = UsageCounts()
        reserved = ReservedResources(accelerators=1, accelerator="nvidia-l4")
        settings = ReplicaSettings(
            namespace="vision", model="digits", revision="r", replica_id="a", storage_uri="file:///m",
            actor=ActorFacts(reserved=reserved),
        )  # fmt: skip
        self.replica.add(UsageMetrics(settings, lambda: self.usage))

    def serve(self, requests: int) -> None:
        """Requests come, some of them in vain."""
        refused = {"200": "", "401": Refusal.NOT_A_GATEWAY, "429": Refusal.QUEUE_FULL, "503": Refusal.DRAINING}
        for status, reason in refused.items():
            line = f"{_START} {_END - _START} {status} - - - - m0/ra -- POST - /vision/v2/models/digits/infer"
            self.log.take([line.encode()] * requests)
            self.replica.requests[reason] += requests
        self.usage = add_counts(self.usage, USED)
        for histogram in (self.replica.request_seconds, self.replica.execute_seconds, self.load.waits):
            histogram.observe(0.01)
        self.replica.batch_rows.observe(4)
        for outcome in operator_metrics.ReconcileOutcome:
            operator_metrics.count_reconcile("InferenceDeployment", outcome, 0.02)
        operator_metrics.set_queue_depth("InferenceDeployment", 1)
        operator_metrics.count_request("get", "pods", 200)
        for rollout in (JUDGED, JUDGED.model_copy(update={"phase": RolloutPhase.PROMOTED})):
            show_rollout("vision", "digits", None, rollout)

    def scrapes(self, seconds: float) -> list[dict[str, Any]]:
        """As the chart's monitors label them."""
        texts = {
            "penstock-gateway-metrics": generate_latest(self.gateway),
            "penstock-replicas": self.replica.text(2),
            "penstock-operator": generate_latest(REGISTRY),
        }
        return [
            {"seconds": seconds, "labels": {"job": job, "instance": f"{job}-a"}, "text": text.decode()}
            for job, text in texts.items()
        ]


@pytest.fixture(scope="module")
def scrapes() -> list[dict[str, Any]]:
    """Two, a minute's half apart."""
    exported = Exported()
    exported.serve(10)
    first = exported.scrapes(_SECONDS / 2)
    exported.serve(30)
    return first + exported.scrapes(_SECONDS)


def test_every_query_gets_an_answer_from_what_is_exported(scrapes: list[dict[str, Any]]) -> None:
    queries = expressions()
    answers = dict(zip(queries, evaluate(queries, scrapes, _SECONDS), strict=True))
    assert len(answers) > 20
    assert {query: answer["error"] for query, answer in answers.items() if "error" in answer} == {}
    assert [query for query, answer in answers.items() if not answer["series"] and not _of_an_unused_cache(query)] == []


def _of_an_unused_cache(query: str) -> bool:
    """A share of nothing is no number."""
    return "penstock_cache_requests_total" in query and "/" in query


def test_the_queries_say_what_happened(scrapes: list[dict[str, Any]]) -> None:
    by_title = {panel["title"]: panel["targets"][0]["expr"] for name, panel in panels() if name == "serving"}
    titles = ["Failed", "Rows in a batch, mean", "Replicas", "Held", "Waiting for the engine"]
    queries = [_fill_in(by_title[title]) for title in titles]
    found = [float(answer["series"][0]["value"]) for answer in evaluate(queries, scrapes, _SECONDS)]
    assert found == pytest.approx([0.25, 4.0, 1.0, 1.0, 2.0])


def test_the_queries_say_what_it_costs(scrapes: list[dict[str, Any]]) -> None:
    by_title = {panel["title"]: panel["targets"][0]["expr"] for name, panel in panels() if name == "cost"}
    told = {
        "CPU by 1,000 answers": 50.0,
        "Energy by 1,000 answers": 200.0,
        "CPU used": 0.5,
        "CPU kept and not used": 1.5,
        "Accelerators kept and not used": 0.8,
        "Replicas": 1.0,
        "By use, an hour": 2 * (0.5 + 1 + 0.2),
        "By reservation, an hour": 2 * (2 + 2 + 1),
    }
    answers = evaluate([_fill_in(by_title[title]) for title in told], scrapes, _SECONDS)
    found = [float(each["series"][0]["value"]) for each in answers]
    assert found == pytest.approx(list(told.values()))


def test_a_name_that_nobody_exports_would_be_found(scrapes: list[dict[str, Any]]) -> None:
    wrong, broken = evaluate(["sum(rate(penstock_gateway_request_total[1m]))", "sum(rate(x[1m])"], scrapes, _SECONDS)
    assert wrong["series"] == []
    assert "parse error" in broken["error"]


def _numbers(dashboard: dict[str, Any]) -> list[int]:
    return [panel["id"] for panel in dashboard["panels"]]


@pytest.mark.parametrize("name", DASHBOARDS)
def test_a_dashboard_can_be_imported_beside_others(name: str) -> None:
    dashboard = DASHBOARDS[name]
    assert dashboard["uid"] == f"penstock-{name}"
    assert "id" not in dashboard
    assert len(set(_numbers(dashboard))) == len(_numbers(dashboard))
    (source,) = (each for each in dashboard["templating"]["list"] if each["type"] == "datasource")
    assert source["name"] == "datasource"


@pytest.mark.parametrize("name", DASHBOARDS)
def test_panels_do_not_overlap(name: str) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARDS[name]["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells


def _title(each: str | dict[str, Any]) -> str:
    return each if isinstance(each, str) else str(each["title"])


@pytest.mark.parametrize(("dashboard", "panel"), list(panels()), ids=_title)
def test_the_panel(dashboard: str, panel: dict[str, Any]) -> None:
    """What Grafana's own linter asks for: title, description, unit, the chosen data source, and rates that fit the zoom."""
    assert dashboard
    assert panel["title"]
    assert panel["description"]
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["datasource"]["uid"] == "${datasource}"
    for target in panel["targets"]:
        assert target["datasource"]["uid"] == "${datasource}"
        assert target["legendFormat"]
        assert all(window == "$__rate_interval" for window in re.findall(r"\[([^\]]*)\]", target["expr"]))


def test_the_chart_hands_them_to_grafana() -> None:
    chart = render({"metrics": {"dashboards": {"enabled": True}}})
    for name, dashboard in DASHBOARDS.items():
        found = chart.one("ConfigMap", f"penstock-dashboard-{name}")
        assert found["metadata"]["labels"]["grafana_dashboard"] == "1"
        assert json.loads(found["data"][f"{name}.json"]) == dashboard
