"""The number of replicas in the spec, which `/scale` shows: who wrote it, and what is to be written there.

Penstock writes `spec.replicas` and beside it, in the same write, an annotation with the same number. Whoever writes by
`/scale` knows nothing of the annotation: where the two differ, the number is another's. Once that was seen the annotation
goes, so that it stays another's though it should come to be the number that was Penstock's last. The mark travels with an
object that is copied or restored elsewhere, as field managers do not.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from penstock.api.meta import Manifest
from penstock.api.v1alpha1 import InferenceDeployment
from penstock.names import FINALIZER, REPLICAS_ANNOTATION


class NumberOwner(StrEnum):
    """Who says how many replicas there are."""

    PENSTOCK = "Penstock"
    """By load, within the spec's bounds."""
    SPEC = "Spec"
    """`spec.scaling.replicas`."""
    OTHERS = "Others"
    """Whoever wrote `spec.replicas`."""


@dataclass(frozen=True, slots=True)
class NumberWrite:
    """What is to be written of the number in a spec."""

    replicas: int | None
    """None: neither number nor mark is Penstock's any more."""


def owner_of(deployment: InferenceDeployment) -> NumberOwner:
    """Who says how many replicas a deployment has."""
    spec, mark = deployment.spec, deployment.metadata.annotations.get(REPLICAS_ANNOTATION)
    if spec.scaling.replicas is not None:
        return NumberOwner.SPEC
    return NumberOwner.PENSTOCK if spec.replicas is None or mark == str(spec.replicas) else NumberOwner.OTHERS


def given_number(deployment: InferenceDeployment) -> int | None:
    """The number, where load does not decide it."""
    match owner_of(deployment):
        case NumberOwner.SPEC:
            return deployment.spec.scaling.replicas
        case NumberOwner.OTHERS:
            return deployment.spec.replicas
        case NumberOwner.PENSTOCK:
            return None


def written_field(deployment: InferenceDeployment) -> str:
    """Where the number stands that was given."""
    return "spec.replicas" if owner_of(deployment) is NumberOwner.OTHERS else "spec.scaling.replicas"


def number_to_write(deployment: InferenceDeployment, wanted: int) -> NumberWrite | None:
    """What is to be written; None: nothing.

    Args:
        deployment: as the user wrote it.
        wanted: replicas, as load decides.
    """
    metadata = deployment.metadata
    if FINALIZER not in metadata.finalizers:
        return None  # it is being added just now, and the object with it is another version
    mark = metadata.annotations.get(REPLICAS_ANNOTATION)
    if owner_of(deployment) is NumberOwner.OTHERS:
        return NumberWrite(None) if mark is not None else None
    fixed = deployment.spec.scaling.replicas
    number = wanted if fixed is None else fixed
    return NumberWrite(number) if (deployment.spec.replicas, mark) != (number, str(number)) else None


def number_manifest(deployment: InferenceDeployment, number: NumberWrite) -> Manifest:
    """What is to be applied, of exactly the version that was observed."""
    metadata = deployment.metadata
    applied: Manifest = {
        "apiVersion": deployment.api_version,
        "kind": deployment.kind,
        "metadata": {
            "name": metadata.name,
            "namespace": metadata.namespace,
            "resourceVersion": metadata.resource_version,
        },
    }
    if number.replicas is not None:
        applied["metadata"]["annotations"] = {REPLICAS_ANNOTATION: str(number.replicas)}
        applied["spec"] = {"replicas": number.replicas}
    return applied
