import { html, useMemo, useState, useLoaded, Note, Table, asked, dollars, id, number, short, usageCost } from "../lib.js";
import { download, get } from "../api.js";
import { Plot } from "../plot.js";

const BY = { day: "Day", hour: "Hour", key: "Key", tenant: "Tenant", alias: "Alias", model: "Model" };
const FIGURES = { cost_usd: "Cost", requests: "Calls", errors: "Errors", input_tokens: "Input tokens", output_tokens: "Output tokens" };
const DAY = 86_400;
const MOST_BARS = 1000;
const MOST_SERIES = 8;
const EVERY = 30_000;
const today = () => new Date().toISOString().slice(0, 10);
const dayBefore = (days) => new Date(Date.now() - days * DAY * 1000).toISOString().slice(0, 10);
const RANGES = [
  ["Today", () => today()],
  ["7 days", () => dayBefore(6)],
  ["30 days", () => dayBefore(29)],
  ["This month", () => `${today().slice(0, 8)}01`],
];
const SECONDS = { day: DAY, hour: 3600 };
const TIME = Object.keys(SECONDS);
const isTag = (name) => name.startsWith("tag:");
const titled = (name) => BY[name] || name.slice(4);

// One figure of an answer over time, apart by what else it is grouped by: those with the greatest sums, which are the lowest in a stack, and the sum of
// all others. Hours and days between that have none are zero.
export function seriesOf({ rows, by, from, to }, figure) {
  const name = by.find((one) => TIME.includes(one));
  const [groups, step] = [by.filter((one) => one !== name), SECONDS[name]];
  const x = [];
  for (let at = Date.parse(from) / 1000; at < Date.parse(to) / 1000 + DAY && x.length < MOST_BARS; at += step) x.push(at);
  const places = new Map(x.map((at, n) => [at, n]));
  const found = new Map();
  for (const row of rows) {
    const at = places.get(Date.parse(row[name]) / 1000);
    if (at === undefined) continue;
    const label = groups.map((one) => row[one] || "none").join(" · ") || "all";
    const known = found.get(label) || { name: label, sum: 0, values: x.map(() => 0) };
    found.set(label, known);
    known.sum += Number(row[figure]);
    known.values[at] += Number(row[figure]);
  }
  const all = [...found.values()].filter((one) => one.sum).sort((a, b) => b.sum - a.sum);
  const [shown, rest] = all.length > MOST_SERIES + 1 ? [all.slice(0, MOST_SERIES), all.slice(MOST_SERIES)] : [all, []];
  if (rest.length) shown.push({ name: `${rest.length} others`, colour: "--others", sum: rest.reduce((sum, one) => sum + one.sum, 0), values: x.map((_, n) => rest.reduce((sum, one) => sum + one.values[n], 0)) });
  return [x, shown.length > MOST_SERIES ? [...shown.slice(0, MOST_SERIES), { ...shown[MOST_SERIES], colour: "--others" }] : shown];
}

const Buttons = ({ label, names, chosen, choose }) =>
  html`<div class="field"><span class="small quiet" aria-hidden="true">${label}</span><div class="tabs" role="group" aria-label=${label}>${Object.entries(names).map(([name, title]) => html`<button type="button" aria-pressed=${String(chosen(name))} onClick=${() => choose(name)}>${title}</button>`)}</div></div>`;

const byFigure = (name) => (row) => Number(row[name]);
const count = (name) => ({ number: true, sort: byFigure(name), cell: (row) => html`<span class=${Number(row[name]) ? "" : "quiet"}>${number(row[name])}</span>` });
const COLUMNS = [
  { title: "Calls", ...count("requests") },
  { title: "Errors", ...count("errors") },
  { title: "Input tokens", ...count("input_tokens") },
  { title: "Cached", ...count("cached_input_tokens") },
  { title: "Output tokens", ...count("output_tokens") },
  { title: "Reasoning", ...count("reasoning_tokens") },
  { title: "Estimated", ...count("estimated") },
  { title: "Cost", number: true, sort: byFigure("cost_usd"), cell: usageCost },
];

export function Usage({ rest }) {
  const given = asked(rest);
  const form = { from: given.from || RANGES[3][1](), to: given.to || today(), by: (given.by ?? "model").split(",").filter(Boolean), figure: FIGURES[given.figure] ? given.figure : "", each: given.each || "" };
  const fill = (changes) => {
    const all = { ...form, ...changes };
    location.hash = `#usage/${new URLSearchParams(Object.entries({ ...all, by: all.by.join(",") }).filter(([name, value]) => value || name === "by"))}`;
  };
  const tag = form.by.find(isTag) || "";
  // usage is kept by hour or by a tag, not by both
  const each = tag ? "day" : form.by.includes("hour") ? "hour" : TIME.includes(form.each) ? form.each : form.from === form.to ? "hour" : "day";
  const groups = form.by.filter((name) => !TIME.includes(name));
  const path = (by, format) => `admin/usage?from=${id(form.from)}&to=${id(form.to)}&by=${by.map(id).join(",")}&format=${format}`;
  const [table, plot] = [path(form.by, "json"), path([each, ...groups], "json")];
  // what was asked before is shown until the answer comes: each answer says itself what it is about
  const load = (asked) => async () => ({ ...(await get(asked)), asked });
  const { value, error } = useLoaded(load(table), [table], EVERY);
  const drawn = useLoaded(load(plot), [plot], EVERY);
  // where nothing has a known price there are calls to look at
  const figure = form.figure || (value?.total.requests && value.total.cost_usd === null ? "requests" : "cost_usd");
  const [problem, fail] = useState(null);
  const toggle = (name) => fill({ by: form.by.includes(name) ? form.by.filter((one) => one !== name) : [...form.by.filter((one) => name !== "hour" || !isTag(one)), name] });
  const byTag = (event) => {
    const name = event.target.value.trim();
    fill({ by: [...form.by.filter((one) => !isTag(one) && (!name || one !== "hour")), ...(name ? [`tag:${name}`] : [])] });
  };
  const [x, series] = useMemo(() => (drawn.value ? seriesOf(drawn.value, figure) : [[], []]), [drawn.value, figure]);
  const names = (value?.by || []).map((name) => ({ title: titled(name), wide: !TIME.includes(name), cell: (r) => (r === value.total ? "" : r[name] || html`<span class="quiet">none</span>`) }));
  const columns = [...(names.length ? names : [{ title: "Of", cell: (r) => (r === value?.total ? "" : "all") }]), ...COLUMNS];
  const first = columns[0];
  columns[0] = { ...first, cell: (r) => (r === value?.total ? "Total" : first.cell(r)) };
  const format = figure === "cost_usd" ? dollars : (count) => short(count);
  const range = RANGES.findIndex(([, from]) => form.from === from() && form.to === today());
  const csv = () => download(path(form.by, "csv"), `usage-${form.from}-${form.to}.csv`).then(() => fail(null), fail);
  const ordered = form.by.some((name) => TIME.includes(name)) ? "" : FIGURES[figure];
  return html`
    <div class="head"><h1>Usage</h1><button type="button" onClick=${csv}>Download CSV</button></div>
    <section class="card stack">
      <div class="row"><label class="date">From<input type="date" value=${form.from} max=${form.to} onChange=${(e) => e.target.value && fill({ from: e.target.value })} /></label><label class="date">To<input type="date" value=${form.to} min=${form.from} onChange=${(e) => e.target.value && fill({ to: e.target.value })} /></label>
        <${Buttons} label="Range" names=${Object.fromEntries(RANGES.map(([name], at) => [at, name]))} chosen=${(at) => Number(at) === range} choose=${(at) => fill({ from: RANGES[at][1](), to: today() })} /></div>
      <div class="row"><${Buttons} label="Group by" names=${BY} chosen=${(name) => form.by.includes(name)} choose=${toggle} />
        <label class="narrow">Tag<input value=${tag.slice(4)} onChange=${byTag} placeholder="project" /></label></div>
      <p class="small quiet">Days and hours are UTC's. Hours are kept for some days only (usage.hourly_days), tags where usage.tags names them, and not by the hour.${value?.total.unpriced_tokens ? html` ${number(value.total.unpriced_tokens)} tokens have no known price: <code>prices.models</code> gives them one.` : null}</p>
      <${Note} error=${error || problem} />
    </section>
    <section class="card stack" aria-busy=${String(drawn.value?.asked !== plot)}><div class="head"><h2>${FIGURES[figure]}, each ${each}</h2><div class="row">
        <${Buttons} label="Figure" names=${FIGURES} chosen=${(name) => name === figure} choose=${(name) => fill({ figure: name })} />
        ${tag ? null : html`<${Buttons} label="Each" names=${{ day: "Day", hour: "Hour" }} chosen=${(name) => name === each} choose=${(name) => fill({ each: name, by: form.by.filter((one) => name === "hour" || one !== "hour") })} />`}</div></div>
      <${Note} error=${drawn.error} />
      ${drawn.value ? html`<${Plot} label=${`${FIGURES[figure]}, each ${each}`} x=${x} series=${series} step=${SECONDS[each]} zone="UTC" bars stacked sums whole=${figure !== "cost_usd"} format=${format} height=${260} empty=${figure === "cost_usd" && value?.total.unpriced_tokens ? "No known price: prices.models gives models one" : "No usage in these days"} />` : null}</section>
    <section class="card" aria-busy=${String(value?.asked !== table)}><${Table} key=${`${figure}${ordered}`} label="Usage" columns=${columns} rows=${value?.rows || []} first=${ordered} last=${value?.rows.length ? value.total : null} empty=${value ? "No usage in these days." : "…"} /></section>`;
}
