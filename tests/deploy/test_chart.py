"""The Helm chart: lints, renders to valid manifests with every toggle, and refuses what would not work."""

import hashlib
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "deploy" / "helm" / "sluice"
_cached = ROOT / ".cache" / "bin" / "helm"
HELM = str(_cached) if _cached.exists() else shutil.which("helm")
NOT_IN_KUBERNETES = {"ServiceMonitor", "HTTPRoute"}  # of operators, which bring their own schemas

pytestmark = pytest.mark.skipif(HELM is None, reason="helm is not installed (make test fetches it into .cache/bin)")

EVERYTHING = """
image: { digest: "sha256:0000000000000000000000000000000000000000000000000000000000000000" }
imagePullSecrets: [{ name: pull }]
replicaCount: 3
config:
  server: { listen: "127.0.0.1:9", trusted_proxies: [10.0.0.0/8] }
  limits: { store: "${REDIS_URL}" }
secret: { env: { REDIS_URL: "redis://redis:6379/0", OPENAI_API_KEY: "012" } }
drain: { delaySeconds: 7, timeoutSeconds: 120 }
service: { annotations: { a: b } }
serviceAccount: { annotations: { a: b } }
serviceMonitor: { enabled: true, labels: { release: prometheus } }
ingress: { enabled: true, className: nginx, tlsSecretName: tls }
httpRoute: { enabled: true, parentRefs: [{ name: gateway }] }
podAnnotations: { a: b }
podLabels: { a: b }
nodeSelector: { disk: ssd }
tolerations: [{ key: a, operator: Exists }]
affinity: { nodeAffinity: {} }
topologySpreadConstraints: [{ maxSkew: 1, topologyKey: zone, whenUnsatisfiable: ScheduleAnyway }]
"""
SQLITE = """
config: { state: "sqlite:/var/lib/sluice/state.db" }
persistence: { existingClaim: conversations }
"""
VALUES = {"defaults": "{}", "everything": EVERYTHING, "sqlite": SQLITE}

REFUSED = {
    "sqlite has one pod": ("replicaCount: 2\n" + SQLITE, "set replicaCount to 1"),
    "misspelt": ("replicas: 2", "replicas"),
    "misspelt deeper": ("image: { digestt: x }", "digestt"),
    "not a number": ("replicaCount: many", "replicaCount"),
    "a route to nowhere": ("httpRoute: { enabled: true }", "httpRoute.parentRefs"),
    "metrics that are not served": ("serviceMonitor: { enabled: true }\nservice: { type: LoadBalancer }", "ClusterIP"),
}


def helm(*arguments: str, values: str) -> "subprocess.CompletedProcess[str]":
    assert HELM is not None
    command = [HELM, *arguments, "--values", "-"]
    return subprocess.run(command, input=values, capture_output=True, text=True, timeout=60)


def rendered(values: str) -> dict[str, dict[str, Any]]:
    """The manifests by kind: the chart makes at most one of each."""
    done = helm("template", "release", str(CHART), values=values)
    assert done.returncode == 0, done.stderr
    return {manifest["kind"]: manifest for manifest in yaml.safe_load_all(done.stdout) if manifest}


@pytest.mark.parametrize("values", VALUES)
def test_the_chart_lints(values: str) -> None:
    done = helm("lint", "--strict", str(CHART), values=VALUES[values])
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("values", VALUES)
def test_every_manifest_is_valid(values: str) -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    for kind, manifest in rendered(VALUES[values]).items():
        if kind not in NOT_IN_KUBERNETES:
            for version in ("1.25", kubernetes_validate.latest_version()):
                kubernetes_validate.validate(manifest, version, strict=True)


@pytest.mark.parametrize("case", REFUSED)
def test_values_that_would_not_work_are_refused(case: str) -> None:
    values, reason = REFUSED[case]
    done = helm("template", "release", str(CHART), values=values)
    assert done.returncode != 0
    assert reason in done.stderr


def test_all_toggles_make_their_manifests() -> None:
    always = {"ServiceAccount", "ConfigMap", "Service", "Deployment"}
    assert set(rendered("{}")) == always
    assert set(rendered(EVERYTHING)) == always | {"Secret", "Ingress", "HTTPRoute", "ServiceMonitor"}


@pytest.mark.parametrize("values", VALUES)
def test_the_gateway_accepts_its_configuration(values: str, tmp_path: Path) -> None:
    from sluice.config.loader import check

    file = tmp_path / "gateway.yaml"
    file.write_text(rendered(VALUES[values])["ConfigMap"]["data"]["gateway.yaml"].replace("${REDIS_URL}", "redis://redis"))
    assert [str(problem) for problem in check(str(file)).problems] == []


def test_addresses_are_the_charts_and_other_server_options_the_users() -> None:
    server = yaml.safe_load(rendered(EVERYTHING)["ConfigMap"]["data"]["gateway.yaml"])["server"]
    assert server == {
        "listen": ":8080", "admin_listen": ":8081", "drain_delay": 7, "drain_timeout": 120, "trusted_proxies": ["10.0.0.0/8"],
    }  # fmt: skip


def test_what_is_the_operators_stays_in() -> None:
    manifests = rendered(EVERYTHING)
    paths = [path["path"] for rule in manifests["Ingress"]["spec"]["rules"] for path in rule["http"]["paths"]]
    matches = [match["path"]["value"] for rule in manifests["HTTPRoute"]["spec"]["rules"] for match in rule["matches"]]
    assert paths == matches
    assert "/v1/chat" in paths
    assert not [path for path in paths if "/admin/keys".startswith(path) or "/v1/admin/x".startswith(path)]


def test_the_pod_has_no_more_rights_than_it_needs() -> None:
    pod = rendered(EVERYTHING)["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
    }  # fmt: skip


def test_the_pod_outlives_its_drain_and_restarts_with_its_configuration() -> None:
    before, after = (rendered(f"config: {{ log: {{ level: {level} }} }}")["Deployment"] for level in ("info", "debug"))
    template = rendered(EVERYTHING)["Deployment"]["spec"]["template"]
    assert template["spec"]["terminationGracePeriodSeconds"] == 7 + 120 + 10
    sums = [d["spec"]["template"]["metadata"]["annotations"]["checksum/config"] for d in (before, after)]
    assert sums[0] != sums[1]
    assert all(len(one) == hashlib.sha256().digest_size * 2 for one in sums)


def test_probes_ask_the_admin_port() -> None:
    (container,) = rendered("{}")["Deployment"]["spec"]["template"]["spec"]["containers"]
    probes = {name: container[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")}
    live, ready = {"path": "/livez", "port": "metrics"}, {"path": "/readyz", "port": "metrics"}
    assert probes == {"startup": live, "liveness": live, "readiness": ready}


def test_two_pods_never_share_a_sqlite_file() -> None:
    spec = rendered(SQLITE)["Deployment"]["spec"]
    assert spec["strategy"] == {"type": "Recreate"}
    claims = [volume["persistentVolumeClaim"] for volume in spec["template"]["spec"]["volumes"] if volume["name"] == "state"]
    assert claims == [{"claimName": "conversations"}]
