import { html, id, useEffect, useMemo, useScroll, useState, Note, Table, Badge, clock, dollars, moment, number, seconds, share, short, usageCost } from "../lib.js";
import { watch } from "../api.js";
import { Plot } from "../plot.js";

const today = (now) => new Date(now * 1000).toISOString().slice(0, 10);
const CLASSES = ["2xx", "4xx", "5xx"];
const many = (count, one, others = `${one}s`) => `${number(count)} ${count === 1 ? one : others}`;

// What the gateway tells of itself, as it tells it.
function useLive() {
  const [told, tell] = useState({ error: null });
  useEffect(() => {
    const seen = (name, value) => tell((known) => ({ ...known, error: name === "problem" ? new Error(value.error) : null, ...(name === "problem" ? {} : { [name]: value }) }));
    return watch("admin/overview/live", seen, (error) => tell((known) => ({ ...known, error })));
  }, []);
  return told;
}

const Tile = ({ title, href, kind = "", hint, sub, children }) =>
  html`<a class="tile" href=${href} title=${hint}><span class="quiet">${title}</span><b class=${kind}>${children}</b><span class="small quiet sub">${sub}</span></a>`;

const broken = ({ open, half_open }) => [open && `${open} with an open breaker`, half_open && `${half_open} half-open`].filter(Boolean).join(", ") || "no breaker is open";

function Tiles({ found }) {
  const { recent, targets } = found;
  const minutes = recent && recent.seconds / 60;
  const within = `minutes=${minutes}`;
  const some = recent && !recent.complete ? "+" : "";
  const day = today(found.now);
  const all = targets.open + targets.closed + targets.half_open;
  return html`<div class="tiles">
    <${Tile} title="State" href="#overview/processes" kind=${found.status === "ready" ? "good" : "warn"} hint="Of the process that answers; all are below" sub=${many(found.workers, "process", "workers")}>${found.status}<//>
    <${Tile} title="In flight" href="#aliases" hint="Calls being answered; of each target" sub="calls being answered now">${number(found.in_flight)}<//>
    ${recent
      ? html`<${Tile} title="Calls" href=${`#calls/${within}`} hint="Calls that have ended" sub=${`in ${minutes} min, ${short(recent.calls / recent.seconds, 2)} a second`}>${short(recent.calls)}${some}<//>
        <${Tile} title="Errors" href=${`#calls/error=*&${within}`} kind=${recent.errors ? "bad" : ""} hint="Calls that ended in an error, refused ones among them" sub=${recent.calls ? `${share(recent.errors, recent.calls)} of the calls` : `in ${minutes} min`}>${short(recent.errors)}${some}<//>
        <${Tile} title="Retried" href=${`#calls/retried=true&${within}`} kind=${recent.retried ? "warn" : ""} hint="Calls with more than one attempt: retries and failovers" sub=${recent.calls ? `${share(recent.retried, recent.calls)} of the calls` : `in ${minutes} min`}>${short(recent.retried)}${some}<//>
        <${Tile} title="First token p50" href=${`#calls/ttft=*&${within}`} hint="Half of the calls had their first token by then" sub=${`in ${minutes} min`}>${seconds(recent.first_token_p50)}<//>
        <${Tile} title="First token p95" href=${`#calls/ttft=*&${within}`} hint="95 of 100 calls had their first token by then" sub=${`in ${minutes} min`}>${seconds(recent.first_token_p95)}<//>
        <${Tile} title="Tokens a second" href=${`#calls/tokens_out=*&${within}`} hint="Output tokens of the streams, by the time from first token to end" sub=${`of one stream, in ${minutes} min`}>${number(recent.tokens_per_second, 1)}<//>`
      : null}
    <${Tile} title="Cost today" href=${`#usage/from=${day}&to=${day}&by=key,model&figure=cost_usd`} hint="Of all calls since midnight UTC" sub=${found.today?.unpriced_tokens ? `${short(found.today.unpriced_tokens)} tokens without a price` : "since 00:00 UTC"}>${found.today?.unpriced_tokens && found.cost_today_usd === null ? "no price" : dollars(found.cost_today_usd)}<//>
    <${Tile} title="Healthy targets" href="#aliases" kind=${targets.open ? "bad" : targets.half_open ? "warn" : "good"} hint="Targets whose breaker is closed. Those with an open one are not asked" sub=${broken(targets)}>${targets.closed} of ${all}<//>
  </div>`;
}

// The steps of the last minutes, those between that had no call too.
function Plots({ recent, now }) {
  const { step, seconds: window } = recent;
  const last = Math.floor(now / step) * step;
  const x = useMemo(() => Array.from({ length: window / step + 1 }, (_, n) => last - window + n * step), [last, window, step]);
  const known = useMemo(() => new Map(recent.steps.map((one) => [one.at, one])), [recent]);
  const values = (pick) => x.map((at) => (known.has(at) ? pick(known.get(at)) : null));
  const calls = useMemo(() => [
    { name: "without an error", values: values((one) => one.calls - one.errors).map(Number), colour: "--series-1" },
    { name: "errors", values: values((one) => one.errors).map(Number), colour: "--bad" },
  ], [known, x]);
  const tokens = useMemo(() => [
    { name: "p50", values: values((one) => one.first_token_p50), colour: "--series-1" },
    { name: "p95", values: values((one) => one.first_token_p95), colour: "--series-2" },
  ], [known, x]);
  const range = [x[0] - step / 2, x[x.length - 1] + step / 2];
  const common = { x, step, range, height: 200 };
  return html`<div class="two">
    <section class="card"><h2>Calls, each ${step} s</h2><${Plot} ...${common} label=${`Calls that ended in each ${step} seconds of the last ${window / 60} minutes`} series=${calls} bars stacked whole format=${(value) => number(value)} empty=${`No call in ${window / 60} minutes`} /></section>
    <section class="card"><h2>Time to the first token</h2><${Plot} ...${common} label=${`Median and 95th percentile of the time to the first token in the last ${window / 60} minutes`} series=${tokens} format=${seconds} empty=${`No token in ${window / 60} minutes`} /></section>
  </div>`;
}

// What today's calls went to: the aliases that cost most.
function Day({ now, found }) {
  const day = today(now);
  const paid = Number(found?.cost_usd) > 0;
  const figure = paid ? "cost_usd" : "requests";
  const rows = found?.top || [];
  const columns = [
    { title: "Alias", wide: true, cell: (r) => (r.alias ? html`<a href=${`#calls/alias=${id(r.alias)}`}>${r.alias}</a>` : html`<span class="quiet">none</span>`) },
    { title: "Calls", number: true, cell: (r) => short(Number(r.requests)) },
    { title: "Errors", number: true, cell: (r) => html`<span class=${Number(r.errors) ? "bad" : ""}>${short(Number(r.errors))}</span>` },
    { title: "Cost", number: true, cell: usageCost },
    { title: paid ? "Of the cost" : "Of the calls", cell: (r) => html`<meter class="plain" min="0" max="1" value=${found[figure] ? r[figure] / found[figure] : 0} aria-label=${`Share of ${r.alias || "none"}`}></meter>` },
  ];
  return html`<section class="card"><div class="head"><h2>Aliases today</h2><a class="small" href=${`#usage/from=${day}&to=${day}&by=alias&figure=${figure}`}>${found?.aliases > rows.length ? `all ${number(found.aliases)}` : "usage"}</a></div>
    <${Table} label="Aliases today" columns=${columns} rows=${rows} empty=${found ? "No call since 00:00 UTC." : "The store of usage does not answer."} /></section>`;
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
    <dl class="facts ends">${rows.map(([name, href, value]) => html`<dt>${name}</dt><dd><a href=${href}>${value}</a></dd>`)}</dl></section>`;
}

const ERRORS = [
  { title: "When", cell: (c) => html`<a href=${`#calls/request_id=${encodeURIComponent(c.request_id)}`}>${clock(c.at)}</a>` },
  { title: "Error", cell: (c) => html`<${Badge} kind="bad">${c.error}<//>` },
  { title: "Alias", line: true, cell: (c) => c.alias || "–" },
  { title: "Target", line: true, cell: (c) => c.target || "–" },
  { title: "Key", line: true, cell: (c) => c.key || "–" },
  { title: "End", line: true, cell: (c) => c.end },
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
  const { overview: found, errors, processes, error } = useLive();
  useScroll(rest, Boolean(found));
  if (!found) return html`<h1>Overview</h1><${Note} error=${error} />`;
  const live = error ? html`<span class="bad">● not live</span>` : html`<span class="good live">●</span> live`;
  return html`
    <div class="head"><h1>Overview</h1><span class="small quiet">${live} · Sluice ${found.version} · ${many(found.workers, "process", "workers")}</span></div>
    <${Note} error=${error}>${found.missing_workers.length ? `Not answered within a second: worker ${found.missing_workers.join(", ")}. Their targets, stores and calls are not shown.` : null}<//>
    <${Tiles} found=${found} />
    ${found.recent ? html`<${Plots} recent=${found.recent} now=${found.now} />` : null}
    <div class="two"><${Day} now=${found.now} found=${found.today} /><${Since} found=${found} /></div>
    ${errors ? html`<section class="card"><h2>Latest errors</h2><${Table} label="Latest errors" empty="No errors among the remembered calls." columns=${ERRORS} rows=${errors.calls} /></section>` : null}
    <div class="two">
      ${processes ? html`<section class="card" id="processes"><h2>Processes</h2><${Table} label="Processes" columns=${PROCESSES} rows=${processes.workers} /></section>` : null}
      <section class="card" id="stores"><h2>Stores</h2><${Table} label="Stores" columns=${STORES} rows=${Object.entries(found.stores)} /></section>
    </div>`;
}
