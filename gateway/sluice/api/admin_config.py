"""GET /admin/config and POST /admin/config/check: shows the running configuration and how its file differs
from it, and checks the text of a new one. Secrets are masked, and nothing is changed.
"""

from typing import Any

import msgspec

from sluice.api.admin_process import shown as shown_reload
from sluice.api.admin_requests import AdminRequest, AdminRoute, reply
from sluice.config.jsontree import read
from sluice.config.loader import Checked, check, check_text
from sluice.config.problems import Report
from sluice.config.shown import shown
from sluice.config.types import Config
from sluice.frontends import Reply
from sluice.runtime.restart import effective, needs_restart
from sluice.runtime.snapshot import Snapshot
from sluice.runtime.state import ProcessState

MAX_LINES = 5_000
"""Maximum lines of a comparison that are returned."""


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
        runtime, following = self._runtime, self._runtime.state.following
        return reply(
            {
                "path": runtime.path,
                "hash": runtime.hash,
                "since": round(following.since, 3),
                "text": yaml_of(self._as_given()),
                "editable": runtime.config.admin.edit and runtime.state.fleet is not None,
                "reloads": [shown_reload(reload) for reload in following.history],
            }
        )

    async def _check(self, request: AdminRequest) -> Reply:
        """Checks a text without resolving its variables and files, which its sender may not be allowed to
        read.

        Only the file is compared with the running configuration.
        """
        candidate = read(request.body, CheckRequest, Report(""))
        beside = self._runtime.beside
        if candidate.text is not None:
            return reply(found_of(await beside(check_text, candidate.text.encode("utf-8", "replace"))))
        checked = await beside(check, self._runtime.path)
        return reply({**found_of(checked), **await beside(self._compared, checked)})

    def _as_given(self) -> Config:
        """The running configuration, with the file's own values of what workers share."""
        return effective(self._runtime.state.given, self._runtime.config)

    def _compared(self, checked: Checked) -> dict[str, Any]:
        if checked.loaded is None:
            return {}
        from difflib import unified_diff

        running, loaded = self._as_given(), checked.loaded
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
            "diff": [*difference][:MAX_LINES],
            "needs_restart": restart_for(self._runtime.state, loaded.config),
        }


def restart_for(state: ProcessState, config: Config) -> list[str]:
    """Returns the paths of options that only a restart could change, but for the number of workers where the
    command line has it."""
    if state.workers_given is not None:
        server = msgspec.structs.replace(config.server, workers=state.workers_given)
        config = msgspec.structs.replace(config, server=server)
    return needs_restart(state.given, config)


def yaml_of(config: Config) -> str:
    """Returns the running configuration as the text of a file, without its secrets."""
    import yaml

    text: str = yaml.safe_dump(shown(config), sort_keys=False, allow_unicode=True, width=110)
    return text


def found_of(checked: Checked) -> dict[str, Any]:
    """Returns what a check has found, as lines and by their places (`line` and `column` count from 1)."""
    return {
        "ok": not checked.problems,
        "problems": [str(problem) for problem in checked.problems],
        "warnings": [str(warning) for warning in checked.warnings],
        "places": [
            {
                "severity": severity,
                "line": one.line,
                "column": one.column,
                "path": one.path,
                "message": one.message,
            }
            for severity, found in (("problem", checked.problems), ("warning", checked.warnings))
            for one in found
        ],
    }
