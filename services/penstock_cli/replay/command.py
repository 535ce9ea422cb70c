"""`penstock replay`."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penstock.errors import Invalid
from penstock_cli.options import FiguresAsJson, check_page
from penstock_cli.replay import options
from penstock_cli.replay.loads import LoadShape, draw_arrivals, read_load, shape_rates

if TYPE_CHECKING:
    from penstock_cli.replay.model import ReplayCase, ServiceTimes
    from penstock_cli.replay.policies import PolicyFamily
    from penstock_cli.replay.results import ReplayDocument

_TABLE_COLUMNS = 160
_POLICIES = "penstock,serve,knative,hpa"


def replay(
    load: options.Load = None,
    *,
    shape: options.Shape = LoadShape.STEP,
    low: options.Low = 10.0,
    high: options.High = 100.0,
    minutes: options.Minutes = 30.0,
    curve: options.Curve = "1:120,2:170,4:280,8:500",
    max_batch: options.MaxBatch = None,
    slo: options.Slo = 1500.0,
    start_seconds: options.StartSeconds = 20.0,
    estimate_times: options.EstimateTimes = 1.0,
    minimum: options.Minimum = 1,
    maximum: options.Maximum = 10,
    forecast: options.Forecast = True,
    policies: options.Policies = _POLICIES,
    search: options.Search = False,
    price: options.ViolationPrice = options.VIOLATION_SECONDS,
    seed: options.Seed = 0,
    as_json: FiguresAsJson = False,
    html: options.Html = None,
) -> None:
    """Simulate how scaling policies would carry a load: violations, waits and replica-hours.

    Nothing is started. Penstock's policy is the very function that decides in a cluster; beside it stand the rules of Ray Serve,
    Knative's KPA and the HorizontalPodAutoscaler.

    **Examples**

    `penstock replay --shape bursty --low 20 --high 120 --html replay.html`

    `penstock replay requests.csv --curve artifacts/digits/manifest.json --slo 50 --search`

    `penstock replay --policy penstock --shape spike --json`
    """
    from penstock_cli.replay.model import ReplayCase  # noqa: PLC0415 (only for this command)
    from penstock_cli.replay.policies import choose_policies  # noqa: PLC0415 (the same)

    chosen = _chosen_policies(policies)
    for least, most, values in (("--min", "--max", (minimum, maximum)), ("--low", "--high", (low, high))):
        if values[0] > values[1]:
            raise Invalid(
                "InvalidOption",
                f"{least} {values[0]:g} is more than {most} {values[1]:g}: lower the one or raise the other",
            )
    check_page(html)
    service = _service(curve, max_batch)
    case = ReplayCase(service, slo / 1000, start_seconds, minimum, maximum, estimate_times=estimate_times)
    if load is not None:
        arrivals, title = read_load(load, seed), f"Load recorded in {load.name}"
        seconds = max(1, math.ceil(arrivals[-1])) if arrivals else 1
    else:
        seconds = round(minutes * 60)
        arrivals = draw_arrivals(shape_rates(shape, low, high, seconds, seed), seed)
        title = f"Load: {shape}, {low:g} to {high:g} requests/s for {minutes:g} min"
    families = choose_policies(chosen, forecast=forecast)
    document = replay_all(case, arrivals, seconds, title=title, families=families, price=price if search else None)
    _show(document, as_json=as_json, html=html)


def replay_all(
    case: ReplayCase,
    arrivals: list[float],
    seconds: int,
    *,
    title: str,
    families: Sequence[PolicyFamily],
    price: float | None,
) -> ReplayDocument:
    """Each policy at its defaults, and at the best setting where a violation has a price."""
    from penstock_cli.replay.results import ReplayDocument, figures_of, rates_of  # noqa: PLC0415 (only for this command)
    from penstock_cli.replay.search import PolicySearch, price_by  # noqa: PLC0415 (the same)

    figures = []
    for family in families:
        trials = PolicySearch(case, [arrivals], seconds, family)
        figures.append(figures_of(trials.default(), seconds, searched=False))
        if price is not None:
            figures.append(figures_of(trials.best(price_by(price)), seconds, searched=True))
    curve = ", ".join(f"{rows}: {each * 1e3:g} ms" for rows, each in case.service.points)
    return ReplayDocument(
        load=title,
        replica=(
            f"A run takes ({curve}) by rows, {case.service.max_batch} at most: a replica answers "
            f"{case.service.capacity:.4g} requests/s; it starts in {case.start_seconds:g} s; {case.minimum} to {case.maximum} replicas"
        ),
        seconds=seconds,
        capacity=case.service.capacity,
        slo_seconds=case.bound_seconds,
        rates=rates_of(arrivals, seconds),
        policies=tuple(figures),
    )


def _chosen_policies(text: str) -> list[str]:
    """Their names.

    Raises:
        Invalid: none is named, or one that is none.
    """
    from penstock_cli.replay.policies import POLICIES  # noqa: PLC0415 (only for this command)

    chosen = [each.strip() for each in text.split(",") if each.strip()]
    unknown = [each for each in chosen if each not in POLICIES]
    if unknown or not chosen:
        raise Invalid("InvalidOption", f"--policy {', '.join(unknown) or text}: there are {_POLICIES}")
    return chosen


def _service(text: str, max_batch: int | None) -> ServiceTimes:
    """Service times as written, or as a file has them.

    Raises:
        Invalid: they are not there, or are none.
    """
    from penstock_cli.replay.model import ServiceTimes  # noqa: PLC0415 (only for this command)

    wrong = f"--curve {text}: write ROWS:MILLISECONDS,… such as 1:120,8:500, or name a manifest.json or report.json with a capacity"
    try:
        if text.endswith(".json"):
            points, most = _read_capacity(json.loads(Path(text).read_text(encoding="utf-8")))
        else:
            pairs = [each.split(":") for each in text.split(",")]
            points = tuple((int(rows), float(milliseconds) / 1e3) for rows, milliseconds in pairs)
            most = points[-1][0]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Invalid("InvalidOption", wrong) from error
    return ServiceTimes(points, max_batch or most)


def _read_capacity(document: dict[str, Any]) -> tuple[tuple[tuple[int, float], ...], int]:
    """The measured curve of an optimized model's manifest, or of a search's report."""
    capacity = (document.get("optimization") or document)["capacity"]
    points = tuple((int(each["rows"]), float(each["p50Milliseconds"]) / 1e3) for each in capacity["curve"])
    return points, int(capacity["maxBatchSize"])


def _show(document: ReplayDocument, *, as_json: bool, html: Path | None) -> None:
    from rich.console import Console  # noqa: PLC0415 (only for this command)

    from penstock_cli.replay.results import HEADINGS, render, rows  # noqa: PLC0415 (the same)
    from penstock_cli.tables import print_figures  # noqa: PLC0415 (the same)

    if html is not None:
        html.write_text(render(document), encoding="utf-8")
    console = Console()
    if as_json:
        console.print_json(document.model_dump_json())
        return
    console.print(document.load, document.replica, sep="\n", highlight=False, markup=False, soft_wrap=True)
    print_figures(console, HEADINGS, rows(document.policies), words=2, columns=_TABLE_COLUMNS)
    if html is not None:
        console.print(f"Page: {html}", highlight=False, markup=False, soft_wrap=True)
