"""Finding a model where its URI says, checking that it is what was asked for, and loading it."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass

from penstock.api.conditions import Reason
from penstock.engines import DEFAULT_ENGINES, ENGINES
from penstock.errors import Invalid
from penstock.optimization.recipes import EngineSettings
from penstock.serving.control import ReplicaSettings
from penstock.serving.manifest import MANIFEST_NAME, ModelFormat, ModelManifest, Signature
from penstock.telemetry import names
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
from penstock_serving.replica.model.location import check_listed, copy_apart, hold_unchanged, locate, wanted_of

logger = logging.getLogger(__name__)


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
    if declared is not None:
        engine.signature = agree(declared, engine.signature)
    done(names.SPAN_LOAD)
    said = model.manifest.joining if model.manifest else None
    trial = prove(engine, chosen, settings.batching.max_batch_size, said)
    logger.info("requests are %s: %s", "joined" if trial.joining else "not joined", trial.reason)
    checks_ids = ENGINES[chosen.name].checks_ids
    return LoadedModel(engine, digest.value, engine.signature, held, trial, checks_ids=checks_ids)


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
