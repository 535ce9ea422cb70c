"""The digits demo's steps: its manifest, and its requests."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import yaml

from penstock.api.v1alpha1 import Manifest
from penstock.errors import Unavailable
from penstock.telemetry.spans import SpanContext, new_span_id, new_trace_id
from penstock.telemetry.waterfall import Row
from penstock_cli.demo.batches import count_batches
from penstock_cli.demo.load import request_body, run_load, send
from penstock_cli.demo.reference import direct_predictions
from penstock_cli.demo.report import DemoResult
from penstock_cli.standalone.state import StateFolder
from penstock_cli.traces import wait_for_trace
from penstock_optimizer.artifact import DigitsArtifact

NAME = "digits"
CONNECTIONS = 16
_SAMPLE = "digits.yaml"
_TRACE_SECONDS = 15.0


def manifest(artifact: DigitsArtifact) -> Manifest:
    """The sample deployment, with the folder of the model that was trained here.

    Raises:
        Unavailable: the sample is neither beside the code nor in the installed package.
    """
    sample: Manifest = yaml.safe_load(_sample_text())
    model = {**sample["spec"]["model"], "storageUri": artifact.model_folder.absolute().as_uri()}
    return {**sample, "spec": {**sample["spec"], "model": model}}


def request_file(state: StateFolder, artifact: DigitsArtifact) -> Path:
    """Write one held-out image as a request, for people to send themselves."""
    path = state.root / "digit.json"
    path.write_bytes(request_body(artifact.manifest().signature.inputs[0], artifact.held_out().images[0]))
    return path


def measure(url: str, agent_url: str, state: StateFolder, artifact: DigitsArtifact, *, with_trace: bool) -> DemoResult:
    """Send every held-out image and compare with the model run directly.

    Args:
        url: the model's infer URL.
        agent_url: the gateway agent's, for the replicas' metrics.
        state: where traces are collected.
        artifact: the model and the images.
        with_trace: whether spans come to the state folder.

    Raises:
        Unavailable: the gateway's agent or a replica gives no metrics.
    """
    held_out, signature = artifact.held_out(), artifact.manifest().signature
    secret = state.secret(state.gateway_secret_file)
    bodies = [request_body(signature.inputs[0], image) for image in held_out.images]
    direct = direct_predictions(artifact.model_folder / artifact.manifest().entrypoint, held_out.images)
    before = count_batches(agent_url, secret, NAME)
    load = run_load(url, bodies, CONNECTIONS)
    mean_batch = count_batches(agent_url, secret, NAME).mean_since(before)
    trace = _one_trace(url, bodies[0], state) if with_trace else []
    return DemoResult(held_out.images, held_out.labels, direct, load, CONNECTIONS, mean_batch, trace)


def _one_trace(url: str, body: bytes, state: StateFolder) -> list[Row]:
    """One request whose caller asks for its trace."""
    caller = SpanContext(new_trace_id(), new_span_id(), sampled=True)
    send(url, body, {"traceparent": caller.traceparent()})
    return wait_for_trace(state.traces, caller.trace_id, _TRACE_SECONDS)


def _sample_text() -> str:
    packaged = resources.files("penstock_cli") / "samples" / _SAMPLE
    if packaged.is_file():
        return packaged.read_text(encoding="utf-8")
    beside = Path(__file__).resolve().parents[3] / "manifests" / "samples" / _SAMPLE
    if beside.is_file():
        return beside.read_text(encoding="utf-8")
    raise Unavailable("SampleMissing", f"{_SAMPLE} is neither in the package nor at {beside}")
