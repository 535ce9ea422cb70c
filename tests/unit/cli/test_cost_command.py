"""What `penstock cost` shows, of samples as replicas and Prometheus give them."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from tests.chart.helm import HelmFailedError, render
from tests.telling import assert_tells
from typer.testing import CliRunner, Result

from penstock.cost.advice import Terms
from penstock.cost.allocation import CostKey, allocate
from penstock.cost.prices import EXAMPLE_PRICES, PriceList
from penstock.cost.usage import EnergySource, ReservedResources, UsageCounts
from penstock.errors import Invalid, Unavailable
from penstock.serving.control import ActorFacts, ReplicaSettings
from penstock_cli.cost.command import parse_since, tell_lack
from penstock_cli.cost.facts import find_prices
from penstock_cli.cost.report import CostReport, DeploymentFacts, document, remarks, rows
from penstock_cli.cost.samples import consumptions, consumptions_since_start, platform_seconds
from penstock_cli.cost.sources import parse, read_answer
from penstock_cli.main import app
from penstock_operator.runtime.cluster import CONFIG_MAP, NAMESPACE, Key
from penstock_operator.runtime.cluster.embedded import EmbeddedCluster
from penstock_serving.replica.telemetry.usage import UsageMetrics

USAGE = UsageCounts(
    seconds=7200, answered=500_000, cpu_seconds=900, overhead_cpu_seconds=100, memory_byte_seconds=7200 * 2.0**30,
    accelerator_seconds=720, joules={EnergySource.ESTIMATED: 4000.0}, reserved_cpu_seconds=14_400,
    reserved_memory_byte_seconds=0, reserved_accelerator_seconds=7200,
)  # fmt: skip


def exposition(usage: UsageCounts = USAGE, revision: str = "v2") -> str:
    """What a replica says of itself."""
    reserved = ReservedResources(cpus=2, accelerators=1, accelerator="nvidia-l4")
    settings = ReplicaSettings(
        namespace="vision", model="digits", revision=revision, replica_id="r", storage_uri="file:///m",
        actor=ActorFacts(reserved=reserved),
    )  # fmt: skip
    registry = CollectorRegistry(auto_describe=False)
    registry.register(UsageMetrics(settings, lambda: usage))
    return generate_latest(registry).decode()


def test_what_a_replica_tells_is_what_is_read() -> None:
    samples = parse(exposition(), {"namespace": "vision", "model": "digits", "instance": "r1"})
    (found,) = consumptions(samples)
    assert (found.key, found.counts, found.accelerator) == (CostKey("vision", "digits", "v2"), USAGE, "nvidia-l4")


def test_a_replica_cannot_claim_to_be_anothers() -> None:
    samples = parse(exposition(), {"namespace": "text", "model": "bert", "instance": "r1"})
    assert {(each.key.namespace, each.key.model) for each in consumptions(samples)} == {("text", "bert")}


def test_replicas_that_run_now_are_so_many_for_their_mean_age() -> None:
    samples = [
        *parse(exposition(), {"instance": "r1"}),
        *parse(exposition(USAGE.model_copy(update={"seconds": 3600.0})), {"instance": "r2"}),
    ]
    (line,) = allocate(consumptions_since_start(samples), EXAMPLE_PRICES, 0).lines
    assert (line.window, line.counts.seconds / line.window, line.counts.answered) == (5400, 2, 1_000_000)


def answer(*results: tuple[dict[str, str], str]) -> bytes:
    vectors = [{"metric": labels, "value": [1.0, value]} for labels, value in results]
    return json.dumps({"status": "success", "data": {"resultType": "vector", "result": vectors}}).encode()


def test_prometheus_sums_are_read_by_revision() -> None:
    labels = {"namespace": "vision", "model": "digits", "revision": "v2"}
    samples = [
        *read_answer("penstock_replica_cpu_seconds_total", 200, answer((labels, "12.5")), "here"),
        *read_answer("penstock_replica_answered_requests_total", 200, answer((labels, "99.7")), "here"),
        *read_answer("penstock_platform_cpu_seconds_total", 200, answer(({"component": "gateway"}, "3")), "here"),
    ]
    (found,) = consumptions(samples)
    assert (found.counts.cpu_seconds, found.counts.answered) == (12.5, 100)
    assert platform_seconds(samples) == {"gateway": 3.0}


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        pytest.param(200, b"<html>", "is no Prometheus", id="a page"),
        pytest.param(200, b"[]", "is no Prometheus", id="other JSON"),
        pytest.param(0, b"", "is no Prometheus", id="nothing"),
        pytest.param(422, b'{"status": "error", "error": "parse error"}', "422: parse error", id="a refusal"),
    ],
)
def test_what_is_no_answer_of_prometheus_is_told(status: int, body: bytes, told: str) -> None:
    with pytest.raises(Unavailable) as refused:
        read_answer("m", status, body, "http://here")
    assert told in refused.value.message


def report(facts: DeploymentFacts, *more: str) -> CostReport:
    samples = [sample for text in (exposition(), *more) for sample in parse(text, {"instance": str(len(text))})]
    whole = allocate(consumptions(samples), EXAMPLE_PRICES, 7200, {"gateway": 60.0})
    return CostReport(whole, EXAMPLE_PRICES, "a test", {("vision", "digits"): facts})


L4 = Terms(cpus=2, accelerators=1, accelerator="nvidia-l4", objective_milliseconds=50)


def test_the_table_has_figures_by_a_thousand_answers() -> None:
    (row,) = rows(report(DeploymentFacts("v2", L4)))
    # 1,000 CPU-seconds, 7,200 GiB-seconds, 720 GPU-seconds, 4,000 J over 500,000 answers; replicas: 7,200 s in 7,200 s.
    assert row[:10] == ("vision/digits", "v2", "1.0", "500,000", "2", "14.4", "1.44", "~8", "0.00407", "28.8")


def test_under_it_stands_what_is_no_models_and_what_would_save_most() -> None:
    told = "\n".join(remarks(report(DeploymentFacts("v2", L4, "100/s → 300/s"))))
    assert "CPU seconds in all: 1,060.0, of which no model's: gateway 60.0" in told
    assert 'resources.accelerator.count: "0.25" would save 520.12 USD a month' in told
    assert_tells(told, "share its memory")
    assert "with the model itself" in told
    assert "(measured); at the traffic seen that saves at most" in told
    assert_tells(told, "HTTP not measured")


def test_two_revisions_that_answered_are_compared_live() -> None:
    dearer = exposition(USAGE.model_copy(update={"cpu_seconds": 1900.0}), "v1")
    told = document(report(DeploymentFacts("v2", L4), dearer))
    (savings,) = told["savings"]
    assert (savings["before"], savings["basis"], savings["isAtMost"]) == ("v1", "live", False)
    assert savings["savesAMonth"] == pytest.approx(
        1000 / 3600 * EXAMPLE_PRICES.cpu_hour / 500_000 * savings["answersAMonth"]
    )


def test_a_document_sums_to_all_that_was_used() -> None:
    told = document(report(DeploymentFacts(None, L4)))
    sums = sum(each["counts"]["cpuSeconds"] + each["counts"]["overheadCpuSeconds"] for each in told["lines"])
    assert told["cpuSeconds"] == sums + sum(told["platform"]["cpuSeconds"].values()) == 1060
    assert told["currency"] == "USD"


def test_energy_that_was_measured_is_not_marked() -> None:
    measured = USAGE.model_copy(update={"joules": {EnergySource.RAPL: 4000.0}})
    whole = allocate(consumptions(parse(exposition(measured), {})), PriceList(), 7200)
    assert rows(CostReport(whole, PriceList(), "a test"))[0][7] == "8"


@pytest.mark.parametrize(
    ("text", "seconds"), [pytest.param("90m", 5400, id="minutes"), pytest.param("7d", 604_800, id="days")]
)
def test_a_time_back_is_read(text: str, seconds: int) -> None:
    assert parse_since(text) == seconds


def cost(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["cost", *arguments])


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        pytest.param(["--since", "yesterday"], ["--since yesterday", "such as 90m"], id="a time that is none"),
        pytest.param(["--metrics", "ftp://x"], ["--metrics ftp://x", "such as"], id="an address that is none"),
        pytest.param(["--metrics", "http://a", "--prometheus", "http://b"], ["give one"], id="two sources"),
        pytest.param([], ["kubectl port-forward", "--metrics"], id="no source, and no run"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_what_to_do(
    arguments: list[str], told: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_STATE_DIR", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    failed = cost(*arguments)
    assert failed.exit_code != 0
    assert_tells(str(failed.exception), *told)


def test_what_is_not_there_is_told_beside_what_is() -> None:
    found = consumptions(parse(exposition(), {}))
    assert_tells(tell_lack("vision/digts", found, []) or "", "vision/digts vision/digits")
    assert_tells(tell_lack("vision/digits", [], []) or "", "no replica")
    assert tell_lack("vision/digits", found, found) is None


def test_a_price_list_that_is_no_yaml_is_refused(tmp_path: Path) -> None:
    (tmp_path / "prices.yaml").write_text("cpuHour: [")
    failed = cost("--prices", str(tmp_path / "prices.yaml"))
    assert_tells(str(failed.exception), "prices.yaml", "YAML")


PLACE = Key("penstock-system", "penstock-prices")


def cluster_with(folder: Path, prices: str | None) -> EmbeddedCluster:
    cluster = EmbeddedCluster(folder / "cluster.sqlite")
    if prices is not None:
        metadata = {"name": PLACE.name, "namespace": PLACE.namespace}
        made = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"prices.yaml": prices}}
        cluster.create(NAMESPACE, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": PLACE.namespace}})
        cluster.create(CONFIG_MAP, made)
    return cluster


def test_the_price_list_that_the_chart_makes_is_read(tmp_path: Path) -> None:
    values = {
        "cost": {"prices": {"currency": "EUR", "cpuHour": 0.03, "acceleratorHours": {"nvidia-l4": 0.7, "*": 1.5}}}
    }
    rendered = render(values)
    made = rendered.one("ConfigMap", PLACE.name)
    with closing(cluster_with(tmp_path, made["data"]["prices.yaml"])) as cluster:
        found = find_prices(cluster, *PLACE)
    assert found == PriceList(currency="EUR", cpu_hour=0.03, accelerator_hours={"nvidia-l4": 0.7, "*": 1.5})
    (rule,) = rendered.one("Role", PLACE.name)["rules"]
    assert (rule["verbs"], rule["resourceNames"]) == (["get"], [PLACE.name])
    assert not [each for each in render().objects if each["metadata"]["name"] == PLACE.name], "by default there is none"


@pytest.mark.parametrize("price", [{"cpuhour": 1}, {"cpuHour": -1}, {"cpuHour": "dear"}])
def test_the_chart_refuses_what_is_no_price(price: dict[str, object]) -> None:
    with pytest.raises(HelmFailedError, match="prices"):
        render({"cost": {"prices": price}})


def test_without_a_list_in_the_cluster_there_is_none_and_a_wrong_one_is_refused(tmp_path: Path) -> None:
    with closing(cluster_with(tmp_path, None)) as cluster:
        assert find_prices(cluster, *PLACE) is None
    for number, wrong in enumerate(("cpuHour: [", "cpuHour: .nan", "cpuhour: 1", "")):
        (folder := tmp_path / str(number)).mkdir()
        with closing(cluster_with(folder, wrong)) as cluster, pytest.raises(Invalid) as raised:
            find_prices(cluster, *PLACE)
        assert_tells(raised.value.message, "ConfigMap penstock-system/penstock-prices prices.yaml")
