"""What is said where the API takes no pod of a pool: its words, what to do, and no word of waiting."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.telling import assert_tells
from tests.unit.pool.pools import CPU, observed, pool, running

from penstock.api.conditions import Reason, facts_of
from penstock_operator.pool.refusals import with_remedy
from penstock_operator.pool.status import judge_start, report

REFUSALS = [
    (
        "a quota that is used up",
        'pods "p" is forbidden: exceeded quota: compute, requested: limits.cpu=5, used: limits.cpu=4, limited: limits.cpu=8',
        "ResourceQuota raised head.cpuLimit podTemplate twice",
    ),
    (
        "a quota on what a sidecar does not say",
        'pods "p" is forbidden: failed quota: compute: must specify limits.cpu for: proxy',
        "requests limits podTemplate.spec.containers",
    ),
    (
        "a LimitRange's greatest",
        'pods "p" is forbidden: maximum cpu usage per Container is 2, but limit is 4',
        "LimitRange head.cpuLimit",
    ),
    (
        "a LimitRange's ratio",
        'pods "p" is forbidden: cpu max limit to request ratio per Container is 2, but provided ratio is 4.000000',
        "LimitRange head.cpuLimit",
    ),
    (
        "a LimitRange's default",
        'Pod "p" is invalid: spec.containers[0].resources.requests: Invalid value: "1": must be less than or equal to cpu limit of 500m',
        "LimitRange podTemplate",
    ),
    (
        "a pod security standard",
        'pods "p" is forbidden: violates PodSecurity "restricted:latest": x',
        "podTemplate standard",
    ),
    (
        "a policy that wants a label",
        "pods \"p\" is forbidden: ValidatingAdmissionPolicy 'cost' with binding 'cost' denied request: pods need a label",
        "podTemplate labels",
    ),
    ("a webhook", 'admission webhook "k" denied the request: no', "podTemplate"),
]


@pytest.mark.parametrize(("said", "facts"), [row[1:] for row in REFUSALS], ids=[row[0] for row in REFUSALS])
def test_a_refusal_is_told_in_its_words_with_the_field_to_set(said: str, facts: str) -> None:
    of = pool(CPU)
    serving = replace(running(of, ready=False, ever=False), problem=said, problem_reason="FailedCreateHeadPod")
    world = observed(of, serving)
    verdict = judge_start(world, serving, report(world, serving).head, "")
    assert verdict.reason is Reason.PODS_REFUSED
    assert said in verdict.message
    assert_tells(verdict.message, facts)
    assert facts_of(verdict.reason).refuses
    assert facts_of(verdict.reason).warns


def test_what_is_not_known_is_told_as_it_is() -> None:
    assert with_remedy("etcdserver: request timed out") == "etcdserver: request timed out"
