"""What a Secret gives to the process that fetches a model, and to no other.

The pool mounts each Secret as a folder with a file for each key. Only keys that stores' libraries know are taken: a Secret
that a tenant writes must not set `LD_PRELOAD` or a configuration that names programs to run.

A credential goes to no host but those that its Secret names, since whoever writes `storageUri` need not be whoever may read
the Secret. Keys of S3 and of the Hub go to the endpoint in the same Secret, else to the provider's own; a Docker config names
its registries; passwords and tokens for web servers and registries go to those in the key `hosts`.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from penstock.api.conditions import Reason
from penstock.errors import Invalid
from penstock.serving.mounts import CREDENTIALS_ROOT, CREDENTIALS_VARIABLE
from penstock_runtime.trust import CA_VARIABLES

logger = logging.getLogger(__name__)

VALUES: Final = frozenset(
    {
        "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3",
        "AWS_REGION", "AWS_DEFAULT_REGION", "HF_TOKEN", "HF_ENDPOINT", "HTTP_BEARER_TOKEN", "HTTP_USERNAME",
        "HTTP_PASSWORD", "OCI_USERNAME", "OCI_PASSWORD", "OCI_PLAIN_HTTP", "STORAGE_EMULATOR_HOST",
    }
)  # fmt: skip
"""Keys that become variables."""
PATHS: Final[Mapping[str, tuple[str, ...]]] = {
    "GOOGLE_APPLICATION_CREDENTIALS": ("GOOGLE_APPLICATION_CREDENTIALS",),
    ".dockerconfigjson": ("OCI_DOCKER_CONFIG",),
    "ca.crt": CA_VARIABLES,
}
"""Keys whose file's path becomes these variables."""
HOSTS: Final = "hosts"
"""The key that names hosts, by commas or white space: `models.example.com`, `models.example.com:8443`, `*.example.com`."""
_BOUND: Final[Mapping[str, tuple[frozenset[str], int]]] = {
    "https": (frozenset({"HTTP_BEARER_TOKEN", "HTTP_USERNAME"}), 443),
    "http": (frozenset({"HTTP_BEARER_TOKEN", "HTTP_USERNAME"}), 80),
    "oci": (frozenset({"OCI_USERNAME"}), 443),
}
"""By scheme, the keys that are sent to the host of the URI, and the port of one that names none."""
_TLS_PORT: Final = 443
"""Of an entry of the key `hosts` that names none: no credential goes out in the clear unless the port says so."""
_POD: Final = frozenset(
    {
        "AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE", "AWS_SECURITY_TOKEN",
        "AWS_CREDENTIAL_FILE", "BOTO_CONFIG", "AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "CLOUDSDK_CONFIG",
    }
)  # fmt: skip
"""More variables by which stores' libraries find who the pod is: by files, IRSA, EKS Pod Identity and the like."""
_NOBODY: Final[Mapping[str, str]] = {"AWS_EC2_METADATA_DISABLED": "true", "NO_GCE_CHECK": "true"}
"""Keeps botocore, and google-auth with gcsfs, from asking the node's metadata server, as they do where they find no keys."""
_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")


def environment_with(name: str | None, base: Mapping[str, str], uri: str = "") -> dict[str, str]:
    """The environment of a process that fetches.

    Args:
        name: of the Secret; None: none is named, and the pod's own credentials are used.
        base: of this process. With a Secret, other credentials in it are left out, since halves of two would not fit,
            and what a Secret without keys does not open must not be opened by the pod's.
        uri: of what is fetched.

    Raises:
        Invalid: SecretNotFound; StorageDenied, where the Secret does not name the URI's host.
    """
    if name is None:
        return dict(base)
    folder = _folder(name, base)
    environment = {**{key: value for key, value in base.items() if key not in _credential_variables()}, **_NOBODY}
    _check_host(folder, uri)
    ignored = []
    for file in sorted(folder.iterdir()):
        if file.name.startswith("..") or not file.is_file():
            continue  # Kubernetes keeps the versions of a Secret in folders beside links to the files
        if file.name == HOSTS:
            continue
        if file.name in VALUES:
            environment[file.name] = file.read_text().strip()
        elif file.name in PATHS:
            environment |= dict.fromkeys(PATHS[file.name], str(file))
        else:
            ignored.append(file.name)
    if ignored:
        logger.warning("keys of the Secret %s that no store's library knows: %s", name, ", ".join(ignored))
    return environment


def _check_host(folder: Path, uri: str) -> None:
    """The Secret's password or token for such a URI is for its host."""
    scheme = urlsplit(uri).scheme
    keys, port = _BOUND.get(scheme, (frozenset[str](), 0))
    sent = sorted(key for key in keys if (folder / key).is_file())
    if not sent:
        return
    named = (folder / HOSTS).read_text() if (folder / HOSTS).is_file() else ""
    if not any(_matches_host(each, uri, port) for each in re.split(r"[,\s]+", named) if each):
        raise Invalid(
            Reason.STORAGE_DENIED,
            f"the Secret {folder.name!r} does not say that its {sent[0]} is for {urlsplit(uri).hostname}: if it is, add that "
            f"host to the Secret's key {HOSTS!r}, such as --from-literal={HOSTS}={urlsplit(uri).netloc.rpartition('@')[2]}",
        )


def _matches_host(host: str, uri: str, port: int) -> bool:
    """Whether an entry of the key `hosts` is of a URI's host, and of its port where either says one."""
    try:
        wanted, given = urlsplit(f"//{host.lower()}"), urlsplit(uri)
        if (wanted.port or _TLS_PORT) != (given.port or port) or given.username is not None:
            return False
    except ValueError:
        return False  # a port that is none
    name, allowed = (given.hostname or "").rstrip("."), (wanted.hostname or "").rstrip(".")
    if allowed.startswith("*."):
        return name.endswith(allowed[1:]) and len(name) > len(allowed) - 1
    return bool(name) and name == allowed


def _credential_variables() -> frozenset[str]:
    """All but what the pod trusts, which opens nothing: a Secret without authorities leaves it as it is."""
    return (VALUES | _POD | {variable for variables in PATHS.values() for variable in variables}) - set(CA_VARIABLES)


def _folder(name: str, base: Mapping[str, str]) -> Path:
    folder = Path(base.get(CREDENTIALS_VARIABLE) or CREDENTIALS_ROOT) / name
    # Where an optional Secret is absent, the kubelet leaves its own `..data` there, with nothing in it.
    if not _NAME.fullmatch(name) or not folder.is_dir() or all(each.name.startswith("..") for each in folder.iterdir()):
        raise Invalid(
            Reason.SECRET_NOT_FOUND,
            f"the Secret {name!r} is not mounted on this node ({folder}): create it in the deployment's namespace, and if "
            "model.credentialsSecretRef names it, list it in the pool's managed.credentials; a new Secret reaches running "
            "pods within about a minute",
        )
    return folder
