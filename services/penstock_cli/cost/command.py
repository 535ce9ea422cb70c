"""`penstock cost`: what answers cost, by model and revision, what is kept in vain, and what would save it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from penstock.errors import Invalid, PenstockError, Unavailable
from penstock_cli.cost import options
from penstock_cli.files import read_text, secret_from_environment
from penstock_cli.objects.command import open_cluster
from penstock_cli.objects.showing import remark, say
from penstock_cli.options import Context, Kubeconfig, StateDir, state_folder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from penstock.cost.allocation import Consumption
    from penstock.cost.prices import PriceList
    from penstock_cli.cost.report import CostReport, DeploymentFacts
    from penstock_cli.cost.samples import CostSample

_UNITS: Final = {"m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_COLUMNS: Final = 150


def cost(
    what: options.What = None,
    *,
    since: options.Since = "24h",
    prometheus: options.Prometheus = None,
    metrics: options.Metrics = None,
    prices: options.Prices = None,
    prices_from: options.PricesFrom = "penstock-system/penstock-prices",
    share_platform: options.SharePlatform = False,
    as_json: options.AsJson = False,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    state_dir: StateDir = None,
) -> None:
    """Show what answers cost, by model and revision.

    CPU, memory, accelerators and energy by 1,000 answers, what is kept for replicas and not used, one change that would save most,
    and what an optimization saves a month. With `penstock run` it needs no option.

    **Examples**

    `penstock cost`

    `penstock cost vision/digits --prometheus http://localhost:9090 --since 7d --prices prices.yaml`

    `kubectl port-forward -n penstock-system service/penstock-gateway-metrics 8083 & penstock cost --metrics http://localhost:8083`
    """
    from penstock.cost import allocation  # noqa: PLC0415 (only for this command)
    from penstock_cli.cost.report import CostReport, document, remarks  # noqa: PLC0415 (loads the API types)
    from penstock_cli.cost.samples import consumptions, consumptions_since_start, platform_seconds  # noqa: PLC0415 (the same)

    if prometheus is not None and metrics is not None:
        raise Invalid("InvalidOption", "--prometheus and --metrics are two ways to the same figures: give one")
    namespace, name = _place(what)
    listed, words = _prices(prices, prices_from, kubeconfig, context, state_dir)
    window = parse_since(since)
    samples, source = _samples(prometheus, metrics, window, state_dir)
    found = consumptions(samples) if prometheus is not None else consumptions_since_start(samples)
    wanted = [
        each
        for each in found
        if (not namespace or each.key.namespace == namespace) and (not name or each.key.model == name)
    ]
    if (lack := tell_lack(what, found, wanted)) is not None:
        remark(lack)
    seconds = float(window) if prometheus is not None else max((each.window for each in wanted), default=0.0)
    whole = allocation.allocate(wanted, listed, seconds, platform_seconds(samples) if what is None else {})
    facts = _facts(kubeconfig, context, state_dir, namespace, name)
    report = CostReport(allocation.share_platform(whole) if share_platform else whole, listed, source, facts)
    if as_json:
        say(json.dumps(document(report), indent=2))
        return
    _show(report)
    for each in remarks(report):
        say(each)
    say(f"Prices: {words}")


def tell_lack(what: str | None, found: Sequence[Consumption], wanted: Sequence[Consumption]) -> str | None:
    """Why there is nothing to show; None where there is something.

    Args:
        what: was asked for.
        found: all that was told.
        wanted: of it, what was asked for.
    """
    if not found:
        return "no replica has told what it uses: replicas of a former release do not, and without any there is nothing to show"
    if wanted:
        return None
    seen = ", ".join(sorted({f"{each.key.namespace}/{each.key.model}" for each in found}))
    return f"no replica of {what} has told what it uses; there are figures of {seen}"


def parse_since(text: str) -> int:
    """Seconds of a time such as `90m` or `7d`.

    Raises:
        Invalid: it is none.
    """
    found = re.fullmatch(r"([1-9]\d{0,5})([mhdw])", text)
    if found is None:
        raise Invalid("InvalidOption", f"--since {text}: write a number and a unit, such as 90m, 24h, 7d or 4w")
    return int(found[1]) * _UNITS[found[2]]


def _place(what: str | None) -> tuple[str, str]:
    """Namespace and name; empty: any."""
    if what is None:
        return "", ""
    namespace, slash, name = what.partition("/")
    return (namespace, name) if slash else ("default", namespace)


def _prices(
    file: Path | None, config_map: str, kubeconfig: Path | None, context: str | None, state_dir: Path | None
) -> tuple[PriceList, str]:
    """The price list and where it is from: the file's, else that of the cluster's ConfigMap.

    Raises:
        Invalid: there is one, which is none, or the ConfigMap's name is none.
    """
    from penstock_cli.cost.facts import parse_prices  # noqa: PLC0415 (loads the API types)

    place = config_map.split("/")
    if len(place) != 2 or not all(place):  # noqa: PLR2004 (namespace and name)
        raise Invalid("InvalidOption", f"--prices-from {config_map}: write NAMESPACE/NAME of a ConfigMap")
    if file is not None:
        return parse_prices(read_text(file), str(file)), str(file)
    return _prices_of_cluster((place[0], place[1]), kubeconfig, context, state_dir)


def _prices_of_cluster(
    place: tuple[str, str], kubeconfig: Path | None, context: str | None, state_dir: Path | None
) -> tuple[PriceList, str]:
    """The cluster's price list and where it is from; an example where it has none, or does not show it.

    Raises:
        Invalid: it has one, which is none.
    """
    from penstock.cost.prices import EXAMPLE_PRICES  # noqa: PLC0415 (only for this command)
    from penstock_cli.cost.facts import find_prices  # noqa: PLC0415 (loads the API types)

    example = "an example (OpenCost's defaults), nobody's actual rates"
    try:
        with open_cluster(kubeconfig, context, state_dir) as cluster:
            found = find_prices(cluster, *place)
    except Unavailable as error:
        return EXAMPLE_PRICES, f"{example}; whether the cluster has a list cannot be read: {error.message}"
    except Invalid as error:
        if error.reason == "InvalidPrices":
            raise
        found = None
    if found is None:
        return (
            EXAMPLE_PRICES,
            f"{example}. Give your own: --prices FILE, or for all of a cluster the chart's value cost.prices",
        )
    return found, f"ConfigMap {place[0]}/{place[1]}"


def _samples(
    prometheus: str | None, metrics: str | None, window: int, state_dir: Path | None
) -> tuple[list[CostSample], str]:
    """Samples, and in words where they are from."""
    from penstock_cli.cost.sources import ask_component, ask_prometheus, ask_replicas, check_url  # noqa: PLC0415 (an HTTP client)

    if prometheus is not None:
        url = check_url(prometheus, "--prometheus")
        return (
            ask_prometheus(url, window, secret_from_environment(options.TOKEN_VARIABLE)),
            f"Prometheus at {url}, the last {window / 3600:g} h",
        )
    words = "replicas that run now, each since it started; months are what they would be if it went on so"
    if metrics is not None:
        return ask_replicas(check_url(metrics, "--metrics")), words
    known = state_folder(state_dir).metrics_urls()
    if "gateway" not in known:
        raise Invalid(
            "NoMetrics",
            "no `penstock run` is up, and neither --prometheus nor --metrics says where figures are. On a cluster without Prometheus: "
            "kubectl port-forward -n penstock-system service/penstock-gateway-metrics 8083, then penstock cost --metrics "
            "http://localhost:8083",
        )
    operator = ask_component(known["operator"]) if "operator" in known else []
    return [*ask_replicas(known["gateway"]), *operator], words


def _facts(
    kubeconfig: Path | None, context: str | None, state_dir: Path | None, namespace: str, name: str
) -> dict[tuple[str, str], DeploymentFacts]:
    """What the cluster says; nothing where it cannot be asked: figures are told without it."""
    from penstock_cli.cost.facts import find_facts  # noqa: PLC0415 (loads the API types)

    try:
        with open_cluster(kubeconfig, context, state_dir) as cluster:
            found = find_facts(cluster, namespace or None)
    except PenstockError as error:
        remark(f"nothing is recommended, since deployments cannot be read: {error.message}")
        return {}
    return {place: facts for place, facts in found.items() if not name or place[1] == name}


def _show(report: CostReport) -> None:
    from rich.console import Console  # noqa: PLC0415 (only for tables)

    from penstock_cli.cost.report import HEADINGS, rows  # noqa: PLC0415 (only for this command)
    from penstock_cli.tables import print_figures  # noqa: PLC0415 (the same)

    if not report.allocation.lines:
        return
    print_figures(Console(), HEADINGS, rows(report), words=2, columns=_COLUMNS)
