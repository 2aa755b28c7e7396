import { html, useEffect, useRef, useScroll, useState, Note, Table, Badge, dollars, number, seconds, moment, clock } from "../lib.js";
import { watch } from "../api.js";
import { Plot } from "../plot.js";

const KEPT = 300;
const today = (now) => new Date(now * 1000).toISOString().slice(0, 10);
const CLASSES = ["2xx", "4xx", "5xx"];

// What the gateway tells of itself, as it tells it; and the figures of which there is a plot, since the page was opened.
function useLive() {
  const [told, tell] = useState({ error: null });
  const [data, plot] = useState([[], [], []]);
  const before = useRef(null);
  useEffect(() => {
    const seen = (name, value) => {
      tell((known) => ({ ...known, error: name === "problem" ? new Error(value.error) : null, ...(name === "problem" ? {} : { [name]: value }) }));
      if (name !== "overview") return;
      const all = CLASSES.reduce((sum, one) => sum + value.requests[one], 0);
      const last = before.current;
      before.current = { all, now: value.now, started: value.started };
      if (!last || value.now <= last.now) return;
      // a gateway that was started again counts from zero
      const rate = last.started === value.started && all >= last.all ? (all - last.all) / (value.now - last.now) : 0;
      plot((lists) => lists.map((list, at) => [...list, [value.now, rate, value.in_flight][at]].slice(-KEPT)));
    };
    return watch("admin/overview/live", seen, (error) => tell((known) => ({ ...known, error })));
  }, []);
  return { ...told, data };
}

const Tile = ({ title, href, kind = "", hint, children }) => html`<a class="tile" href=${href} title=${hint}><span class="quiet">${title}</span><b class=${kind}>${children}</b></a>`;

function Tiles({ found }) {
  const { recent, targets } = found;
  const window = recent ? `${recent.seconds / 60} min` : "";
  const within = recent ? `minutes=${recent.seconds / 60}` : "";
  const some = recent && !recent.complete ? "+" : "";
  const day = today(found.now);
  return html`<div class="tiles">
    <${Tile} title="State" href="#overview/processes" kind=${found.status === "ready" ? "good" : "warn"} hint="Of the process that answers; all are below">${found.status}<//>
    <${Tile} title="In flight" href="#aliases" hint="Calls being answered; of each target">${number(found.in_flight)}<//>
    ${recent
      ? html`<${Tile} title=${`Calls, ${window}`} href=${`#calls/${within}`} hint="Calls that have ended">${number(recent.calls)}${some}<//>
        <${Tile} title=${`Errors, ${window}`} href=${`#calls/error=*&${within}`} kind=${recent.errors ? "bad" : ""} hint="Calls that ended in an error, refused ones among them">${number(recent.errors)}${some}<//>
        <${Tile} title=${`Retried, ${window}`} href=${`#calls/retried=true&${within}`} kind=${recent.retried ? "warn" : ""} hint="Calls with more than one attempt: retries and failovers">${number(recent.retried)}${some}<//>
        <${Tile} title="First token p50" href=${`#calls/ttft=*&${within}`} hint=${`Half of the calls of ${window} had their first token by then`}>${seconds(recent.first_token_p50)}<//>
        <${Tile} title="First token p95" href=${`#calls/ttft=*&${within}`} hint=${`95 of 100 calls of ${window} had their first token by then`}>${seconds(recent.first_token_p95)}<//>
        <${Tile} title="Tokens/s, a stream" href=${`#calls/tokens_out=*&${within}`} hint=${`Output tokens of the streams of ${window}, by the time from first token to end`}>${number(recent.tokens_per_second, 1)}<//>`
      : null}
    <${Tile} title="Cost today (UTC)" href=${`#usage/from=${day}&to=${day}&by=key,model&figure=cost_usd`} hint="Of all calls since midnight UTC">${dollars(found.cost_today_usd)}<//>
    <${Tile} title="Targets open" href="#aliases" kind=${targets.open ? "bad" : "good"} hint="Targets whose breaker is open: they are not asked">${targets.open} of ${targets.open + targets.closed + targets.half_open}<//>
  </div>`;
}

function Since({ found }) {
  const failing = Object.values(found.stores).filter((store) => store.state !== "ok").length;
  const rows = [
    ...CLASSES.map((one) => [`Answered ${one}`, `#calls/status=${one}`, number(found.requests[one])]),
    ["Aliases", "#aliases", number(found.aliases)],
    ["Upstreams", "#aliases/upstreams", number(found.upstreams)],
    ["Keys", "#keys", number(found.keys)],
    ["Stores", "#overview/stores", html`<${Badge} kind=${failing ? "bad" : "good"}>${failing ? `${failing} failing` : "ok"}<//>`],
  ];
  return html`<section class="card"><h2>Since the start, ${moment(found.started)}</h2>
    <${Table} label="Figures" columns=${[{ title: "What", cell: (r) => r[0] }, { title: "How many", number: true, cell: (r) => html`<a href=${r[1]}>${r[2]}</a>` }]} rows=${rows} /></section>`;
}

const ERRORS = [
  { title: "When", cell: (c) => html`<a href=${`#calls/request_id=${encodeURIComponent(c.request_id)}`}>${clock(c.at)}</a>` },
  { title: "Alias", cell: (c) => c.alias || "–" },
  { title: "Target", cell: (c) => c.target || "–" },
  { title: "Key", cell: (c) => c.key || "–" },
  { title: "Error", cell: (c) => html`<${Badge} kind="bad">${c.error}<//>` },
  { title: "End", cell: (c) => c.end },
];
const STORES = [
  { title: "Store", cell: (s) => s[0] },
  { title: "Kind", cell: (s) => s[1].kind || "–" },
  { title: "State", cell: (s) => html`<${Badge} kind=${s[1].state === "ok" ? "good" : "bad"}>${s[1].state}<//>` },
  { title: "Why", cell: (s) => s[1].reason || "–" },
];
const PROCESSES = [
  { title: "Process", cell: (w) => (w.worker ? `worker ${w.worker}` : "the only one") },
  { title: "Id", number: true, cell: (w) => w.pid },
  { title: "State", cell: (w) => html`<${Badge} kind=${w.state === "serving" ? "good" : "warn"}>${w.state}<//>` },
];

export function Overview({ rest }) {
  const { overview: found, errors, processes, error, data } = useLive();
  useScroll(rest, Boolean(found));
  if (!found) return html`<h1>Overview</h1><${Note} error=${error} />`;
  const live = error ? html`<span class="bad">● not live</span>` : html`<span class="live">●</span> live`;
  return html`
    <div class="head"><h1>Overview</h1><span class="small quiet">${live}, ${found.version}, ${found.workers} ${found.workers === 1 ? "process" : "workers"}</span></div>
    <${Note} error=${error}>${found.missing_workers.length ? `Not answered within a second: worker ${found.missing_workers.join(", ")}. Their targets, stores and calls are not shown.` : null}<//>
    <${Tiles} found=${found} />
    <div class="two">
      <section class="card"><h2>Requests per second, calls in flight</h2>
        ${data[0].length ? html`<${Plot} label="Requests per second and calls in flight, while this page is open" data=${data} series=${["requests/s", "in flight"]} height=${260} />` : null}</section>
      <${Since} found=${found} />
    </div>
    ${errors ? html`<section class="card"><h2>Latest errors</h2><${Table} label="Latest errors" empty="None among the calls that are remembered." columns=${ERRORS} rows=${errors.calls} /></section>` : null}
    <div class="two">
      ${processes ? html`<section class="card" id="processes"><h2>Processes</h2><${Table} label="Processes" columns=${PROCESSES} rows=${processes.workers} /></section>` : null}
      <section class="card" id="stores"><h2>Stores</h2><${Table} label="Stores" columns=${STORES} rows=${Object.entries(found.stores)} /></section>
    </div>`;
}
