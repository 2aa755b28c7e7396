"""The image that `make image` builds, on the stand-in for its base: what is in it, and that it serves."""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, Request, build_opener

import pytest

from tests.deploy.images import ROOT, build, environment
from tests.e2e.gateway_process import DIGEST, KEY
from tests.servers import free_port

PATIENCE = 120.0
OPEN = build_opener(ProxyHandler({})).open

pytestmark = [
    pytest.mark.skipif(
        os.environ.get("SLUICE_TEST_DEPLOY") != "1", reason="builds for minutes: make test-deploy"
    ),
    pytest.mark.timeout(3600),
]

START = """
mount --bind "$root" "$root"
mount --rbind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/tmp"
mount -t tmpfs -o uid=65532,gid=65532,mode=0750 tmpfs "$root/var/lib/sluice"
mount --bind "$settings" "$root/etc/sluice"
mount -o remount,bind,ro "$root"
exec chroot --userspec="$user" "$root" env --ignore-environment --chdir="$folder" "$@"
"""
"""What a container engine does, by hand: none runs where the tests do."""


@dataclass
class Image:
    """The files beside it (`out`), those of a second build (`again`), its configuration, and its files, unpacked
    under `root`."""

    out: Path
    again: Path
    config: dict[str, Any]
    root: Path


@pytest.fixture(scope="module")
def image(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    again = tmp_path_factory.mktemp("again")
    settings = environment(again)
    build(again, settings)
    unpacked = again / "unpacked"
    with tarfile.open(built / "sluice-gateway.tar") as archive:
        (manifest,) = json.loads(_read(archive, "manifest.json"))
        config = json.loads(_read(archive, manifest["Config"]))
        for name in manifest["Layers"]:
            with tarfile.open(fileobj=archive.extractfile(name)) as layer:
                layer.extractall(unpacked, numeric_owner=True, filter="fully_trusted")
    yield Image(built, again, config["config"], unpacked)
    shutil.rmtree(unpacked)
    subprocess.run(["buildah", "rmi", *manifest["RepoTags"]], env=settings, check=True, timeout=300)


def _read(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    assert file is not None
    return file.read()


def test_it_has_no_compiler_no_installer_and_nothing_of_the_builder(image: Image) -> None:
    found = {
        path.name
        for folder in ("usr/bin", "usr/local/bin", "opt/sluice/bin")
        for path in (image.root / folder).glob("*")
    }
    assert "sluice" in found
    assert found & {"gcc", "cc", "g++", "c++", "clang", "make", "ld", "as", "rustc", "go"} == set()
    assert not [
        name for name in (path.name for path in (image.root / "opt/sluice/bin").iterdir()) if "pip" in name
    ]
    assert [path.name for path in (image.root / "tmp").iterdir()] == []
    assert not any((image.root / folder).exists() for folder in ("src", "dist", "opt/build"))


def test_it_runs_as_nobody_special_and_owns_one_directory(image: Image) -> None:
    assert image.config["User"] == "65532:65532"
    owned = {path for path in image.root.rglob("*") if path.lstat().st_uid == 65532}
    assert owned == {image.root / "var/lib/sluice"}
    assert image.config["Healthcheck"]["Test"] == ["CMD", "sluice", "healthcheck"]


def test_its_bytecode_does_not_ask_for_the_time_of_a_file(image: Image) -> None:
    """The second word of a .pyc: 1 is a hash that is not compared (PEP 552)."""
    (packages,) = (image.root / "opt/sluice/lib").glob("python3*/site-packages")
    compiled = list(packages.rglob("*.pyc"))
    assert {path.read_bytes()[4:8] for path in compiled} == {b"\x01\x00\x00\x00"}
    sources = {path for path in packages.rglob("*.py") if path.is_relative_to(packages / "sluice")}
    assert len([path for path in compiled if path.is_relative_to(packages / "sluice")]) == len(sources)


def test_its_bill_has_what_the_lock_names(image: Image) -> None:
    made = json.loads((image.out / "sluice-gateway.cdx.json").read_text())
    purls = {one["purl"] for one in made["components"]}
    lock = (ROOT / "requirements.lock").read_text()
    locked = {
        f"pkg:pypi/{name.replace('.', '-')}@{version}"
        for name, version in re.findall(r"^([a-z0-9.-]+)==([^ ;]+)", lock, re.MULTILINE)
    }
    version = image.config["Labels"]["org.opencontainers.image.version"]
    ours = f"pkg:pypi/sluice-gateway@{version}"
    assert {purl for purl in purls if purl.startswith("pkg:pypi/")} - {ours} <= locked
    assert {ours, *(purl for purl in locked if "/aiohttp@" in purl or "/asyncpg@" in purl)} <= purls
    assert any(purl.startswith("pkg:deb/debian/libc6@") for purl in purls)


def test_it_is_the_same_however_often_it_is_built(image: Image) -> None:
    for name in ("sluice-gateway.tar", "sluice-gateway.cdx.json", "sluice-gateway.provenance.json"):
        assert (image.out / name).read_bytes() == (image.again / name).read_bytes(), name


def test_its_provenance_is_of_these_files(image: Image) -> None:
    made = json.loads((image.out / "sluice-gateway.provenance.json").read_text())
    commit = subprocess.run(
        ["git", "-C", ROOT, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=60
    )
    assert made["predicate"]["buildDefinition"]["externalParameters"]["commit"] == commit.stdout.strip()
    assert image.config["Labels"]["org.opencontainers.image.revision"] == commit.stdout.strip()
    digests = {one["name"]: one["digest"]["sha256"] for one in made["subject"]}
    for name in ("sluice-gateway.tar", "sluice-gateway.cdx.json"):
        assert digests[name] == hashlib.sha256((image.out / name).read_bytes()).hexdigest()


def test_it_serves_as_another_user_on_a_root_that_nobody_writes_to(image: Image, tmp_path: Path) -> None:
    port, admin = free_port(), free_port()
    (tmp_path / "gateway.yaml").write_text(
        f"server: {{ listen: 127.0.0.1:{port}, admin_listen: 127.0.0.1:{admin} }}\n"
        "upstreams: { echo: { backend: echo } }\n"
        "aliases: { echo: { tiers: [[{ upstream: echo, model: echo }]] } }\n"
        f'keys: [{{ id: first, digest: "{DIGEST}", default_alias: echo }}]\n'
        "state: sqlite:/var/lib/sluice/state.db\n"
    )
    tmp_path.chmod(0o755)
    (image.root / "etc/sluice").mkdir(exist_ok=True)
    given = {
        "root": str(image.root), "settings": str(tmp_path), "user": image.config["User"], "folder": image.config["WorkingDir"],
    }  # fmt: skip
    command = [*image.config["Env"], *image.config["Entrypoint"]]
    space = ["unshare", "--mount", "--propagation", "private", "sh", "-euc", START, "sh"]
    process = subprocess.Popen([*space, *command, *image.config["Cmd"]], env={**os.environ, **given})
    try:
        wait_until_ready(process, f"http://127.0.0.1:{admin}/readyz")
        body = {"model": "echo", "messages": [{"role": "user", "content": "from an image"}]}
        headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
        request = Request(f"http://127.0.0.1:{port}/v1/chat/completions", json.dumps(body).encode(), headers)
        with OPEN(request, timeout=60) as answer:
            assert "from an image" in answer.read().decode()
        status = Path(f"/proc/{process.pid}/status").read_text()
        assert re.findall(r"^(?:Uid|Gid|CapEff):\s+(\S+)", status, re.MULTILINE) == [
            "65532",
            "65532",
            "0" * 16,
        ]
        inside = [
            "nsenter",
            "--mount",
            f"--target={process.pid}",
            "chroot",
            f"--userspec={given['user']}",
            given["root"],
        ]
        inside += ["env", "--ignore-environment", *image.config["Env"]]
        refused = subprocess.run(
            [*inside, "touch", "/tmp/a", "/opt/sluice/b"], capture_output=True, text=True, timeout=60
        )
        assert refused.stderr.strip().endswith("'/opt/sluice/b': Read-only file system")
        health = image.config["Healthcheck"]["Test"][1:]
        subprocess.run([*inside, *health, "--url", f"http://127.0.0.1:{admin}/livez"], check=True, timeout=60)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.wait()


def wait_until_ready(process: "subprocess.Popen[bytes]", address: str) -> None:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        assert process.poll() is None, "it has ended"
        try:
            OPEN(address, timeout=10).close()
        except OSError:
            time.sleep(0.1)  # another process's start: there is nothing to wait on
        else:
            return
    raise AssertionError(f"{address} was never ready")
