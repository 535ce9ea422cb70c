"""Which replicas speak TLS, as gateways come to take it, to require it, and to have it no more."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.unit.deployment import world

from penstock import names
from penstock.serving.arguments import BuildArguments
from penstock_operator.deployment.application import ReplicaNetwork, build
from penstock_operator.deployment.plan import plan

CLEAR, OVER_TLS = ("http://agents:8081",), ("https://agents:8084",)
DISABLED = ReplicaNetwork(gateways=CLEAR)
PREFERRED = ReplicaNetwork(gateways=OVER_TLS, gateway_authority="PEM", plain_gateways=CLEAR)
REQUIRED = ReplicaNetwork(gateways=OVER_TLS, gateway_authority="PEM")
OF = world.deployment(world.NEW_MODEL)


def started(network: ReplicaNetwork, runs: ReplicaNetwork | None) -> tuple[tuple[str, ...], str]:
    """The gateways and the authority that replicas are told, where those of another setting run or none do."""
    apps = ()
    if runs is not None:
        config = build(OF, names.revision(OF), world.FIRST_ATTEMPT, runs)
        present = world.serve_app(OF)
        apps = (replace(present, config=config, arguments=BuildArguments.model_validate(config["args"])),)
    observed = replace(world.World(OF, apps).observed(), network=network)
    applications = plan(observed, world.NOW).applications
    assert applications is not None
    (args,) = (each["args"] for each in applications)
    assert ("gatewayAuthority" in args["replica"]) is bool(args["replica"].get("gatewayAuthority"))
    told = BuildArguments.model_validate(args).replica
    return told.gateways, told.gateway_authority


@pytest.mark.parametrize(
    ("network", "runs", "told"),
    [
        pytest.param(DISABLED, None, (CLEAR, ""), id="nobody speaks it"),
        pytest.param(PREFERRED, None, (OVER_TLS, "PEM"), id="what starts anew does"),
        pytest.param(PREFERRED, DISABLED, (CLEAR, ""), id="what runs without goes on so while both are taken"),
        pytest.param(PREFERRED, REQUIRED, (OVER_TLS, "PEM"), id="what runs with it goes on so"),
        pytest.param(REQUIRED, DISABLED, (OVER_TLS, "PEM"), id="what gateways take no more is replaced"),
        pytest.param(DISABLED, REQUIRED, (CLEAR, ""), id="what no gateway speaks any more is replaced"),
    ],
)
def test_what_replicas_are_told(
    network: ReplicaNetwork, runs: ReplicaNetwork | None, told: tuple[tuple[str, ...], str]
) -> None:
    assert started(network, runs) == told
