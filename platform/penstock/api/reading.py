"""Objects of ours, as the API serves them, as types."""

from __future__ import annotations

from typing import TypeVar

from pydantic import ValidationError

from penstock.api.conditions import Reason
from penstock.api.meta import Described, Manifest
from penstock.api.problems import path_of
from penstock.errors import Invalid

Model = TypeVar("Model", bound=Described)


def read(model: type[Model], manifest: Manifest) -> Model:
    """An object that the API served, as its type.

    A field that this release does not know is left out. The API pruned and validated the object by its CRDs, and those
    may be of a newer release: after `helm rollback` they are. What people write is judged by `penstock_cli.validation.admission`,
    which refuses such a field.

    Raises:
        Invalid: a field that this release knows has a value that it does not know; the message names each by its path.
    """
    try:
        return model.model_validate(manifest, extra="ignore")
    except ValidationError as error:
        metadata = manifest.get("metadata") or {}
        name = "/".join(filter(None, (metadata.get("namespace"), metadata.get("name"))))
        raise Invalid(Reason.INVALID_SPEC, f"{model.__name__} {name} is not valid: {describe_error(error)}") from error


def describe_error(error: ValidationError) -> str:
    """What is wrong, each with the path of its field."""
    return "; ".join(f"{path_of(item['loc'])}: {item['msg']}" for item in error.errors(include_url=False))
