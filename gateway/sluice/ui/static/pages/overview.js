import { html, useEffect, useRef, useState, useLoaded, Note, Table, Badge, number, seconds, moment, clock } from "../lib.js";
import { get } from "../api.js";
import { Plot } from "../plot.js";

const EVERY = 2000;
const KEPT = 150;
const WINDOW = 300;

const share = (sorted, part) => (sorted.length ? sorted[Math.min(sorted.length - 1, Math.floor(part * sorted.length))] : null);

function recent(calls, now) {
  const found = calls.filter((call) => call.at > now - WINDOW);
  const ttft = found.map((call) => call.ttft).filter((value) => value !== null && value !== undefined).sort((a, b) => a - b);
  const errors = found.filter((call) => call.error);
  const rates = found.filter((call) => call.tokens_out && call.stream && call.ttft && call.duration > call.ttft).map((call) => call.tokens_out / (call.duration - call.ttft));
  return {
    calls: found.length,
    errors: errors.length,
    p50: share(ttft, 0.5),
    p95: share(ttft, 0.95),
    speed: rates.length ? rates.reduce((a, b) => a + b) / rates.length : null,
  };
}

export function Overview() {
  const { value, error } = useLoaded(async () => [await get("admin/overview"), (await get("admin/calls?limit=200")).calls], [], EVERY);
  const samples = useRef([[], [], []]);
  const [data, plot] = useState([[], [], []]);
  const before = useRef(null);
  useEffect(() => {
    if (!value) return;
    const [found] = value;
    const all = found.requests["2xx"] + found.requests["4xx"] + found.requests["5xx"];
    const last = before.current;
    const rate = last && found.now > last.now && all >= last.all ? (all - last.all) / (found.now - last.now) : 0;
    before.current = { all, now: found.now };
    samples.current = samples.current.map((list, at) => [...list, [found.now, rate, found.in_flight][at]].slice(-KEPT));
    plot(samples.current);
  }, [value]);
  if (!value) return html`<h1>Overview</h1><${Note} error=${error} />`;
  const [found, calls] = value;
  const now = recent(calls, found.now);
  const stores = Object.entries(found.stores);
  const failing = stores.filter(([, store]) => store.state !== "ok");
  return html`
    <div class="head"><h1>Overview</h1><span class="small quiet"><span class="live">●</span> live, ${found.version}, ${found.workers} ${found.workers === 1 ? "process" : "workers"}, since ${moment(found.started)}</span></div>
    <${Note} error=${error}>${found.missing_workers.length ? `Not answered within a second: worker ${found.missing_workers.join(", ")}. Their targets, stores and calls are not shown.` : null}<//>
    <div class="tiles">
      <div class="tile"><span class="quiet">State</span><b class=${found.status === "ready" ? "good" : "warn"}>${found.status}</b></div>
      <div class="tile"><span class="quiet">In flight</span><b>${number(found.in_flight)}</b></div>
      <div class="tile"><span class="quiet">Calls, 5 min</span><b>${number(now.calls)}${calls.length === 200 && now.calls === 200 ? "+" : ""}</b></div>
      <div class="tile"><span class="quiet">Errors, 5 min</span><b class=${now.errors ? "bad" : ""}>${number(now.errors)}</b></div>
      <div class="tile"><span class="quiet">First token p50</span><b>${seconds(now.p50)}</b></div>
      <div class="tile"><span class="quiet">First token p95</span><b>${seconds(now.p95)}</b></div>
      <div class="tile"><span class="quiet">Tokens per second</span><b>${number(now.speed, 1)}</b></div>
      <div class="tile"><span class="quiet">Targets open</span><b class=${found.targets.open ? "bad" : "good"}>${found.targets.open} of ${found.targets.open + found.targets.closed + found.targets.half_open}</b></div>
    </div>
    <div class="two">
      <section class="card"><h2>Requests per second, calls in flight</h2>
        ${data[0].length ? html`<${Plot} label="Requests per second and calls in flight, while this page is open" data=${data} series=${["requests/s", "in flight"]} />` : null}</section>
      <section class="card"><h2>Since the start</h2>
        <${Table} label="Figures" columns=${[{ title: "What", cell: (r) => r[0] }, { title: "How many", number: true, cell: (r) => r[1] }]}
          rows=${[["Answered 2xx", number(found.requests["2xx"])], ["Answered 4xx", number(found.requests["4xx"])], ["Answered 5xx", number(found.requests["5xx"])], ["Aliases", found.aliases], ["Upstreams", found.upstreams], ["Keys", found.keys], ["Stores", failing.length ? html`<${Badge} kind="bad">${failing.map(([name]) => name).join(", ")} failing<//>` : html`<${Badge} kind="good">ok<//>`]]} /></section>
    </div>
    <section class="card"><h2>Latest errors</h2>
      <${Table} label="Latest errors" empty="None among the last 200 calls."
        columns=${[{ title: "When", cell: (c) => clock(c.at) }, { title: "Alias", cell: (c) => c.alias || "–" }, { title: "Target", cell: (c) => c.target || "–" }, { title: "Key", cell: (c) => c.key || "–" }, { title: "Error", cell: (c) => html`<${Badge} kind="bad">${c.error}<//>` }, { title: "End", cell: (c) => c.end }]}
        rows=${calls.filter((call) => call.error).slice(0, 10)} /></section>`;
}
