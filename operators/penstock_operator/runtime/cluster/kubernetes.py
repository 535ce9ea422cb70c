"""The `Cluster` protocol over the official client's transport: a real API server.

The client's dynamic layer is left out: a `ResourceKind` already says where each kind lives, so nothing has to be
discovered. Its informer is left out because it does not work on custom resources.
"""

from __future__ import annotations

import json
import math
import os
import threading
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

import urllib3
import yaml
from kubernetes import client, config
from kubernetes.config.config_exception import ConfigException

from penstock.errors import Invalid, Unavailable
from penstock_operator.runtime import metrics
from penstock_operator.runtime.cluster import (
    NO_LABELS,
    EventType,
    Gone,
    Key,
    Listing,
    Manifest,
    NotFound,
    Propagation,
    ResourceKind,
    WatchEvent,
    project_excerpt,
)
from penstock_operator.runtime.cluster.finalizers import Finalizers
from penstock_operator.runtime.cluster.refusals import error_of

_CONNECT_SECONDS = 5.0
_READ_SECONDS = 30.0
_PAGE = 500
_APPLY = "application/apply-patch+yaml"
_MERGE = "application/merge-patch+json"
_JSON = "application/json"


class KubernetesCluster(Finalizers):
    """A real Kubernetes API. See `Cluster`.

    Args:
        configuration: the official client's configuration.
    """

    def __init__(self, configuration: Any) -> None:
        # A write that was sent may have been done: only connecting is tried again here.
        configuration.retries = urllib3.Retry(total=None, connect=2, read=0, redirect=0, status=0, other=0)
        configuration.connection_pool_maxsize = 16
        self._client = client.ApiClient(configuration)
        self._watches: set[urllib3.HTTPResponse] = set()
        self._lock = threading.Lock()
        self._closed = False

    @classmethod
    def connect(cls, kubeconfig: Path | None = None, context: str | None = None) -> KubernetesCluster:
        """From a kubeconfig file; without one, from the pod's own service account, else from the user's default.

        Raises:
            Invalid: there is no such configuration, or it cannot be used.
        """
        configuration = client.Configuration()
        try:
            if kubeconfig is None:
                try:
                    config.load_incluster_config(client_configuration=configuration)
                    configuration.proxy = None  # its own cluster, which no proxy reaches
                    return cls(configuration)
                except ConfigException:
                    pass  # not in a pod: the user's default file is next
            config.load_kube_config(
                config_file=None if kubeconfig is None else str(kubeconfig),
                context=context,
                client_configuration=configuration,
            )
        except (ConfigException, OSError, yaml.YAMLError, ValueError, TypeError, AttributeError) as error:
            # What is no kubeconfig at all, the client does not look for.
            said = error if isinstance(error, (ConfigException, OSError)) else "it is no kubeconfig in YAML"
            raise Invalid(
                "KubeconfigInvalid",
                f"cannot use {kubeconfig or os.environ.get('KUBECONFIG') or 'the default kubeconfig'}: {said}",
            ) from error
        return cls(configuration)

    def get(self, kind: ResourceKind, key: Key) -> Manifest | None:
        """See `Cluster.get`."""
        try:
            return self._call("GET", _path(kind, key.namespace, key.name))
        except NotFound:
            return None

    def list(
        self,
        kind: ResourceKind,
        namespace: str | None = None,
        labels: Mapping[str, str] = NO_LABELS,
        fields: Mapping[str, str] = NO_LABELS,
    ) -> Listing:
        """See `Cluster.list`. Fetched in pages."""
        selectors = {"labelSelector": labels, "fieldSelector": fields}
        chosen = {
            name: ",".join(f"{key}={value}" for key, value in wanted.items())
            for name, wanted in selectors.items()
            if wanted
        }
        items: list[Manifest] = []
        token = ""
        while True:
            query = {"limit": str(_PAGE), **chosen} | ({"continue": token} if token else {})
            try:
                page = self._call("GET", _path(kind, namespace), query)
            except Gone:
                if not token:
                    raise
                items, token = [], ""  # paging took too long for the API server: from the start
                continue
            # Items of built-in kinds come without their type.
            typed = ({"apiVersion": kind.api_version, "kind": kind.kind} | item for item in page["items"] or ())
            items += (project_excerpt(kind, item) for item in typed)
            token = page["metadata"].get("continue") or ""
            if not token:
                return Listing(tuple(items), page["metadata"]["resourceVersion"])

    def watch(
        self, kind: ResourceKind, namespace: str | None, resource_version: str, timeout_seconds: float
    ) -> Iterator[WatchEvent]:
        """See `Cluster.watch`. A connection that goes silent for longer than the timeout counts as dead."""
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(max(1, math.ceil(timeout_seconds))),
        }
        response = self._send("GET", _path(kind, namespace), query, read_timeout=timeout_seconds + 10.0)
        with self._lock:
            if self._closed:
                response.close()
                return
            self._watches.add(response)
        try:
            for line in _lines(response):
                yield _watch_event(kind, json.loads(line))
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            if not self._closed:
                raise Unavailable("ApiUnavailable", f"watch of {kind.plural} broke: {error}") from error
        finally:
            with self._lock:
                self._watches.discard(response)
            response.close()

    def apply(self, kind: ResourceKind, manifest: Manifest, field_manager: str) -> Manifest:
        """See `Cluster.apply`."""
        metadata = manifest["metadata"]
        path = _path(kind, metadata.get("namespace"), metadata["name"])
        return self._call("PATCH", path, _apply_headers(field_manager), manifest, _APPLY)

    def apply_status(self, kind: ResourceKind, manifest: Manifest, field_manager: str) -> Manifest:
        """See `Cluster.apply_status`."""
        metadata = {name: manifest["metadata"][name] for name in ("name", "namespace") if name in manifest["metadata"]}
        body = {
            "apiVersion": kind.api_version,
            "kind": kind.kind,
            "metadata": metadata,
            "status": manifest.get("status", {}),
        }
        path = _path(kind, metadata.get("namespace"), metadata["name"]) + "/status"
        return self._call("PATCH", path, _apply_headers(field_manager), body, _APPLY)

    def create(self, kind: ResourceKind, manifest: Manifest) -> Manifest:
        """See `Cluster.create`."""
        return self._call("POST", _path(kind, manifest["metadata"].get("namespace")), {}, manifest)

    def update(self, kind: ResourceKind, manifest: Manifest) -> Manifest:
        """See `Cluster.update`."""
        metadata = manifest["metadata"]
        if not metadata.get("resourceVersion"):
            raise Invalid("Invalid", f"an update of {kind.kind} {metadata['name']} needs metadata.resourceVersion")
        return self._call("PUT", _path(kind, metadata.get("namespace"), metadata["name"]), {}, manifest)

    def delete(
        self,
        kind: ResourceKind,
        key: Key,
        *,
        uid: str | None = None,
        propagation: Propagation = Propagation.BACKGROUND,
    ) -> None:
        """See `Cluster.delete`."""
        body: Manifest = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": propagation.value}
        if uid is not None:
            body["preconditions"] = {"uid": uid}
        try:
            self._call("DELETE", _path(kind, key.namespace, key.name), {}, body)
        except NotFound:
            return

    def close(self) -> None:
        """See `Cluster.close`. Watches end at once, from whatever thread."""
        with self._lock:
            self._closed = True
            watches = tuple(self._watches)
        for response in watches:
            try:
                response.shutdown()
            except (OSError, ValueError, RuntimeError):
                continue  # it ended by itself meanwhile
        self._client.rest_client.close()

    def _set_finalizers(self, kind: ResourceKind, manifest: Manifest, finalizers: tuple[str, ...]) -> Manifest:
        metadata = manifest["metadata"]
        body = {"metadata": {"resourceVersion": metadata["resourceVersion"], "finalizers": [*finalizers]}}
        return self._call("PATCH", _path(kind, metadata.get("namespace"), metadata["name"]), {}, body, _MERGE)

    def _call(
        self,
        method: str,
        path: str,
        query: dict[str, str] | None = None,
        body: Manifest | None = None,
        content_type: str = _JSON,
    ) -> Manifest:
        """One request and its JSON answer."""
        response = self._send(method, path, query or {}, body, content_type)
        try:
            answer: Manifest = json.loads(response.data)
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise Unavailable("ApiUnavailable", f"{method} {path}: the answer broke off: {error}") from error
        return answer

    def _send(
        self,
        method: str,
        path: str,
        query: dict[str, str],
        body: Manifest | None = None,
        content_type: str = _JSON,
        *,
        read_timeout: float = _READ_SECONDS,
    ) -> urllib3.HTTPResponse:
        """One request; returns the answer's head, or raises what its status means."""
        request = self._client.param_serialize(
            method,
            path,
            query_params=list(query.items()),
            header_params={"Accept": _JSON, "Content-Type": content_type},
            body=body,
            auth_settings=["BearerToken"],
        )
        what = _name_request(method, path, query)
        try:
            answer = self._client.call_api(*request, _request_timeout=(_CONNECT_SECONDS, read_timeout))
            response: urllib3.HTTPResponse = answer.response
            metrics.count_request(*what, response.status)
            if response.status < HTTPStatus.BAD_REQUEST:
                return response
            raise error_of(response.status, response.data)
        except client.ApiException as error:
            metrics.count_request(*what, error.status or 0)
            if error.status:
                raise error_of(error.status, (error.body or "").encode()) from error
            raise Unavailable("ApiUnavailable", f"{method} {path}: {error.reason}") from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            metrics.count_request(*what, 0)
            raise Unavailable("ApiUnavailable", f"{method} {path}: {error}") from error


def _path(kind: ResourceKind, namespace: str | None, name: str | None = None) -> str:
    """URL path of an object, or of a collection (without a name)."""
    parts = ["apis", kind.group, kind.version] if kind.group else ["api", kind.version]
    if kind.namespaced and namespace:
        parts += ["namespaces", namespace]
    parts.append(kind.plural)
    if name is not None:
        parts.append(name)
    return "/" + "/".join(parts)


_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


def _name_request(method: str, path: str, query: Mapping[str, str]) -> tuple[str, str]:
    """Verb and resource of a request, as Kubernetes names them."""
    parts = path.strip("/").split("/")
    parts = parts[2:] if parts[0] == "api" else parts[3:]
    if parts[0] == "namespaces" and len(parts) > 2:  # noqa: PLR2004 -- something in a namespace
        parts = parts[2:]
    resource = "/".join((parts[0], *parts[2:]))
    if method != "GET":
        return _VERBS[method], resource
    return ("watch" if "watch" in query else "list" if len(parts) == 1 else "get"), resource


def _apply_headers(field_manager: str) -> dict[str, str]:
    return {"fieldManager": field_manager, "force": "true"}


def _lines(response: urllib3.HTTPResponse) -> Iterator[bytes]:
    """The answer's lines, each as soon as it is whole."""
    rest = b""
    for chunk in response.stream(65536):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from (line for line in lines if line)


def _watch_event(kind: ResourceKind, event: Manifest) -> WatchEvent:
    manifest = event["object"]
    if event["type"] == "ERROR":
        raise error_of(int(manifest.get("code") or HTTPStatus.INTERNAL_SERVER_ERROR), json.dumps(manifest).encode())
    type_, version = EventType(event["type"]), manifest["metadata"]["resourceVersion"]
    return WatchEvent(type_, manifest if type_ is EventType.BOOKMARK else project_excerpt(kind, manifest), version)
