"""Reads manifests from files and judges them as the API server would."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from penstock.api.admission import Problem, Verdict, repeated, verdict
from penstock.api.documents import Document
from penstock.errors import Invalid

_SUFFIXES = {".yaml", ".yml", ".json"}
_IDENTITY = ("apiVersion", "kind", "metadata.name")


def judge(files: Iterable[str]) -> list[Verdict]:
    """The verdict on each file.

    Args:
        files: paths; a folder stands for the manifests in it, `-` for standard input.

    Raises:
        Invalid: a file cannot be read, or is not YAML.
    """
    return [verdict(text, name) for name, text in _read(files)]


def accepted(files: Iterable[str]) -> list[Document]:
    """The objects of the files, in their order.

    Raises:
        Invalid: the API server would refuse one of them; the message has a line for each problem.
    """
    verdicts = judge(files)
    problems = problems_of(verdicts)
    if problems:
        raise Invalid("InvalidManifest", "\n".join(map(str, problems)))
    documents = [document for each in verdicts for document in each.documents]
    if not documents:
        raise Invalid("NothingToApply", "the files hold no object")
    return documents


def identified(files: Iterable[str]) -> list[Document]:
    """The objects of the files, whatever their specs say: enough to name them.

    Raises:
        Invalid: one has no known kind or no name; the message has a line for each problem.
    """
    verdicts = judge(files)
    problems = [str(p) for each in verdicts for p in each.problems if p.field in _IDENTITY]
    if problems:
        raise Invalid("InvalidManifest", "\n".join(problems))
    return [document for each in verdicts for document in each.documents]


def problems_of(verdicts: list[Verdict]) -> list[Problem]:
    """What is wrong with each object, and which stand twice among all files."""
    found = [problem for each in verdicts for problem in each.problems]
    return found + repeated(document for each in verdicts for document in each.documents)


def _read(files: Iterable[str]) -> Iterable[tuple[str, str]]:
    for name in files:
        if name == "-":
            yield "stdin", _text("stdin", sys.stdin.buffer.read())
            continue
        for path in _expand(Path(name)):
            try:
                yield str(path), _text(str(path), path.read_bytes())
            except FileNotFoundError as error:
                raise Invalid("FileNotFound", f"{path}: there is no such file") from error
            except OSError as error:
                raise Invalid("FileUnreadable", f"{path}: {error.strerror}") from error


def _text(name: str, content: bytes) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        message = f"{name}:{line}: not UTF-8 text (byte 0x{content[error.start]:02x}): save the file as UTF-8"
        raise Invalid("FileUnreadable", message) from error


def _expand(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = sorted(each for each in path.iterdir() if each.suffix in _SUFFIXES)
    if not found:
        inner = any(each.is_dir() for each in path.iterdir())
        hint = "; sub-folders are not searched: name them" if inner else ""
        raise Invalid("NothingToApply", f"{path}: no .yaml, .yml or .json file in this folder{hint}")
    return found
