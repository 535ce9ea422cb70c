"""What the chart grants the operator and its tenants, asked of a real API server."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import pytest
from tests.chart.helm import grant_operator_rights
from tests.cluster.controlplane import ControlPlane
from tests.telling import assert_tells
from tests.waiting import eventually

from penstock.api.conditions import Reason
from penstock.api.meta import Manifest
from penstock.api.pool import ServingPool
from penstock_operator.deployment.observed import PoolProblem
from penstock_operator.pool.clusters import RayClusters
from penstock_operator.pool.directory import PoolDirectory
from penstock_operator.runtime.cluster.kubernetes import KubernetesCluster

OPERATOR = "system:serviceaccount:penstock-system:penstock-operator"
_AUTHORIZATION = "authorization.k8s.io/v1"
_EXAMPLE = "manifests/rbac/pool-token.example.yaml"


class Reviewer:
    """Asks as `kubectl auth can-i` does, but without a process for each question."""

    def __init__(self, cluster: ControlPlane, client: httpx.Client) -> None:
        self._client = client
        # One that is asked about and never served.
        self._resources = {"users": {"group": "", "resource": "users", "namespace": ""}}
        for line in cluster.kubectl("api-resources", "--no-headers").stdout.splitlines():
            name, *short, version, namespaced, _ = line.split()
            group = version.rpartition("/")[0]
            found = {"group": group, "resource": name, "namespace": "default" if namespaced == "true" else ""}
            for each in (name, *(s for listed in short for s in listed.split(","))):
                self._resources.setdefault(each, found)
                self._resources[f"{each}.{group}"] = found

    def may(self, request: str) -> bool:
        """Whether the operator may do what is written as the arguments of `kubectl auth can-i`."""
        verb, what, *options = request.split()
        resource, _, name = what.partition("/")
        attributes = {"verb": verb, **self._resources[resource], "name": name}
        for option, value in zip(options, [*options[1:], ""], strict=False):
            if option == "-n":
                attributes["namespace"] = value
            elif option == "-A":
                attributes["namespace"] = ""
            elif option.startswith("--subresource="):
                attributes["subresource"] = option.partition("=")[2]
        review = {
            "apiVersion": _AUTHORIZATION,
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }
        answer = self._client.post(
            f"/apis/{_AUTHORIZATION}/selfsubjectaccessreviews", json=review, headers={"Impersonate-User": OPERATOR}
        )
        return bool(answer.raise_for_status().json()["status"]["allowed"])


@pytest.fixture(scope="module")
def reviewer(with_rights: ControlPlane) -> Iterator[Reviewer]:
    with with_rights.client() as client:
        yield Reviewer(with_rights, client)


@pytest.fixture(scope="module")
def with_rights(crds: ControlPlane, pytestconfig: pytest.Config) -> ControlPlane:
    grant_operator_rights(crds)
    crds.kubectl("apply", "-f", str(pytestconfig.rootpath / _EXAMPLE))
    # A resource is served a moment before discovery tells of it, which `auth can-i` goes by.
    eventually(
        lambda: "optimizationruns" in crds.kubectl("api-resources", "--api-group=penstock.dev").stdout,
        "discovery tells of all kinds",
    )
    return crds


@pytest.mark.apiserver
@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        pytest.param("list infdep -A", "yes", id="sees the deployments of every namespace"),
        pytest.param("watch servingpools -A", "yes", id="watches the pools of every namespace"),
        pytest.param("patch infdep -n vision", "yes", id="puts its finalizer on a deployment"),
        pytest.param("patch infdep --subresource=status -n vision", "yes", id="writes a deployment's status"),
        pytest.param("patch servingpools --subresource=status -n vision", "yes", id="writes a pool's status"),
        pytest.param("patch apikeys --subresource=status -n vision", "yes", id="writes a key's status"),
        pytest.param("patch tenantquotas --subresource=status -n vision", "yes", id="writes a quota's status"),
        pytest.param("create servingpools -n vision", "yes", id="makes the default pool"),
        pytest.param(
            "patch servingpools -n vision", "yes", id="holds a pool by a finalizer until its Redis is emptied"
        ),
        pytest.param("update servingpools -n vision", "no", id="replaces no pool"),
        pytest.param("create events.events.k8s.io -n vision", "yes", id="tells what happened"),
        pytest.param("list events -n vision", "yes", id="says what only an event tells of a pod"),
        pytest.param("delete events -n vision", "no", id="deletes no event"),
        pytest.param("create leases.coordination.k8s.io -n penstock-system", "yes", id="makes its lease"),
        pytest.param(
            "update leases.coordination.k8s.io/penstock-operator -n penstock-system", "yes", id="renews its lease"
        ),
        pytest.param("get secrets/ray-token -n default", "yes", id="reads the one Secret that was granted"),
        pytest.param("get secrets/other -n default", "no", id="reads no other Secret beside it"),
        pytest.param("list secrets -n default", "no", id="lists no Secret"),
        pytest.param("watch secrets -A", "no", id="watches no Secret"),
        pytest.param("get secrets/ray-token -n vision", "no", id="reads no Secret of another namespace"),
        pytest.param("get secrets -n penstock-system", "no", id="reads no Secret of its own namespace"),
        pytest.param(
            "get secrets/penstock-gateway-secret -n penstock-system", "no", id="has its own secret from a file alone"
        ),
        pytest.param("create secrets -n vision", "yes", id="gives a pool its token"),
        pytest.param("create networkpolicies.networking.k8s.io -n vision", "yes", id="bounds who reaches a pool"),
        pytest.param("delete networkpolicies.networking.k8s.io -n vision", "no", id="opens nothing that is bounded"),
        pytest.param("patch secrets -n vision", "no", id="changes no Secret"),
        pytest.param("delete secrets -n vision", "no", id="deletes no Secret"),
        pytest.param("create serviceaccounts --subresource=token -n vision", "no", id="makes no token"),
        pytest.param("get configmaps -n vision", "no", id="reads no ConfigMap"),
        pytest.param("create infdep -n vision", "no", id="creates no deployment"),
        pytest.param("delete infdep -n vision", "no", id="deletes no deployment"),
        pytest.param("delete servingpools -n vision", "no", id="deletes no pool"),
        pytest.param("create apikeys -n vision", "no", id="makes no key"),
        pytest.param("patch tenantquotas -n vision", "no", id="changes no quota"),
        pytest.param("update leases.coordination.k8s.io/another -n penstock-system", "no", id="takes no other lease"),
        pytest.param("get leases.coordination.k8s.io -n kube-system", "no", id="sees no lease elsewhere"),
        pytest.param("list pods -A", "yes", id="sees what pods reserve"),
        pytest.param("list nodes", "yes", id="sees what nodes have"),
        pytest.param("create pods -n vision", "no", id="makes no pod"),
        pytest.param("delete pods -n vision", "no", id="deletes no pod"),
        pytest.param("create pods --subresource=exec -n vision", "no", id="runs nothing in a pod"),
        pytest.param("create pods --subresource=eviction -n vision", "no", id="evicts no pod"),
        pytest.param("get pods --subresource=log -n vision", "no", id="reads no log"),
        pytest.param("patch nodes", "no", id="changes no node"),
        pytest.param("patch deployments.apps -n vision", "no", id="touches nobody's Deployments"),
        pytest.param("patch services -n vision", "no", id="touches nobody's Services"),
        pytest.param("delete namespaces", "no", id="deletes no namespace"),
        pytest.param("create clusterrolebindings.rbac.authorization.k8s.io", "no", id="grants nothing to the cluster"),
        pytest.param(
            "create rolebindings.rbac.authorization.k8s.io -n vision", "no", id="grants nothing in a namespace"
        ),
        pytest.param("patch customresourcedefinitions.apiextensions.k8s.io", "no", id="changes no CRD"),
        pytest.param("create optimizationruns -n vision", "yes", id="makes a run"),
        pytest.param("delete optimizationruns -n vision", "yes", id="takes a superseded run away"),
        pytest.param("patch optimizationruns --subresource=status -n vision", "yes", id="writes a run's status"),
        pytest.param("patch optimizationruns -n vision", "no", id="changes no run's spec"),
        pytest.param("list clusteroptimizationprofiles", "yes", id="sees the cluster's profiles"),
        pytest.param("create optimizationprofiles -n vision", "no", id="makes no profile"),
        pytest.param("create jobs.batch -n vision", "yes", id="starts a search"),
        pytest.param("delete jobs.batch -n vision", "yes", id="ends a search"),
        pytest.param("patch jobs.batch -n vision", "no", id="changes no running search"),
        pytest.param("patch jobs.batch --subresource=status -n vision", "no", id="says of no Job how it ended"),
        pytest.param("impersonate users", "no", id="is nobody else"),
    ],
)
def test_the_operator(request_: str, answer: str, reviewer: Reviewer) -> None:
    assert reviewer.may(request_) == (answer == "yes")


@pytest.mark.apiserver
def test_the_operator_is_refused_what_is_anothers(with_rights: ControlPlane) -> None:
    """By its own token, on objects that are there: what `auth can-i` says is what happens."""
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "anothers"}, "stringData": {"token": "secret"}}
    with_rights.kubectl("apply", "-n", "default", "-f", "-", input=json.dumps(secret))
    kubeconfig = with_rights.kubeconfig_for("penstock-operator", "penstock-system")
    for request in (
        "get secret anothers -o yaml",
        "get secrets",
        "delete secret anothers",
        "label secret anothers stolen=yes",
        "create token default",
        "delete serviceaccount default",
    ):
        done = with_rights.kubectl(*request.split(), "-n", "default", kubeconfig=kubeconfig, check=False)
        assert done.returncode != 0
        assert "forbidden" in done.stderr.lower(), request
    with_rights.kubectl("delete", "secret", "anothers", "-n", "default")


_POLICY: Manifest = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "spec": {"podSelector": {}}}
_POD: Manifest = {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}
_JOB: Manifest = {"apiVersion": "batch/v1", "kind": "Job", "spec": {"suspend": True, "template": {"spec": _POD}}}
_RUN: Manifest = {
    "apiVersion": "penstock.dev/v1alpha1",
    "kind": "OptimizationRun",
    "spec": {
        "model": {"storageUri": "file:///models/digits/1", "modelFormat": "onnx"},
        "profileRef": {"name": "balanced"},
        "resources": {"cpu": "1"},
    },
}
_MODEL: Manifest = {
    "apiVersion": "penstock.dev/v1alpha1",
    "kind": "InferenceDeployment",
    "spec": {"model": {"storageUri": "file:///models/digits/1", "modelFormat": "onnx"}},
}
_POOL: Manifest = {
    "apiVersion": "penstock.dev/v1alpha1",
    "kind": "ServingPool",
    "spec": {"managed": {"workerGroups": [{"name": "cpu", "cpu": "1", "memory": "1Gi", "maxWorkers": 1}]}},
}
_OWNER: Manifest = {"apiVersion": "penstock.dev/v1alpha1", "kind": "ServingPool", "name": "default", "uid": "0-1-2"}
_TOKEN: Manifest = {"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "immutable": True}
_FINALIZER: Manifest = {"finalizers": ["penstock.dev/test"]}


def _of(pattern: Manifest, name: str, **metadata: object) -> Manifest:
    return {**pattern, "metadata": {"name": name, **metadata}}


def _with_spec(pattern: Manifest, **spec: object) -> Manifest:
    return {**pattern, "spec": pattern["spec"] | spec}


@pytest.mark.apiserver
@pytest.mark.parametrize(
    ("there", "change", "said"),
    [
        pytest.param(
            _of(_POLICY, "x"), _of(_with_spec(_POLICY, ingress=[{}]), "x"), "only what it made",
            id="opens no NetworkPolicy of a tenant",
        ),
        pytest.param(
            _of(_POLICY, "x", ownerReferences=[_OWNER]), _of(_with_spec(_POLICY, ingress=[{}]), "x"), "",
            id="changes a pool's NetworkPolicy",
        ),
        pytest.param(_of(_JOB, "x"), None, "only what it made", id="ends no Job of a tenant"),
        pytest.param(
            _of(_JOB, "x", ownerReferences=[_OWNER]), None, "", id="ends a search"
        ),
        pytest.param(
            _of(_RUN, "x"), None, "only what it made", id="deletes no run that somebody made by hand"
        ),
        pytest.param(
            _of(_MODEL, "x"), _of(_with_spec(_MODEL, scaling={"maxReplicas": 9}), "x"), "what users ask for",
            id="changes no deployment's spec",
        ),
        pytest.param(_of(_MODEL, "x"), _of(_with_spec(_MODEL, replicas=3), "x"), "", id="writes a deployment's number of replicas"),
        pytest.param(
            _of(_MODEL, "x"), _of(_with_spec(_MODEL, replicas=3, scaling={"maxReplicas": 9}), "x"), "what users ask for",
            id="writes nothing else beside it",
        ),
        pytest.param(
            _of(_MODEL, "x"), _of(_with_spec(_MODEL), "x", **_FINALIZER), "", id="puts a finalizer on a deployment"
        ),
        pytest.param(
            _of(_POOL, "x"), _of(_with_spec(_POOL, suspend=True), "x"), "what users ask for", id="suspends no pool"
        ),
    ],
)  # fmt: skip
def test_of_objects_that_are_there_the_operator(
    there: Manifest, change: Manifest | None, said: str, with_rights: ControlPlane, namespace: str
) -> None:
    if "ownerReferences" in there["metadata"]:
        # One that is there: Kubernetes deletes what belongs to nobody.
        there = _of(there, "x", ownerReferences=[_OWNER | {"uid": _made(with_rights, namespace)}])
    with_rights.kubectl("apply", "--server-side", "-n", namespace, "-f", "-", input=json.dumps(there))
    kubeconfig = with_rights.kubeconfig_for("penstock-operator", "penstock-system")
    arguments = ("delete", "--wait=false") if change is None else ("apply", "--server-side", "--force-conflicts")
    done = with_rights.kubectl(
        *arguments, "-n", namespace, "-f", "-", input=json.dumps(change or there), kubeconfig=kubeconfig, check=False
    )
    with_rights.kubectl(
        "patch", "-n", namespace, "-f", "-", "--type=merge", "-p", '{"metadata":{"finalizers":null}}',
        input=json.dumps(there), check=False,
    )  # fmt: skip
    assert (done.returncode != 0) == bool(said), done.stderr
    assert said in done.stderr


def _made(cluster: ControlPlane, namespace: str) -> str:
    """The uid of a pool that is `_OWNER`."""
    pool = json.dumps(_of(_POOL, _OWNER["name"]))
    return cluster.kubectl(
        "create", "-n", namespace, "-f", "-", "-o", "jsonpath={.metadata.uid}", input=pool
    ).stdout.strip()


@pytest.mark.apiserver
@pytest.mark.parametrize(
    ("made", "taken"),
    [
        pytest.param(_of(_TOKEN, "token", ownerReferences=[_OWNER]), True, id="a pool's token"),
        pytest.param(
            _of(_TOKEN, "key", ownerReferences=[_OWNER | {"kind": "OptimizationRun"}]), True, id="a run's key"
        ),
        pytest.param(
            _of(_TOKEN, "key", ownerReferences=[_OWNER | {"kind": "OptimizationRun", "apiVersion": "v1"}]),
            False, id="of another group's kind",
        ),
        pytest.param(_of(_TOKEN, "token"), False, id="nobody's"),
        pytest.param(
            _of(_TOKEN | {"immutable": False}, "token", ownerReferences=[_OWNER]), False, id="one to be changed later"
        ),
        pytest.param(
            _of(
                _TOKEN | {"type": "kubernetes.io/service-account-token"}, "token", ownerReferences=[_OWNER],
                annotations={"kubernetes.io/service-account.name": "default"},
            ),
            False, id="a ServiceAccount's token",
        ),
    ],
)  # fmt: skip
def test_a_secret_that_the_operator_makes(
    made: Manifest, with_rights: ControlPlane, namespace: str, *, taken: bool
) -> None:
    kubeconfig = with_rights.kubeconfig_for("penstock-operator", "penstock-system")
    done = with_rights.kubectl(
        "create", "-n", namespace, "-f", "-", input=json.dumps(made), kubeconfig=kubeconfig, check=False
    )
    assert (done.returncode == 0) == taken, done.stderr


@pytest.mark.apiserver
def test_a_token_that_the_operator_may_not_read_is_named_with_the_role_that_it_needs(with_rights: ControlPlane) -> None:
    cluster = KubernetesCluster.connect(with_rights.kubeconfig_for("penstock-operator", "penstock-system"))
    existing = {"address": "http://ray:8265", "tokenSecretRef": {"name": "anothers"}}
    pool = ServingPool.model_validate({"metadata": {"name": "p"}, "spec": {"existing": existing}})
    problem = PoolDirectory(cluster, RayClusters(cluster, None, "")).writer(pool)
    cluster.close()
    assert isinstance(problem, PoolProblem)
    assert problem.reason is Reason.SECRET_NOT_FOUND
    assert_tells(problem.message, "Secret anothers key Role")


@pytest.fixture(scope="module")
def tenants(with_rights: ControlPlane) -> ControlPlane:
    """A namespace with one user for each of the roles that every cluster has."""
    with_rights.kubectl("create", "namespace", "speech")
    for role in ("admin", "edit", "view"):
        with_rights.kubectl("create", "rolebinding", role, f"--clusterrole={role}", f"--user={role}", "-n", "speech")
    # Kubernetes adds the chart's rules to its own roles within moments.
    eventually(
        lambda: _can(with_rights, "admin", "create servingpools -n speech") == "yes", "the admin role has our rules"
    )
    return with_rights


def _can(cluster: ControlPlane, user: str, request: str) -> str:
    done = cluster.kubectl(
        "auth", "can-i", *request.split(), f"--as={user}", "--as-group=system:authenticated", check=False
    )
    return done.stdout.strip().split()[0]


@pytest.mark.apiserver
@pytest.mark.parametrize(
    ("user", "request_", "answer"),
    [
        pytest.param("edit", "create infdep -n speech", "yes", id="who edits a namespace serves models there"),
        pytest.param("edit", "create infdep -n vision", "no", id="and in no other"),
        pytest.param("edit", "list infdep -n vision", "no", id="whose models are not to be seen"),
        pytest.param("edit", "create apikeys -n speech", "yes", id="and gives keys to them"),
        pytest.param("edit", "update infdep --subresource=scale -n speech", "yes", id="and scales them"),
        pytest.param("edit", "patch infdep --subresource=status -n speech", "no", id="but does not say how they are"),
        pytest.param("edit", "create servingpools -n speech", "no", id="nor on what they run"),
        pytest.param("admin", "create servingpools -n speech", "yes", id="which the namespace's admin does"),
        pytest.param("admin", "create servingpools -n vision", "no", id="in this namespace alone"),
        pytest.param("admin", "patch tenantquotas -n speech", "no", id="and cannot raise the namespace's quota"),
        pytest.param("admin", "delete tenantquotas -n speech", "no", id="nor be rid of it"),
        pytest.param("admin", "patch tenantquotas --subresource=status -n speech", "no", id="nor say what is used"),
        pytest.param(
            "admin", "use-foreign-address servingpools -n speech", "no", id="nor point a pool at another's Ray"
        ),
        pytest.param("admin", "use-any-host-path servingpools -n speech", "no", id="nor mount a node's folders"),
        pytest.param("admin", "create optimizationruns -n speech", "no", id="runs are the operator's to make"),
        pytest.param("view", "list infdep -n speech", "yes", id="who views a namespace sees its models"),
        pytest.param("view", "get tenantquotas -n speech", "yes", id="and its quota"),
        pytest.param("view", "list clusteroptimizationprofiles", "yes", id="and the profiles for all"),
        pytest.param("view", "create infdep -n speech", "no", id="and changes nothing"),
        pytest.param("edit", "create clusteroptimizationprofiles", "no", id="profiles for all are the administrators'"),
    ],
)
def test_tenants(user: str, request_: str, answer: str, tenants: ControlPlane) -> None:
    assert _can(tenants, user, request_) == answer
