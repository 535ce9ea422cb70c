"""What the cluster says of deployments that counts for their cost."""

from __future__ import annotations

from typing import Final

import yaml

from penstock.api.conditions import DeploymentCondition
from penstock.api.documents import describe_error, read_yaml
from penstock.api.meta import ConditionStatus
from penstock.api.optimization import OptimizationRun
from penstock.api.quantity import number
from penstock.api.reading import read
from penstock.api.v1alpha1 import InferenceDeployment
from penstock.cost.advice import Terms
from penstock.cost.prices import PriceList, read_prices
from penstock.errors import Invalid
from penstock_cli.cost.report import DeploymentFacts
from penstock_operator.kinds import INFERENCE_DEPLOYMENT, OPTIMIZATION_RUN
from penstock_operator.runtime.cluster import CONFIG_MAP, Cluster, Key, owner_keys

_ACCEPTED = "Accepted"


PRICES_KEY: Final = "prices.yaml"
"""Of the ConfigMap that the chart makes of its value `cost.prices`."""


def find_prices(cluster: Cluster, namespace: str, name: str) -> PriceList | None:
    """The price list in a ConfigMap; None where there is none.

    Raises:
        Invalid: it is no price list.
        Unavailable: the API does not answer, or does not show it.
    """
    found = cluster.get(CONFIG_MAP, Key(namespace, name))
    if found is None:
        return None
    text = str((found.get("data") or {}).get(PRICES_KEY, ""))
    return parse_prices(text, f"ConfigMap {namespace}/{name}, {PRICES_KEY}")


def parse_prices(text: str, where: str) -> PriceList:
    """The price list that a text in YAML holds.

    Raises:
        Invalid: it is no YAML, or no price list; the message begins with `where`.
    """
    try:
        value = read_yaml(text)
    except (yaml.YAMLError, ValueError) as error:
        line, said = describe_error(error)
        raise Invalid("InvalidPrices", f"{where}:{line}: {said}") from error
    return read_prices(value, where)


def find_facts(cluster: Cluster, namespace: str | None) -> dict[tuple[str, str], DeploymentFacts]:
    """By namespace and name, in one namespace or in all."""
    runs: dict[tuple[str, str], OptimizationRun] = {}
    for manifest in cluster.list(OPTIMIZATION_RUN, namespace).items:
        run = read(OptimizationRun, manifest)
        if run.status.verdict != _ACCEPTED:
            continue
        for owner in owner_keys(manifest, INFERENCE_DEPLOYMENT):
            before = runs.get((owner.namespace, owner.name))
            if before is None or (before.status.completion_time or "") < (run.status.completion_time or ""):
                runs[owner.namespace, owner.name] = run
    found = (read(InferenceDeployment, each) for each in cluster.list(INFERENCE_DEPLOYMENT, namespace).items)
    return {
        (each.metadata.namespace, each.metadata.name): facts_of(
            each, runs.get((each.metadata.namespace, each.metadata.name))
        )
        for each in found
    }


def facts_of(deployment: InferenceDeployment, run: OptimizationRun | None) -> DeploymentFacts:
    """What counts of one deployment, and of the run that last found a better form of it."""
    spec, status = deployment.spec, deployment.status
    applied = any(
        each.type == DeploymentCondition.PROFILE_APPLIED and each.status is ConditionStatus.TRUE
        for each in status.conditions
    )
    run = run if applied else None
    accelerator = spec.resources.accelerator
    capacity = run.status.capacity.requests_per_second if run is not None and run.status.capacity else ""
    figures = run.status.figures if run is not None else None
    terms = Terms(
        fixed_replicas=spec.scaling.replicas,
        min_replicas=spec.scaling.min_replicas,
        cpus=number(spec.resources.cpu),
        accelerators=number(accelerator.count) if accelerator else 0.0,
        accelerator=accelerator.type if accelerator else "",
        is_shareable=accelerator is not None
        and accelerator.type.startswith(("nvidia-", "amd-"))
        and "-mig-" not in accelerator.type,
        objective_milliseconds=spec.slo.latency_p99_milliseconds if spec.slo else None,
        capacity=_rate(capacity),
    )
    return DeploymentFacts(status.active_revision, terms, figures.throughput if figures is not None else "")


def _rate(text: str) -> float:
    """Requests a second from a run's figure; 0 where it says none."""
    try:
        return float(text.partition("/")[0].replace(",", "")) if text else 0.0
    except ValueError:
        return 0.0
