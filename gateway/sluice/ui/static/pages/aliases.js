import { html, id, useScroll, useState, useLoaded, Note, Table, Badge, clock, fields, number, seconds, share } from "../lib.js";
import { ask, can, get } from "../api.js";

const MOST = 25;
const WINDOW = 5; // minutes that shares are about
const targetsOf = (alias) => alias.tiers.flatMap((tier) => tier.targets);
const named = (alias, words) => [alias.alias, ...targetsOf(alias).map((one) => `${one.upstream}/${one.model}`)].some((name) => name.toLowerCase().includes(words));
const KINDS = { closed: "good", half_open: "warn", open: "bad" };
const WORDS = { closed: "healthy", half_open: "half-open", open: "open" };

const State = ({ target }) => html`<${Badge} kind=${KINDS[target.state]}>${WORDS[target.state]}<//>${target.ready_in > 0 ? html` <span class="small quiet">asked again in ${seconds(target.ready_in)}</span>` : null}`;

// All targets of these aliases, an alias after the other.
function Targets({ aliases, act, controlled, known, empty }) {
  const rows = aliases.flatMap((alias) => alias.tiers.flatMap((tier, at) => tier.targets.map((target) => ({ ...target, tier: at + 1, strategy: tier.strategy, alias })))).map((row, at, all) => ({ ...row, begins: row.alias !== all[at - 1]?.alias }));
  const of = (target) => known[`${target.upstream}/${target.model}`];
  const off = (target) => {
    const found = of(target);
    return [found && found.state !== "enabled" && html` <${Badge} kind="warn">${found.state}<//>`, found?.last_error && html`<br /><span class="small quiet">last error ${found.last_error}, ${clock(found.last_error_at)}</span>`];
  };
  // of the alias's calls that ended well, those that this target answered
  const part = ({ alias, answered }) => {
    const all = targetsOf(alias).reduce((sum, one) => sum + one.answered, 0);
    return all ? html`<span title=${`${number(answered)} of ${number(all)} calls in ${WINDOW} minutes`}>${share(answered, all)}</span>` : "–";
  };
  const marks = ({ alias }) => [alias.system && "system prompt", alias.resumable && "resumable", alias.hedge && "hedged", alias.shadow && `shadow ${alias.shadow}`].filter(Boolean);
  const columns = [
    { title: "Alias", wide: true, cell: (t) => (t.begins ? html`<b>${t.alias.alias}</b>${marks(t).map((mark) => html`<br /><span class="small quiet">${mark}</span>`)}` : null) },
    { title: "Tier", cell: (t) => html`${t.tier}<br /><span class="small quiet">${t.strategy.replaceAll("_", " ")}</span>` },
    { title: "Target", wide: true, cell: (t) => html`${t.upstream}/${t.model}${t.priced ? null : html`<br /><span class="small warn">price unknown</span>`}` },
    { title: "State", wide: true, cell: (t) => html`<${State} target=${t} />${off(t)}` },
    { title: "In flight", number: true, cell: (t) => number(t.in_flight) },
    { title: "First token", number: true, cell: (t) => seconds(t.first_token) },
    { title: "Weight", number: true, cell: (t) => number(t.weight, 2) },
    { title: "Share", number: true, cell: part },
  ];
  if (controlled) {
    const verbs = (target) => (of(target)?.state === "enabled" ? ["disable", "drain"] : ["enable"]);
    columns.push({ title: "Control", cell: (t) => html`<div class="actions wraps">${verbs(t).map((verb) => html`<button type="button" aria-label=${`${verb} ${t.upstream}/${t.model}`} onClick=${() => act(t, verb)}>${verb}</button>`)}</div>` });
  }
  return html`<${Table} label="Targets of aliases" columns=${columns} rows=${rows} empty=${empty} />`;
}

function Explain({ aliases }) {
  const [found, set] = useState({});
  const submit = async (event) => {
    const { alias, request } = fields(event);
    try {
      const body = { alias, ...(request.trim() ? { request: JSON.parse(request) } : {}) };
      set({ lines: (await ask("POST", "admin/explain", body)).lines });
    } catch (error) {
      set({ error: error instanceof SyntaxError ? new Error(`The request is no JSON: ${error.message}`) : error });
    }
  };
  return html`<section class="card stack"><h2>Explain a request</h2>
    <form class="stack" onSubmit=${submit}>
      <div class="row"><label>Alias<select name="alias">${aliases.map((alias) => html`<option>${alias.alias}</option>`)}</select></label><button class="main">Explain</button></div>
      <label>Request (JSON, optional)<textarea class="code" name="request" rows="4" placeholder='{"messages": [{"role": "user", "content": "Hello"}]}'></textarea></label>
    </form>
    <${Note} error=${found.error} />
    ${found.lines ? html`<pre class="wrap">${found.lines.join("\n")}</pre>` : null}
  </section>`;
}

// What all workers know of targets, and whether operators have switched them off.
async function known() {
  if (!can("GET /admin/targets")) return {};
  return Object.fromEntries((await get("admin/targets")).targets.map((target) => [`${target.upstream}/${target.model}`, target]));
}

export function Aliases({ rest }) {
  const { value, error, reload } = useLoaded(async () => ({ ...(await get("admin/aliases")), known: await known() }), [], 3000);
  const [problem, fail] = useState(null);
  const [words, find] = useState("");
  const [ill, only] = useState(false);
  const [most, show] = useState(MOST);
  useScroll(rest, Boolean(value));
  const act = async (target, verb) => {
    try {
      await ask("POST", `admin/targets/${id(target.upstream)}/${target.model.split("/").map(id).join("/")}/${verb}`);
      fail(null);
      reload();
    } catch (refused) {
      fail(refused);
    }
  };
  if (!value) return html`<h1>Providers and aliases</h1><${Note} error=${error} />`;
  const controlled = can("POST /admin/targets/");
  const unwell = (one) => one.state !== "closed" || (value.known[`${one.upstream}/${one.model}`]?.state ?? "enabled") !== "enabled";
  const found = value.aliases.filter((alias) => named(alias, words.toLowerCase()) && (!ill || targetsOf(alias).some(unwell)));
  return html`
    <div class="head"><h1>Providers and aliases</h1><span class="small quiet">as all workers have seen them</span></div>
    <${Note} error=${error || problem} />
    <section class="card stack"><div class="row"><label>Find an alias or a target<input type="search" value=${words} onInput=${(e) => (find(e.target.value.trim()), show(MOST))} /></label><label class="check"><input type="checkbox" checked=${ill} onChange=${(e) => only(e.target.checked)} />Only where a target gets no calls</label></div>
      <${Targets} aliases=${found.slice(0, most)} act=${act} controlled=${controlled} known=${value.known} empty=${value.aliases.length ? "No alias or target matches." : "There is no alias (aliases, in the configuration)."} />
      <div class="row"><span class="small quiet">${number(Math.min(most, found.length))} of ${found.length === value.aliases.length ? "" : `${number(found.length)} found, of `}${number(value.aliases.length)} ${value.aliases.length === 1 ? "alias" : "aliases"}</span>${found.length > most ? html`<button type="button" onClick=${() => show(most + 4 * MOST)}>Show more</button>` : null}</div></section>
    <${Explain} aliases=${value.aliases} />
    <section class="card" id="upstreams"><h2>Upstreams</h2>
      <${Table} label="Upstreams" columns=${[{ title: "Name", cell: (u) => u.upstream }, { title: "Dialect", cell: (u) => u.backend }, { title: "Vendor", cell: (u) => u.vendor || "–" }, { title: "Address", wide: true, cell: (u) => u.base_url || "–" }, { title: "Probed", cell: (u) => (u.probed ? "yes" : "no") }, { title: "Connections at most", number: true, cell: (u) => number(u.max_connections) }]} rows=${value.upstreams} /></section>`;
}
