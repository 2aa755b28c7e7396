import { html, id, useScroll, useState, useLoaded, Note, Table, Badge, fields, moment, number, seconds } from "../lib.js";
import { ask, can, get } from "../api.js";

const KINDS = { closed: "good", half_open: "warn", open: "bad" };
const WORDS = { closed: "healthy", half_open: "half-open", open: "open" };

const State = ({ target }) => html`<${Badge} kind=${KINDS[target.state]}>${WORDS[target.state]}<//>${target.ready_in > 0 ? html` <span class="small quiet">asked again in ${seconds(target.ready_in)}</span>` : null}`;

function Alias({ alias, act, controlled, known }) {
  const rows = alias.tiers.flatMap((tier, at) => tier.targets.map((target) => ({ ...target, tier: at + 1, strategy: tier.strategy })));
  const of = (target) => known[`${target.upstream}/${target.model}`];
  const off = (target) => {
    const found = of(target);
    return [found && found.state !== "enabled" && html` <${Badge} kind="warn">${found.state}<//>`, found?.last_error && html`<br /><span class="small quiet">last error ${found.last_error}, ${moment(found.last_error_at)}</span>`];
  };
  const columns = [
    { title: "Tier", number: true, cell: (t) => t.tier },
    { title: "Target", cell: (t) => `${t.upstream}/${t.model}` },
    { title: "State", cell: (t) => html`<${State} target=${t} />${off(t)}` },
    { title: "In flight", number: true, cell: (t) => t.in_flight },
    { title: "First token", number: true, cell: (t) => seconds(t.first_token) },
    { title: "Weight", number: true, cell: (t) => number(t.weight, 2) },
    { title: "Order", cell: (t) => t.strategy.replaceAll("_", " ") },
    { title: "Price", cell: (t) => (t.priced ? "known" : html`<span class="warn">unknown</span>`) },
  ];
  if (controlled) {
    const verbs = (target) => (of(target)?.state === "enabled" ? ["disable", "drain"] : ["enable"]);
    columns.push({ title: "Control", cell: (t) => html`<div class="actions">${verbs(t).map((verb) => html`<button type="button" onClick=${() => act(t, verb)}>${verb}</button>`)}</div>` });
  }
  const marks = [alias.system && "system prompt", alias.resumable && "resumable", alias.hedge && "hedged", alias.shadow && `shadow ${alias.shadow}`].filter(Boolean);
  return html`<section class="card"><div class="head"><h2>${alias.alias}</h2><span class="actions">${marks.map((mark) => html`<${Badge}>${mark}<//>`)}</span></div>
    <${Table} label=${`Targets of ${alias.alias}`} columns=${columns} rows=${rows} /></section>`;
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
  return html`
    <div class="head"><h1>Providers and aliases</h1><span class="small quiet">as all workers have seen them</span></div>
    <${Note} error=${error || problem} />
    ${value.aliases.map((alias) => html`<${Alias} key=${alias.alias} alias=${alias} act=${act} controlled=${controlled} known=${value.known} />`)}
    <section class="card" id="upstreams"><h2>Upstreams</h2>
      <${Table} label="Upstreams" columns=${[{ title: "Name", cell: (u) => u.upstream }, { title: "Dialect", cell: (u) => u.backend }, { title: "Vendor", cell: (u) => u.vendor || "–" }, { title: "Address", cell: (u) => u.base_url || "–" }, { title: "Probed", cell: (u) => (u.probed ? "yes" : "no") }, { title: "Connections at most", number: true, cell: (u) => number(u.max_connections) }]} rows=${value.upstreams} /></section>
    <${Explain} aliases=${value.aliases} />`;
}
