"""What prometheus-adapter does, for the tests' node: adapter.py KUBECONFIG PORT CERTIFICATE KEY

Offers `sluice_streams_in_flight` of pods by the API of custom metrics, as each pod's own admin port shows it.
https://github.com/kubernetes/design-proposals-archive/blob/main/instrumentation/custom-metrics-api.md
"""

import asyncio
import re
import ssl
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from aiohttp import web

GROUP, VERSION = "custom.metrics.k8s.io", "v1beta2"
METRIC = "sluice_streams_in_flight"
SAMPLE = re.compile(rf"^{METRIC}{{.*}} (\S+)$", re.MULTILINE)


class Adapter:
    def __init__(self, client: aiohttp.ClientSession, server: str) -> None:
        self._client = client
        self._server = server

    def app(self) -> web.Application:
        app, base = web.Application(), f"/apis/{GROUP}/{VERSION}"
        app.router.add_get(base, self.resources)
        app.router.add_get(f"{base}/namespaces/{{namespace}}/pods/*/{METRIC}", self.values)
        return app

    async def resources(self, request: web.Request) -> web.Response:
        resource = {
            "name": f"pods/{METRIC}", "singularName": "", "namespaced": True, "kind": "MetricValueList", "verbs": ["get"],
        }  # fmt: skip
        version = f"{GROUP}/{VERSION}"
        found = {
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": version,
            "resources": [resource],
        }
        return web.json_response(found)

    async def values(self, request: web.Request) -> web.Response:
        namespace = request.match_info["namespace"]
        url = f"{self._server}/api/v1/namespaces/{namespace}/pods"
        async with self._client.get(
            url, params={"labelSelector": request.query.get("labelSelector", "")}
        ) as response:
            pods = (await response.json())["items"]
        items = [item for item in await asyncio.gather(*map(self._of, pods)) if item is not None]
        found = {
            "kind": "MetricValueList",
            "apiVersion": f"{GROUP}/{VERSION}",
            "metadata": {},
            "items": items,
        }
        return web.json_response(found)

    async def _of(self, pod: dict[str, Any]) -> dict[str, Any] | None:
        """None: it does not answer, as a pod that is only starting."""
        try:
            async with self._client.get(f"http://{pod['status']['podIP']}:8081/metrics") as response:
                value = sum(map(float, SAMPLE.findall(await response.text())))
        except (aiohttp.ClientError, TimeoutError, KeyError):
            return None
        described = {
            "kind": "Pod",
            "apiVersion": "v1",
            **{key: pod["metadata"][key] for key in ("name", "namespace")},
        }
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return {
            "describedObject": described,
            "metric": {"name": METRIC},
            "timestamp": now,
            "value": str(round(value)),
        }


async def main(kubeconfig: str, port: str, certificate: str, key: str) -> None:
    given = yaml.safe_load(Path(kubeconfig).read_text())
    cluster, user = given["clusters"][0]["cluster"], given["users"][0]["user"]
    trusted = ssl.create_default_context(cafile=cluster["certificate-authority"])
    shown = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    shown.load_cert_chain(certificate, key)
    connector = aiohttp.TCPConnector(ssl=trusted)
    headers = {"authorization": f"Bearer {user['token']}"}
    timeout = aiohttp.ClientTimeout(5)
    async with aiohttp.ClientSession(connector=connector, headers=headers, timeout=timeout) as client:
        runner = web.AppRunner(Adapter(client, cluster["server"]).app())
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", int(port), ssl_context=shown).start()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
