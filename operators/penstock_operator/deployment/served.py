"""What revisions were made of, as the status keeps it.

One that serves though the spec names another must be made anew where the pool has lost it, as after the loss of a Ray cluster or a
scale to none. Else the one that was turned back would take its place.
"""

from __future__ import annotations

from collections.abc import Collection

from pydantic import ValidationError

from penstock import names
from penstock.api.v1alpha1 import InferenceDeployment, ModelSource, Resources, ServedRevision
from penstock.models import Frozen


class _Served(Frozen):
    model: ModelSource
    resources: Resources


def remember_served(
    deployment: InferenceDeployment, active: str | None, kept: Collection[str]
) -> tuple[ServedRevision, ...]:
    """What the status is to say.

    Args:
        deployment: as it is carried out.
        active: the revision that gets the requests.
        kept: others that may serve again.
    """
    before = {each.revision: each for each in deployment.status.served}
    if active is not None and active == names.revision(deployment):
        made_of = _Served(model=deployment.spec.model, resources=deployment.spec.resources)
        text = made_of.model_dump_json(by_alias=True, exclude_defaults=True)
        before[active] = ServedRevision(revision=active, made_of=text)
    return tuple(before[name] for name in sorted({active or "", *kept} & before.keys()))


def deployment_of(deployment: InferenceDeployment, revision: str) -> InferenceDeployment | None:
    """The deployment as it was when a revision was its present one; None where that is not known.

    What needs no new replicas is as it is now.
    """
    said = next((each.made_of for each in deployment.status.served if each.revision == revision), None)
    if said is None:
        return None
    try:
        served = _Served.model_validate_json(said)
    except ValidationError:
        return None
    spec = deployment.spec.model_copy(update={"model": served.model, "resources": served.resources})
    former = deployment.model_copy(update={"spec": spec})
    return former if names.revision(former) == revision else None
