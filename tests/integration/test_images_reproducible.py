"""A real, small image: a base from a folder, our code, and packages that are pinned; built twice from nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from images.archive import Compression, ImageConfig, WrittenImage, write_image
from images.catalogue import IMAGES, ImageName
from images.contents import fill_code, sbom_path
from images.layers import write_layer
from images.packages import write_environment
from images.python import find_interpreter
from images.sbom import find_components
from images.source import read_project

REPOSITORY = Path(__file__).resolve().parents[2]
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"


def _base(root: Path) -> Path:
    """A base with this machine's Python in its place, as a program that starts it."""
    program = root / "usr/bin" / f"python{VERSION}"
    program.parent.mkdir(parents=True)
    program.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    program.chmod(0o755)
    return root


def _build(root: Path, compression: Compression = Compression.NONE) -> WrittenImage:
    base = _base(root / "base")
    interpreter = find_interpreter(base)
    image = IMAGES[ImageName.GATEWAY]
    code = root / "code"
    code.mkdir()
    write_environment(code, interpreter)
    fill_code(image, read_project(REPOSITORY), interpreter, find_components(base), code)
    layers = [write_layer(tree, root / f"{tree.name}.tar") for tree in (base, code)]
    config = ImageConfig(image.entrypoint, image.user.numeric, environment=image.all_environment)
    return write_image(root / "image.tar", "penstock/gateway:test", layers, config, compression=compression)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> WrittenImage:
    return _build(tmp_path_factory.mktemp("first"))


def _unpack(image: WrittenImage, target: Path) -> dict[str, object]:
    """Unpack all layers as a container runtime would; returns the image's configuration."""
    with tarfile.open(image.archive) as archive:

        def blob(digest: str) -> bytes:
            file = archive.extractfile(f"blobs/sha256/{digest.removeprefix('sha256:')}")
            assert file is not None
            return file.read()

        index = json.loads(archive.extractfile("index.json").read())  # type: ignore[union-attr]  # it is a file
        assert index["manifests"][0]["digest"] == image.digest
        manifest = json.loads(blob(image.digest))
        for layer in manifest["layers"]:
            path = target.with_suffix(".layer")
            path.write_bytes(blob(layer["digest"]))
            with tarfile.open(path) as files:
                files.extractall(target, filter="fully_trusted")
        config: dict[str, object] = json.loads(blob(manifest["config"]["digest"]))["config"]
        return config


@pytest.mark.parametrize("compression", [pytest.param(each, id=f"compressed: {each}") for each in Compression])
def test_two_builds_from_nothing_are_the_same_to_the_byte(tmp_path: Path, compression: Compression) -> None:
    folders = [tmp_path / "one", tmp_path / "another"]
    before = os.umask(0o077)
    try:
        first = _build(folders[0], compression)
        os.umask(0o022)
        second = _build(folders[1], compression)
    finally:
        os.umask(before)
    assert first.digest == second.digest
    assert first.archive.read_bytes() == second.archive.read_bytes()


def test_the_image_runs_the_gateway_as_no_root_and_carries_its_bill_of_materials(
    built: WrittenImage, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    config = _unpack(built, root)
    assert config["User"] == "65532:65532"
    assert config["Entrypoint"] == ["/opt/penstock/bin/penstock-gateway"]
    document = json.loads((root / sbom_path(ImageName.GATEWAY).relative_to("/")).read_text())
    assert "pkg:pypi/penstock@" in "".join(each["purl"] for each in document["components"])
    packages = root / f"opt/penstock/lib/python{VERSION}/site-packages"
    done = subprocess.run(
        [sys.executable, "-S", "-P", "-c", "import penstock; print(penstock.__file__, penstock.__cached__)"],
        env={"PYTHONPATH": str(packages)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    source, compiled = done.stdout.split()
    assert source == str(packages / "penstock/__init__.py")
    # Unchecked bytecode (PEP 552) has flags 0b01: with all times 0, a check of them would say nothing.
    assert Path(compiled).read_bytes()[4:8] == b"\x01\x00\x00\x00"


def test_layers_that_the_reader_has_may_be_left_out_and_the_image_stays_the_same(
    tmp_path: Path,
) -> None:
    base = write_layer(_base(tmp_path / "base"), tmp_path / "base.tar")
    (tmp_path / "code/opt").mkdir(parents=True)
    code = write_layer(tmp_path / "code", tmp_path / "code.tar")
    config = ImageConfig(("/x",), "1:1")
    whole = write_image(tmp_path / "whole.tar", "x/y:1", [base, code], config)
    part = write_image(tmp_path / "part.tar", "x/y:1", [base, code], config, without=frozenset({base.digest}))
    assert whole.digest == part.digest
    with tarfile.open(part.archive) as archive:
        names = archive.getnames()
    assert f"blobs/sha256/{base.digest.removeprefix('sha256:')}" not in names
    assert f"blobs/sha256/{code.digest.removeprefix('sha256:')}" in names
