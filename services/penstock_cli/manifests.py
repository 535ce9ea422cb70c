"""Reads manifests from files and judges them as the API server would."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from penstock.api.admission import Verdict, verdict
from penstock.api.documents import Document
from penstock.errors import Invalid

_SUFFIXES = {".yaml", ".yml", ".json"}


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
    problems = [str(problem) for each in verdicts for problem in each.problems]
    if problems:
        raise Invalid("InvalidManifest", "\n".join(problems))
    documents = [document for each in verdicts for document in each.documents]
    if not documents:
        raise Invalid("NothingToApply", "the files hold no object")
    return documents


def _read(files: Iterable[str]) -> Iterable[tuple[str, str]]:
    for name in files:
        if name == "-":
            yield "stdin", sys.stdin.read()
            continue
        for path in _expand(Path(name)):
            try:
                yield str(path), path.read_text(encoding="utf-8")
            except FileNotFoundError as error:
                raise Invalid("FileNotFound", f"{path}: there is no such file") from error
            except (OSError, UnicodeDecodeError) as error:
                raise Invalid("FileUnreadable", f"{path}: {error}") from error


def _expand(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = sorted(each for each in path.iterdir() if each.suffix in _SUFFIXES)
    if not found:
        raise Invalid("NothingToApply", f"{path}: no .yaml, .yml or .json file in this folder")
    return found
