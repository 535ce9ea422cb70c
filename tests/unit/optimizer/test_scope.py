"""A search whose credentials open other namespaces' parts of the store does not begin."""

from __future__ import annotations

import secrets

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from tests.telling import telling

from penstock.errors import Invalid
from penstock_optimizer.publishing.scope import check_scope


@pytest.fixture
def bucket() -> str:
    name = secrets.token_hex(6)
    fsspec.filesystem("memory").mkdirs(f"/{name}/penstock/vision")
    return f"memory://{name}/penstock"


def test_credentials_for_everything_are_refused_with_what_to_give_instead(bucket: str) -> None:
    with pytest.raises(Invalid, match=telling("list write", bucket)) as caught:
        check_scope(f"{bucket}/vision")
    assert caught.value.reason == "StoreNotScoped"
    left = fsspec.filesystem("memory").ls(bucket.removeprefix("memory:/"), detail=False)
    assert [each.rpartition("/")[2] for each in left] == ["vision"], "the attempt leaves nothing"


def test_credentials_that_may_look_are_refused_too(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MemoryFileSystem, "pipe_file", _denied)
    with pytest.raises(Invalid, match=telling("list", bucket)):
        check_scope(f"{bucket}/vision")


def test_credentials_for_its_own_part_alone_will_do(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MemoryFileSystem, "pipe_file", _denied)
    monkeypatch.setattr(MemoryFileSystem, "ls", _denied)
    check_scope(f"{bucket}/vision")


def test_a_folder_of_this_machine_has_no_credentials() -> None:
    check_scope("file:///nonexistent/vision")


def _denied(*_: object, **__: object) -> None:
    raise PermissionError("AccessDenied")
