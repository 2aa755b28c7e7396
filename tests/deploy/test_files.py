"""Dockerfile, Compose and Prometheus: they parse, and what they name is there."""

import fnmatch
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ")
GIVEN = {"SLUICE_KEY_DIGEST": "sha256:" + "a" * 64, "POSTGRES_PASSWORD": "p", "GRAFANA_PASSWORD": "g"}
"""What whoever starts Compose has to set."""
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())


def copied() -> list[str]:
    """What the Dockerfile copies from the repository."""
    lines = re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE)
    return [source for line in lines for source in line.split()[:-1]]


def test_the_dockerfile_copies_what_is_there() -> None:
    assert {"requirements.lock", "gateway", "plugins"} <= set(copied())
    assert [source for source in copied() if not (ROOT / source).exists()] == []


def test_the_context_holds_what_the_dockerfile_copies() -> None:
    rules = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    kept = [rule[1:] for rule in rules if rule.startswith("!")]
    assert [source for source in copied() if not any(fnmatch.fnmatch(source, rule) for rule in kept)] == []


def test_the_image_runs_unprivileged_and_installs_by_hash_only() -> None:
    assert re.findall(r"^USER (.+)$", DOCKERFILE, re.MULTILINE) == ["65532:65532"]
    installs = re.findall(r"pip (?:install|wheel) (.+)", DOCKERFILE)
    assert installs
    assert [line for line in installs if "--require-hashes" not in line and "--no-index" not in line] == []
    assert 'ENTRYPOINT ["sluice"]' in DOCKERFILE
    assert 'CMD ["sluice", "healthcheck"]' in DOCKERFILE


def test_the_image_has_what_the_chart_expects() -> None:
    templates = DEPLOY / "helm" / "sluice" / "templates"
    deployment = (templates / "deployment.yaml").read_text() + (templates / "_helpers.tpl").read_text()
    assert "runAsUser: 65532" in deployment
    assert all(path in DOCKERFILE and path in deployment for path in ("/etc/sluice", "/var/lib/sluice"))


def test_compose_mounts_and_builds_what_is_there() -> None:
    services = COMPOSE["services"]
    assert set(services) == {"gateway", "redis", "postgres", "prometheus", "grafana"}
    build = services["gateway"]["build"]
    assert (DEPLOY / build["context"] / build["dockerfile"]).is_file()
    mounts = [volume.split(":")[0] for service in services.values() for volume in service.get("volumes", [])]
    assert all((DEPLOY / mount).exists() for mount in mounts if mount.startswith("./"))
    assert all(mount.startswith("./") or mount in COMPOSE["volumes"] for mount in mounts)


def test_compose_shows_nothing_to_the_network() -> None:
    ports = [port for service in COMPOSE["services"].values() for port in service.get("ports", [])]
    assert [port for port in ports if not port.startswith("127.0.0.1:")] == []


def test_compose_has_no_secret_of_its_own_and_says_which_are_missing() -> None:
    text = (DEPLOY / "compose.yaml").read_text()
    assert set(re.findall(r"\$\{(\w+):\?", text)) == set(GIVEN)
    assert set(re.findall(r"\$\{(\w+):-\}", text)) == {"OPENAI_API_KEY"}
    assert re.findall(r"\$\{\w+:-[^}]+\}", text) == []


def test_the_gateway_of_compose_waits_for_its_stores_and_asks_no_other() -> None:
    config = yaml.safe_load((DEPLOY / "compose" / "gateway.yaml").read_text())
    hosts = {
        re.sub(r"^.*[/@](\w+):\d+.*$", r"\1", address)
        for address in (config["state"], config["limits"]["store"])
    }
    assert hosts == {"redis", "postgres"}
    assert COMPOSE["services"]["gateway"]["depends_on"] == {
        host: {"condition": "service_healthy"} for host in hosts
    }
    assert all("healthcheck" in COMPOSE["services"][host] for host in hosts)


def test_the_gateway_accepts_the_configuration_of_compose(monkeypatch: pytest.MonkeyPatch) -> None:
    from sluice.config.loader import check

    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    for name, value in GIVEN.items():
        monkeypatch.setenv(name, value)
    assert [str(problem) for problem in check(str(DEPLOY / "compose" / "gateway.yaml")).problems] == []


def test_prometheus_scrapes_the_admin_port_of_compose() -> None:
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    gateway = yaml.safe_load((DEPLOY / "compose" / "gateway.yaml").read_text())
    port = gateway["server"]["admin_listen"].rpartition(":")[2]
    targets = [
        target
        for job in config["scrape_configs"]
        for group in job["static_configs"]
        for target in group["targets"]
    ]
    assert targets == [f"gateway:{port}"]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_prometheus_accepts_its_configuration() -> None:
    command = ["promtool", "check", "config", "--syntax-only", str(DEPLOY / "prometheus" / "prometheus.yml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_compose_is_valid() -> None:
    text = (DEPLOY / "compose.yaml").read_text()
    docker, older = shutil.which("docker"), shutil.which("docker-compose")
    if (
        docker
        and not subprocess.run([docker, "compose", "version"], capture_output=True, timeout=60).returncode
    ):
        command = [docker, "compose"]
    elif older:  # Debian's, which takes the project's name as an option only
        command = [older]
        text = text.replace(f"name: {COMPOSE['name']}\n", "")
    else:
        pytest.skip("docker compose is not installed")
    command += ["--project-directory", str(DEPLOY), "--file", "-", "config", "--quiet"]
    environment = {**os.environ, **GIVEN}
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode == 0, done.stderr
    lacking = subprocess.run(command, input=text, capture_output=True, text=True, timeout=60)
    assert lacking.returncode != 0
    assert "SLUICE_KEY_DIGEST" in lacking.stderr
