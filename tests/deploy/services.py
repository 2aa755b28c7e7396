"""What kube-proxy and CoreDNS do, for the tests' node: services.py KUBECONFIG DEVICE ADDRESS

Every Service with a selector is reachable at its cluster IP, which becomes an address of DEVICE: connections are passed
on to its ready pods in turn. At ADDRESS names of services are resolved (RFC 1035), in every namespace.
"""

import asyncio
import itertools
import ssl
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp
import yaml

EVERY = 0.1
"""Seconds between two looks at the API server; kube-proxy's own are about as late."""
A, AAAA = 1, 28
Place = tuple[str, int]


class Services:
    """`places`: where the pods of a service's port are, by its cluster IP and port."""

    def __init__(self, device: str) -> None:
        self.names: dict[str, str] = {}
        self.places: dict[Place, list[Place]] = {}
        self._device = device
        self._servers: dict[Place, asyncio.Server] = {}
        self._addresses: set[str] = set()
        self._turns = itertools.count()

    async def follow(self, services: Sequence[dict[str, Any]], slices: Sequence[dict[str, Any]]) -> None:
        named = {_owner(one): one["spec"]["clusterIP"] for one in services if one["spec"].get("selector")}
        self.names = {f"{name}.{namespace}.svc.cluster.local": ip for (namespace, name), ip in named.items()}
        found: dict[Place, list[Place]] = {}
        for service in services:
            owner = _owner(service)
            mine = [one for one in slices if _owner(one, "kubernetes.io/service-name") == owner]
            for port in service["spec"]["ports"] if owner in named else ():
                found[named[owner], port["port"]] = _ready(mine, port.get("name", ""))
        self.places = found
        for place in found.keys() - self._servers.keys():
            if place[0] not in self._addresses:
                self._ip("add", place[0])
            self._servers[place] = await asyncio.start_server(self._pass_on(place), *place, backlog=1024)
        for place in self._servers.keys() - found.keys():
            self._servers.pop(place).close()  # connections go on
        for address in self._addresses - {ip for ip, _ in found}:
            self._ip("delete", address)

    def _ip(self, verb: str, address: str) -> None:
        subprocess.run(["ip", "addr", verb, f"{address}/32", "dev", self._device], check=True)
        (self._addresses.add if verb == "add" else self._addresses.remove)(address)

    def _pass_on(self, place: Place) -> Any:
        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            pods = self.places.get(place, [])
            try:
                if not pods:
                    return
                there = await asyncio.open_connection(*pods[next(self._turns) % len(pods)])
                await asyncio.gather(_copy(reader, there[1]), _copy(there[0], writer))
            except OSError:
                pass  # either side has gone: so does the other
            finally:
                writer.close()

        return connected


def _owner(one: dict[str, Any], label: str = "") -> tuple[str, str]:
    metadata = one["metadata"]
    return metadata["namespace"], metadata["labels"].get(label, "") if label else metadata["name"]


def _ready(slices: Sequence[dict[str, Any]], name: str) -> list[Place]:
    return [
        (address, port["port"])
        for one in slices
        for port in one["ports"] or ()
        if port.get("name", "") == name
        for endpoint in one["endpoints"] or ()
        if endpoint["conditions"].get("ready")
        for address in endpoint["addresses"]
    ]


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.write_eof()
    except OSError:
        writer.close()


class Names(asyncio.DatagramProtocol):
    def __init__(self, services: Services) -> None:
        self._services = services

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, peer: Any) -> None:
        self._transport.sendto(answer(data, self._services.names), peer)


def answer(query: bytes, names: dict[str, str]) -> bytes:
    """The reply to a query of one question (RFC 1035, 4.1): an address, none of this type, or no such name."""
    labels, at = [], 12
    while length := query[at]:
        labels.append(query[at + 1 : at + 1 + length].decode())
        at += 1 + length
    kind, _ = struct.unpack_from("!HH", query, at + 1)
    address = names.get(".".join(labels).lower())
    found = address is not None and kind == A
    flags = 0x8580 if address is not None else 0x8583
    head = query[:2] + struct.pack("!HHHHH", flags, 1, int(found), 0, 0)
    reply = head + query[12 : at + 5]
    if found and address is not None:
        reply += struct.pack("!HHHIH4B", 0xC00C, A, 1, 1, 4, *map(int, address.split(".")))
    return reply


async def main(kubeconfig: str, device: str, address: str) -> None:
    given = yaml.safe_load(Path(kubeconfig).read_text())
    cluster, user = given["clusters"][0]["cluster"], given["users"][0]["user"]
    trusted = ssl.create_default_context(cafile=cluster["certificate-authority"])
    services = Services(device)
    loop = asyncio.get_running_loop()
    await loop.create_datagram_endpoint(lambda: Names(services), local_addr=(address, 53))
    headers = {"authorization": f"Bearer {user['token']}"}
    async with aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(ssl=trusted)) as client:

        async def items(path: str) -> list[dict[str, Any]]:
            async with client.get(cluster["server"] + path) as response:
                found: list[dict[str, Any]] = (await response.json())["items"]
                return found

        while True:
            await services.follow(
                await items("/api/v1/services"), await items("/apis/discovery.k8s.io/v1/endpointslices")
            )
            await asyncio.sleep(EVERY)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
