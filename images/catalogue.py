"""What the images are: pure data, for the writer here and for the Dockerfile alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Final

PREFIX: Final = PurePosixPath("/opt/penstock")
"""A Python environment: `bin/` with the programs, `lib/pythonX.Y/site-packages` with the packages and our own code."""

SBOM_FOLDER: Final = PurePosixPath("/usr/share/sbom")
_CERTIFICATES: Final = "/etc/ssl/certs/ca-certificates.crt"


class Flavour(StrEnum):
    """What a base has. Each has what those before it have, as further layers on the same ones."""

    PYTHON = "python"
    SHELL = "shell"
    COMPILER = "compiler"
    BUILDER = "builder"
    """No image stands on it: a Dockerfile's build runs in it."""


class ImageName(StrEnum):
    """The images, in the order in which they are built: one that another stands on comes first."""

    OPERATOR = "operator"
    GATEWAY = "gateway"
    RUNTIME = "runtime"
    OPTIMIZER = "optimizer"
    RUNTIME_GPU = "runtime-gpu"
    OPTIMIZER_GPU = "optimizer-gpu"

    @property
    def for_gpus(self) -> bool:
        """Whether it holds CUDA's libraries in order to serve or search on GPUs: several GB that no other node needs."""
        return self.endswith("-gpu")


@dataclass(frozen=True)
class User:
    """A user of an image, by number and name."""

    uid: int
    name: str

    @property
    def numeric(self) -> str:
        """`uid:gid`, both the same number."""
        return f"{self.uid}:{self.uid}"


NONROOT: Final = User(65532, "nonroot")
RAY: Final = User(1000, "ray")


@dataclass(frozen=True)
class Image:
    """One image.

    Attributes:
        name: which.
        flavour: of the base under it.
        extras: of this project, whose packages it holds.
        packages: our own packages in it.
        entrypoint: what a container runs.
        user: as whom.
        stands_on: an image whose packages lie in a layer below its own, shared by the two.
        left_out: packages that the lock file names for these extras and that nothing in this image imports.
        environment: beside what every image has.
        programs: of third-party packages, to keep beside our own.
        command: arguments of the entrypoint that a pod's replace.
    """

    name: ImageName
    flavour: Flavour
    extras: tuple[str, ...]
    packages: tuple[str, ...]
    entrypoint: tuple[str, ...]
    user: User
    stands_on: ImageName | None = None
    left_out: tuple[str, ...] = ()
    programs: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    command: tuple[str, ...] = ()

    @property
    def all_environment(self) -> dict[str, str]:
        """The environment of its containers. HOME is a folder that a pod must make writable: see docs/images.md."""
        return {
            "HOME": "/tmp",  # noqa: S108 -- inside the container: the one folder that every pod mounts as its own
            "LANG": "C.UTF-8",
            "PATH": f"{PREFIX}/bin:/usr/local/bin:/usr/bin:/bin",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUNBUFFERED": "1",
            "SSL_CERT_FILE": _CERTIFICATES,
            **self.environment,
        }


_RAY_ENVIRONMENT: Final = {
    "OPENVINO_TELEMETRY_DISABLED": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}

_SERVING_PACKAGES: Final = ("penstock", "penstock_runtime", "penstock_serving")
_RUNTIME: Final = Image(
    name=ImageName.RUNTIME,
    flavour=Flavour.SHELL,
    extras=("serving", "stores"),
    packages=_SERVING_PACKAGES,
    programs=("py-spy", "ray", "serve"),
    # KubeRay puts `/bin/bash -c` and `ray start …` in its place.
    entrypoint=(),
    command=("/bin/bash",),
    user=RAY,
    environment=_RAY_ENVIRONMENT,
)
_OPTIMIZER: Final = Image(
    name=ImageName.OPTIMIZER,
    flavour=Flavour.COMPILER,
    extras=("serving", "stores", "optimizer"),
    packages=(*_SERVING_PACKAGES, "penstock_optimizer"),
    entrypoint=(f"{PREFIX}/bin/python", "-m", "penstock_optimizer"),
    user=RAY,
    stands_on=ImageName.RUNTIME,
    environment=_RAY_ENVIRONMENT,
)

IMAGES: Final[Mapping[ImageName, Image]] = {
    image.name: image
    for image in (
        Image(
            name=ImageName.OPERATOR,
            flavour=Flavour.PYTHON,
            extras=("operator", "gs", "s3"),
            packages=("penstock", "penstock_operator", "penstock_runtime"),
            entrypoint=(f"{PREFIX}/bin/penstock-operator",),
            user=NONROOT,
        ),
        Image(
            name=ImageName.GATEWAY,
            flavour=Flavour.PYTHON,
            extras=("gateway",),
            packages=_SERVING_PACKAGES,
            entrypoint=(f"{PREFIX}/bin/penstock-gateway",),
            user=NONROOT,
            left_out=("numpy",),
        ),
        _RUNTIME,
        _OPTIMIZER,
        replace(_RUNTIME, name=ImageName.RUNTIME_GPU, extras=("serving-gpu", "stores")),
        replace(
            _OPTIMIZER,
            name=ImageName.OPTIMIZER_GPU,
            extras=("serving-gpu", "stores", "optimizer-gpu"),
            stands_on=ImageName.RUNTIME_GPU,
        ),
    )
}
