import { html, useMemo, useState, useLoaded, Note, Table, dollars, number } from "../lib.js";
import { download, get } from "../api.js";
import { Plot } from "../plot.js";

const BY = ["day", "key", "tenant", "alias", "model"];
const FIGURES = { cost_usd: "Cost, US$", requests: "Calls", input_tokens: "Input tokens", output_tokens: "Output tokens" };
const today = () => new Date().toISOString().slice(0, 10);

// Sums by day of one figure, with the days between that have none.
function byDay(rows, figure, from, to) {
  const sums = new Map();
  for (const row of rows) sums.set(row.day, (sums.get(row.day) || 0) + Number(row[figure]));
  const x = [];
  for (let day = Date.parse(from); day <= Date.parse(to); day += 86_400_000) x.push(day / 1000);
  return [x, x.map((at) => sums.get(new Date(at * 1000).toISOString().slice(0, 10)) || 0)];
}

export function Usage() {
  const [form, fill] = useState({ from: `${today().slice(0, 8)}01`, to: today(), by: ["model"] });
  const [figure, choose] = useState("cost_usd");
  const path = (by, format) => `admin/usage?from=${form.from}&to=${form.to}&by=${by.join(",")}&format=${format}`;
  const { value, error } = useLoaded(async () => [await get(path(form.by, "json")), await get(path(["day"], "json"))], [JSON.stringify(form)], 15_000);
  const [problem, fail] = useState(null);
  const toggle = (name) => () => fill({ ...form, by: BY.filter((one) => (one === name) !== form.by.includes(one)) });
  const data = useMemo(() => (value ? byDay(value[1].rows, figure, value[1].from, value[1].to) : [[], []]), [value, figure]);
  const figures = [
    { title: "Calls", number: true, cell: (r) => number(r.requests) },
    { title: "Errors", number: true, cell: (r) => number(r.errors) },
    { title: "Input", number: true, cell: (r) => number(r.input_tokens) },
    { title: "Cached", number: true, cell: (r) => number(r.cached_input_tokens) },
    { title: "Output", number: true, cell: (r) => number(r.output_tokens) },
    { title: "Reasoning", number: true, cell: (r) => number(r.reasoning_tokens) },
    { title: "Cost", number: true, cell: (r) => dollars(r.cost_usd) },
  ];
  const names = (value?.[0].by || []).map((name) => ({ title: name, cell: (r) => (r.sum ? html`<b>Total</b>` : r[name] || html`<span class="quiet">none</span>`) }));
  const rows = value ? [...value[0].rows, { ...value[0].total, sum: true }] : [];
  return html`
    <div class="head"><h1>Usage</h1><button type="button" onClick=${() => download(path(form.by, "csv"), `usage-${form.from}-${form.to}.csv`).then(() => fail(null), fail)}>CSV</button></div>
    <section class="card stack">
      <div class="row"><label>From<input type="date" value=${form.from} onChange=${(e) => e.target.value && fill({ ...form, from: e.target.value })} /></label><label>To<input type="date" value=${form.to} onChange=${(e) => e.target.value && fill({ ...form, to: e.target.value })} /></label>
        <div class="tabs" role="group" aria-label="Apart by">${BY.map((name) => html`<button type="button" aria-pressed=${String(form.by.includes(name))} onClick=${toggle(name)}>${name}</button>`)}</div></div>
      <${Note} error=${error || problem} />
    </section>
    <section class="card"><div class="head"><h2>By day</h2><div class="tabs" role="group" aria-label="Figure">${Object.entries(FIGURES).map(([name, title]) => html`<button type="button" aria-pressed=${String(name === figure)} onClick=${() => choose(name)}>${title}</button>`)}</div></div>
      ${value ? html`<${Plot} key=${figure} label=${`${FIGURES[figure]} by day`} data=${data} series=${[FIGURES[figure]]} bars />` : null}</section>
    <section class="card"><${Table} label="Usage" columns=${[...(names.length ? names : [{ title: "Of", cell: (r) => (r.sum ? html`<b>Total</b>` : "all") }]), ...figures]} rows=${rows} /></section>`;
}
