"""The Helm chart: lints, renders to valid manifests with every toggle, and refuses what would not work."""

import hashlib
import json
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
NOT_IN_KUBERNETES = {
    "ServiceMonitor", "PodMonitor", "PrometheusRule", "HTTPRoute", "ScaledObject", "ExternalSecret", "Certificate",
}  # fmt: skip
"""Of operators, which bring their own schemas."""

pytestmark = pytest.mark.skipif(
    HELM is None, reason="helm is not installed (make test fetches it into .cache/bin)"
)

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
KEDA = """
autoscaling: { enabled: true, prometheus: "http://prometheus:9090", maxReplicas: 7 }
config: { limits: { store: "redis://redis:6379/0" } }
reload: watch
podMonitor: { enabled: true, labels: { release: prometheus } }
prometheusRule: { enabled: true, labels: { release: prometheus } }
"""
HPA = """
autoscaling: { enabled: true, kind: hpa, cpuUtilization: 70 }
config: { limits: { store: "redis://redis:6379/0", replicas: 3 } }
podDisruptionBudget: { maxUnavailable: 25% }
"""
CLOSED = """
networkPolicy:
  enabled: true
  from: [{ namespaceSelector: { matchLabels: { kubernetes.io/metadata.name: ingress } } }]
  metricsFrom: [{ namespaceSelector: { matchLabels: { kubernetes.io/metadata.name: monitoring } } }]
  egress: [{ ports: [{ port: 443, protocol: TCP }] }]
"""
EXTRAS = """
extraEnv: [{ name: A, value: b }]
extraVolumes: [{ name: ca, configMap: { name: ca } }]
extraVolumeMounts: [{ name: ca, mountPath: /etc/ca, readOnly: true }]
extraInitContainers:
  - { name: wait, image: busybox, securityContext: { allowPrivilegeEscalation: false, capabilities: { drop: [ALL] } } }
extraContainers:
  - { name: beside, image: busybox, securityContext: { allowPrivilegeEscalation: false, capabilities: { drop: [ALL] } } }
priorityClassName: high
certificate: { enabled: true, issuerRef: { name: internal } }
externalSecret: { enabled: true, secretStoreRef: { name: vault }, dataFrom: [{ extract: { key: llm } }] }
"""
THEIRS = """
existingConfigMap: my-gateway
secret: { existingSecret: my-secrets }
podDisruptionBudget: { enabled: false }
serviceAccount: { create: false }
"""
VALUES = {
    "defaults": "{}", "everything": EVERYTHING, "sqlite": SQLITE, "keda": KEDA, "hpa": HPA, "closed": CLOSED, "extras": EXTRAS,
    "theirs": THEIRS,
}  # fmt: skip

REFUSED = {
    "sqlite has one pod": ("replicaCount: 2\n" + SQLITE, "set replicaCount to 1"),
    "misspelt": ("replicas: 2", "replicas"),
    "misspelt deeper": ("image: { digestt: x }", "digestt"),
    "not a number": ("replicaCount: many", "replicaCount"),
    "keys in a file of one pod": (
        'replicaCount: 2\nconfig: { admin: { store: "sqlite:/var/lib/sluice/keys.db" } }',
        "config.admin.store is sqlite",
    ),
    "responses in a file of one pod": (
        'replicaCount: 2\nconfig: { responses: { store: "sqlite:/var/lib/sluice/responses.db" } }',
        "config.responses.store is sqlite",
    ),
    "sqlite in a secret": (
        'replicaCount: 2\nconfig: { state: "${STATE}" }\nsecret: { env: { STATE: "sqlite:/var/lib/sluice/a.db" } }',
        "config.state is sqlite",
    ),
    "sqlite in a variable": (
        'replicaCount: 2\nconfig: { state: "${STATE:-memory}" }\nextraEnv: [{ name: STATE, value: "sqlite:/a.db" }]',
        "config.state is sqlite",
    ),
    "sqlite where nothing else is said": (
        'replicaCount: 2\nconfig: { admin: { store: "${STORE:-sqlite:/var/lib/sluice/a.db}" } }',
        "config.admin.store is sqlite",
    ),
    "limits in a file that a secret names": (
        'replicaCount: 2\nconfig: { limits: { store: "${LIMITS}" } }\nsecret: { env: { LIMITS: "shared:/tmp/limits" } }',
        "need a Redis",
    ),
    "a configuration that is watched and restarted": (
        "config: { server: { watch: true } }",
        "set reload to watch",
    ),
    "pods by the number with sqlite": (
        "autoscaling: { enabled: true, kind: hpa }\n" + SQLITE,
        "config.state is sqlite",
    ),
    "limits in a file of one host": (
        'replicaCount: 2\nconfig: { limits: { store: "shared:/tmp/limits" } }',
        "need a Redis",
    ),
    "KEDA that asks nobody": ("autoscaling: { enabled: true }", "autoscaling.prometheus"),
    "more pods at least than at most": (
        "autoscaling: { enabled: true, kind: hpa, minReplicas: 5, maxReplicas: 4 }",
        "autoscaling.maxReplicas",
    ),
    "every pod scraped twice": (
        "serviceMonitor: { enabled: true }\npodMonitor: { enabled: true }",
        "enable one",
    ),
    "secrets from two places": (
        "secret: { existingSecret: a }\nexternalSecret: { enabled: true, secretStoreRef: { name: b } }",
        "choose one",
    ),
    "secrets from nowhere": ("externalSecret: { enabled: true }", "externalSecret.secretStoreRef.name"),
    "a certificate of nobody": ("certificate: { enabled: true }", "certificate.issuerRef.name"),
    "a way of reloading that there is not": ("reload: both", "reload"),
    "a route to nowhere": ("httpRoute: { enabled: true }", "httpRoute.parentRefs"),
    "metrics that are not served": (
        "serviceMonitor: { enabled: true }\nservice: { type: LoadBalancer }",
        "ClusterIP",
    ),
}


def helm(*arguments: str, values: str) -> "subprocess.CompletedProcess[str]":
    assert HELM is not None
    command = [HELM, *arguments, "--values", "-"]
    return subprocess.run(command, input=values, capture_output=True, text=True, timeout=60)


def rendered(values: str, kubernetes: str = "1.32") -> dict[str, dict[str, Any]]:
    """The manifests by kind: the chart makes at most one of each. What lets the test's pod in is a "TestPolicy"."""
    done = helm("template", "release", str(CHART), "--kube-version", kubernetes, values=values)
    assert done.returncode == 0, done.stderr
    manifests = [manifest for manifest in yaml.safe_load_all(done.stdout) if manifest]
    return {"TestPolicy" if is_hook(one) and one["kind"] != "Pod" else one["kind"]: one for one in manifests}


def is_hook(manifest: dict[str, Any]) -> bool:
    """Whether it is made for `helm test` alone."""
    return "helm.sh/hook" in manifest["metadata"].get("annotations", {})


@pytest.mark.parametrize("values", VALUES)
def test_the_chart_lints(values: str) -> None:
    done = helm("lint", "--strict", str(CHART), values=VALUES[values])
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("values", VALUES)
def test_every_manifest_is_valid(values: str) -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    for version in ("1.25", kubernetes_validate.latest_version()):
        for kind, manifest in rendered(VALUES[values], version).items():
            if kind not in NOT_IN_KUBERNETES:
                kubernetes_validate.validate(manifest, version, strict=True)


@pytest.mark.parametrize("case", REFUSED)
def test_values_that_would_not_work_are_refused(case: str) -> None:
    values, reason = REFUSED[case]
    done = helm("template", "release", str(CHART), values=values)
    assert done.returncode != 0
    assert reason in done.stderr


def test_all_toggles_make_their_manifests() -> None:
    always = {"ServiceAccount", "ConfigMap", "Service", "Deployment", "PodDisruptionBudget", "Pod"}
    assert set(rendered("{}")) == always
    assert set(rendered(EVERYTHING)) == always | {"Secret", "Ingress", "HTTPRoute", "ServiceMonitor"}
    assert set(rendered(KEDA)) == always | {"ScaledObject", "PodMonitor", "PrometheusRule"}
    assert set(rendered(HPA)) == always | {"HorizontalPodAutoscaler"}
    assert set(rendered(CLOSED)) == always | {"NetworkPolicy", "TestPolicy"}
    assert set(rendered(EXTRAS)) == always | {"Certificate", "ExternalSecret"}
    assert set(rendered(THEIRS)) == {"Service", "Deployment", "Pod"}


@pytest.mark.parametrize("values", sorted(VALUES.keys() - {"theirs"}))
def test_the_gateway_accepts_its_configuration(values: str, tmp_path: Path) -> None:
    from sluice.config.loader import check

    file = tmp_path / "gateway.yaml"
    file.write_text(
        rendered(VALUES[values])["ConfigMap"]["data"]["gateway.yaml"].replace("${REDIS_URL}", "redis://redis")
    )
    assert [str(problem) for problem in check(str(file)).problems] == []


def test_addresses_are_the_charts_and_other_server_options_the_users() -> None:
    server = yaml.safe_load(rendered(EVERYTHING)["ConfigMap"]["data"]["gateway.yaml"])["server"]
    assert server == {
        "listen": ":8080", "admin_listen": ":8081", "drain_delay": 7, "drain_timeout": 120, "trusted_proxies": ["10.0.0.0/8"],
    }  # fmt: skip


def test_what_is_the_operators_stays_in() -> None:
    manifests = rendered(EVERYTHING)
    paths = [path["path"] for rule in manifests["Ingress"]["spec"]["rules"] for path in rule["http"]["paths"]]
    matches = [
        match["path"]["value"]
        for rule in manifests["HTTPRoute"]["spec"]["rules"]
        for match in rule["matches"]
    ]
    assert paths == matches
    assert "/v1/chat" in paths
    assert not [path for path in paths if "/admin/keys".startswith(path) or "/v1/admin/x".startswith(path)]


def test_callers_reach_every_route_that_is_theirs() -> None:
    from sluice.api.openapi import document

    rules = rendered(EVERYTHING)["Ingress"]["spec"]["rules"]
    public = tuple(path["path"] for rule in rules for path in rule["http"]["paths"])
    admin = {"/", "/livez", "/healthz", "/readyz"}
    theirs = {
        path
        for path in document()["paths"]
        if path not in admin and not path.startswith(("/admin/", "/v1/admin/"))
    }
    assert {path for path in theirs if not path.startswith(public)} == set()


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
    before, after = (
        rendered(f"config: {{ log: {{ level: {level} }} }}")["Deployment"] for level in ("info", "debug")
    )
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


@pytest.mark.parametrize(
    "config",
    [
        'state: "sqlite:/var/lib/sluice/a.db"',
        'admin: { store: "sqlite:/var/lib/sluice/a.db" }',
        'responses: { store: "sqlite:/var/lib/sluice/a.db" }',
    ],
)
def test_two_pods_never_share_a_sqlite_file(config: str) -> None:
    values = f"config: {{ {config} }}\npersistence: {{ existingClaim: conversations }}"
    spec = rendered(values)["Deployment"]["spec"]
    assert spec["strategy"] == {"type": "Recreate"}
    claims = [
        volume["persistentVolumeClaim"]
        for volume in spec["template"]["spec"]["volumes"]
        if volume["name"] == "state"
    ]
    assert claims == [{"claimName": "conversations"}]


@pytest.mark.parametrize("values", VALUES)
def test_every_reference_leads_to_what_is_made_or_named(values: str) -> None:
    manifests = rendered(VALUES[values])
    pod = manifests["Deployment"]["spec"]["template"]["spec"]
    volumes = {volume["name"] for volume in pod["volumes"]}
    for container in (*pod["initContainers"], *pod["containers"]):
        assert {mount["name"] for mount in container.get("volumeMounts", ())} <= volumes
    mounted = {volume["name"]: volume for volume in pod["volumes"]}
    name = manifests["ConfigMap"]["metadata"]["name"] if "ConfigMap" in manifests else "my-gateway"
    assert mounted["config"]["configMap"]["name"] == name
    if "certificate" in mounted:
        assert (
            mounted["certificate"]["secret"]["secretName"] == manifests["Certificate"]["spec"]["secretName"]
        )
    if "ExternalSecret" in manifests:
        (source,) = pod["containers"][0]["envFrom"]
        assert source["secretRef"]["name"] == manifests["ExternalSecret"]["spec"]["target"]["name"]


def test_limits_know_how_many_pods_share_them() -> None:
    def replicas(values: str) -> object:
        return (
            yaml.safe_load(rendered(values)["ConfigMap"]["data"]["gateway.yaml"])
            .get("limits", {})
            .get("replicas")
        )

    assert replicas(EVERYTHING) == 3
    assert replicas(KEDA) == 7
    assert replicas(HPA) == 3  # the user's own word
    assert replicas("{}") is None


def test_pods_restart_with_their_configuration_or_watch_it_and_never_both() -> None:
    for values, watches in ((EVERYTHING, None), (KEDA, True)):
        manifests = rendered(values)
        annotations = manifests["Deployment"]["spec"]["template"]["metadata"]["annotations"]
        server = yaml.safe_load(manifests["ConfigMap"]["data"]["gateway.yaml"])["server"]
        assert server.get("watch") is watches
        assert ("checksum/config" in annotations) is not watches


def test_a_store_that_a_variable_names_is_for_any_number_of_pods() -> None:
    for more in (
        "secret: { env: { STATE: 'redis://redis' } }",
        "secret: { existingSecret: mine, env: { STATE: 'sqlite:/not/used.db' } }",
        "extraEnv: [{ name: STATE, valueFrom: { secretKeyRef: { name: a, key: b } } }]",
    ):
        rendered(
            f'replicaCount: 2\nconfig: {{ state: "${{STATE}}", limits: {{ store: "redis://r" }} }}\n{more}'
        )


def test_pods_come_quickly_and_go_one_by_one() -> None:
    for values, spec in (
        (
            KEDA,
            rendered(KEDA)["ScaledObject"]["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"],
        ),
        (HPA, rendered(HPA)["HorizontalPodAutoscaler"]["spec"]["behavior"]),
    ):
        assert "replicas" not in rendered(values)["Deployment"]["spec"]
        assert spec["scaleUp"]["stabilizationWindowSeconds"] == 0
        assert spec["scaleDown"]["policies"] == [{"type": "Pods", "value": 1, "periodSeconds": 65}]


@pytest.mark.parametrize(("drain", "period"), [((0, 0), 1), ((5, 60), 65), ((30, 7200), 1800)])
@pytest.mark.parametrize("values", [KEDA, HPA])
def test_pods_go_within_the_period_that_kubernetes_takes(
    values: str, drain: tuple[int, int], period: int
) -> None:
    """1 to 1800 s; an HPA with another is refused by the API server."""
    drained = f"{values}drain: {{ delaySeconds: {drain[0]}, timeoutSeconds: {drain[1]} }}\n"
    manifests = rendered(drained)
    if "ScaledObject" in manifests:
        spec = manifests["ScaledObject"]["spec"]["advanced"]["horizontalPodAutoscalerConfig"]
    else:
        spec = manifests["HorizontalPodAutoscaler"]["spec"]
    assert [policy["periodSeconds"] for policy in spec["behavior"]["scaleDown"]["policies"]] == [period]


def test_pods_are_spread_by_their_own_labels_where_no_others_are_named() -> None:
    """A constraint without a selector matches no pod; the API server takes it and warns."""
    theirs = "{ labelSelector: { matchLabels: { a: b } }, maxSkew: 1, topologyKey: zone, whenUnsatisfiable: DoNotSchedule }"
    deployment = rendered(
        EVERYTHING.replace("topologySpreadConstraints: [", f"topologySpreadConstraints: [{theirs}, ")
    )["Deployment"]
    first, second = deployment["spec"]["template"]["spec"]["topologySpreadConstraints"]
    assert first["labelSelector"] == {"matchLabels": {"a": "b"}}
    assert second["labelSelector"] == deployment["spec"]["selector"]
    assert second["maxSkew"] == 1


def test_what_is_scaled_by_is_a_metric_that_there_is() -> None:
    from sluice.telemetry.table import TABLE

    assert "streams_in_flight" in TABLE
    assert (
        "sluice_streams_in_flight{"
        in rendered(KEDA)["ScaledObject"]["spec"]["triggers"][0]["metadata"]["query"]
    )
    (pods, _) = rendered(HPA)["HorizontalPodAutoscaler"]["spec"]["metrics"]
    assert pods["pods"]["metric"]["name"] == "sluice_streams_in_flight"


def test_the_admin_port_is_open_to_nobody_who_is_not_named() -> None:
    policy = rendered("networkPolicy: { enabled: true }")["NetworkPolicy"]["spec"]
    assert [rule["ports"][0]["port"] for rule in policy["ingress"]] == ["http"]
    ports = [rule["ports"][0]["port"] for rule in rendered(CLOSED)["NetworkPolicy"]["spec"]["ingress"]]
    assert ports == ["http", "metrics"]


def test_the_pod_of_helm_test_is_let_in_while_it_runs() -> None:
    assert "TestPolicy" not in rendered("networkPolicy: { enabled: true }")  # everybody is let in
    manifests = rendered(CLOSED)
    policy, pod = manifests["TestPolicy"], manifests["Pod"]
    assert policy["kind"] == "NetworkPolicy"
    spec, gateway = policy["spec"], manifests["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert spec["podSelector"] == manifests["NetworkPolicy"]["spec"]["podSelector"]
    assert spec["podSelector"]["matchLabels"].items() <= gateway.items()
    assert not spec["podSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    (rule,) = spec["ingress"]
    assert rule["ports"] == [{"port": "http", "protocol": "TCP"}]
    (peer,) = rule["from"]
    assert peer["podSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    assert not peer["podSelector"]["matchLabels"].items() <= gateway.items()
    about, of_pod = policy["metadata"]["annotations"], pod["metadata"]["annotations"]
    assert about["helm.sh/hook"] == of_pod["helm.sh/hook"] == "test"
    assert int(about["helm.sh/hook-weight"]) < int(of_pod.get("helm.sh/hook-weight", 0))
    assert "hook-succeeded" in about["helm.sh/hook-delete-policy"]


def test_the_configuration_is_checked_before_a_pod_serves() -> None:
    pod = rendered(EXTRAS)["Deployment"]["spec"]["template"]["spec"]
    first = pod["initContainers"][0]
    assert first["args"] == ["check", "/etc/sluice/gateway.yaml"]
    (serving,) = [container for container in pod["containers"] if container["name"] == "gateway"]
    for name in ("image", "env", "envFrom", "volumeMounts", "securityContext"):
        assert first[name] == serving[name]


def test_every_route_that_callers_have_is_reached_through_the_ingress() -> None:
    from sluice.frontends.registry import find_frontend, installed

    paths = [
        match["path"]["value"]
        for rule in rendered(EVERYTHING)["HTTPRoute"]["spec"]["rules"]
        for match in rule["matches"]
    ]
    for name in installed():
        for route in find_frontend(name).routes():
            for path in (route.path, *route.also):
                assert path in ("/", "/v1") or any(
                    path == one or path.startswith(f"{one}/") for one in paths
                ), path


def test_rules_and_dashboards_are_the_files_that_are_tested() -> None:
    assert rendered(KEDA)["PrometheusRule"]["spec"] == yaml.safe_load(
        (ROOT / "deploy" / "prometheus" / "rules.yaml").read_text()
    )
    done = helm("template", "release", str(CHART), values="dashboards: { enabled: true }")
    shown = {
        name: json.loads(text)
        for manifest in yaml.safe_load_all(done.stdout)
        if manifest
        and manifest["kind"] == "ConfigMap"
        and "grafana_dashboard" in manifest["metadata"]["labels"]
        for name, text in manifest["data"].items()
    }
    files = sorted((ROOT / "deploy" / "grafana").glob("*.json"))
    assert shown == {f"sluice-{file.name}": json.loads(file.read_text()) for file in files}
    assert len(shown) == 4


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ("replicaCount: 2", {"Limits are counted", "Conversations are kept"}),
        ("autoscaling: { enabled: true, kind: hpa }", {"Limits are counted", "Conversations are kept"}),
        (KEDA, {"Conversations are kept"}),
        ("replicaCount: 2\nexistingConfigMap: mine", set()),
        (
            'replicaCount: 2\nconfig: { state: "redis://r", limits: { store: "redis://r" }, responses: { store: memory } }',
            {"Responses are kept"},
        ),
        ('config: { state: "sqlite:/var/lib/sluice/a.db" }', {"in a file that ends with the pod"}),
        (SQLITE, set()),
    ],
)
def test_notes_tell_what_pods_do_not_share(values: str, words: set[str]) -> None:
    command = ["install", "release", str(CHART), "--dry-run=client"]
    done = helm(*command, values=values)
    assert done.returncode == 0, done.stderr
    notes = done.stdout.partition("NOTES:")[2]
    every = {
        "Limits are counted",
        "Conversations are kept",
        "Responses are kept",
        "in a file that ends with the pod",
    }
    assert {one for one in every if one in notes} == words
