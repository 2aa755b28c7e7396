"""The chart on a real Kubernetes API server: what validates, defaults and admits in every cluster.

Needs the binaries of envtest (KUBEBUILDER_ASSETS); kinds of operators need a directory of their
CustomResourceDefinitions (SLUICE_TEST_CRDS), and are left out without it. docs/kubernetes.md says where to get both.
"""

import io
import os
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.cluster import Cluster, Refused, cluster
from tests.deploy.test_chart import CHART, HELM, ROOT, VALUES, is_hook

pytestmark = [
    pytest.mark.skipif(
        os.environ.get("SLUICE_TEST_DEPLOY") != "1",
        reason="takes a minute and a control plane: make test-deploy",
    ),
    pytest.mark.skipif(HELM is None, reason="helm is not installed (make test fetches it into .cache/bin)"),
    pytest.mark.timeout(900),
]

LONG = """
autoscaling: { enabled: true, kind: hpa, scaleDownAfterSeconds: 3600 }
config: { limits: { store: "redis://redis:6379/0" } }
drain: { delaySeconds: 30, timeoutSeconds: 7200 }
"""
ABRUPT = """
autoscaling: { enabled: true, kind: hpa, scaleDownAfterSeconds: 0 }
drain: { delaySeconds: 0, timeoutSeconds: 0 }
podDisruptionBudget: { maxUnavailable: 100% }
"""
SHOWN = """
dashboards: { enabled: true }
service: { type: LoadBalancer, port: 8443 }
"""
SETS = {**VALUES, "long streams": LONG, "no drain": ABRUPT, "dashboards": SHOWN}


@pytest.fixture(scope="module")
def server() -> Iterator[Cluster]:
    with cluster() as started:
        definitions = os.environ.get("SLUICE_TEST_CRDS")
        if definitions:
            started.define(Path(definitions))
        yield started


@pytest.fixture
def namespace(server: Cluster, request: pytest.FixtureRequest) -> str:
    """A namespace that admits restricted pods only (there is no controller that would end one: it stays)."""
    name = "".join(c if c.isalnum() else "-" for c in request.node.name.lower()).strip("-")[-60:].strip("-")
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    server.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}, "")
    return name


def helm(server: Cluster, namespace: str, *arguments: str, values: str = "{}") -> str:
    assert HELM is not None
    command = [
        HELM,
        "--kubeconfig",
        str(server.kubeconfig),
        "--namespace",
        namespace,
        *arguments,
    ]
    done = subprocess.run(command, input=values, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def rendered(server: Cluster, namespace: str, values: str) -> list[dict[str, Any]]:
    """Every object of the chart, those of hooks too."""
    command = ["template", "release", str(CHART), "--kube-version", server.version, "--values", "-"]
    return [
        manifest
        for manifest in yaml.safe_load_all(helm(server, namespace, *command, values=values))
        if manifest
    ]


def needs_kinds(server: Cluster, namespace: str, *values: str) -> None:
    for one in values:
        for manifest in rendered(server, namespace, one):
            if not server.knows(manifest):
                pytest.skip(
                    f"SLUICE_TEST_CRDS does not define {manifest['kind']} of {manifest['apiVersion']}"
                )


@pytest.fixture(scope="module")
def chart_before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The chart as it was before its last change."""
    log = ["git", "-C", str(ROOT), "log", "--format=%H", "--max-count=2", "--", str(CHART.relative_to(ROOT))]
    commits = subprocess.run(log, capture_output=True, text=True, timeout=60).stdout.split()
    if len(commits) < 2:
        pytest.skip("no history of the chart")
    # all of deploy: the chart links to the rules and dashboards
    archive = ["git", "-C", str(ROOT), "archive", commits[1], "deploy"]
    done = subprocess.run(archive, capture_output=True, timeout=60, check=True)
    folder = tmp_path_factory.mktemp("before")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as packed:
        packed.extractall(folder, filter="data")
    return folder / CHART.relative_to(ROOT)


@pytest.mark.parametrize("values", SETS)
def test_the_server_takes_every_object(server: Cluster, namespace: str, values: str) -> None:
    server.warnings.clear()
    refused, seen = [], 0
    for manifest in rendered(server, namespace, SETS[values]):
        if server.knows(manifest):
            seen += 1
            try:
                server.apply(manifest, namespace, dry_run=True)
            except Refused as error:
                refused.append(f"{manifest['kind']}: {error}")
    assert refused == []
    assert server.warnings == []
    assert seen


@pytest.mark.parametrize("values", SETS)
def test_its_pods_are_admitted_where_only_restricted_ones_are(
    server: Cluster, namespace: str, values: str
) -> None:
    manifests = {manifest["kind"]: manifest for manifest in rendered(server, namespace, SETS[values])}
    template = manifests["Deployment"]["spec"]["template"]
    pod = {"apiVersion": "v1", "kind": "Pod", **template, "metadata": {**template["metadata"], "name": "pod"}}
    if "priorityClassName" in pod["spec"]:
        del pod["spec"]["priorityClassName"]  # the cluster's
    for one in (pod, manifests["Pod"]):
        server.apply(one, namespace, dry_run=True)


@pytest.mark.parametrize("values", VALUES)
def test_helm_installs_what_it_was_upgrades_and_takes_all_of_it_away(
    server: Cluster, namespace: str, values: str, chart_before: Path
) -> None:
    given = VALUES[values]
    needs_kinds(server, namespace, given)
    helm(server, namespace, "install", "release", str(chart_before), "--values", "-", values=given)
    upgrade = ["upgrade", "release", str(CHART), "--values", "-"]
    helm(server, namespace, *upgrade, "--dry-run=server", values=given)
    helm(server, namespace, *upgrade, values=given)
    expected = {name(manifest) for manifest in rendered(server, namespace, given) if not is_hook(manifest)}
    assert {name(manifest) for manifest in installed(server, namespace)} == expected
    helm(server, namespace, "uninstall", "release")
    assert installed(server, namespace) == []


def test_one_release_goes_through_all_values_and_back(server: Cluster, namespace: str) -> None:
    walk = [*SETS, *reversed(SETS)]
    needs_kinds(server, namespace, *SETS.values())
    for values in walk:
        # without --reset-values, no values at all would mean those of before
        upgrade = ["upgrade", "--install", "--reset-values", "release", str(CHART), "--values", "-"]
        helm(server, namespace, *upgrade, values=SETS[values])
    (deployment,) = (one for one in installed(server, namespace) if one["kind"] == "Deployment")
    assert deployment["spec"]["replicas"] == 1
    assert deployment["spec"]["strategy"]["type"] == "RollingUpdate"


def name(manifest: dict[str, Any]) -> tuple[str, str]:
    return manifest["kind"], manifest["metadata"]["name"]


def installed(server: Cluster, namespace: str) -> list[dict[str, Any]]:
    """What the server keeps for the release, of every kind that the chart can make."""
    kinds = {
        (manifest["apiVersion"], manifest["kind"])
        for values in SETS.values()
        for manifest in rendered(server, namespace, values)
        if server.knows(manifest)
    }
    return [
        {"apiVersion": version, "kind": kind, **item}
        for version, kind in sorted(kinds)
        for item in server.request(
            "GET",
            f"{server.path(version, kind, namespace)}?labelSelector=app.kubernetes.io/instance%3Drelease",
        )["items"]
    ]
