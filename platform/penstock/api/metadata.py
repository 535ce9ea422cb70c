"""`metav1.ObjectMeta`: what the API server takes in any object's `metadata` (apimachinery's `ValidateObjectMeta`).

What it refuses must not be stored by anything of ours either: an object whose labels are numbers can be read by nobody.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from penstock.api.problems import Problem, child, json_type, wrong_type

_MAX_SUBDOMAIN: Final = 253
_MAX_LABEL: Final = 63
_MAX_ANNOTATIONS_BYTES: Final = 256 * 1024
_INT64: Final = range(-(2**63), 2**63)
_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_SUBDOMAIN: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_WORD: Final = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", re.ASCII)
_SUBDOMAIN_SAID: Final = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end "
    "with an alphanumeric character"
)
_LABEL_SAID: Final = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an "
    "alphanumeric character"
)
_WORD_SAID: Final = (
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character"
)
_TOO_LONG: Final = "must be no more than {} bytes"

Check = Callable[[Any, str], Iterator[Problem]]
"""From a value and its path to what is wrong with its type."""


def _type_of(kind: str, taken: Callable[[Any], bool]) -> Check:
    def check(value: Any, path: str) -> Iterator[Problem]:
        if value is not None and not taken(value):
            yield wrong_type(path, value, kind)

    return check


def _list_of(inner: Check) -> Check:
    def check(value: Any, path: str) -> Iterator[Problem]:
        if not isinstance(value, list):
            yield from _type_of("array", lambda _: False)(value, path)
            return
        for index, item in enumerate(value):
            yield from inner(item, f"{path}[{index}]")

    return check


def _map_of(inner: Check) -> Check:
    def check(value: Any, path: str) -> Iterator[Problem]:
        if not isinstance(value, dict):
            yield from _object(value, path)
            return
        for key, item in value.items():
            yield from inner(item, child(path, str(key)))

    return check


def _struct(fields: Mapping[str, Check]) -> Check:
    def check(value: Any, path: str) -> Iterator[Problem]:
        if not isinstance(value, dict):
            yield from _object(value, path)
            return
        for key, item in value.items():
            if key in fields:
                yield from fields[key](item, child(path, key))
            else:
                known = ", ".join(fields)
                yield Problem(child(path, key), f'unknown field "{child(path, key)}": known here: {known}')

    return check


def _time(value: Any, path: str) -> Iterator[Problem]:
    if isinstance(value, str) and not _is_time(value):
        yield _invalid(path, value, "must be a time of RFC 3339, such as 2026-01-31T08:00:00Z")
    else:
        yield from _text(value, path)


def _is_time(value: str) -> bool:
    if _TIME.fullmatch(value) is None:
        return False
    try:
        dt.datetime.fromisoformat(re.sub(r"\.\d+", "", value))
    except ValueError:
        return False
    return True


_object: Final = _type_of("object", lambda value: isinstance(value, dict))
_text: Final = _type_of("string", lambda value: isinstance(value, str))
_truth: Final = _type_of("boolean", lambda value: isinstance(value, bool))
_whole: Final = _type_of(
    "integer",
    lambda value: (
        not isinstance(value, bool)
        and (isinstance(value, int) or (isinstance(value, float) and value.is_integer()))
        and int(value) in _INT64
    ),
)
_OWNER: Final = {
    "apiVersion": _text, "kind": _text, "name": _text, "uid": _text, "controller": _truth, "blockOwnerDeletion": _truth,
}  # fmt: skip
_MANAGED: Final = {
    "manager": _text, "operation": _text, "apiVersion": _text, "time": _time, "fieldsType": _text, "fieldsV1": _object,
    "subresource": _text,
}  # fmt: skip
_FIELDS: Final[Mapping[str, Check]] = {
    "name": _text, "generateName": _text, "namespace": _text, "labels": _map_of(_text), "annotations": _map_of(_text),
    "finalizers": _list_of(_text), "ownerReferences": _list_of(_struct(_OWNER)), "uid": _text, "resourceVersion": _text,
    "generation": _whole, "creationTimestamp": _time, "deletionTimestamp": _time, "deletionGracePeriodSeconds": _whole,
    "managedFields": _list_of(_struct(_MANAGED)), "selfLink": _text,
}  # fmt: skip
"""`metav1.ObjectMeta`, what people write first."""
_check: Final = _struct(_FIELDS)
_TOGETHER: Final = ("orphan", "foregroundDeletion")
"""Finalizers of which an object has one at most."""


def metadata_problems(
    metadata: Any, *, namespaced: bool | None = None, own_name: bool = True, before: Mapping[str, Any] | None = None
) -> list[Problem]:
    """What the API server refuses in an object's `metadata`: unknown fields, wrong types, and then wrong values.

    Args:
        metadata: as it was written.
        namespaced: whether objects of its kind are in a namespace; None: not known.
        own_name: whether its kind wants names that are DNS subdomains, as ours do.
        before: as it is stored; fields that stay the same are not judged, so that what is there already can be mended.
    """
    if before is not None and isinstance(metadata, dict):
        metadata = {key: value for key, value in metadata.items() if key == "name" or value != before.get(key)}
    wrong = list(_check(metadata, "metadata"))
    if wrong or not isinstance(metadata, dict):
        return wrong or [wrong_type("metadata", metadata, "object")]
    return list(_values(normal_metadata(metadata), namespaced=namespaced, own_name=own_name))


def normal_metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """As the API server stores it: a null field is left out, and a null in a map or a list of strings is empty text."""
    normal = {key: value for key, value in metadata.items() if value is not None}
    for field in ("labels", "annotations"):
        if isinstance(normal.get(field), dict):
            normal[field] = {key: "" if value is None else value for key, value in normal[field].items()}
    return normal


def _values(metadata: Mapping[str, Any], *, namespaced: bool | None, own_name: bool) -> Iterator[Problem]:
    if own_name:
        name, prefix = metadata.get("name", ""), metadata.get("generateName", "")
        yield from _subdomain_problems("metadata.name", name, name)
        if prefix:
            # The dash is followed by what is generated.
            yield from _subdomain_problems(
                "metadata.generateName", prefix, f"{prefix[:-1]}a" if prefix.endswith("-") else prefix
            )
    namespace = metadata.get("namespace", "")
    if namespace and namespaced is not False:
        for said in label_problems(namespace):
            yield _invalid("metadata.namespace", namespace, said)
    if metadata.get("generation", 0) < 0:
        yield _invalid("metadata.generation", metadata["generation"], "must be greater than or equal to 0")
    yield from _labels(metadata.get("labels", {}))
    yield from _annotations(metadata.get("annotations", {}))
    yield from _owners(metadata.get("ownerReferences", []))
    yield from _finalizers(metadata.get("finalizers", []))


def _subdomain_problems(path: str, written: str, name: str) -> Iterator[Problem]:
    if len(name.encode()) > _MAX_SUBDOMAIN:
        yield _invalid(path, written, _TOO_LONG.format(_MAX_SUBDOMAIN))
    if _SUBDOMAIN.fullmatch(name) is None:
        yield _invalid(path, written, _SUBDOMAIN_SAID)


def _labels(labels: Mapping[str, str]) -> Iterator[Problem]:
    for key, value in labels.items():
        path = child("metadata.labels", key)
        for said in qualified_name_problems(key):
            yield _invalid(path, key, said)
        for said in label_value_problems(value):
            yield _invalid(path, value, said)


def _annotations(annotations: Mapping[str, str]) -> Iterator[Problem]:
    for key in annotations:
        for said in qualified_name_problems(key.lower()):
            yield _invalid(child("metadata.annotations", key), key, said)
    size = sum(len(key.encode()) + len(value.encode()) for key, value in annotations.items())
    if size > _MAX_ANNOTATIONS_BYTES:
        message = f"Too long: may not be more than {_MAX_ANNOTATIONS_BYTES} bytes"
        yield Problem("metadata.annotations", message, hint=f"all keys and values together are {size}")


def _owners(owners: list[Any]) -> Iterator[Problem]:
    controllers = 0
    for index, each in enumerate(owners):
        owner, path = each or {}, f"metadata.ownerReferences[{index}]"
        version = str(owner.get("apiVersion") or "")
        if not version.rpartition("/")[2] or version.count("/") > 1:
            yield _invalid(f"{path}.apiVersion", version, "version must not be empty")
        for field in ("kind", "name", "uid"):
            if not owner.get(field):
                yield _invalid(f"{path}.{field}", owner.get(field) or "", "must not be empty")
        if (version, owner.get("kind")) == ("v1", "Event"):
            yield _invalid(path, owner, "/v1, Kind=Event is disallowed from being an owner")
        controllers += bool(owner.get("controller"))
        if owner.get("controller") and controllers > 1:
            yield _invalid(f"{path}.controller", True, "Only one reference can have Controller set to true")


def _finalizers(finalizers: list[Any]) -> Iterator[Problem]:
    for index, finalizer in enumerate(finalizers):
        for said in qualified_name_problems(finalizer or ""):
            yield _invalid(f"metadata.finalizers[{index}]", finalizer or "", said)
    if set(_TOGETHER) <= set(finalizers):
        yield _invalid("metadata.finalizers", finalizers, f"finalizer {' and '.join(_TOGETHER)} cannot be both set")


def label_problems(text: str) -> Iterator[str]:
    """Why this is no DNS label, such as a namespace has."""
    if len(text.encode()) > _MAX_LABEL:
        yield _TOO_LONG.format(_MAX_LABEL)
    if _LABEL.fullmatch(text) is None:
        yield "must not contain dots" if _SUBDOMAIN.fullmatch(text) is not None else _LABEL_SAID


def label_value_problems(value: str) -> Iterator[str]:
    """Why this is no label's value."""
    if len(value.encode()) > _MAX_LABEL:
        yield _TOO_LONG.format(_MAX_LABEL)
    if value and _WORD.fullmatch(value) is None:
        yield f"a valid label must be an empty string or {_WORD_SAID[len('must ') :]}"


def qualified_name_problems(key: str) -> Iterator[str]:
    """Why this is no label's key: a name of 63 bytes at most, perhaps with a DNS subdomain and `/` before it."""
    prefix, stroke, name = key.rpartition("/")
    if "/" in prefix:
        yield f"a valid label key {_WORD_SAID} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
        return
    if stroke and not prefix:
        yield "prefix part must be non-empty"
    elif stroke:
        if len(prefix.encode()) > _MAX_SUBDOMAIN:
            yield f"prefix part {_TOO_LONG.format(_MAX_SUBDOMAIN)}"
        if _SUBDOMAIN.fullmatch(prefix) is None:
            yield f"prefix part {_SUBDOMAIN_SAID}"
    if not name:
        yield "name part must be non-empty"
        return
    if len(name.encode()) > _MAX_LABEL:
        yield f"name part {_TOO_LONG.format(_MAX_LABEL)}"
    if _WORD.fullmatch(name) is None:
        yield f"name part {_WORD_SAID}"


def _invalid(path: str, value: Any, message: str) -> Problem:
    shown = json.dumps(value, ensure_ascii=False) if json_type(value) != "null" else '""'
    return Problem(path, f"Invalid value: {shown}: {message}")
