"""How a deployment's revisions stand: read out of what was observed once, before anything is decided.

Which model a revision is, its first replica decides, for all that come later and for good. What was decided is observed, never
remembered: Serve echoes it in the application's `user_config`, gateways in the route, and the status says it where neither is
there, as after a scale to none or the loss of a Ray cluster. Only where nobody knows do the replicas' leases decide.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from penstock import names
from penstock.api.v1alpha1 import InferenceDeployment
from penstock.routing.leases import RouteReplica
from penstock_operator.deployment.identity import declared_digest, recorded_models
from penstock_operator.deployment.observed import Observed, ObservedApplication, ObservedGateway, Pool, applications_of


@dataclass(frozen=True, slots=True)
class RevisionStanding:
    """A deployment's revisions."""

    wanted: str
    """The one that the spec asks for."""
    applications: Mapping[str, ObservedApplication]
    """In the pool, by revision, without those that are going; none where the pool cannot be asked."""
    models: Mapping[str, str]
    """The digest of the model that a revision is, of those of which a replica has told."""
    replicas: tuple[Sequence[RouteReplica], ...]
    """At each gateway that answers, of those that requests come through."""
    without_gateways: bool
    """Whether there is none that requests could come through."""

    def count_listed(self, revision: str) -> int:
        """Replicas of a revision, all of its one model: as many as each gateway that answers lists at least."""
        model = self.models.get(revision)
        return min(
            (sum(each.revision == revision and each.digest in (model, "") for each in told) for told in self.replicas),
            default=0,
        )

    def count_receiving(self, *revisions: str) -> int:
        """As `count_listed`, of any of these, and only those that requests go to.

        Where no gateway says where requests go, those that run.
        """
        if self.without_gateways:
            return sum(app.running for name, app in self.applications.items() if name in revisions)
        return min(
            (sum(each.revision in revisions and each.receiving for each in told) for told in self.replicas), default=0
        )

    def strangers(self, revision: str) -> list[str]:
        """Digests of other models than a revision is, which replicas of it loaded all the same."""
        model = self.models.get(revision)
        found = {each.digest for told in self.replicas for each in told if each.revision == revision and each.digest}
        return sorted(found - {model}) if model else []


def standing_of(observed: Observed) -> RevisionStanding:
    """How the revisions of a deployment stand."""
    deployment, pool = observed.deployment, observed.pool
    applications = applications_of(deployment, pool) if isinstance(pool, Pool) else {}
    replicas = tuple(
        tuple(each.route.replicas) if each.route else ()
        for each in observed.gateways
        if isinstance(each, ObservedGateway)
    )
    wanted, recorded = names.revision(deployment), recorded_models(deployment)
    revisions = {wanted, *applications, *recorded, *(each.revision for told in replicas for each in told)}
    digests = {
        revision: _digest_of_replicas(applications.get(revision))
        or (_digest_of_route(observed, revision) if revision in applications or revision in recorded else None)
        or recorded.get(revision)
        or _digest_of_leases([each for told in replicas for each in told if each.revision == revision])
        for revision in revisions
    }
    models = {revision: digest for revision, digest in digests.items() if digest is not None}
    return with_spec(RevisionStanding(wanted, applications, models, replicas, not observed.gateways), deployment)


def with_spec(standing: RevisionStanding, deployment: InferenceDeployment) -> RevisionStanding:
    """The same, where this deployment is to be carried out: a digest in its spec says which model its revision is."""
    wanted, digest = names.revision(deployment), deployment.spec.model.digest
    return replace(standing, wanted=wanted, models={**standing.models, **({wanted: digest} if digest else {})})


def _digest_of_replicas(app: ObservedApplication | None) -> str | None:
    """The digest that an application's replicas are told."""
    if app is None:
        return None
    return (app.arguments.replica.digest if app.arguments else None) or declared_digest(app)


def _digest_of_route(observed: Observed, revision: str) -> str | None:
    """What a gateway was told."""
    for each in (*observed.gateways, *observed.joining):
        if isinstance(each, ObservedGateway) and each.route is not None and each.route.declared is not None:
            digest = each.route.declared.digests.get(revision)
            if digest and each.route.declared.owner in ("", observed.deployment.metadata.uid):
                return digest
    return None


def _digest_of_leases(replicas: Sequence[RouteReplica]) -> str | None:
    """The digest of most replicas, of those that get requests if there are any; of as many, the least in order."""
    told = [each for each in replicas if each.digest]
    heard = Counter(each.digest for each in [each for each in told if each.receiving] or told)
    return min(heard, key=lambda digest: (-heard[digest], digest), default=None)
