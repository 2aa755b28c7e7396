"""Replaces addresses and stores in the configuration by ones that several workers share."""

import os
import shutil
import socket
import tempfile
from pathlib import Path
from typing import Any

import msgspec

from sluice.config.loader import Loaded
from sluice.config.units import Secret
from sluice.process.ports import Inherited, Ports, share_port, share_ports, shares, take_ports
from sluice.runtime.stores import admin_store

SHARED_MEMORY = "/dev/shm"  # noqa: S108 (a directory of its own is made in it)
FOLDER = "sluice-workers-"


def with_ports(loaded: Loaded, inherited: Inherited | None = None) -> tuple[Loaded, dict[int, Ports]]:
    """Returns the configuration with bound ports (0 resolved), and a pair of sockets for each worker. Raises
    CannotListen.
    """
    server = loaded.config.server
    take_ports(server, inherited).close()  # SO_REUSEPORT would succeed beside another gateway
    ports: dict[int, Ports] = {}
    for number in range(1, server.workers + 1):
        if number == 1:
            ports[number] = share_ports(server, inherited)
        else:
            api = share_port(server) if shares(ports[1].api) else ports[1].api.dup()
            ports[number] = Ports(api, ports[1].admin.dup())
        server = msgspec.structs.replace(
            server,
            listen=_with_port(server.listen, ports[number].api),
            admin_listen=_with_port(server.admin_listen, ports[number].admin),
        )
    config = msgspec.structs.replace(loaded.config, server=server)
    return msgspec.structs.replace(loaded, config=config, given=loaded.config), ports


def _with_port(given: str, bound: socket.socket) -> str:
    name = bound.getsockname()
    return (
        f"{given.rpartition(':')[0]}:{name[1]}"
        if isinstance(name, tuple) and not given.startswith("unix:")
        else given
    )


def with_stores(loaded: Loaded, log: Any) -> Loaded:
    """Replaces stores of kind `memory`, of which each worker would have its own: limits by an anonymous file,
    and dynamic keys and usage by a file that `remove_stores` removes, if the admin API can be used.
    """
    config = loaded.config
    if config.limits.store.reveal() == "memory":
        log.info("limits_store", configured="memory", used="shared memory of the workers")
        path = f"/proc/self/fd/{os.memfd_create('sluice-limits')}"
        limits = msgspec.structs.replace(config.limits, store=Secret(f"shared:{path}"))
        config = msgspec.structs.replace(config, limits=limits)
    if config.admin.usable and admin_store(config) == "memory":
        try:
            folder = tempfile.mkdtemp(
                prefix=FOLDER, dir=SHARED_MEMORY if os.access(SHARED_MEMORY, os.W_OK) else None
            )
        except OSError as error:
            log.warning("admin_store", configured="memory", used="each worker its own", reason=error.strerror)
        else:
            log.info("admin_store", configured="memory", used="a file that the workers share until they end")
            admin = msgspec.structs.replace(config.admin, store=Secret(f"sqlite:{folder}/admin.db"))
            config = msgspec.structs.replace(config, admin=admin)
    return msgspec.structs.replace(loaded, config=config)


def remove_stores(loaded: Loaded) -> None:
    """Removes the files of `with_stores`."""
    store = loaded.config.admin.store
    folder = Path(store.reveal().removeprefix("sqlite:")).parent if store is not None else Path()
    if folder.name.startswith(FOLDER):
        shutil.rmtree(folder, ignore_errors=True)
