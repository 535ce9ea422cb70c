"""Finding a model where its URI says, checking that it is what was asked for, and loading it."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from penstock.api.conditions import Reason
from penstock.engines import DEFAULT_ENGINES, ENGINES
from penstock.errors import Invalid
from penstock.optimization.recipes import EngineSettings
from penstock.serving.control import ReplicaSettings
from penstock.serving.manifest import MANIFEST_NAME, ModelFormat, ModelManifest, Signature
from penstock.telemetry import names
from penstock_runtime.digests import serving_files
from penstock_runtime.engines import Engine, load_engine
from penstock_runtime.fetching import fetch_in_child
from penstock_runtime.joining import Trial, prove
from penstock_runtime.model_cache import HeldModel
from penstock_serving.replica.model.admission import (
    ANEW,
    admit,
    agree,
    check_digest,
    check_revision,
    is_signed,
    requires_signature,
    verify_files,
)
from penstock_serving.replica.model.location import (
    Location,
    check_listed,
    copy_apart,
    hold_unchanged,
    locate,
    wanted_of,
)
from penstock_serving.replica.model.parallel import ONE_RUN, ParallelRuns, choose_runs, measure_runs

logger = logging.getLogger(__name__)

_MOST_BYTES: Final = 64 << 20
"""Of a model that is loaded twice to measure its runs: a replica's memory may be meant for one. What is larger is mostly bound by the
memory that its weights are read from, and gains nothing (docs/adr/0018)."""


@dataclass(frozen=True)
class LoadedModel:
    """A model that is ready to run, its digest, and the signature that it is served with."""

    engine: Engine
    digest: str
    signature: Signature
    held: HeldModel
    """Keeps its files in the node's cache."""
    trial: Trial
    """Whether and how requests are joined."""
    parallel: ParallelRuns = ONE_RUN
    """How many runs may be under way at once."""
    checks_ids: bool = False
    """Whether its engine refuses an id outside its table."""


def load(settings: ReplicaSettings, done: Callable[[str], None] = lambda _: None) -> LoadedModel:
    """Fetch, verify and load the model of a replica.

    Args:
        settings: the replica's.
        done: told the name of each phase of the start that is over.

    Raises:
        Invalid: why the model is not served, and what to do. UnsupportedStorage, SecretNotFound, StorageDenied or
            ModelNotFound; then DigestMismatch, ModelChanged or ModelInvalid; for an optimized one SignatureMissing, KeyNotTrusted,
            SignatureInvalid or HardwareMismatch; last EngineUnavailable.
        Unavailable: StorageUnreachable or CacheUnavailable.
    """
    wanted = wanted_of(settings.model_format, settings.version)
    held = fetch_in_child(settings.storage_uri, os.environ, settings.digest, settings.credentials, wanted)
    model, cached = locate(held.path, settings.model_format, settings.version), bool(held.key)
    with hold_unchanged(model, cached=cached):
        digest = model.digest()
        check_digest(digest, settings)
        check_revision(digest, settings)
        if model.manifest is not None:
            verify_files(model.path, model.manifest)
            check_listed(model)
            admit(model.path, model.manifest, settings)
        elif requires_signature(settings):
            raise Invalid(
                Reason.SIGNATURE_MISSING,
                f"{model.path} has no {MANIFEST_NAME}, but a signed model is to be served: {ANEW}",
            )
        done(names.SPAN_PULL)
        declared = model.manifest.signature if model.manifest else None
        chosen = engine_settings(model.manifest, model.format, settings)
        held, entrypoint = copy_apart(model, digest, held, os.environ)
        engine = load_engine(entrypoint, chosen, declared, trusted=is_signed(model.manifest, settings))
        why_one = _why_one(entrypoint, model, chosen)
        # The model once more with one thread; of the two, the one that loses is let go.
        narrow = None if why_one else load_engine(entrypoint, chosen.model_copy(update={"threads": 1}))
    if declared is not None:
        engine.signature = agree(declared, engine.signature)
        if narrow is not None:
            narrow.signature = engine.signature
    done(names.SPAN_LOAD)
    said = model.manifest.joining if model.manifest else None
    most = settings.batching.max_batch_size
    trial = prove(engine, chosen, most, said)
    parallel = ParallelRuns(1, chosen.threads, why_one)
    if narrow is not None:
        measured = measure_runs(engine, narrow, trial.joining, most, chosen.threads)
        parallel = choose_runs(measured, chosen.threads)
        if parallel.runs > 1:
            # Another number of threads may add up in another order.
            engine, trial = narrow, prove(narrow, chosen.model_copy(update={"threads": 1}), most, said)
    logger.info("runs at once: %d of threads: %d (%s)", parallel.runs, parallel.threads, parallel.reason)
    logger.info("requests are %s: %s", "joined" if trial.joining else "not joined", trial.reason)
    checks_ids = ENGINES[chosen.name].checks_ids
    return LoadedModel(engine, digest.value, engine.signature, held, trial, parallel, checks_ids=checks_ids)


def _why_one(entrypoint: Path, model: Location, chosen: EngineSettings) -> str:
    """Why there is one run at a time, whatever would be measured; empty where that is to be measured."""
    if chosen.threads == 1:
        return ONE_RUN.reason
    if model.manifest is not None and model.manifest.engine is not None:
        return "one run: the model was measured with this number of threads when it was optimized"
    if not ENGINES[chosen.name].reentrant:
        return f"one run: {chosen.name} runs one at a time"
    names = (entrypoint.name, *serving_files(entrypoint, model.format))
    size = sum((entrypoint.parent / name).stat().st_size for name in names)
    if size > _MOST_BYTES:
        return f"one run: the model has {size >> 20} MiB, and to measure others its weights would be loaded twice"
    return ""


def engine_settings(
    manifest: ModelManifest | None, model_format: ModelFormat, settings: ReplicaSettings
) -> EngineSettings:
    """What runs the model.

    The manifest's threads win over those that follow from the replica's CPU: its capacity, and so the batch size and
    the autoscaling target, were measured with them.

    Raises:
        Invalid: ModelInvalid, for an engine that does not load the format.
    """
    if manifest is None or manifest.engine is None:
        return EngineSettings(name=DEFAULT_ENGINES[model_format], threads=settings.engine_threads)
    if model_format not in ENGINES[manifest.engine.name].formats:
        raise Invalid(
            Reason.MODEL_INVALID,
            f"{MANIFEST_NAME} names the engine {manifest.engine.name}, which loads no {model_format}: "
            f"name {DEFAULT_ENGINES[model_format]}, or none",
        )
    return manifest.engine
