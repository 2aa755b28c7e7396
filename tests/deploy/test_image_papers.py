"""The bill of materials and the provenance that `make image` writes."""

import hashlib
import importlib.util
import json
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
