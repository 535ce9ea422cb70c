from __future__ import annotations

import pytest

from penstock.cost.advice import Terms, advise
from penstock.cost.allocation import Consumption, CostKey, CostLine, allocate, share_platform
from penstock.cost.prices import EXAMPLE_PRICES, GIB, MONTH, PriceList, read_prices
from penstock.cost.savings import SavingsBasis, live_savings, measured_savings, read_throughput
from penstock.cost.usage import EnergySource, UsageCounts
from penstock.errors import Invalid

HOUR = 3600.0
PRICES = PriceList(cpu_hour=1.0, memory_gib_hour=0.1, accelerator_hours={"nvidia-l4": 10.0, "*": 2.0})
DIGITS = CostKey("vision", "digits", "a1")


def one(counts: UsageCounts, kind: str = "", prices: PriceList = PRICES) -> CostLine:
    (line,) = allocate([Consumption(DIGITS, counts, kind)], prices, HOUR).lines
    return line


@pytest.mark.parametrize(
    ("counts", "kind", "costs"),
    [
        pytest.param(
            UsageCounts(cpu_seconds=HOUR / 2, reserved_cpu_seconds=2 * HOUR),
            "",
            (0.5, 2.0, 2.0, 1.5),
            id="what is kept and not used is idle",
        ),
        pytest.param(
            UsageCounts(cpu_seconds=3 * HOUR, reserved_cpu_seconds=HOUR),
            "",
            (3.0, 1.0, 3.0, 0.0),
            id="what is used beyond it costs too, and nothing is idle",
        ),
        pytest.param(
            UsageCounts(
                cpu_seconds=2 * HOUR,
                reserved_cpu_seconds=HOUR,
                memory_byte_seconds=GIB * HOUR,
                reserved_memory_byte_seconds=11 * GIB * HOUR,
            ),
            "",
            (2.1, 2.1, 3.1, 1.0),
            id="each resource by itself: idle memory does not pay for CPU",
        ),
        pytest.param(
            UsageCounts(cpu_seconds=HOUR, overhead_cpu_seconds=HOUR), "", (2.0, 0.0, 2.0, 0.0), id="overhead is use"
        ),
        pytest.param(
            UsageCounts(accelerator_seconds=HOUR / 10, reserved_accelerator_seconds=HOUR / 2),
            "nvidia-l4",
            (1.0, 5.0, 5.0, 4.0),
            id="an accelerator by its kind",
        ),
        pytest.param(
            UsageCounts(reserved_accelerator_seconds=HOUR),
            "other",
            (0.0, 2.0, 2.0, 2.0),
            id="a kind that the list does not name",
        ),
    ],
)
def test_a_line_costs_the_greater_of_use_and_reservation(
    counts: UsageCounts, kind: str, costs: tuple[float, float, float, float]
) -> None:
    line = one(counts, kind)
    assert (line.used_cost, line.reserved_cost, line.cost, line.idle_cost) == pytest.approx(costs)


def test_energy_costs_where_it_has_a_price_and_is_never_idle() -> None:
    line = one(UsageCounts(joules={EnergySource.RAPL: 3.6e6}), prices=PriceList(kilowatt_hour=0.3))
    assert (line.used_cost, line.cost, line.idle_cost) == pytest.approx((0.3, 0.3, 0.0))


def test_replicas_of_a_revision_are_one_line_and_revisions_are_not() -> None:
    counts = UsageCounts(answered=10, cpu_seconds=5, joules={EnergySource.ESTIMATED: 2})
    other = CostKey("vision", "digits", "b2")
    lines = allocate([Consumption(DIGITS, counts), Consumption(DIGITS, counts), Consumption(other, counts)], PRICES, 60)
    assert [(each.key, each.counts.answered, each.counts.joules) for each in lines.lines] == [
        (DIGITS, 20, {EnergySource.ESTIMATED: 4}),
        (other, 10, {EnergySource.ESTIMATED: 2}),
    ]


@pytest.mark.parametrize("shared", [False, True], ids=["on lines of its own", "charged to the models"])
def test_gateways_and_operators_vanish_from_no_sum(*, shared: bool) -> None:
    whole = allocate(
        [
            Consumption(DIGITS, UsageCounts(cpu_seconds=30, overhead_cpu_seconds=10)),
            Consumption(CostKey("text", "bert"), UsageCounts(cpu_seconds=120)),
        ],
        PRICES,
        60,
        {"gateway": 30.0, "operator": 10.0},
    )
    told = share_platform(whole) if shared else whole
    assert told.cpu_seconds == pytest.approx(200)
    assert told.cost == pytest.approx(whole.cost)
    if shared:
        assert [each.cpu_seconds for each in told.lines] == pytest.approx([150, 50])


def test_without_use_there_is_nobody_to_charge_the_platform_to() -> None:
    nobody = allocate([], PRICES, 60, {"gateway": 30.0})
    assert share_platform(nobody) == nobody


def test_figures_by_a_thousand_answers_and_by_month() -> None:
    line = one(UsageCounts(answered=4000, cpu_seconds=8))
    assert line.figure_per_thousand(line.cpu_seconds) == 2
    assert one(UsageCounts(cpu_seconds=8)).figure_per_thousand(8) is None
    assert line.monthly(2.0) == pytest.approx(2.0 * 730)


PRICE_FILE = "prices.yaml"


def test_a_price_list_is_read() -> None:
    found = read_prices({"currency": "EUR", "cpuHour": 0.02, "acceleratorHours": {"nvidia-l4": 0.7}}, PRICE_FILE)
    assert (found.currency, found.cpu_hour, found.accelerator_price("nvidia-l4"), found.accelerator_price("other")) == (
        "EUR",
        0.02,
        0.7,
        0.0,
    )


@pytest.mark.parametrize(
    ("document", "told"),
    [
        pytest.param({"cpuHours": 1}, "cpuHours: is no price; there are currency, cpuHour", id="an unknown price"),
        pytest.param({"cpuHour": -1}, "cpuHour: Input should be greater than or equal to 0", id="below nothing"),
        pytest.param({"cpuHour": "much"}, "cpuHour: Input should be a valid number", id="no number"),
        pytest.param({"cpuHour": float("inf")}, "cpuHour: Input should be a finite number", id="without end"),
        pytest.param({"acceleratorHours": {"nvidia-l4": -1}}, "acceleratorHours.nvidia-l4", id="of one kind"),
        pytest.param(["cpuHour"], "a price list is a mapping such as", id="a list"),
    ],
)
def test_a_wrong_price_list_is_refused_with_what_and_where(document: object, told: str) -> None:
    with pytest.raises(Invalid) as refused:
        read_prices(document, PRICE_FILE)
    assert refused.value.message.startswith(f"{PRICE_FILE}: ")
    assert told in refused.value.message


def steady(replicas: float, answered: int, cpus: float, kept: float, **more: float) -> CostLine:
    """An hour of so many replicas, each of which uses and keeps so many cores."""
    seconds = replicas * HOUR
    return one(
        UsageCounts(
            seconds=seconds, answered=answered, cpu_seconds=cpus * seconds, reserved_cpu_seconds=kept * seconds,
            **{name: value * seconds for name, value in more.items()},  # type: ignore[arg-type]
        ),
        "nvidia-l4",
    )  # fmt: skip


L4 = Terms(cpus=1, accelerators=1, accelerator="nvidia-l4")


@pytest.mark.parametrize(
    ("line", "terms", "change", "saves"),
    [
        pytest.param(steady(2, 0, 0.01, 1), Terms(min_replicas=2), "scaling.minReplicas: 0", 2.0, id="asked by nobody"),
        pytest.param(
            steady(4, 36_000, 0.65, 1),
            Terms(min_replicas=4, capacity=10),
            "scaling.minReplicas: 2",
            2.0,
            id="more replicas than the traffic asks for, by what one answers within the objective",
        ),
        pytest.param(
            steady(4, 36_000, 0.3, 0.5),
            Terms(fixed_replicas=4, cpus=0.5),
            None,
            0,
            id="a fixed number that its use needs",
        ),
        pytest.param(
            steady(5, 36_000, 0.1, 0.2),
            Terms(fixed_replicas=5, cpus=0.2),
            "scaling.replicas: 4",
            0.2,
            id="a fixed number, by its use",
        ),
        pytest.param(
            steady(4, 36_000, 0.65, 1),
            Terms(min_replicas=1, capacity=10),
            None,
            0,
            id="not the least number keeps them there, but the load",
        ),
        pytest.param(
            steady(1, 36_000, 0.5, 4), Terms(cpus=4), 'resources.cpu: "0.8"', 3.2, id="cores that nobody uses"
        ),
        pytest.param(
            steady(1, 36_000, 0.65, 1, reserved_accelerator_seconds=1, accelerator_seconds=0.3),
            L4,
            'resources.accelerator.count: "0.5"',
            5.0,
            id="a share of a GPU",
        ),
        pytest.param(
            steady(1, 36_000, 0.65, 1, reserved_accelerator_seconds=1, accelerator_seconds=0.01),
            L4,
            "resources.accelerator: null",
            10.0,
            id="a group without a GPU that is hardly used",
        ),
        pytest.param(
            steady(1, 36_000, 0.65, 1, reserved_accelerator_seconds=1, accelerator_seconds=0.3),
            Terms(accelerators=1, accelerator="nvidia-l4", is_shareable=False),
            None,
            0,
            id="no share of what cannot be shared",
        ),
        pytest.param(steady(0, 0, 0, 0), Terms(min_replicas=0), None, 0, id="nothing runs"),
    ],
)
def test_what_would_save_most_is_recommended(line: CostLine, terms: Terms, change: str | None, saves: float) -> None:
    found = advise(line, terms, PRICES)
    assert (found.change if found else None) == change
    if found is not None:
        assert found.saves_a_month == pytest.approx(saves * MONTH / HOUR)
        assert found.gives_up


def test_a_recommendation_that_may_break_the_objective_says_so() -> None:
    found = advise(steady(1, 36_000, 0.5, 4), Terms(cpus=4, objective_milliseconds=50), PRICES)
    assert found is not None
    assert "the objective of 50 ms may break" in found.gives_up


def test_fewer_replicas_than_the_traffic_needs_are_never_recommended() -> None:
    for rate in range(1, 60):
        line = steady(6, int(rate * HOUR), 0.65, 1)
        found = advise(line, Terms(min_replicas=6, capacity=10), PRICES)
        if found is not None:
            assert int(found.change.rpartition(" ")[2]) * 10 * 0.7 >= rate


def test_savings_are_what_answers_cost_before_less_what_they_cost_now_at_the_traffic_seen() -> None:
    before = one(UsageCounts(answered=10_000, cpu_seconds=100))
    after = one(UsageCounts(answered=30_000, cpu_seconds=60))
    found = live_savings(before, after)
    assert found is not None
    assert found.basis is SavingsBasis.LIVE
    assert found.answers_a_month == pytest.approx(40_000 * 730)
    assert found.a_month == pytest.approx((100 / 10_000 - 60 / 30_000) / 3600 * 40_000 * 730)


def test_a_dearer_revision_saves_less_than_nothing() -> None:
    found = live_savings(one(UsageCounts(answered=9999, cpu_seconds=1)), one(UsageCounts(answered=9999, cpu_seconds=2)))
    assert found is not None
    assert found.a_month < 0


def test_nothing_is_said_of_a_revision_that_has_hardly_answered() -> None:
    assert live_savings(one(UsageCounts(answered=9)), one(UsageCounts(answered=90_000))) is None


@pytest.mark.parametrize(
    ("text", "times"),
    [
        pytest.param("240/s → 2,160/s", 9.0, id="a run's figure"),
        pytest.param("", 0.0, id="none"),
        pytest.param("0/s → 10/s", 0.0, id="from nothing"),
    ],
)
def test_a_runs_figure_says_how_many_times_as_much_a_replica_answers(text: str, times: float) -> None:
    assert read_throughput(text) == pytest.approx(times)


def test_what_an_optimization_measured_is_marked_so() -> None:
    after = one(UsageCounts(answered=1000, cpu_seconds=3600))
    found = measured_savings(after, 3.0)
    assert found is not None
    assert (found.basis, found.before_per_thousand, found.after_per_thousand) == (SavingsBasis.MEASURED, 3.0, 1.0)
    assert found.is_at_most, "HTTP is in what an answer costs and was not in what was measured"
    assert measured_savings(after, 0.0) is None


def test_the_example_prices_have_a_price_for_any_accelerator() -> None:
    assert EXAMPLE_PRICES.accelerator_price("nvidia-h200") == 0.95
