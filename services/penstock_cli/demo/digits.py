"""The digits demo's steps: its manifest, and its requests."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from penstock.api.meta import Manifest
from penstock.serving.manifest import MANIFEST_NAME, ModelManifest
from penstock.telemetry.spans import SpanContext, new_span_id, new_trace_id
from penstock_cli.demo.load import request_body, run_load, send
from penstock_cli.demo.reference import direct_predictions
from penstock_cli.demo.report import DemoResult
from penstock_cli.demo.usage import replica_usage
from penstock_cli.shipped import sample
from penstock_cli.standalone.state import StateFolder
from penstock_cli.traces.reading import wait_for_trace
from penstock_optimizer.artifact import DigitsArtifact

NAME = "digits"
CONNECTIONS = 16
ROUNDS = 4
"""How often each image is sent: enough requests for a p99."""
_SAMPLE = "digits.yaml"
_TRACE_SECONDS = 15.0


def manifest(artifact: DigitsArtifact, *, optimized: bool) -> Manifest:
    """The sample deployment, with the model that was trained here and its data.

    Args:
        artifact: the model.
        optimized: with the sample's profile; without, the model serves as it is.

    Raises:
        Unavailable: the sample is neither beside the code nor in the installed package.
    """
    found = sample(_SAMPLE)
    model = {
        **found["spec"]["model"],
        "storageUri": artifact.model_folder.absolute().as_uri(),
        "dataUri": artifact.data_folder.absolute().as_uri(),
    }
    # Nobody should have to wait for minutes of evidence here: it takes over as soon as it answers.
    spec = {**found["spec"], "model": model, "rollout": {"type": "Immediate"}}
    if not optimized:
        del spec["optimizationProfileRef"]
    return {**found, "spec": spec}


def request_file(state: StateFolder, artifact: DigitsArtifact) -> Path:
    """Write one held-out image as a request, for people to send themselves."""
    path = state.root / "digit.json"
    path.write_bytes(request_body(artifact.manifest().signature.inputs[0], artifact.test_images().images[0]))
    return path


@dataclass(frozen=True, slots=True)
class Served:
    """A revision of the model, to be measured."""

    url: str
    """Where requests go."""
    agent_url: str
    """The gateway agent's, for the replicas' metrics."""
    secret: str
    """The gateway's."""
    revision: str | None
    model_folder: Path
    """What it serves, to be run directly too."""
    trust: ssl.SSLContext | None = None
    """Whose certificate the gateway has; None: it speaks plain HTTP."""


def measure(served: Served, artifact: DigitsArtifact, traces: Path | None) -> DemoResult:
    """Send every held-out image some times and compare with the model run directly. A first round is not counted.

    Args:
        served: what answers.
        artifact: has the images.
        traces: file in which spans arrive; None: they are not collected here.

    Raises:
        Invalid: the model cannot be run in this process.
        Unavailable: the gateway's agent or a replica gives no metrics.
    """
    held_out, signature = artifact.test_images(), artifact.manifest().signature
    bodies = [request_body(signature.inputs[0], image) for image in held_out.images]
    direct = direct_predictions(served.model_folder, held_out.images)
    warm_up = run_load(served.url, bodies, CONNECTIONS, served.trust)
    # Its spans are exported every few seconds: they arrive while the load runs.
    traced = _send_traced(served, bodies[0]) if traces else 0
    before = replica_usage(served.agent_url, served.secret, NAME, served.revision)
    load = run_load(served.url, bodies * ROUNDS, CONNECTIONS, served.trust)
    after = replica_usage(served.agent_url, served.secret, NAME, served.revision)
    return DemoResult(
        images=np.tile(held_out.images, (ROUNDS, 1, 1, 1)),
        labels=np.tile(held_out.labels, ROUNDS),
        direct=np.tile(direct, ROUNDS),
        load=load,
        failed_in_warm_up=len(warm_up.failed),
        connections=CONNECTIONS,
        mean_batch=after.mean_batch_since(before),
        cpu_seconds=after.cpu_seconds_since(before),
        resident_bytes=after.resident_bytes,
        size_bytes=folder_size(served.model_folder),
        trace=wait_for_trace(traces, traced, _TRACE_SECONDS) if traces else [],
    )


def folder_size(folder: Path) -> int:
    """Bytes of the files that a model's manifest lists."""
    manifest = ModelManifest.model_validate_json((folder / MANIFEST_NAME).read_bytes())
    return sum(each.size_bytes for each in manifest.files.values())


def _send_traced(served: Served, body: bytes) -> int:
    """One request whose caller asks for its trace; the trace's id."""
    caller = SpanContext(new_trace_id(), new_span_id(), sampled=True)
    send(served.url, body, {"traceparent": caller.traceparent()}, served.trust)
    return caller.trace_id
