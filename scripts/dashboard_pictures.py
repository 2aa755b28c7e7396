"""Draw the panels of deploy/grafana as Grafana would, to be looked at: dashboard_pictures.py FOLDER [--seconds 300]

A gateway of two workers is loaded while its faults come and go (a provider that is down, slow, without valid
credentials, or cuts its streams; limits, budgets, a full queue, unknown keys, reloads, a killed worker), a
real Prometheus scrapes it, and each panel's queries are asked over that time. Writes a PNG per dashboard, and
names the panels that have nothing to draw. Needs prometheus, redis-server and matplotlib, which no lock has:

    pip install --target .cache/plots matplotlib
    PYTHONPATH=.cache/plots .venv/bin/python scripts/dashboard_pictures.py /tmp/pictures
"""

import argparse
import asyncio
import json
import os
import random
import re
import signal
import sys
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "gateway"), str(ROOT / "plugins")]

from tests.deploy.prometheus_server import OPEN, ask, prometheus  # noqa: E402
from tests.deploy.test_bad_night import quick_rules  # noqa: E402
from tests.e2e.gateway_process import DIGEST, KEY, GatewayProcess, serving  # noqa: E402
from tests.fakes.faulty import Behaviour, Provider, Turn, cut, healthy, malformed, refusing  # noqa: E402
from tests.servers import redis_server  # noqa: E402

STEP = 3
WINDOW = "12s"
"""$__rate_interval: four scrapes of 3 s."""
CONFIG = """
server: {{ listen: '127.0.0.1:${{API_PORT}}', admin_listen: '127.0.0.1:${{ADMIN_PORT}}', drain_delay: 0s, workers: 2 }}
upstreams:
  openai: {{ backend: openai, base_url: "{openai}/v1", api_key: sk-a, breaker: {{ open_for: 2s }} }}
  anthropic:
    backend: anthropic
    base_url: "{anthropic}/v1"
    credentials: [{{ name: team-a, api_key: sk-a }}, {{ name: team-b, api_key: sk-b }}]
  local: {{ backend: openai, base_url: "{local}/v1" }}
aliases:
  chat: {{ tiers: [[{{ upstream: openai, model: gpt-5-mini }}], [{{ upstream: anthropic, model: claude-haiku-4-5 }}]] }}
  claude: {{ tiers: [[{{ upstream: anthropic, model: claude-haiku-4-5 }}]] }}
  private: {{ tiers: [[{{ upstream: local, model: qwen3-32b }}]], limits: {{ streams: 4 }}, queue: {{ size: 6, timeout: 2s }} }}
prices:
  models:
    gpt-5-mini: {{ input: 0.25, output: 2 }}
    claude-haiku-4-5: {{ input: 1, output: 5 }}
    qwen3-32b: {{ input: 0, output: 0 }}
keys:
  - {{ id: shop, digest: "{digest}", limits: {{ requests: {{ rate: 6/s, burst: 20 }}, budget: {{ day: 0.06 }} }} }}
  - {{ id: operations, digest: "{other}" }}
limits: {{ address: null, store: "{redis}" }}
state: "{redis}"
records:
  - {{ name: file, interval: 1s, file: {{ path: "{records}" }} }}
  - {{ name: hook, interval: 1s, webhook: {{ url: "http://127.0.0.1:9/in" }} }}
tracing: {{ endpoint: "http://127.0.0.1:9" }}
metrics: {{ push: {{ endpoint: "http://127.0.0.1:9", every: 5s }} }}
"""
OTHER = "sk-sluice-other"


# --- what happens


class Night:
    def __init__(self, gateway: GatewayProcess, providers: dict[str, Provider]) -> None:
        self.gateway, self.providers = gateway, providers
        self.chance = random.Random(1)
        self.tasks: set[asyncio.Task[None]] = set()

    def provider(self, name: str, behaviour: Behaviour) -> Callable[[], None]:
        return lambda: setattr(self.providers[name], "behaviour", behaviour)

    def reload(self, broken: bool) -> Callable[[], None]:
        def change() -> None:
            text = self.gateway.path.read_text()
            self.gateway.path.write_text(
                text + "no_such_option: 1\n" if broken else text.replace("no_such_option: 1\n", "")
            )
            self.gateway.process.send_signal(signal.SIGHUP)

        return change

    def kill_worker(self) -> None:
        children = Path(
            f"/proc/{self.gateway.process.pid}/task/{self.gateway.process.pid}/children"
        ).read_text()
        os.kill(int(children.split()[0]), signal.SIGKILL)

    def begin(self, client: aiohttp.ClientSession) -> None:
        alias = self.chance.choices(("chat", "claude", "private"), (6, 2, 2))[0]
        key = self.chance.choices((KEY, OTHER, "sk-wrong"), (6, 6, 1))[0]
        task = asyncio.create_task(self.call(client, alias, key, self.chance.random()))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def call(self, client: aiohttp.ClientSession, alias: str, key: str, fate: float) -> None:
        body: dict[str, Any] = {
            "model": alias,
            "stream": fate > 0.1,
            "messages": [{"role": "user", "content": "Count"}],
        }
        body |= {"max_tokens": 60, **({"logit_bias": {"1": 1}} if fate > 0.5 else {})}
        headers = {"authorization": f"Bearer {key}"}
        path = "/v1/chat/completions"
        if fate > 0.9:
            path, body = "/v1/chat", {"model": alias, "message": "Count", "sessionId": f"s{int(fate * 1000)}"}
        with suppress(aiohttp.ClientError, TimeoutError):
            async with client.post(self.gateway.api + path, json=body, headers=headers) as response:
                await (response.content.readany() if 0.1 < fate < 0.15 else response.read())


def paced(first: float, gap: float) -> Behaviour:
    """Seconds before the first token, and between every ten that follow, each half as much or half again."""

    async def behave(turn: Turn) -> None:
        await asyncio.sleep(first * random.uniform(0.5, 1.5))
        turn.begin(1)
        for _ in range(5):
            await asyncio.sleep(gap * random.uniform(0.5, 1.5))
            turn.say(10)
        turn.say(100)
        turn.finish()
        turn.end()

    return behave


async def played(night: Night, seconds: float) -> None:
    """A call every 80 ms, and the faults, each at its share of the time."""
    fast, slow, local = paced(0.3, 0.05), paced(3.5, 0.2), paced(0.8, 0.2)
    faults = [
        (0.00, night.provider("local", local)), (0.00, night.provider("anthropic", paced(0.6, 0.08))),
        (0.00, night.provider("openai", fast)), (0.10, night.provider("openai", refusing("server"))),
        (0.25, night.provider("openai", fast)), (0.30, night.provider("anthropic", refusing("credentials"))),
        (0.42, night.provider("anthropic", paced(0.6, 0.08))), (0.45, night.provider("openai", slow)),
        (0.58, night.provider("openai", cut(30))), (0.68, night.provider("openai", malformed)),
        (0.72, night.provider("openai", fast)),
        (0.75, night.reload(True)), (0.80, night.reload(False)), (0.85, night.kill_worker),
        (0.88, night.provider("local", paced(2.5, 1.0))),
    ]  # fmt: skip
    began = time.monotonic()
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as client:
        while (gone := time.monotonic() - began) < seconds:
            while faults and gone >= faults[0][0] * seconds:
                faults.pop(0)[1]()
            night.begin(client)
            await asyncio.sleep(0.08)
        for task in night.tasks:
            task.cancel()
        await asyncio.gather(*night.tasks, return_exceptions=True)


# --- what is drawn


def asked(server: str, expr: str, start: float, end: float) -> list[dict[str, Any]]:
    expr = re.sub(r"\$(alias|upstream)\b", ".*", expr.replace("$__rate_interval", WINDOW))
    query = urlencode({"query": expr, "start": start, "end": end, "step": STEP})
    with OPEN(f"{server}/api/v1/query_range?{query}", timeout=60) as answer:
        result: list[dict[str, Any]] = json.load(answer)["data"]["result"]
    return result


def series_of(server: str, panel: dict[str, Any], start: float, end: float) -> dict[str, dict[float, float]]:
    """What a panel draws: values by time, by legend."""
    drawn: dict[str, dict[float, float]] = {}
    for target in panel["targets"]:
        for one in asked(server, target["expr"], start, end):
            label = lambda match, metric=one["metric"]: metric.get(match[1], "")  # noqa: E731
            legend = re.sub(r"{{(\w+)}}", label, target["legendFormat"])
            values = {at: float(value) for at, value in one["values"] if value not in ("NaN", "+Inf", "-Inf")}
            if values:
                drawn.setdefault(legend, {}).update(values)
    return drawn


SCALES = {
    "s": ((1, "s"), (1e-3, "ms"), (1e-6, "µs")),
    "bytes": ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")),
}


def shown(value: float, unit: str) -> str:
    """A number as Grafana shows it in this unit."""
    match unit:
        case "percentunit":
            return f"{value * 100:.3g}%"
        case "reqps":
            return f"{value:.3g} req/s"
        case "currencyUSD":
            return f"${value:.3g}"
        case "s" | "bytes":
            scale, name = next((one for one in SCALES[unit] if abs(value) >= one[0]), SCALES[unit][-1])
            return f"{value / scale:.3g} {name}" if value else f"0 {unit if unit == 's' else 'B'}"
    suffix = unit.removeprefix("suffix:") if unit.startswith("suffix:") else ""
    return f"{value:.4g}{suffix}"


def said(value: float, defaults: dict[str, Any]) -> str:
    """A number as the panel shows it."""
    for mapping in defaults.get("mappings", ()):
        if f"{value:g}" in mapping["options"]:
            return str(mapping["options"][f"{value:g}"]["text"])
    return f"{value:.0f}" if defaults.get("decimals") == 0 else shown(value, defaults["unit"])


def tabulate(axes: Any, panel: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    axes.set_title(panel["title"], loc="left", fontsize=9, fontweight="bold")
    axes.axis("off")
    names = sorted({name for row in rows for name in row["metric"] if name != "__name__"})
    called = panel["transformations"][0]["options"]["renameByName"]["Value"]
    cells = [[*(row["metric"].get(name, "") for name in names), row["value"][1]] for row in rows]
    if cells:
        axes.table(cells[:14], colLabels=[*names, called], loc="upper left", cellLoc="left", fontsize=7)


def draw(axes: Any, panel: dict[str, Any], series: dict[str, dict[float, float]], start: float) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    custom = defaults["custom"]
    axes.set_title(panel["title"], loc="left", fontsize=9, fontweight="bold")
    axes.yaxis.set_major_formatter(lambda value, _: said(value, defaults).replace("$", r"\$"))
    axes.tick_params(labelsize=6)
    axes.grid(alpha=0.3)
    if not series:
        axes.text(0.5, 0.5, "No data", ha="center", transform=axes.transAxes)
    times = sorted({at for values in series.values() for at in values})
    below = [0.0] * len(times)
    stacked = custom["stacking"]["mode"] == "normal"
    for name, values in series.items():
        last, most = values[max(values)], max(values.values())
        label = f"{name}   {said(last, defaults)}   {said(most, defaults)}".replace("$", r"\$")
        x = [at - start for at in times]
        if stacked:
            top = [low + values.get(at, 0.0) for low, at in zip(below, times, strict=True)]
            axes.fill_between(x, below, top, alpha=0.4, step=None)
            axes.plot(x, top, linewidth=1, label=label)
            below = top
        else:
            y = [values.get(at, float("nan")) for at in times]
            drawstyle = "steps-post" if custom.get("lineInterpolation") == "stepAfter" else "default"
            axes.plot(
                x, y, linewidth=1, label=label, drawstyle=drawstyle, marker="." if len(values) < 3 else None
            )
    if custom.get("scaleDistribution", {}).get("type") == "log":
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(lambda value, _: said(value, defaults))
    if "mappings" in defaults:
        axes.set_yticks(range(defaults["max"] + 1))
    if "min" in defaults:
        axes.set_ylim(bottom=defaults["min"])
    if "axisSoftMax" in custom:
        axes.set_ylim(top=max(axes.get_ylim()[1], custom["axisSoftMax"]))
    if "max" in defaults:
        axes.set_ylim(top=defaults["max"] * 1.02)
    for step in defaults.get("thresholds", {}).get("steps", []):
        if step.get("value") is not None:
            axes.axhline(step["value"], color=step["color"], linestyle="--", linewidth=0.8)
    if series and panel["options"]["legend"]["placement"] == "bottom":
        axes.legend(
            fontsize=6,
            loc="upper left",
            bbox_to_anchor=(0.0, -0.1),
            title="last, max",
            title_fontsize=6,
            frameon=False,
        )
    elif series:
        axes.legend(
            fontsize=6,
            loc="upper left",
            bbox_to_anchor=(1.0, 1.0),
            title="last, max",
            title_fontsize=6,
            frameon=False,
        )


def pictures(server: str, folder: Path, start: float, end: float) -> None:
    for file in sorted((ROOT / "deploy" / "grafana").glob("*.json")):
        panels = json.loads(file.read_text())["panels"]
        rows = (len(panels) + 1) // 2
        figure, grid = plt.subplots(rows, 2, figsize=(18, 2.9 * rows), squeeze=False)
        for at, axes in enumerate(grid.flat):
            if at >= len(panels):
                axes.axis("off")
                continue
            if panels[at]["type"] == "table":
                tabulate(
                    axes,
                    panels[at],
                    [row for one in panels[at]["targets"] for row in ask(server, one["expr"])],
                )
                continue
            series = series_of(server, panels[at], start, end)
            draw(axes, panels[at], series, start)
            if not series:
                print(f"nothing to draw: {file.stem}: {panels[at]['title']}")
        figure.tight_layout()
        figure.subplots_adjust(right=0.84, wspace=0.62)
        figure.savefig(folder / f"{file.stem}.png", dpi=75)
        plt.close(figure)


async def main(folder: Path, seconds: float) -> None:
    async with AsyncExitStack() as stack:
        redis = stack.enter_context(redis_server())
        providers = {
            name: await stack.enter_async_context(Provider(healthy))
            for name in ("openai", "anthropic", "local")
        }
        config = CONFIG.format(
            digest=DIGEST, other=f"sha256:{sha256(OTHER.encode()).hexdigest()}", redis=redis.url,
            records=(folder / "calls.jsonl").absolute(), **{name: provider.url for name, provider in providers.items()},
        )  # fmt: skip
        gateway = stack.enter_context(serving(config))
        server = stack.enter_context(prometheus(gateway.admin.removeprefix("http://"), rules=quick_rules()))
        start = time.time()
        await played(Night(gateway, providers), seconds)
        pictures(server, folder, start, time.time())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=300.0)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    asyncio.run(main(given.folder, given.seconds))
