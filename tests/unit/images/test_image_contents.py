"""Paths, launchers, bills of materials, and the Dockerfile's agreement with the writer."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from images.archive import canonical
from images.catalogue import IMAGES, Flavour, Image, ImageName
from images.contents import sbom_path
from images.debian import WANTED, complete, image_path
from images.packages import export, write_launchers
from images.sbom import Component, Kind, find_components, write_sbom

from penstock_operator.pool.raycluster import RAY_VERSION

REPOSITORY = Path(__file__).resolve().parents[3]
DOCKERFILE = REPOSITORY / "images/Dockerfile"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        pytest.param("./bin/bash", "usr/bin/bash", id="a program of /bin lies in /usr/bin"),
        pytest.param("./lib/x86_64-linux-gnu/libc.so.6", "usr/lib/x86_64-linux-gnu/libc.so.6", id="a library too"),
        pytest.param("./usr/bin/wget", "usr/bin/wget", id="what is in /usr stays"),
        pytest.param("./etc/profile", "etc/profile", id="what is elsewhere stays"),
        pytest.param("./", "", id="the root is nothing to unpack"),
    ],
)
def test_a_package_is_unpacked_under_a_merged_usr(name: str, expected: str) -> None:
    assert image_path(name) == expected


def test_what_serves_models_has_the_locale_that_text_models_ask_for(tmp_path: Path) -> None:
    assert IMAGES[ImageName.RUNTIME].flavour is Flavour.SHELL
    assert "libc-bin" in WANTED[Flavour.SHELL], "its C.utf8 is what the link leads to"
    (tmp_path / "usr/bin").mkdir(parents=True)
    complete(tmp_path, Flavour.SHELL)
    assert (tmp_path / "usr/lib/locale/en_US.utf8").readlink() == Path("C.utf8")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        pytest.param("penstock/operator:1", "docker.io/penstock/operator:1", id="no registry"),
        pytest.param("pause:3", "docker.io/library/pause:3", id="no registry and no folder"),
        pytest.param("registry.k8s.io/pause:3.10", "registry.k8s.io/pause:3.10", id="a registry"),
        pytest.param("localhost:5000/x:1", "localhost:5000/x:1", id="a registry with a port"),
    ],
)
def test_a_name_is_stored_as_container_runtimes_look_it_up(name: str, expected: str) -> None:
    assert canonical(name) == expected


def test_launchers_start_the_images_python_and_only_wanted_ones_are_written(tmp_path: Path) -> None:
    text = "[console_scripts]\nray = ray.scripts.scripts:main\nTool = a.b:C.run [extra]\nother = x:y\n[gui_scripts]\nz = z:z\n"
    write_launchers(tmp_path, text, ["ray", "Tool", "z"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["Tool", "ray"]
    assert (tmp_path / "ray").read_text().splitlines()[0] == "#!/opt/penstock/bin/python"
    assert "from a.b import C\n" in (tmp_path / "Tool").read_text()
    assert "sys.exit(C.run())" in (tmp_path / "Tool").read_text()
    assert (tmp_path / "ray").stat().st_mode & 0o111


def _installed(tree: Path) -> Path:
    status = tree / "var/lib/dpkg/status.d/libc6"
    status.parent.mkdir(parents=True)
    status.write_text("Package: libc6\nVersion: 2.36-9+deb12u14\nX-Archive-SHA256: " + "a" * 64 + "\n")
    metadata = tree / "opt/penstock/lib/python3.11/site-packages/Foo_Bar-1.2.dist-info/METADATA"
    metadata.parent.mkdir(parents=True)
    metadata.write_text("Name: Foo_Bar\nVersion: 1.2\nClassifier: License :: OSI Approved :: MIT License\n\nText: x\n")
    return tree


def test_components_are_read_from_what_lies_in_the_image(tmp_path: Path) -> None:
    assert find_components(_installed(tmp_path)) == (
        Component(Kind.DEBIAN, "libc6", "2.36-9+deb12u14", None, "a" * 64),
        Component(Kind.PYTHON, "Foo_Bar", "1.2", "MIT License"),
    )


def test_a_full_debian_base_is_read_too(tmp_path: Path) -> None:
    status = tmp_path / "var/lib/dpkg/status"
    status.parent.mkdir(parents=True)
    status.write_text("Package: bash\nVersion: 5.2\nDescription: x\n y\n\nPackage: wget\nVersion: 1.21\n\n")
    assert [(each.name, each.version) for each in find_components(tmp_path)] == [("bash", "5.2"), ("wget", "1.21")]


def test_a_bill_of_materials_names_each_package_once_and_is_the_same_each_time(tmp_path: Path) -> None:
    components = find_components(_installed(tmp_path))
    body = write_sbom("penstock/x", "1", [*components, *components])
    document = json.loads(body)
    assert body == write_sbom("penstock/x", "1", reversed(components))
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
    assert [each["purl"] for each in document["components"]] == [
        "pkg:deb/debian/libc6@2.36-9%2Bdeb12u14",
        "pkg:pypi/foo-bar@1.2",
    ]
    assert document["dependencies"][0]["dependsOn"] == [each["bom-ref"] for each in document["components"]]
    assert document["serialNumber"] != json.loads(write_sbom("penstock/y", "1", components))["serialNumber"]


def _requirements(name: ImageName) -> set[str]:
    return _named(export(IMAGES[name], REPOSITORY))


def _named(requirements: str) -> set[str]:
    return set(re.findall(r"^([a-z0-9-]+)==", requirements, re.MULTILINE))


@pytest.mark.parametrize(
    ("name", "absent"),
    [
        pytest.param(ImageName.RUNTIME, {"torch", "triton", "nncf", "kubernetes"}, id="the thin runtime has no torch"),
        pytest.param(
            ImageName.GATEWAY,
            {"torch", "ray", "onnxruntime", "openvino", "numpy", "kubernetes"},
            id="the gateway has no Ray, engine or client of Kubernetes",
        ),
        pytest.param(
            ImageName.OPERATOR,
            {"torch", "ray", "onnxruntime", "openvino"},
            id="the operator has no Ray and no engine",
        ),
        pytest.param(
            ImageName.OPTIMIZER, {"ray", "openvino"}, id="the optimizer's layer repeats none of the runtime's"
        ),
        pytest.param(
            ImageName.RUNTIME_GPU,
            {"onnxruntime", "torch", "triton"},
            id="the runtime for GPUs has no second ONNX Runtime beside the one with CUDA, whose folder is the same",
        ),
        pytest.param(
            ImageName.OPTIMIZER_GPU,
            {"onnxruntime", "onnxruntime-gpu", "nvidia-cudnn-cu13", "ray"},
            id="the optimizer for GPUs stands on the runtime for GPUs",
        ),
    ],
)
def test_an_image_leaves_out_what_it_does_not_run(name: ImageName, absent: set[str]) -> None:
    found = _requirements(name)
    assert found
    assert found & absent == set()


def test_the_runtime_for_gpus_brings_all_that_cuda_needs_but_the_driver() -> None:
    needed = {
        "onnxruntime-gpu",
        "nvidia-cublas",
        "nvidia-cuda-runtime",
        "nvidia-cudnn-cu13",
        "nvidia-cufft",
        "nvidia-ml-py",
    }
    assert needed <= _requirements(ImageName.RUNTIME_GPU)


def test_workers_with_gpus_and_without_are_one_ray_cluster() -> None:
    """Ray refuses a worker of another version of itself or of Python, and what they tell each other is pickled by these packages."""
    plain, gpu = (
        dict(re.findall(r"^([a-z0-9-]+)==([^ ;\n]+)", export(IMAGES[name], REPOSITORY), re.MULTILINE))
        for name in (ImageName.RUNTIME, ImageName.RUNTIME_GPU)
    )
    assert plain["ray"] == gpu["ray"] == RAY_VERSION
    assert {name: gpu.get(name) for name in plain if name != "onnxruntime"} == {
        name: version for name, version in plain.items() if name != "onnxruntime"
    }
    assert plain["onnxruntime"] == gpu["onnxruntime-gpu"], "what one search measured, both serve"
    assert IMAGES[ImageName.RUNTIME].flavour == IMAGES[ImageName.RUNTIME_GPU].flavour, "and so is Python"


@pytest.mark.parametrize("suffix", ["", "-gpu"], ids=["without GPUs", "with GPUs"])
def test_the_extra_for_everything_is_all_the_others(suffix: str) -> None:
    parts = ("operator", "gateway", f"serving{suffix}", f"optimizer{suffix}", "cli", "edge", "stores")
    every, each = (
        _named(export(replace(IMAGES[ImageName.RUNTIME], extras=extras), REPOSITORY))
        for extras in ((f"all{suffix}",), parts)
    )
    assert every == each


def _stage(name: ImageName) -> dict[str, str]:
    """The instructions of an image's last stage in the Dockerfile, by name; the last of each."""
    stage = re.split(r"^FROM ", DOCKERFILE.read_text(), flags=re.MULTILINE)
    text = next(part for part in stage if part.startswith(f"base AS {name}\n"))
    return dict(line.split(" ", 1) for line in text.splitlines()[1:] if " " in line)


@pytest.mark.parametrize("image", [pytest.param(image, id=f"the {image.name}") for image in IMAGES.values()])
def test_the_dockerfile_says_what_the_writer_does(image: Image) -> None:
    stage = _stage(image.name)
    assert stage["USER"] == image.user.numeric
    assert dict(pair.split("=", 1) for pair in stage["ENV"].split()) == image.all_environment
    assert json.loads(stage.get("ENTRYPOINT", "[]")) == list(image.entrypoint)
    assert json.loads(stage.get("CMD", "[]")) == list(image.command)
    assert stage["LABEL"] == f"io.penstock.sbom={sbom_path(image.name)}"
    assert f"COPY --from=packages-{image.stands_on}" in DOCKERFILE.read_text() or image.stands_on is None


def test_no_image_runs_as_root() -> None:
    assert all(image.user.uid > 0 for image in IMAGES.values())
