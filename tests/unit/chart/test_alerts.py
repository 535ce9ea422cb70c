"""The chart's alerts, carried out by Prometheus' own engine on what the operator shows of rollouts."""

from __future__ import annotations

import re
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from tests.chart.helm import EVERYTHING, render
from tests.chart.promeval import evaluate

from penstock.api.rollout import RolloutPhase, RolloutStatus, RolloutType
from penstock_operator.runtime.rollout_metrics import RolloutMetrics

STATES = {
    "steps": (RolloutPhase.STEPPING, ""),
    "promoted": (RolloutPhase.PROMOTED, ""),
    "worse": (RolloutPhase.ROLLED_BACK, "RolloutFailed"),
    "overdue": (RolloutPhase.ROLLED_BACK, "RolloutInconclusive"),
    "aborted": (RolloutPhase.ROLLED_BACK, "RolloutAborted"),
    "unproved": (RolloutPhase.HELD, "RolloutInconclusive"),
    "paused": (RolloutPhase.HELD, "RolloutPaused"),
    "harmful": (RolloutPhase.HELD, "RolloutFailed"),
}


def rules() -> list[dict[str, Any]]:
    (group,) = render(EVERYTHING).one("PrometheusRule", "penstock-rollouts")["spec"]["groups"]
    return list(group["rules"])


@pytest.fixture(scope="module")
def answers() -> dict[str, list[dict[str, str]]]:
    """By alert, the labels of all that it is raised for, with a deployment in each state."""
    metrics, registry = RolloutMetrics(), CollectorRegistry()
    for name, (phase, reason) in STATES.items():
        told = RolloutStatus(type=RolloutType.CANARY, phase=phase, candidate="v2", stable="v1", reason=reason)
        metrics.show("vision", name, told)
    registry.register(metrics)
    scrape = {"seconds": 60.0, "labels": {"job": "penstock-operator"}, "text": generate_latest(registry).decode()}
    found = evaluate([each["expr"] for each in rules()], [scrape], 60.0)
    assert [each["error"] for each in found if "error" in each] == []
    return {
        rule["alert"]: [each["labels"] for each in answer["series"]]
        for rule, answer in zip(rules(), found, strict=True)
    }


PLATFORM = [
    ("a gateway of another secret", "penstock_operator_refusing_gateways 1", ["PenstockGatewayOfAnotherSecret"]),
    (
        "a gateway that runs by another secret than the others",
        'penstock_gateway_secret_info{component="gateway",digest="aa"} 1\npenstock_gateway_secret_info{component="operator",digest="bb"} 1',
        ["PenstockSecretsDiffer"],
    ),
    (
        "all by one",
        'penstock_gateway_secret_info{component="gateway",digest="aa"} 1\npenstock_gateway_secret_info{component="operator",digest="aa"} 1',
        [],
    ),
    ("a namespace that may not be read", 'penstock_operator_unreadable{namespace="audio",resource="jobs"} 1', ["PenstockNamespaceUnreadable"]),
    ("a kind that is not served", 'penstock_operator_unreadable{namespace="",resource="rayclusters"} 1', []),
    ("one that may be read again", 'penstock_operator_unreadable{namespace="audio",resource="jobs"} 0', []),
]  # fmt: skip


@pytest.mark.parametrize(("shown", "raised"), [row[1:] for row in PLATFORM], ids=[row[0] for row in PLATFORM])
def test_the_platform_s_alerts_are_raised_for(shown: str, raised: list[str]) -> None:
    (group,) = render(EVERYTHING).one("PrometheusRule", "penstock-platform")["spec"]["groups"]
    scrape = {"seconds": 60.0, "labels": {"job": "penstock-operator"}, "text": f"{shown}\n"}
    answers = evaluate([each["expr"] for each in group["rules"]], [scrape], 60.0)
    assert [rule["alert"] for rule, each in zip(group["rules"], answers, strict=True) if each["series"]] == raised


@pytest.mark.parametrize(
    ("alert", "raised"),
    [
        ("PenstockRolloutRolledBack", {"worse", "overdue"}),
        ("PenstockRolloutInconclusive", {"unproved"}),
        ("PenstockRolloutHeld", {"paused", "harmful"}),
    ],
)
def test_an_alert_is_raised_for_these_alone(
    answers: dict[str, list[dict[str, str]]], alert: str, raised: set[str]
) -> None:
    assert {labels["deployment"] for labels in answers[alert]} == raised


def test_what_an_alert_says_is_made_of_labels_that_it_has(answers: dict[str, list[dict[str, str]]]) -> None:
    for rule in rules():
        named = set(re.findall(r"\$labels\.(\w+)", " ".join(rule["annotations"].values())))
        assert named
        assert all(named <= set(labels) for labels in answers[rule["alert"]])
        assert rule["labels"]["severity"] == "warning"


def test_without_being_asked_for_there_are_none() -> None:
    assert render({}).all("PrometheusRule") == []
