"""The bill of materials and the provenance that `make image` writes."""

import hashlib
import importlib.util
import io
import json
import tarfile
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
STATUS = """\
Package: libc6
Status: install ok installed
Architecture: amd64
Version: 2.36-9+deb12u13
Description: shared libraries
 of several lines

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1:2.0

Package: zlib1g
Status: install ok installed
Architecture: amd64
Version: 1:1.2.13
"""


@pytest.fixture(scope="module")
def papers() -> ModuleType:
    spec = importlib.util.spec_from_file_location("image_papers", ROOT / "scripts" / "image_papers.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def root(tmp_path: Path) -> Path:
    files = {
        "etc/os-release": 'NAME="Debian GNU/Linux"\nVERSION_ID="12"\n',
        "var/lib/dpkg/status": STATUS,
        "usr/local/include/python3.11/patchlevel.h": '#define PY_VERSION      	"3.11.9"\n',
    }
    packages = "opt/sluice/lib/python3.11/site-packages"
    for name, more in (
        ("Backports.Zstd-1.3.0", "License-Expression: PSF-2.0\n"),
        ("hiredis-3.2.1", "License: MIT\n"),
        ("long-1.0", "License: Copyright of somebody\n        and so on, and so on\n"),
    ):
        title, version = name.split("-")
        files[f"{packages}/{name}.dist-info/METADATA"] = (
            f"Metadata-Version: 2.4\nName: {title}\nVersion: {version}\n{more}"
        )
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_the_bill_names_everything_that_is_installed(papers: ModuleType, root: Path) -> None:
    made = papers.bill(root, "1.2.3", 1_700_000_000)
    assert [one["purl"] for one in made["components"]] == [
        "pkg:deb/debian/libc6@2.36-9%2Bdeb12u13?arch=amd64&distro=debian-12",
        "pkg:deb/debian/zlib1g@1%3A1.2.13?arch=amd64&distro=debian-12",
        "pkg:generic/python@3.11.9",
        "pkg:pypi/backports-zstd@1.3.0",
        "pkg:pypi/hiredis@3.2.1",
        "pkg:pypi/long@1.0",
    ]
    licences = {one["name"]: one["licenses"] for one in made["components"] if "licenses" in one}
    assert licences == {
        "Backports.Zstd": [{"expression": "PSF-2.0"}],
        "hiredis": [{"license": {"name": "MIT"}}],
    }
    assert made["metadata"]["timestamp"] == "2023-11-14T22:13:20+00:00"
    assert made["metadata"]["component"]["version"] == "1.2.3"


def test_the_same_contents_have_the_same_bill(papers: ModuleType, root: Path) -> None:
    first, second = (papers.bill(root, "1.2.3", 1_700_000_000) for _ in range(2))
    assert json.dumps(first) == json.dumps(second)
    (root / "var/lib/dpkg/status").write_text(STATUS.replace("1:1.2.13", "1:1.2.14"))
    assert papers.bill(root, "1.2.3", 1_700_000_000)["serialNumber"] != first["serialNumber"]


def test_provenance_names_what_was_made_and_of_what(papers: ModuleType, tmp_path: Path) -> None:
    archive = tmp_path / "sluice-gateway.tar"
    archive.write_bytes(b"image")
    made = papers.provenance(
        ROOT, "c" * 40, "python:3.11", "sha256:" + "b" * 64, "sha256:" + "d" * 64, "sluice:1", [archive]
    )
    assert made["subject"] == [
        {"name": "sluice:1", "digest": {"sha256": "d" * 64}},
        {"name": "sluice-gateway.tar", "digest": {"sha256": hashlib.sha256(b"image").hexdigest()}},
    ]
    definition = made["predicate"]["buildDefinition"]
    assert definition["externalParameters"] == {"base": "python:3.11", "commit": "c" * 40}
    names = [one["name"] for one in definition["resolvedDependencies"]]
    assert names == ["source", "python:3.11", *papers.INPUTS]


def archived(file: Path, container: str) -> None:
    """A docker-archive as buildah writes it, of an image that it built in a container of that name."""
    config = {
        "created": "2023-11-14T22:13:20Z",
        "container": container,
        "container_config": {"Hostname": container[:12], "Env": ["A=b"]},
        "config": {
            "Hostname": container[:12],
            "Env": ["A=b"],
            "Healthcheck": {"Test": ["CMD", "true"]},
            "Entrypoint": ["sluice"],
        },
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(b"layer").hexdigest()]},
    }
    text = json.dumps(config).encode()
    name = hashlib.sha256(text).hexdigest() + ".json"
    manifest = [{"Config": name, "RepoTags": ["localhost/sluice:1"], "Layers": ["layer.tar"]}]
    with tarfile.open(file, "w") as archive:
        for member, content in (
            ("layer.tar", b"layer"),
            (name, text),
            (f"{container}/VERSION", b"1.0"),
            ("manifest.json", json.dumps(manifest).encode()),
        ):
            entry = tarfile.TarInfo(member)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


def test_an_image_does_not_tell_in_which_container_it_was_built(papers: ModuleType, tmp_path: Path) -> None:
    made = []
    for container in ("a" * 64, "b" * 64):
        archived(tmp_path / "built.tar", container)
        identity = papers.settle(tmp_path / "built.tar", tmp_path / f"{container}.tar")
        made.append((identity, (tmp_path / f"{container}.tar").read_bytes()))
    assert made[0] == made[1]
    identity, content = made[0]
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        files = {one.name: papers._member(archive, one.name) for one in archive}
    text = files.pop(f"{identity}.json")
    assert hashlib.sha256(text).hexdigest() == identity
    config = json.loads(text)
    assert config["config"] == {
        "Env": ["A=b"],
        "Healthcheck": {"Test": ["CMD", "true"]},
        "Entrypoint": ["sluice"],
    }
    assert config.keys() == {"created", "config", "rootfs"}
    assert json.loads(files.pop("manifest.json"))[0] == {
        "Config": f"{identity}.json",
        "RepoTags": ["localhost/sluice:1"],
        "Layers": ["layer.tar"],
    }
    assert files == {"layer.tar": b"layer"}
