"""Holds `sluice simulate` against the gateway itself: the same arrivals, in virtual time and in real time.

    make simulate-check            all scenarios, half a minute each; exits 1 where a figure differs by more than 10 %
    make simulate-check ARGS="outage --seconds 60"

In real time a gateway runs as a process of its own (`sluice serve`), a client sends the trace over HTTP, and
an upstream on loopback answers as the same models say (`sluice.simulate.upstreams`), on the wall clock.
"""

import argparse
import asyncio
import json
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import ClientError, ClientSession, ClientTimeout, TCPConnector, web

from sluice.config.loader import load_mapping
from sluice.config.types import Limit
from sluice.config.units import Rate, Seconds
from sluice.identity.keys import digest_of
from sluice.simulate.arrivals import Filling, generated
from sluice.simulate.driver import simulate
from sluice.simulate.measured import percentile
from sluice.simulate.report import document
from sluice.simulate.scenario import (
    Arrivals,
    CountSpread,
    Outage,
    Scenario,
    TimeSpread,
    UpstreamModel,
    dice_of,
)
from sluice.simulate.traces import Arrival
from sluice.simulate.upstreams import ModelledUpstream

KEY = "sk-sluice-simulate-check"
TOLERANCE = 0.10
SMALL = 0.03
"""Seconds: times that differ by less are the same, whatever their ratio: the gateway's and this machine's own
time."""
FEW = 0.02
"""Of all calls: numbers that differ by less are the same: one more or less is chance."""
LATENESS = "lateness"
BUSY = 0.015
"""Seconds that a timer of this process comes late (the 95th percentile): beyond it the machine is measured,
not the gateway."""
PIECE = 0.1
"""Seconds between two pieces of an answer on the wire."""
PRICES = {"models": {"m": {"input": 1.0, "output": 10.0}}}


class Case(msgspec.Struct, frozen=True):
    """A scenario, and what of the configuration makes it. `{}` of an alias: a, and behind it b."""

    models: Mapping[str, UpstreamModel]
    rate: float = 12.0
    alias: Mapping[str, Any] = {}
    limits: Mapping[str, Any] = {}


def times(seconds: float, p95: float) -> TimeSpread:
    return TimeSpread(median=Seconds(seconds), p95=Seconds(p95))


USUAL = UpstreamModel(first_token=times(0.4, 0.9), token=times(0.012, 0.02))


def cases(seconds: float) -> dict[str, Case]:
    """By name. Outages last a third of the time."""

    def failing(kind: Any, **more: Any) -> UpstreamModel:
        outage = Outage(at=Seconds(seconds / 3), lasts=Seconds(seconds / 3), kind=kind, **more)
        return msgspec.structs.replace(USUAL, outages=(outage,))

    both = {"a": USUAL, "b": USUAL}
    provider = msgspec.structs.replace(USUAL, requests=Limit(rate=Rate(6), burst=6))
    return {
        "steady": Case(both),
        "limits": Case(both, limits={"requests": {"rate": "8/s", "burst": 8}, "streams": 30}),
        "queue": Case(both, alias={"queue": {"size": 50, "timeout": "4s"}}, limits={"streams": 20}),
        "outage": Case({"a": failing("error"), "b": USUAL}),
        "slow": Case({"a": failing("slow", factor=5.0), "b": USUAL}, alias={"hedge": {"after": "1.5s"}}),
        "provider": Case({"a": provider, "b": USUAL}),
        "places": Case({"a": msgspec.structs.replace(USUAL, places=24), "b": USUAL}),
    }


def sections(case: Case, url: str, ports: tuple[int, int]) -> dict[str, Any]:
    """The configuration, as it would be written."""
    tiers = [[{"upstream": name, "model": "m"}] for name in ("a", "b")]
    return {
        "server": {
            "listen": f"127.0.0.1:{ports[0]}",
            "admin_listen": f"127.0.0.1:{ports[1]}",
            "drain_delay": 0,
        },
        "upstreams": {
            name: {"backend": "openai", "base_url": f"{url}/{name}", "api_key": "x"} for name in ("a", "b")
        },
        "aliases": {"chat": {"tiers": tiers, **case.alias}},
        "keys": [{"id": "web", "digest": digest_of(KEY), "aliases": ["chat"], "limits": dict(case.limits)}],
        "prices": PRICES,
        "limits": {"address": None},
    }


def trace_of(case: Case, seconds: float, seed: int) -> list[Arrival]:
    arrivals = Arrivals(
        rate=Rate(case.rate),
        lasts=Seconds(seconds),
        input=CountSpread(median=200, p95=800),
        output=CountSpread(median=100, p95=300),
    )
    dice = dice_of(seed, "arrivals")
    return list(generated("poisson", arrivals, Filling(arrivals, ["chat"], ["web"], dice), dice))


# --- the upstream


class Upstreams:
    """Answers OpenAI's Chat Completions as the models say. The request's text says how long prompt and answer
    are."""

    def __init__(self, models: Mapping[str, UpstreamModel], seed: int) -> None:
        self._models = models
        self._seed = seed
        self.asked: Counter[str] = Counter()

    def begin(self) -> None:
        """Outages count from now on."""
        dice = dice_of(self._seed, "upstreams")
        self._found = {
            name: ModelledUpstream(name, model, time.monotonic, dice) for name, model in self._models.items()
        }

    async def answer(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        upstream = self._found[name]
        self.asked[name] += 1
        body = await request.json()
        input, output = map(int, body["messages"][0]["content"].split(" ", 2)[:2])
        answer = upstream.answer(input, output, body.get("max_tokens") or 0)
        if answer.kind == "error":
            await asyncio.sleep(answer.first)
            headers = {"Retry-After": f"{answer.retry_after:.3f}"} if answer.retry_after else {}
            return web.json_response(
                {"error": {"message": "modelled"}}, status=answer.status, headers=headers
            )
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        place = asyncio.Event()
        if upstream.enter(place.set):
            place.set()
        try:
            await place.wait()
            await asyncio.sleep(answer.first)
            end = time.monotonic() + answer.token * (answer.tokens - 1)
            await response.write(
                _event({"choices": [{"index": 0, "delta": {"content": "t"}, "finish_reason": None}]})
            )
            while (left := end - time.monotonic()) > 0:
                await asyncio.sleep(min(left, PIECE))
                await response.write(
                    _event({"choices": [{"index": 0, "delta": {"content": "t"}, "finish_reason": None}]})
                )
            usage = {
                "prompt_tokens": input,
                "completion_tokens": answer.tokens,
                "total_tokens": input + answer.tokens,
            }
            last = _event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
            await response.write(last + _event({"choices": [], "usage": usage}) + b"data: [DONE]\n\n")
        finally:
            upstream.leave(place.set)
        return response


def _event(fields: dict[str, Any]) -> bytes:
    chunk = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 0, "model": "m", **fields}
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


# --- in real time


@asynccontextmanager
async def running(config: Mapping[str, Any], admin_port: int) -> Any:
    """A gateway of this environment, until it is ready."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "gateway.yaml"
        path.write_text(json.dumps(config))
        program = str(Path(sys.executable).with_name("sluice"))
        process = await asyncio.create_subprocess_exec(
            program, "serve", "--config", str(path), stdout=asyncio.subprocess.DEVNULL
        )
        try:
            async with ClientSession() as session:
                for _ in range(600):
                    try:
                        async with session.get(f"http://127.0.0.1:{admin_port}/readyz") as response:
                            if response.status == 200:
                                break
                    except ClientError:
                        pass
                    await asyncio.sleep(0.1)
                else:
                    raise RuntimeError("the gateway did not become ready")
                yield session
        finally:
            process.terminate()
            await process.wait()


async def late(found: list[float]) -> None:
    """Notes how late timers come."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + 0.05
        await asyncio.sleep(0.05)
        found.append(loop.time() - due)


async def in_real_time(case: Case, trace: Sequence[Arrival], seed: int) -> dict[str, float]:
    """The figures of the trace, sent to a gateway."""
    ports = (_free_port(), _free_port())
    upstreams = Upstreams(case.models, seed)
    app = web.Application(client_max_size=64 << 20)
    app.router.add_post("/{name}/chat/completions", upstreams.answer)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = "http://{}:{}".format(*runner.addresses[0])
    try:
        async with running(sections(case, url, ports), ports[1]) as admin:
            connector, patience = TCPConnector(limit=0), ClientTimeout(total=None)
            async with ClientSession(connector=connector, timeout=patience) as session:
                calls = Calls(session, f"http://127.0.0.1:{ports[0]}/v1/chat/completions")
                upstreams.begin()
                began = asyncio.get_running_loop().time()
                watching = asyncio.create_task(late(calls.lateness))
                await asyncio.gather(*[asyncio.create_task(calls.send(arrival, began)) for arrival in trace])
                watching.cancel()
            async with admin.get(f"http://127.0.0.1:{ports[1]}/metrics") as response:
                exposition = await response.text()
        return calls.figures(upstreams.asked, _sum(exposition, "sluice_cost_usd_total"))
    finally:
        await runner.cleanup()


class Calls:
    """Sends calls, and measures what a client sees."""

    def __init__(self, session: ClientSession, url: str) -> None:
        self._session = session
        self._url = url
        self._outcomes: Counter[str] = Counter()
        self._first: list[float] = []
        self._duration: list[float] = []
        self.lateness: list[float] = []

    async def send(self, arrival: Arrival, began: float) -> None:
        loop = asyncio.get_running_loop()
        text = f"{arrival.input} {arrival.output} "
        body = {
            "model": "chat",
            "stream": True,
            "messages": [{"role": "user", "content": text.ljust(4 * arrival.input, "x")}],
        }
        data = json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
        await asyncio.sleep(began + arrival.at - loop.time())
        started, first, whole = loop.time(), 0.0, b""
        try:
            async with self._session.post(self._url, data=data, headers=headers) as response:
                if response.status != 200:
                    self._outcomes[str(response.status)] += 1
                    return
                async for piece in response.content.iter_any():
                    whole += piece
                    if not first and b'"t"' in whole:
                        first = loop.time()
        except ClientError:
            self._outcomes["broken"] += 1
            return
        if not whole.endswith(b"data: [DONE]\n\n"):
            self._outcomes["broken"] += 1
            return
        self._outcomes["ok"] += 1
        self._first.append(first - started)
        self._duration.append(loop.time() - started)

    def figures(self, asked: Mapping[str, int], cost: float) -> dict[str, float]:
        first, duration = sorted(self._first), sorted(self._duration)
        return {
            "ok": self._outcomes["ok"],
            "429": self._outcomes["429"],
            "other": self._outcomes.total() - self._outcomes["ok"] - self._outcomes["429"],
            "attempts at a": asked["a"],
            "attempts at b": asked["b"],
            "cost $": cost,
            **{f"TTFT p{p}": percentile(first, p) for p in (50, 95)},
            **{f"total p{p}": percentile(duration, p) for p in (50, 95)},
            LATENESS: percentile(sorted(self.lateness), 95),
        }


def _sum(exposition: str, name: str) -> float:
    values = [line.rpartition(" ")[2] for line in exposition.splitlines() if line.startswith(name)]
    return sum(map(float, values))


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


# --- in virtual time


def in_virtual_time(case: Case, trace: Sequence[Arrival], seed: int) -> dict[str, float]:
    loaded = load_mapping(sections(case, "http://127.0.0.1:9", (0, 0)))
    scenario = Scenario(seed=seed, upstreams=dict(case.models))
    simulated = simulate(loaded, scenario, iter(trace), began=time.time())
    found = document(simulated, scenario)
    outcomes = Counter(found["outcomes"])
    return {
        "ok": outcomes["ok"],
        "429": outcomes["429"],
        "other": outcomes.total() - outcomes["ok"] - outcomes["429"],
        **{f"attempts at {name}": simulated.upstreams[f"{name}/m"].requests for name in ("a", "b")},
        "cost $": found["cost_usd"],
        **{f"TTFT p{p}": found["first_token"][f"p{p}"] for p in (50, 95)},
        **{f"total p{p}": found["duration"][f"p{p}"] for p in (50, 95)},
    }


# --- side by side


def differences(
    virtual: Mapping[str, float], real: Mapping[str, float], calls: int
) -> Iterator[tuple[str, float, bool]]:
    """Of each figure: its name, how far the simulation is from the gateway, and whether that is near
    enough."""
    for name, measured in real.items():
        apart = abs(virtual[name] - measured)
        ratio = (virtual[name] - measured) / measured if measured else (0.0 if not apart else float("inf"))
        small = (
            SMALL if name.startswith(("TTFT", "total")) else 0.0 if name.startswith("cost") else FEW * calls
        )
        yield name, ratio, abs(ratio) <= TOLERANCE or apart <= small


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="SCENARIO", help=f"of {', '.join(cases(1.0))}")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--tries", type=int, choices=range(1, 10), default=3, help="of a scenario, while the machine is busy"
    )
    given = parser.parse_args()
    every = cases(given.seconds)
    if unknown := set(given.names) - every.keys():
        parser.error(f"no such scenario: {', '.join(sorted(unknown))}")
    far = 0
    print("| scenario | figure | simulated | measured | difference |")
    print("|---|---|--:|--:|--:|")
    for name in given.names or every:
        case = every[name]
        trace = trace_of(case, given.seconds, given.seed)
        virtual = in_virtual_time(case, trace, given.seed)
        for attempt in range(1, given.tries + 1):
            real = asyncio.run(in_real_time(case, trace, given.seed))
            lateness = real.pop(LATENESS)
            if lateness <= BUSY:
                break
            again = "once more" if attempt < given.tries else "no more tries"
            print(
                f"{name}: the machine is busy: timers come {lateness * 1000:.0f} ms late; {again}",
                file=sys.stderr,
            )
        for figure, ratio, near in differences(virtual, real, len(trace)):
            far += not near
            shown = (
                f"{virtual[figure]:.4g} | {real[figure]:.4g} | {ratio:+.1%}{'' if near else ' **too far**'}"
            )
            print(f"| {name} ({len(trace)} calls) | {figure} | {shown} |", flush=True)
    return 1 if far else 0


if __name__ == "__main__":
    sys.exit(main())
