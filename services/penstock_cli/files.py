"""Files that a user names: what they hold, or in the user's words why it cannot be had."""

from __future__ import annotations

import os
from pathlib import Path

from penstock.errors import Invalid


def read_text(path: Path) -> str:
    """A file's text.

    Raises:
        Invalid: it is not there, cannot be read, or is no UTF-8 text.
    """
    try:
        return decode(str(path), path.read_bytes())
    except FileNotFoundError as error:
        raise Invalid("FileNotFound", f"{path}: there is no such file") from error
    except OSError as error:
        raise Invalid("FileUnreadable", f"{path}: {error.strerror}") from error


def decode(name: str, content: bytes) -> str:
    """What a file of that name holds, as text.

    Raises:
        Invalid: it is no UTF-8; the message begins with `name:line:`.
    """
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        message = f"{name}:{line}: not UTF-8 text (byte 0x{content[error.start]:02x}): save the file as UTF-8"
        raise Invalid("FileUnreadable", message) from error


def read_secret(path: Path, option: str) -> str:
    """A key or token: the one line that a file holds.

    Args:
        path: the file.
        option: by which it was named.

    Raises:
        Invalid: it cannot be read, or holds something else.
    """
    secret = read_text(path).strip()
    if not is_header(secret):
        raise Invalid("InvalidOption", f"{option} {path}: write the key alone into it, one line of ASCII")
    return secret


def secret_from_environment(variable: str) -> str | None:
    """A key or token from the environment; None where it has none.

    Raises:
        Invalid: it is something else.
    """
    secret = os.environ.get(variable, "").strip()
    if secret and not is_header(secret):
        raise Invalid("InvalidOption", f"${variable}: it is no key: one line of ASCII")
    return secret or None


def is_header(text: str) -> bool:
    """Whether HTTP can carry a text as a header's value."""
    return bool(text) and text.isascii() and text.isprintable()
