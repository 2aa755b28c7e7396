"""The chart on a cluster that runs it: pods that start, serve, follow their configuration, and are replaced without a
cut stream.

Needs root, the binaries of a release (KUBEBUILDER_ASSETS) and Debian's containerd; docs/kubernetes.md says which.
"""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme
import yaml

from tests.deploy.cluster import Refused
from tests.deploy.images import NAME
from tests.deploy.node import OURS, Node, node
from tests.deploy.test_chart import CHART, HELM
from tests.deploy.test_cluster import helm
from tests.e2e.gateway_process import DIGEST, KEY
from tests.e2e.test_hosts import place_of
from tests.servers import free_port

pytestmark = [
    pytest.mark.skipif(
        os.environ.get("SLUICE_TEST_DEPLOY") != "1", reason="takes minutes and a node: make test-deploy"
    ),
    pytest.mark.skipif(HELM is None, reason="helm is not installed (make test fetches it into .cache/bin)"),
    pytest.mark.timeout(1800),
]

PATIENCE = 300
STREAMS = 200
TOKENS, DELAY = 200, 0.2
"""A stream takes 40 s: a pod is there and another one gone meanwhile."""


@pytest.fixture(scope="module")
def running(built: Path) -> Iterator[Node]:
    with node(built / "sluice-gateway.tar") as found:
        yield found


@pytest.fixture
def namespace(running: Node, request: pytest.FixtureRequest) -> str:
    """One that admits restricted pods only."""
    name = "".join(c if c.isalnum() else "-" for c in request.node.name.lower())[5:60].strip("-")
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    running.cluster.apply(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}, ""
    )
    account = running.cluster.path("v1", "ServiceAccount", name)
    running.until(lambda: running.cluster.request("GET", account)["items"])
    return name


def values(config: dict[str, Any] | None = None, **more: Any) -> str:
    given = {
        "keys": [{"id": "one", "digest": DIGEST, "aliases": ["*"], "default_alias": "echo"}],
        "upstreams": {
            "echo": {"backend": "echo"},
            "slow": {"backend": "echo", "tokens": TOKENS, "delay": f"{round(DELAY * 1000)}ms"},
        },
        "aliases": {name: {"tiers": [[{"upstream": name, "model": name}]]} for name in ("echo", "slow")},
        "limits": {"address": None},
        **(config or {}),
    }
    repository, _, tag = f"{NAME}:{version()}".rpartition(":")
    chart = {
        "image": {"repository": repository, "tag": tag},
        "replicaCount": 2,
        "drain": {"delaySeconds": 3, "timeoutSeconds": 120},
        "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}},
        "config": given,
        **more,
    }
    return yaml.safe_dump(chart)


def version() -> str:
    found: str = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    return found


@contextmanager
def release(running: Node, namespace: str, given: str) -> Iterator[str]:
    """Installed, with all pods ready. Gives the address of its service."""
    try:
        helm(running.cluster, namespace, "install", "release", str(CHART), *WAIT, values=given)
    except AssertionError as error:
        raise AssertionError(running.events()) from error
    (service,) = running.objects("v1", "Service", namespace, OURS)
    yield f"http://{service['spec']['clusterIP']}:{service['spec']['ports'][0]['port']}"
    helm(running.cluster, namespace, "uninstall", "release")
    running.until(lambda: not running.objects("v1", "Pod", namespace))


WAIT = ("--values", "-", "--wait", "--timeout", "280s")
UPGRADE = ("upgrade", "release", str(CHART), *WAIT)


class Callers:
    """Whoever calls the service at `base`."""

    def __init__(self, client: aiohttp.ClientSession, base: str) -> None:
        self.client = client
        self.base = base
        self.begun = self.over = 0

    async def chat(self, model: str, *, stream: bool) -> str:
        body = {"model": model, "messages": [{"role": "user", "content": "one two"}], "stream": stream}
        headers = {"x-api-key": KEY}
        async with self.client.post(
            f"{self.base}/v1/chat/completions", json=body, headers=headers
        ) as response:
            assert response.status == 200, await response.text()
            await response.content.readline()
            self.begun += 1
            rest = await response.text()
        self.over += 1
        return rest

    async def stream(self) -> None:
        """One that is whole: all tokens, a reason to finish, and its end."""
        events = (await self.chat("slow", stream=True)).split("\n\n")
        assert "data: [DONE]" in events
        chunks = [json.loads(event.removeprefix("data: ")) for event in events if event.startswith("data: {")]
        choices = [choice for chunk in chunks for choice in chunk["choices"]]
        assert [one["finish_reason"] for one in choices if one["finish_reason"]] == ["stop"]
        assert sum(bool(one["delta"].get("content")) for one in choices) >= TOKENS - 1

    @asynccontextmanager
    async def asking(self) -> AsyncIterator[None]:
        """Short calls, one after another, each on a connection of its own: none fails."""

        async def ask() -> None:
            while True:
                async with callers(self.base) as other:
                    await other.chat("echo", stream=False)

        asking = asyncio.create_task(ask())
        yield
        assert not asking.done(), asking.result()
        asking.cancel()
        await asyncio.wait([asking])

    async def models(self) -> set[str]:
        async with self.client.get(f"{self.base}/v1/models", headers={"x-api-key": KEY}) as response:
            return {one["id"] for one in (await response.json())["data"]}


@asynccontextmanager
async def callers(base: str) -> AsyncIterator[Callers]:
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    timeout = aiohttp.ClientTimeout(PATIENCE)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as client:
        yield Callers(client, base)


async def streams_while(running: Node, namespace: str, base: str, change: Callable[[], object]) -> None:
    """200 streams that are on their way when `change` has pods end, and short calls beside them. All are whole."""
    before = {pod["metadata"]["uid"] for pod in running.pods(namespace)}
    async with callers(base) as them, them.asking(), asyncio.timeout(PATIENCE):
        streams = [asyncio.create_task(them.stream()) for _ in range(STREAMS)]
        while them.begun < STREAMS:
            await asyncio.sleep(0.05)
            assert not any(one.done() for one in streams)
        changing = asyncio.create_task(asyncio.to_thread(change))
        while before <= {pod["metadata"]["uid"] for pod in await asyncio.to_thread(running.pods, namespace)}:
            await asyncio.sleep(0.2)
        assert them.over == 0, "no pod ended while streams were on their way"
        await asyncio.gather(changing, *streams)


@pytest.fixture
def metrics(running: Node, namespace: str, tmp_path: Path) -> Iterator[None]:
    """The API of custom metrics, with the streams of each pod, for the autoscaler of the control plane."""
    shown = trustme.CA().issue_cert("localhost")
    shown.cert_chain_pems[0].write_to_path(tmp_path / "adapter.pem")
    shown.private_key_pem.write_to_path(tmp_path / "adapter.key")
    port, adapter = free_port(), Path(__file__).with_name("adapter.py")
    files = [tmp_path / "adapter.pem", tmp_path / "adapter.key"]
    process = subprocess.Popen([sys.executable, adapter, running.cluster.kubeconfig, str(port), *files])
    ports = [{"port": port}]
    service = {"type": "ExternalName", "externalName": "localhost", "ports": ports}
    running.cluster.apply(
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "metrics"}, "spec": service}, namespace
    )
    version, name = "apiregistration.k8s.io/v1", "v1beta2.custom.metrics.k8s.io"
    spec = {
        "group": "custom.metrics.k8s.io", "version": "v1beta2", "groupPriorityMinimum": 100, "versionPriority": 100,
        "insecureSkipTLSVerify": True, "service": {"name": "metrics", "namespace": namespace, "port": port},
    }  # fmt: skip
    made = {"apiVersion": version, "kind": "APIService", "metadata": {"name": name}, "spec": spec}
    running.cluster.apply(made, "")
    path = f"{running.cluster.path(version, 'APIService', '')}/{name}"

    def available() -> bool:
        conditions = running.cluster.request("GET", path).get("status", {}).get("conditions", ())
        return any(one["type"] == "Available" and one["status"] == "True" for one in conditions)

    try:
        running.until(available)
        yield
    finally:
        running.cluster.request("DELETE", path)
        process.kill()
        process.wait()


def test_it_is_installed_and_its_own_test_passes(running: Node, namespace: str) -> None:
    with release(running, namespace, values()):
        assert "Suite:          release-sluice-test" in helm(
            running.cluster, namespace, "test", "release", "--timeout", "280s"
        ).replace("TEST SUITE:     ", "Suite:          ")
        for pod in running.pods(namespace):
            assert pod["status"]["phase"] == "Running"
            assert "cannot" not in running.output(pod, "check")
            assert '"event":"started"' in running.output(pod, "gateway").replace('": "', '":"')


async def test_new_pods_take_over_without_a_cut_stream(running: Node, namespace: str) -> None:
    with release(running, namespace, values()) as base:
        after = values({"log": {"level": "debug"}})
        await streams_while(
            running, namespace, base, lambda: helm(running.cluster, namespace, *UPGRADE, values=after)
        )


async def test_a_pod_that_is_deleted_ends_its_streams_first(running: Node, namespace: str) -> None:
    with release(running, namespace, values()) as base:
        path = running.cluster.path("v1", "Pod", namespace)
        first = running.pods(namespace)[0]["metadata"]["name"]
        await streams_while(
            running, namespace, base, lambda: running.cluster.request("DELETE", f"{path}/{first}")
        )


@pytest.mark.usefixtures("metrics")
async def test_pods_come_with_streams_and_go_without_a_cut_one(running: Node, namespace: str) -> None:
    scaling = {
        "enabled": True, "kind": "hpa", "minReplicas": 1, "maxReplicas": 4, "streamsPerPod": STREAMS // 4,
        "scaleDownAfterSeconds": 0,
    }  # fmt: skip
    drain = {"delaySeconds": 3, "timeoutSeconds": 60}  # their sum is how often a pod may go

    def ready() -> int:
        (found,) = running.objects("apps/v1", "Deployment", namespace)
        return int(found["status"].get("readyReplicas", 0))

    with release(running, namespace, values(autoscaling=scaling, drain=drain)) as base:
        async with callers(base) as them, asyncio.timeout(PATIENCE):
            coming = asyncio.create_task(asyncio.to_thread(running.until, lambda: ready() == 4))
            await asyncio.gather(*(them.stream() for _ in range(STREAMS)))
            assert coming.done()
            await coming
        async with callers(base) as them, asyncio.timeout(PATIENCE):
            streams = []
            while ready_now := await asyncio.to_thread(ready):
                if ready_now < 4:
                    break
                streams += [asyncio.create_task(them.stream()) for _ in range(4)]  # one at each pod
                await asyncio.sleep(1)
            assert them.begun > them.over
            await asyncio.gather(*streams)


def test_one_pod_at_a_time_may_be_evicted(running: Node, namespace: str) -> None:
    def evict(pod: dict[str, Any]) -> None:
        name = pod["metadata"]["name"]
        path = f"{running.cluster.path('v1', 'Pod', namespace)}/{name}/eviction"
        body = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": name, "namespace": namespace},
        }
        running.cluster.request("POST", path, body)

    def allowed() -> bool:
        (budget,) = running.objects("policy/v1", "PodDisruptionBudget", namespace)
        return bool(budget["status"].get("disruptionsAllowed") == 1)

    with release(running, namespace, values()):
        running.until(allowed)
        first, second = running.pods(namespace)
        evict(first)
        with pytest.raises(Refused, match="disruption budget"):
            evict(second)
        running.until(allowed)  # another pod is ready in its place


async def test_a_configmap_is_followed_by_the_pods_that_are_there(running: Node, namespace: str) -> None:
    with release(running, namespace, values(reload="watch")) as base:
        pods = {pod["metadata"]["uid"] for pod in running.pods(namespace)}
        aliases = {
            name: {"tiers": [[{"upstream": "echo", "model": name}]]} for name in ("echo", "slow", "new")
        }
        helm(running.cluster, namespace, *UPGRADE, values=values({"aliases": aliases}, reload="watch"))
        async with callers(base) as them, asyncio.timeout(PATIENCE):
            known = 0
            while known < 20:  # in a row: by both pods
                known = known + 1 if "new" in await them.models() else 0
                await asyncio.sleep(0.05)
        assert {pod["metadata"]["uid"] for pod in running.pods(namespace)} == pods


async def test_a_configuration_that_does_not_hold_replaces_no_pod(running: Node, namespace: str) -> None:
    with release(running, namespace, values()) as base:
        pods = {pod["metadata"]["uid"] for pod in running.pods(namespace)}
        wrong = values({"aliases": {"echo": {"tiers": [[{"upstream": "nobody", "model": "x"}]]}}})
        async with callers(base) as them, them.asking():
            await asyncio.to_thread(
                helm,
                running.cluster,
                namespace,
                "upgrade",
                "release",
                str(CHART),
                "--values",
                "-",
                values=wrong,
            )

            def said() -> bool:
                new = [pod for pod in running.pods(namespace) if pod["metadata"]["uid"] not in pods]
                return any("nobody" in running.output(pod, "check") for pod in new)

            await asyncio.to_thread(running.until, said)
            assert pods <= {pod["metadata"]["uid"] for pod in running.pods(namespace)}
            await asyncio.to_thread(helm, running.cluster, namespace, "rollback", "release", "--wait")
        assert {pod["metadata"]["uid"] for pod in running.pods(namespace)} == pods


def test_a_file_of_conversations_goes_from_pod_to_pod(running: Node, namespace: str, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    for folder in (disk, *disk.parents[:3]):
        folder.chmod(0o755)
    os.chown(disk, 65532, 65532)
    claim = {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": "",
        "resources": {"requests": {"storage": "1Gi"}},
        "volumeName": namespace,
    }
    volume = {
        "accessModes": ["ReadWriteOnce"],
        "capacity": {"storage": "1Gi"},
        "hostPath": {"path": str(disk)},
        "claimRef": {"namespace": namespace, "name": "conversations"},
    }
    for kind, name, spec in (
        ("PersistentVolume", namespace, volume),
        ("PersistentVolumeClaim", "conversations", claim),
    ):
        manifest = {"apiVersion": "v1", "kind": kind, "metadata": {"name": name}, "spec": spec}
        running.cluster.apply(manifest, namespace)

    def given(level: str) -> str:
        config = {"state": "sqlite:/var/lib/sluice/state.db", "log": {"level": level}}
        return values(config, replicaCount=1, persistence={"existingClaim": "conversations"})

    async def turn(base: str) -> int:
        body = {"sessionId": "s", "message": "hello"}
        async with callers(base) as them, asyncio.timeout(PATIENCE):
            while True:
                try:
                    async with them.client.post(
                        f"{base}/v1/chat", json=body, headers={"x-api-key": KEY}
                    ) as response:
                        return place_of((await response.json())["message"])
                except aiohttp.ClientConnectionError:
                    await asyncio.sleep(
                        0.1
                    )  # no pod was ready a moment ago: the service does not know better yet

    async def turns_over_an_upgrade(base: str) -> None:
        assert [await turn(base) for _ in range(2)] == [0, 1]
        upgrading = asyncio.create_task(
            asyncio.to_thread(helm, running.cluster, namespace, *UPGRADE, values=given("debug"))
        )
        while not upgrading.done():
            pods = await asyncio.to_thread(running.objects, "v1", "Pod", namespace)
            assert sum(pod["status"]["phase"] == "Running" for pod in pods) <= 1
            await asyncio.sleep(0.1)
        await upgrading
        assert await turn(base) == 2

    with release(running, namespace, given("info")) as base:
        asyncio.run(turns_over_an_upgrade(base))
