"""Where profiles and runs are, and who uses them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from penstock.api.conditions import Reason
from penstock.api.optimization import (
    ClusterOptimizationProfile,
    OptimizationProfile,
    OptimizationProfileSpec,
    OptimizationRun,
)
from penstock.api.reading import read
from penstock.api.v1alpha1 import ProfileKind, ProfileReference
from penstock.errors import Invalid
from penstock_operator.deployment.observed import OptimizationView, ProfileProblem
from penstock_operator.kinds import CLUSTER_OPTIMIZATION_PROFILE, OPTIMIZATION_PROFILE, OPTIMIZATION_RUN
from penstock_operator.runtime.cluster import Cluster, Key, Manifest, key_of, list_owned

_UNAVAILABLE: Final = "This operator has no artifact store, so it cannot optimize; start it with --artifact-store. The model serves as it is."


class OptimizationDirectory:
    """Profiles by reference, and runs by their owner.

    Args:
        cluster: where the objects are.
        available: whether this operator runs optimizations.
    """

    def __init__(self, cluster: Cluster, *, available: bool) -> None:
        self._cluster = cluster
        self._available = available

    def profile(self, namespace: str, reference: ProfileReference) -> OptimizationProfileSpec | ProfileProblem:
        """The profile that an object of this namespace names. Raises `Unavailable` where the API does not answer."""
        if not self._available:
            return ProfileProblem(Reason.OPTIMIZATION_UNAVAILABLE, _UNAVAILABLE)
        clusterwide = reference.kind is ProfileKind.CLUSTER
        kind = CLUSTER_OPTIMIZATION_PROFILE if clusterwide else OPTIMIZATION_PROFILE
        manifest = self._cluster.get(kind, Key("" if clusterwide else namespace, reference.name))
        where = "" if clusterwide else f" in namespace {namespace}"
        if manifest is None:
            return ProfileProblem(
                Reason.PROFILE_NOT_FOUND,
                f"There is no {reference.kind} {reference.name}{where}; create it, or name another in the "
                "deployment's spec.optimizationProfileRef.",
            )
        model: type[ClusterOptimizationProfile | OptimizationProfile]
        model = ClusterOptimizationProfile if clusterwide else OptimizationProfile
        try:
            return read(model, manifest).spec
        except Invalid as error:
            return ProfileProblem(Reason.PROFILE_INVALID, error.message)

    def view(self, namespace: str, uid: str, reference: ProfileReference | None) -> OptimizationView:
        """What is known of one deployment's optimization. Raises `Unavailable` where the API does not answer."""
        profile = None if reference is None else self.profile(namespace, reference)
        runs: list[OptimizationRun] = []
        for manifest in list_owned(self._cluster, OPTIMIZATION_RUN, namespace, uid):
            try:
                runs.append(read(OptimizationRun, manifest))
            except Invalid as error:
                # It says so itself. The model goes on as it is, rather than that another run be begun beside this one.
                if profile is not None:
                    profile = ProfileProblem(Reason.OPTIMIZATION_UNAVAILABLE, error.message)
        return OptimizationView(profile, tuple(runs))


def users_of(profile: Manifest, manifests: Sequence[Manifest], field: str) -> list[Key]:
    """Keys of the objects that name a profile.

    Args:
        profile: of either kind.
        manifests: deployments or runs.
        field: of their spec, that holds the reference.
    """
    metadata = profile["metadata"]
    namespace = metadata.get("namespace") if profile["kind"] == OPTIMIZATION_PROFILE.kind else None
    found = []
    for each in manifests:
        spec = each.get("spec")
        reference = spec.get(field) if isinstance(spec, dict) else None
        if not isinstance(reference, dict):
            continue
        named = (reference.get("kind", CLUSTER_OPTIMIZATION_PROFILE.kind), reference.get("name"))
        same_namespace = namespace is None or each["metadata"].get("namespace") == namespace
        if named == (profile["kind"], metadata["name"]) and same_namespace:
            found.append(key_of(each))
    return found
