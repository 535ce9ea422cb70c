"""Whose signature a replica demands of an optimized model: the key of the run that made it, and no other's."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from penstock.api.optimization import OptimizationRun
from penstock.api.v1alpha1 import ModelSource


@dataclass(frozen=True, slots=True)
class Signer:
    """An artifact of a run, and the public key in PEM that its result was signed by."""

    storage_uri: str
    digest: str
    public_key: str


def signers_of(runs: Iterable[OptimizationRun]) -> tuple[Signer, ...]:
    """Of the artifacts that these runs made."""
    artifacts = (run.status.artifact for run in runs)
    return tuple(
        Signer(each.storage_uri, each.digest, each.public_key)
        for each in artifacts
        if each is not None and each.public_key
    )


def signer_of(model: ModelSource, signers: Iterable[Signer]) -> Signer | None:
    """Whose artifact a model is; None where it is the user's own."""
    return next(
        (each for each in signers if (each.storage_uri, each.digest) == (model.storage_uri, model.digest)), None
    )
