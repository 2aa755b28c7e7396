import { html, useMemo, useState, useLoaded, Note, Table, asked, id, dollars, number } from "../lib.js";
import { download, get } from "../api.js";
import { Plot } from "../plot.js";

const BY = ["day", "hour", "key", "tenant", "alias", "model"];
const FIGURES = { cost_usd: "Cost, US$", requests: "Calls", errors: "Errors", input_tokens: "Input tokens", output_tokens: "Output tokens" };
const DAY = 86_400;
const MOST_BARS = 800;
const today = () => new Date().toISOString().slice(0, 10);
const dayBefore = (days) => new Date(Date.now() - days * DAY * 1000).toISOString().slice(0, 10);
const RANGES = [
  ["Today", () => today()],
  ["7 days", () => dayBefore(6)],
  ["30 days", () => dayBefore(29)],
  ["This month", () => `${today().slice(0, 8)}01`],
];

// Sums of one figure by hour or day, with those between that have none.
function overTime(rows, figure, { from, to, step, name }) {
  const sums = new Map();
  for (const row of rows) {
    const at = Date.parse(row[name]) / 1000;
    sums.set(at, (sums.get(at) || 0) + Number(row[figure]));
  }
  const x = [];
  for (let at = Date.parse(from) / 1000; at < Date.parse(to) / 1000 + DAY && x.length < MOST_BARS; at += step) x.push(at);
  return [x, x.map((at) => sums.get(at) || 0)];
}

export function Usage({ rest }) {
  const given = asked(rest);
  const form = { from: given.from || RANGES[3][1](), to: given.to || today(), by: (given.by ?? "model").split(",").filter(Boolean), figure: FIGURES[given.figure] ? given.figure : "cost_usd" };
  const fill = (changes) => {
    const all = { ...form, ...changes };
    location.hash = `#usage/${new URLSearchParams({ ...all, by: all.by.join(",") })}`;
  };
  const hours = form.by.includes("hour");
  const time = { from: form.from, to: form.to, name: hours ? "hour" : "day", step: hours ? 3600 : DAY };
  const path = (by, format) => `admin/usage?from=${id(form.from)}&to=${id(form.to)}&by=${by.map(id).join(",")}&format=${format}`;
  const query = JSON.stringify([form.from, form.to, form.by]);
  const { value, error } = useLoaded(async () => [await get(path(form.by, "json")), await get(path([time.name], "json"))], [query], 15_000);
  const [problem, fail] = useState(null);
  const tag = form.by.find((name) => name.startsWith("tag:")) || "";
  const apart = (name) => (name === "hour" ? "tag:" : "hour"); // usage is kept by hour or by a tag, not by both
  const toggle = (name) => () => fill({ by: form.by.includes(name) ? form.by.filter((one) => one !== name) : [...form.by.filter((one) => name !== "hour" || !one.startsWith(apart(name))), name] });
  const byTag = (event) => {
    const name = event.target.value.trim();
    fill({ by: [...form.by.filter((one) => !one.startsWith("tag:") && (!name || one !== "hour")), ...(name ? [`tag:${name}`] : [])] });
  };
  const data = useMemo(() => (value ? overTime(value[1].rows, form.figure, time) : [[], []]), [value, form.figure]);
  const figures = [
    { title: "Calls", number: true, sort: (r) => (r.sum ? -1 : Number(r.requests)), cell: (r) => number(r.requests) },
    { title: "Errors", number: true, sort: (r) => (r.sum ? -1 : Number(r.errors)), cell: (r) => number(r.errors) },
    { title: "Input", number: true, sort: (r) => (r.sum ? -1 : Number(r.input_tokens)), cell: (r) => number(r.input_tokens) },
    { title: "Cached", number: true, cell: (r) => number(r.cached_input_tokens) },
    { title: "Output", number: true, sort: (r) => (r.sum ? -1 : Number(r.output_tokens)), cell: (r) => number(r.output_tokens) },
    { title: "Reasoning", number: true, cell: (r) => number(r.reasoning_tokens) },
    { title: "Cost", number: true, sort: (r) => (r.sum ? -1 : Number(r.cost_usd)), cell: (r) => dollars(r.cost_usd) },
  ];
  const names = (value?.[0].by || []).map((name) => ({ title: name, cell: (r) => (r.sum ? html`<b>Total</b>` : r[name] || html`<span class="quiet">none</span>`) }));
  const rows = value ? [...value[0].rows, { ...value[0].total, sum: true }] : [];
  const csv = () => download(path(form.by, "csv"), `usage-${form.from}-${form.to}.csv`).then(() => fail(null), fail);
  return html`
    <div class="head"><h1>Usage</h1><button type="button" onClick=${csv}>Download CSV</button></div>
    <section class="card stack">
      <div class="row"><label>From<input type="date" value=${form.from} max=${form.to} onChange=${(e) => e.target.value && fill({ from: e.target.value })} /></label><label>To<input type="date" value=${form.to} min=${form.from} onChange=${(e) => e.target.value && fill({ to: e.target.value })} /></label>
        <div class="tabs" role="group" aria-label="Range">${RANGES.map(([name, from]) => html`<button type="button" aria-pressed=${String(form.from === from() && form.to === today())} onClick=${() => fill({ from: from(), to: today() })}>${name}</button>`)}</div></div>
      <div class="row"><div class="tabs" role="group" aria-label="Apart by">${BY.map((name) => html`<button type="button" aria-pressed=${String(form.by.includes(name))} onClick=${toggle(name)}>${name}</button>`)}</div>
        <label class="narrow">Tag<input value=${tag.slice(4)} onChange=${byTag} placeholder="project" /></label></div>
      <p class="small quiet">Days and hours are UTC's. Hours are kept for some days only (usage.hourly_days), tags where usage.tags names them.</p>
      <${Note} error=${error || problem} />
    </section>
    <section class="card"><div class="head"><h2>By ${time.name}</h2><div class="tabs" role="group" aria-label="Figure">${Object.entries(FIGURES).map(([name, title]) => html`<button type="button" aria-pressed=${String(name === form.figure)} onClick=${() => fill({ figure: name })}>${title}</button>`)}</div></div>
      ${value ? html`<${Plot} key=${form.figure + time.name} label=${`${FIGURES[form.figure]} by ${time.name}`} data=${data} series=${[FIGURES[form.figure]]} step=${time.step} bars />` : null}</section>
    <section class="card"><${Table} label="Usage" columns=${[...(names.length ? names : [{ title: "Of", cell: (r) => (r.sum ? html`<b>Total</b>` : "all") }]), ...figures]} rows=${rows} /></section>`;
}
