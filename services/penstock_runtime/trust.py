"""Private authorities, trusted by all that asks servers outside, beside those that this machine trusts.

Each library has a variable of its own for what it trusts, and what that names takes the place of what it would trust else. So
what `PENSTOCK_TRUSTED_CA` names is put behind the machine's own, in one file that all of them are given.
"""

from __future__ import annotations

import hashlib
import logging
import ssl
from collections.abc import MutableMapping
from pathlib import Path
from typing import Final

from penstock.serving.mounts import TRUSTED_VARIABLE
from penstock_runtime.atomic import write_atomically

logger = logging.getLogger(__name__)

CA_VARIABLES: Final = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE")
"""By which OpenSSL, requests and botocore are told what to trust."""


def trust_named_authorities(environment: MutableMapping[str, str]) -> None:
    """Have all libraries trust what `PENSTOCK_TRUSTED_CA` names; without it nothing is changed.

    To be called before a library makes its TLS context: some make one as they are imported. What cannot be used is logged and left
    out: a server whose certificate is then refused is told of with what to do.

    Args:
        environment: of this process, and of those that it starts.
    """
    named = environment.get(TRUSTED_VARIABLE)
    if not named:
        return
    try:
        # From the file: bundles name authorities in comments, in whatever letters, which a text for Python may not have.
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=named)
        body = _machines_own(environment).read_bytes()
        for more in (*_named_for_libraries(environment), Path(named)):
            # One that a process which trusts them has started is given that one's file.
            if (given := more.read_bytes()) not in body:
                body += b"\n" + given
        place = _folder(environment) / f"{hashlib.sha256(body).hexdigest()}.pem"
        if not place.is_file():
            write_atomically(place, body)
    except OSError as error:  # what is no PEM, too
        logger.warning(
            "%s=%s: these authorities are not trusted (%s): name a file of certificates in PEM",
            TRUSTED_VARIABLE,
            named,
            error,
        )
        return
    environment.update(dict.fromkeys(CA_VARIABLES, str(place)))


def _machines_own(environment: MutableMapping[str, str]) -> Path:
    known = environment.get("SSL_CERT_FILE") or ssl.get_default_verify_paths().cafile
    if known:
        return Path(known)
    import certifi  # noqa: PLC0415 -- whatever speaks HTTP brings it, and few machines need it

    return Path(certifi.where())


def _named_for_libraries(environment: MutableMapping[str, str]) -> list[Path]:
    """What one library alone was told to trust: what replaces it must hold that, too."""
    return [path for each in CA_VARIABLES if (path := Path(environment.get(each) or "/")).is_file()]


def _folder(environment: MutableMapping[str, str]) -> Path:
    """This user's own: who could write there, would say whom to trust."""
    return Path(environment.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "penstock" / "trusted"
