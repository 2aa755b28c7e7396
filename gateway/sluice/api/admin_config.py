"""GET /admin/config and POST /admin/config/check: shows the running configuration and how its file differs
from it, and checks the text of a new one. Secrets are masked, and nothing is changed.
"""

from difflib import unified_diff
from typing import Any

import msgspec

from sluice.api.admin_requests import AdminRequest, AdminRoute, reply
from sluice.config.jsontree import read
from sluice.config.loader import Checked, check, check_text
from sluice.config.problems import Report
from sluice.config.shown import shown
from sluice.config.types import Config
from sluice.frontends import Reply
from sluice.runtime.restart import needs_restart
from sluice.runtime.snapshot import Snapshot

MOST_LINES = 5_000
"""The sign of a difference, in words."""


class CheckRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`text`: a configuration; null: the file that the gateway was started with."""

    text: str | None = None


class AdminConfig:
    def __init__(self, runtime: Snapshot) -> None:
        self._runtime = runtime

    def routes(self) -> list[AdminRoute]:
        return [
            AdminRoute("GET", "/admin/config", self._running),
            AdminRoute("POST", "/admin/config/check", self._check),
        ]

    async def _running(self, request: AdminRequest) -> Reply:
        runtime = self._runtime
        return reply({"path": runtime.path, "hash": runtime.hash, "text": yaml_of(runtime.config)})

    async def _check(self, request: AdminRequest) -> Reply:
        """Checks a text without resolving its variables and files, which its sender may not be allowed to
        read.

        Only the file is compared with the running configuration.
        """
        candidate = read(request.body, CheckRequest, Report(""))
        beside = self._runtime.beside
        if candidate.text is not None:
            return reply(_found(await beside(check_text, candidate.text.encode("utf-8", "replace"))))
        checked = await beside(check, self._runtime.path)
        return reply({**_found(checked), **await beside(self._compared, checked)})

    def _compared(self, checked: Checked) -> dict[str, Any]:
        if checked.loaded is None:
            return {}
        running, loaded = self._runtime.config, checked.loaded
        difference = unified_diff(
            yaml_of(running).splitlines(),
            yaml_of(loaded.config).splitlines(),
            "running",
            "file",
            n=3,
            lineterm="",
        )
        return {
            "hash": loaded.hash,
            "changed": loaded.hash != self._runtime.hash,
            "diff": [*difference][:MOST_LINES],
            "needs_restart": needs_restart(self._runtime.state.config, loaded.config),
        }


def yaml_of(config: Config) -> str:
    """Returns the running configuration as the text of a file, without its secrets."""
    import yaml

    text: str = yaml.safe_dump(shown(config), sort_keys=False, allow_unicode=True, width=110)
    return text


def _found(checked: Checked) -> dict[str, Any]:
    return {
        "ok": not checked.problems,
        "problems": [str(problem) for problem in checked.problems],
        "warnings": [str(warning) for warning in checked.warnings],
    }
