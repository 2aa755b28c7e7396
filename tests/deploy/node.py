"""A node for the control plane of `cluster`: the controllers, a scheduler, a kubelet and containerd, so that pods run.

The kubelet, kube-controller-manager and kube-scheduler are those of a release, beside kube-apiserver in
KUBEBUILDER_ASSETS; containerd, runc and the CNI plugins are Debian's packages. Instead of kube-proxy and CoreDNS
there is `services.py`. Kubelet and containers are in namespaces of mounts and processes of their own, with /run in
memory, and end with them. There is no network policy: the `bridge` plugin knows none.
"""

import hashlib
import io
import json
import os
import platform
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.cluster import Cluster, cluster
from tests.servers import free_port

PATIENCE = 300.0
BRIDGE = "sluice-pods"
NET = "10.88.0"
"""Of pods; the host is .1 there."""
PAUSE = "localhost/sluice-pause:1"
PLUGINS = Path("/usr/lib/cni")
RELEASED = ("kubelet", "kube-controller-manager", "kube-scheduler")
OURS = "app.kubernetes.io/name%3Dsluice"
"""The label of what the chart makes but for its test, in a query."""
INSTALLED = ("containerd", "ctr", "runc", "ip", "unshare")

START = """
mkdir -p /var/lib/kubelet
for place in /run /var/log /var/lib/kubelet; do mount -t tmpfs tmpfs "$place"; done
containerd --config "$folder/containerd.toml" >"$folder/containerd.log" 2>&1 &
ctr="ctr --address /run/containerd.sock --namespace k8s.io"
until $ctr version >/dev/null 2>&1; do sleep 0.1; done
for image in "$folder/pause.tar" "$image"; do $ctr images import "$image"; done
"$kubelet" --config "$folder/kubelet.yaml" --kubeconfig "$kubeconfig" --hostname-override node --node-ip "$address" \\
    --root-dir "$folder/kubelet" --cert-dir "$folder/kubelet-pki" --v 2 &
wait
"""
"""PID 1 of the node, so the shell that takes the children of those that end before them."""
SETTINGS = (
    "vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops", "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes", "net/ipv4/ip_forward",
)  # fmt: skip
"""Of the kernel: what a kubelet and the bridge set, and who ran this test had not."""


class Node:
    """`cluster` with a node that is ready and has the images `names`."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster = cluster
        self._folder = folder

    def objects(self, version: str, kind: str, namespace: str, selector: str = "") -> list[dict[str, Any]]:
        path = self.cluster.path(version, kind, namespace)
        query = f"?labelSelector={selector}" if selector else ""
        found: list[dict[str, Any]] = self.cluster.request("GET", path + query)["items"]
        return found

    def pods(self, namespace: str) -> list[dict[str, Any]]:
        """Those of the gateway that are not about to end."""
        found = self.objects("v1", "Pod", namespace, OURS)
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def until(self, holds: Callable[[], Any]) -> Any:
        """What it returns, once that is true. Raises AssertionError with the node's events."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            if found := holds():
                return found
            time.sleep(0.2)  # another program's clock: there is nothing to wait on
        raise AssertionError(self.events())

    def events(self) -> str:
        found = self.cluster.request("GET", "/api/v1/events")["items"]
        lines = [f"{one['involvedObject'].get('name')}: {one['reason']}: {one['message']}" for one in found]
        return "\n".join(lines[-40:])

    def output(self, pod: dict[str, Any], container: str) -> str:
        """What a container of a pod has written, the first ones of its name together."""
        name, namespace, uid = (pod["metadata"][key] for key in ("name", "namespace", "uid"))
        found = (self._folder / "logs" / f"{namespace}_{name}_{uid}" / container).glob("*.log")
        return "".join(file.read_text() for file in sorted(found))


def missing() -> list[str]:
    """What a node needs and is not here; empty: nothing."""
    folder = os.environ.get("KUBEBUILDER_ASSETS", "")
    found = [
        f"{name} in KUBEBUILDER_ASSETS"
        for name in RELEASED
        if not folder or not shutil.which(name, path=folder)
    ]
    found += [name for name in INSTALLED if shutil.which(name) is None]
    found += [
        f"{PLUGINS}/{name}" for name in ("bridge", "host-local", "loopback") if not (PLUGINS / name).exists()
    ]
    return found


@contextmanager
def node(image: Path) -> Iterator[Node]:
    """A cluster of one node that has the image of this docker-archive; skips the test where it cannot be had."""
    if os.geteuid() != 0:
        pytest.skip("only root runs a kubelet")
    if platform.machine() != "x86_64":
        pytest.skip("the sandbox image is made for x86-64")
    if absent := missing():
        pytest.skip(f"not here: {', '.join(absent)} (docs/kubernetes.md)")
    assets = os.environ["KUBEBUILDER_ASSETS"]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sluice-node-")))
        for setting in (Path("/proc/sys") / name for name in SETTINGS):
            stack.callback(setting.write_text, setting.read_text())
        address = _bridge(stack)
        control = stack.enter_context(cluster(kubelet=True))
        for name, options in _controllers(control).items():
            _program(
                stack,
                folder,
                name,
                [f"{assets}/{name}", *(f"--{key}={value}" for key, value in options.items())],
            )
        _sandbox_image(folder / "pause.tar")
        (folder / "containerd.toml").write_text(_containerd(folder))
        (folder / "cni").mkdir()
        (folder / "cni" / "10-pods.conflist").write_text(json.dumps(_network()))
        (folder / "kubelet.yaml").write_text(yaml.safe_dump(_kubelet(folder, address)))
        given = {
            "folder": str(folder), "image": str(image), "kubelet": f"{assets}/kubelet",
            "kubeconfig": str(control.kubeconfig), "address": address,
        }  # fmt: skip
        space = [
            "unshare",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "--propagation",
            "private",
        ]
        stack.callback(_no_groups)
        _program(stack, folder, "node", [*space, "sh", "-euc", START], given)
        services = Path(__file__).with_name("services.py")
        _program(
            stack,
            folder,
            "services",
            [sys.executable, str(services), str(control.kubeconfig), BRIDGE, address],
        )
        found = Node(control, folder)
        try:
            found.until(lambda: _ready(found))
            yield found
        finally:
            if kept := os.environ.get("SLUICE_TEST_KEEP"):
                for file in folder.glob("*.log"):
                    shutil.copy(file, kept)


def _program(
    stack: ExitStack, folder: Path, name: str, command: list[str], more: Mapping[str, str] | None = None
) -> None:
    """Runs until the end of the node, and longer than what is started after it."""
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, **(more or {})}
        )

    def end() -> None:
        process.kill()
        process.wait()

    stack.callback(end)


def _ready(node: Node) -> bool:
    nodes = node.objects("v1", "Node", "")
    return any(
        one["type"] == "Ready" and one["status"] == "True"
        for each in nodes
        for one in each["status"]["conditions"]
    )


def _bridge(stack: ExitStack) -> str:
    """Makes the bridge that pods are joined by. Returns the host's address there."""
    address = f"{NET}.1"
    subprocess.run(["ip", "link", "delete", BRIDGE], capture_output=True, check=False)
    for command in (
        f"link add {BRIDGE} type bridge",
        f"addr add {address}/24 dev {BRIDGE}",
        f"link set {BRIDGE} up",
    ):
        done = subprocess.run(["ip", *command.split()], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"no bridge can be made here: {done.stderr.strip()}")
    stack.callback(subprocess.run, ["ip", "link", "delete", BRIDGE], check=False)
    return address


def _controllers(control: Cluster) -> dict[str, dict[str, object]]:
    folder = control.kubeconfig.parent
    both = {"kubeconfig": control.kubeconfig, "bind-address": "127.0.0.1", "leader-elect": "false"}
    return {
        "kube-controller-manager": {
            **both,
            "secure-port": free_port(),
            "service-account-private-key-file": folder / "accounts.key",
            "root-ca-file": folder / "authority.pem",
            "cert-dir": folder / "controllers",
            # a node that is busy is not one that is gone
            "node-monitor-grace-period": "300s",
            "horizontal-pod-autoscaler-sync-period": "2s",
        },
        "kube-scheduler": {**both, "secure-port": free_port(), "cert-dir": folder / "scheduler"},
    }


def _kubelet(folder: Path, address: str) -> dict[str, object]:
    """https://kubernetes.io/docs/reference/config-api/kubelet-config.v1beta1/"""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": address,
        "port": free_port(),
        "healthzPort": 0,
        "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
        "authorization": {"mode": "AlwaysAllow"},
        "containerRuntimeEndpoint": "unix:///run/containerd.sock",
        "cgroupDriver": "cgroupfs",
        "failCgroupV1": False,
        "failSwapOn": False,
        "cgroupsPerQOS": False,
        "enforceNodeAllocatable": [],
        "localStorageCapacityIsolation": False,
        "makeIPTablesUtilChains": False,
        "evictionHard": {"memory.available": "1Mi"},
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "podLogsDir": str(folder / "logs"),
        "resolvConf": "",
        "clusterDNS": [address],
        "clusterDomain": "cluster.local",
        "syncFrequency": "1s",
        "volumePluginDir": str(folder / "plugins"),
        "registerWithTaints": [],
    }


def _containerd(folder: Path) -> str:
    """https://github.com/containerd/containerd/blob/release/1.6/docs/cri/config.md"""
    return f"""
version = 2
root = "{folder}/containerd"
state = "/run/containerd"
[grpc]
address = "/run/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE}"
disable_apparmor = true
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{PLUGINS}"
conf_dir = "{folder}/cni"
"""


def _network() -> dict[str, object]:
    """https://www.cni.dev/plugins/current/main/bridge/"""
    ipam = {
        "type": "host-local",
        "dataDir": "/run/cni",
        "ranges": [[{"subnet": f"{NET}.0/24"}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    return {
        "cniVersion": "0.4.0",
        "name": "pods",
        "plugins": [
            {"type": "bridge", "bridge": BRIDGE, "isGateway": True, "hairpinMode": True, "ipam": ipam}
        ],
    }


def _sandbox_image(file: Path) -> None:
    """The image that holds a pod's namespaces, as Kubernetes' own `pause`: one program that sleeps."""
    code = b"\xb8\x22\x00\x00\x00\x0f\x05\xeb\xf7"  # mov eax, 34 (pause); syscall; jmp back
    base, header = 0x400000, 64 + 56
    size = header + len(code)
    elf = struct.pack(
        "<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 2, 62, 1, base + header, 64, 0, 0, 64, 56, 1, 0, 0, 0
    )
    elf += struct.pack("<IIQQQQQQ", 1, 5, 0, base, base, size, size, 0x1000) + code
    layer = _tar({"pause": elf})
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Entrypoint": ["/pause"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [PAUSE], "Layers": ["layer.tar"]}]
    members = {"layer.tar": layer, "config.json": json.dumps(config), "manifest.json": json.dumps(manifest)}
    file.write_bytes(
        _tar({name: one if isinstance(one, bytes) else one.encode() for name, one in members.items()})
    )


def _tar(members: dict[str, bytes]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o755
            archive.addfile(entry, io.BytesIO(content))
    return made.getvalue()


def _no_groups() -> None:
    """Removes the control groups of containers that were killed with their node."""
    for group in Path("/sys/fs/cgroup").glob("**/k8s.io"):
        for folder in sorted((*group.rglob("*/"), group), key=lambda one: -len(one.parts)):
            try:
                folder.rmdir()
            except OSError:
                continue  # another node's
