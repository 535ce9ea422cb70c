"""The bill of materials of an image, CycloneDX 1.6 JSON, from what lies in it: Debian's and Python's own metadata."""

from __future__ import annotations

import email.parser
import hashlib
import json
import urllib.parse
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

_SPECIFICATION: Final = "1.6"
_NAMESPACE: Final = uuid.UUID("7b0c0ad5-6c0a-4f0e-9d0a-3f3f1d2f1c55")
_LONGEST_LICENSE: Final = 100


class Kind(StrEnum):
    """Where a component comes from, as a package URL's type (purl-spec)."""

    DEBIAN = "deb"
    PYTHON = "pypi"


@dataclass(frozen=True, order=True)
class Component:
    """One package inside an image.

    Attributes:
        kind: of package.
        name: its name there.
        version: its version there.
        license: what its metadata says, an SPDX expression or a name; None where it says nothing (Debian packages say
            it in /usr/share/doc/NAME/copyright).
        sha256: of the package file, where its metadata has it.
    """

    kind: Kind
    name: str
    version: str
    license: str | None = None
    sha256: str | None = None

    @property
    def purl(self) -> str:
        """Its package URL."""
        name, version = (urllib.parse.quote(part, safe=".-_~") for part in (self.name, self.version))
        match self.kind:
            case Kind.DEBIAN:
                return f"pkg:deb/debian/{name}@{version}"
            case Kind.PYTHON:
                return f"pkg:pypi/{name.lower().replace('_', '-').replace('.', '-')}@{version}"

    def to_json(self) -> dict[str, str | None]:
        """Its fields by name."""
        return asdict(self)

    @staticmethod
    def from_json(fields: Mapping[str, str | None]) -> Component:
        """The inverse of `to_json`."""
        name, version = fields["name"] or "", fields["version"] or ""
        return Component(Kind(fields["kind"] or ""), name, version, fields["license"], fields["sha256"])


def find_components(tree: Path) -> tuple[Component, ...]:
    """All Debian and Python packages whose metadata lies in `tree`, sorted."""
    return tuple(sorted({*_debian(tree), *_python(tree)}))


def _debian(tree: Path) -> Iterator[Component]:
    status = tree / "var/lib/dpkg/status"
    texts = status.read_text().split("\n\n") if status.is_file() else []
    texts += [path.read_text() for path in sorted((tree / "var/lib/dpkg/status.d").glob("*")) if path.suffix == ""]
    for text in texts:
        fields = email.parser.HeaderParser().parsestr(text.strip())
        if fields["Package"]:
            yield Component(Kind.DEBIAN, fields["Package"], fields["Version"], None, fields["X-Archive-SHA256"])


def _python(tree: Path) -> Iterator[Component]:
    for path in sorted(tree.rglob("*.dist-info/METADATA")):
        fields = email.parser.HeaderParser().parsestr(path.read_text(encoding="utf-8", errors="replace"))
        yield Component(Kind.PYTHON, fields["Name"], fields["Version"], _license(fields.items()))


def _license(fields: Iterable[tuple[str, str]]) -> str | None:
    """`License-Expression` (PEP 639), else the classifier's last part, else a short `License`."""
    found = list(fields)
    expression = [value for name, value in found if name == "License-Expression"]
    classified = [value for name, value in found if name == "Classifier" and value.startswith("License ::")]
    named = [value for name, value in found if name == "License" and 0 < len(value) <= _LONGEST_LICENSE]
    if expression:
        return expression[0]
    return classified[-1].split("::")[-1].strip() if classified else next(iter(named), None)


def write_sbom(image: str, version: str, components: Iterable[Component]) -> bytes:
    """The document. It names no time and takes its serial number from its content: the same image has the same one."""
    listed = [_component(component) for component in sorted(set(components))]
    body = json.dumps([image, version, listed], sort_keys=True).encode()
    document = {
        "$schema": f"http://cyclonedx.org/schema/bom-{_SPECIFICATION}.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": _SPECIFICATION,
        "serialNumber": f"urn:uuid:{uuid.uuid5(_NAMESPACE, hashlib.sha256(body).hexdigest())}",
        "version": 1,
        "metadata": {"component": {"type": "container", "bom-ref": "image", "name": image, "version": version}},
        "components": listed,
        "dependencies": [{"ref": "image", "dependsOn": [component["bom-ref"] for component in listed]}],
    }
    return (json.dumps(document, indent=1, sort_keys=True) + "\n").encode()


def _component(component: Component) -> dict[str, object]:
    found: dict[str, object] = {
        "type": "library",
        "bom-ref": component.purl,
        "name": component.name,
        "version": component.version,
        "purl": component.purl,
    }
    if component.license:
        found["licenses"] = [{"license": {"name": component.license}}]
    if component.sha256:
        found["hashes"] = [{"alg": "SHA-256", "content": component.sha256}]
    return found
