"""A Kubernetes control plane for tests: a real kube-apiserver and etcd, on loopback, without nodes.

The binaries are those of Kubernetes' envtest, found as that finds them: in the directory that KUBEBUILDER_ASSETS
names. Nothing schedules or runs pods here (`node.py` does); what the server validates, defaults and admits is what any
cluster would.
"""

import json
import os
import secrets
import shutil
import ssl
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import HTTPSHandler, ProxyHandler, Request, build_opener

import pytest
import trustme
import yaml
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.servers import free_port

PATIENCE = 300.0
STARTS = 5
"""Attempts: another process may take a port between our finding it free and the server's binding it."""


class Refused(Exception):
    """The API server's own words for why it does not take an object."""


class Cluster:
    """One API server. `kubeconfig`: a file for helm and kubectl, whose user is in system:masters. `warnings`: what
    the server took but warned of."""

    def __init__(self, address: str, token: str, authority: Path, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig
        self.warnings: list[str] = []
        self._address = address
        self._token = token
        context = ssl.create_default_context(cafile=str(authority))
        self._open = build_opener(ProxyHandler({}), HTTPSHandler(context=context)).open
        self._resources: dict[tuple[str, str], tuple[str, bool]] = {}

    @property
    def version(self) -> str:
        """For helm's --kube-version: v1.36.2."""
        version: str = self.request("GET", "/version")["gitVersion"]
        return version

    def request(
        self, method: str, path: str, body: object = None, kind: str = "application/json"
    ) -> dict[str, Any]:
        """What the server answers. Raises Refused on 4xx, OSError where it is not up."""
        headers = {"authorization": f"Bearer {self._token}", "content-type": kind}
        data = None if body is None else json.dumps(body).encode()
        request = Request(self._address + path, data, headers, method=method)
        try:
            with self._open(request, timeout=60) as answer:
                self.warnings += answer.headers.get_all("warning", [])
                result: dict[str, Any] = json.load(answer)
        except HTTPError as error:
            text = error.read().decode()
            if error.code < 500:
                raise Refused(text) from None
            raise
        return result

    def knows(self, manifest: dict[str, Any]) -> bool:
        """Whether the server has this kind: those of operators come with their CustomResourceDefinitions."""
        try:
            self._resource(manifest["apiVersion"], manifest["kind"])
        except KeyError:
            return False
        return True

    def apply(self, manifest: dict[str, Any], namespace: str, *, dry_run: bool = False) -> dict[str, Any]:
        """Applies on the server's side: unknown and doubled fields are refused. The object as it is kept.

        https://kubernetes.io/docs/reference/using-api/server-side-apply/
        """
        path = self.path(manifest["apiVersion"], manifest["kind"], namespace)
        query = "fieldManager=tests&force=true&fieldValidation=Strict" + ("&dryRun=All" if dry_run else "")
        name = manifest["metadata"]["name"]
        return self.request("PATCH", f"{path}/{name}?{query}", manifest, "application/apply-patch+yaml")

    def path(self, version: str, kind: str, namespace: str) -> str:
        """Where objects of a kind are listed. Raises KeyError where the server has no such kind."""
        plural, namespaced = self._resource(version, kind)
        group = f"/apis/{version}" if "/" in version else f"/api/{version}"
        return f"{group}/namespaces/{namespace}/{plural}" if namespaced else f"{group}/{plural}"

    def _resource(self, version: str, kind: str) -> tuple[str, bool]:
        if (version, kind) not in self._resources:
            try:
                found = self.request("GET", f"/apis/{version}" if "/" in version else f"/api/{version}")
            except Refused as error:
                raise KeyError(kind) from error
            for resource in found["resources"]:
                if "/" not in resource["name"]:
                    self._resources[version, resource["kind"]] = resource["name"], resource["namespaced"]
        return self._resources[version, kind]

    def define(self, definitions: Path) -> None:
        """Takes CustomResourceDefinitions from every YAML file of a directory, and waits until all are served."""
        names = []
        for file in sorted(definitions.glob("*.yaml")):
            for manifest in yaml.safe_load_all(file.read_text()):
                if manifest and manifest["kind"] == "CustomResourceDefinition":
                    self.apply(manifest, "")
                    names.append(manifest["metadata"]["name"])
        until = time.monotonic() + PATIENCE
        path = self.path("apiextensions.k8s.io/v1", "CustomResourceDefinition", "")
        while not all(self._established(f"{path}/{name}") for name in names):
            assert time.monotonic() < until, "the definitions were never served"
            time.sleep(0.1)  # another program's clock: there is nothing to wait on

    def _established(self, path: str) -> bool:
        status = self.request("GET", path).get("status", {})
        conditions = status.get("conditions") or ()  # null at first
        return any(one["type"] == "Established" and one["status"] == "True" for one in conditions)


def programs() -> tuple[str, str]:
    """kube-apiserver and etcd; skips the test where they are not given."""
    folder = os.environ.get("KUBEBUILDER_ASSETS", "")
    found = [shutil.which(name, path=folder) if folder else None for name in ("kube-apiserver", "etcd")]
    apiserver, etcd = found
    if apiserver is None or etcd is None:
        pytest.skip(
            "KUBEBUILDER_ASSETS names no directory with a kube-apiserver and an etcd (docs/kubernetes.md)"
        )
    return apiserver, etcd


@contextmanager
def cluster(*, kubelet: bool = False) -> Iterator[Cluster]:
    """A control plane of its own, gone afterwards; skips the test where there are no binaries for one.

    `kubelet`: there will be controllers and a node, so accounts of pods are looked for.
    """
    apiserver, etcd = programs()
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        running: list[subprocess.Popen[bytes]] = []
        try:
            for _ in range(STARTS):
                started = _start(apiserver, etcd, folder, running, kubelet=kubelet)
                if started is not None:
                    yield started
                    return
                _stop(running)
            raise RuntimeError((folder / "kube-apiserver.log").read_text()[-4000:])
        finally:
            _stop(running)


def _start(
    apiserver: str, etcd: str, folder: Path, running: list[subprocess.Popen[bytes]], *, kubelet: bool
) -> Cluster | None:
    clients, peers, port = (free_port() for _ in range(3))
    token = secrets.token_hex(16)
    kubeconfig = _credentials(folder, token, port)
    store, peer = f"http://127.0.0.1:{clients}", f"http://127.0.0.1:{peers}"
    etcd_options = {
        "data-dir": folder / f"etcd-{clients}",
        "listen-client-urls": store,
        "advertise-client-urls": store,
        "listen-peer-urls": peer,
        "initial-advertise-peer-urls": peer,
        "initial-cluster": f"default={peer}",
        "unsafe-no-fsync": "true",
    }
    apiserver_options = {
        "etcd-servers": store,
        "bind-address": "127.0.0.1",
        "advertise-address": "127.0.0.1",
        "secure-port": port,
        "cert-dir": folder,
        "tls-cert-file": folder / "server.pem",
        "tls-private-key-file": folder / "server.key",
        "token-auth-file": folder / "tokens.csv",
        "authorization-mode": "RBAC",
        "service-cluster-ip-range": "10.0.0.0/24",
        "service-account-issuer": "https://localhost",
        "service-account-key-file": folder / "accounts.key",
        "service-account-signing-key-file": folder / "accounts.key",
        # it would ask for the account `default`, which a controller makes
        **({} if kubelet else {"disable-admission-plugins": "ServiceAccount"}),
        "endpoint-reconciler-type": "none",
        "kubelet-preferred-address-types": "InternalIP",
    }
    for program, options in ((etcd, etcd_options), (apiserver, apiserver_options)):
        command = [program, *(f"--{name}={value}" for name, value in options.items())]
        with (folder / f"{Path(program).name}.log").open("wb") as log:
            running.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log))
    address = f"https://127.0.0.1:{port}"
    found = Cluster(address, token, folder / "authority.pem", kubeconfig)
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until and all(process.poll() is None for process in running):
        try:
            # the namespace is made by the server itself, after it has become ready
            found.request("GET", "/api/v1/namespaces/default")
        except (OSError, Refused):
            time.sleep(0.1)  # another program's clock: there is nothing to wait on
        else:
            return found
    return None


def _credentials(folder: Path, token: str, port: int) -> Path:
    """The server's certificate, the key of its accounts, and a kubeconfig."""
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1", "localhost")
    authority.cert_pem.write_to_path(folder / "authority.pem")
    certificate.private_key_pem.write_to_path(folder / "server.key")
    with (folder / "server.pem").open("wb") as chain:
        chain.writelines(one.bytes() for one in certificate.cert_chain_pems)
    key = ec.generate_private_key(ec.SECP256R1())
    (folder / "accounts.key").write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    )
    (folder / "tokens.csv").write_text(f"{token},admin,admin,system:masters\n")
    kubeconfig = folder / "kubeconfig"
    server = {"server": f"https://127.0.0.1:{port}", "certificate-authority": f"{folder}/authority.pem"}
    kubeconfig.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "tests", "cluster": server}],
                "users": [{"name": "admin", "user": {"token": token}}],
                "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": "admin"}}],
                "current-context": "tests",
            }
        )
    )
    return kubeconfig


def _stop(running: list[subprocess.Popen[bytes]]) -> None:
    """At once: nothing of theirs is kept, and the API server would wait for whoever watches."""
    for process in reversed(running):
        process.kill()
        process.wait()
    running.clear()
