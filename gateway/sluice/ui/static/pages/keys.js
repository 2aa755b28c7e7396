import { html, id, useState, useLoaded, Note, Table, Badge, Copy, Dialog, fields, costs, dollars, moment } from "../lib.js";
import { ask, can, get, playFor } from "../api.js";

const listed = (text) => text.split(/[\s,]+/).filter(Boolean);

// The form's figures as the configuration writes limits; what is left empty is no limit.
function limitsOf(form) {
  const limits = {};
  for (const name of ["requests", "tokens"]) if (form[name]) limits[name] = { rate: form[name] };
  if (form.streams) limits.streams = Number(form.streams);
  const budget = Object.fromEntries(["day", "month"].filter((name) => form[name]).map((name) => [name, Number(form[name])]));
  if (Object.keys(budget).length) limits.budget = budget;
  return limits;
}

const isSet = (value) => value !== null && value !== undefined && !(Array.isArray(value) && !value.length);

// What of limits is set, and is not a default: what somebody would have written.
function written(limits) {
  return Object.fromEntries(
    Object.entries(limits)
      .filter(([name, value]) => isSet(value) && !(name === "weight" && value === 1))
      .map(([name, value]) => [name, typeof value === "object" && !Array.isArray(value) ? Object.fromEntries(Object.entries(value).filter(([, inner]) => isSet(inner))) : value]),
  );
}

// The rates of one resource; "" for what is limited otherwise.
const rates = (value) => [value].flat().map((limit) => limit.rate).filter(Boolean).join(", ");
// "200000000/day" of tokens: "200,000,000 tokens/day"
const grouped = (text) => text.replace(/^\d+/, (digits) => Number(digits).toLocaleString("en"));
const named = (name, text) => text.split(", ").map((rate) => (name === "money" ? `$${grouped(rate)}` : grouped(rate).replace("/", ` ${name === "requests" ? "calls" : name}/`))).join(", ");

const Limits = ({ limits }) => {
  const set = written(limits);
  const parts = [...Object.entries(set).map(([name, value]) => rates(value) && named(name, rates(value))), set.streams && `${set.streams} at a time`, set.budget && ["day", "week", "month"].filter((p) => set.budget[p]).map((p) => `${dollars(set.budget[p])} a ${p}`).join(", ")].filter(Boolean);
  return parts.length ? parts.join("; ") : html`<span class="quiet">none</span>`;
};

const State = ({ item }) =>
  !item.enabled ? html`<${Badge} kind="bad">disabled<//>` : item.expires && new Date(item.expires) < new Date() ? html`<${Badge} kind="bad">expired<//>` : html`<${Badge} kind="good">enabled<//>`;

const Shown = ({ made }) => html`<div class="stack" role="status"><p>This is the key of <b>${made.id}</b>. It is shown this once: copy it now.</p>
  <div class="secret"><code id="new-key">${made.key}</code><${Copy} text=${made.key} /></div></div>`;

function Make({ onMade }) {
  const [error, fail] = useState(null);
  const submit = async (event) => {
    const form = fields(event);
    const body = { id: form.id, limits: limitsOf(form) };
    if (form.tenant) body.tenant = form.tenant;
    if (form.aliases.trim()) body.aliases = listed(form.aliases);
    if (form.default_alias) body.default_alias = form.default_alias;
    if (form.origins.trim()) body.origins = listed(form.origins);
    if (form.expires) body.expires = new Date(form.expires).toISOString();
    try {
      onMade(await ask("POST", "admin/keys", body));
    } catch (refused) {
      fail(refused);
    }
  };
  return html`<form class="stack" onSubmit=${submit}>
    <div class="row"><label>Id<input name="id" required maxlength="128" autofocus /></label><label>Tenant (else the id)<input name="tenant" maxlength="128" /></label></div>
    <div class="row"><label>Aliases (else all)<input name="aliases" placeholder="chat, code" /></label><label>Default alias<input name="default_alias" /></label></div>
    <div class="row"><label>Calls<input name="requests" placeholder="60/min" /></label><label>Tokens<input name="tokens" placeholder="200000/day" /></label><label>Calls at a time<input name="streams" type="number" min="1" /></label></div>
    <div class="row"><label>Budget a day, US$<input name="day" type="number" min="0" step="any" /></label><label>Budget a month, US$<input name="month" type="number" min="0" step="any" /></label><label>Expires<input name="expires" type="datetime-local" /></label></div>
    <label>Web origins<input name="origins" placeholder="https://shop.example.com" /></label>
    <${Note} error=${error} /><div><button class="main">Make the key</button></div></form>`;
}

function Change({ item, onDone }) {
  const [error, fail] = useState(null);
  const submit = async (event) => {
    const form = fields(event);
    try {
      const body = { aliases: listed(form.aliases), default_alias: form.default_alias || null, origins: listed(form.origins), expires: form.expires || null, limits: JSON.parse(form.limits) };
      onDone(await ask("PATCH", `admin/keys/${id(item.id)}`, body));
    } catch (refused) {
      fail(refused instanceof SyntaxError ? new Error(`Limits are no JSON: ${refused.message}`) : refused);
    }
  };
  return html`<form class="stack" onSubmit=${submit}>
    <div class="row"><label>Aliases<input name="aliases" value=${item.aliases.join(", ")} /></label><label>Default alias<input name="default_alias" value=${item.default_alias || ""} /></label></div>
    <div class="row"><label>Web origins<input name="origins" value=${item.origins.join(", ")} /></label><label>Expires (RFC 3339)<input name="expires" value=${item.expires || ""} /></label></div>
    <label>Limits and budgets (JSON, as in the configuration)<textarea class="code" name="limits" rows="8">${JSON.stringify(written(item.limits), null, 2)}</textarea></label>
    <${Note} error=${error} /><div><button class="main">Change</button></div></form>`;
}

// A short-lived token for a web page, made with the key as its server would.
function Token({ item }) {
  const [error, fail] = useState(null);
  const [made, show] = useState(null);
  const submit = async (event) => {
    const { origin, alias, sessionPrefix, seconds } = fields(event);
    const wanted = { origin, ...(alias ? { alias } : {}), ...(sessionPrefix ? { sessionPrefix, ownSessions: true } : {}), ...(seconds ? { seconds: Number(seconds) } : {}) };
    try {
      show(await playFor(item.id, "/v1/tokens", wanted));
      fail(null);
    } catch (refused) {
      fail(refused);
    }
  };
  return html`<form class="stack" onSubmit=${submit}>
    <p class="small quiet">What POST /v1/tokens gives the server of a page: worth what the key allows, on one origin, until it expires. It cannot be called back alone.</p>
    <div class="row"><label>Origin<select name="origin">${item.origins.map((origin) => html`<option>${origin}</option>`)}</select></label><label>${item.default_alias ? `Alias (else ${item.default_alias})` : "Alias"}<input name="alias" required=${!item.default_alias} /></label></div>
    <div class="row"><label>Session prefix (else a random one)<input name="sessionPrefix" placeholder="visitor-17:" /></label><label class="narrow">Seconds<input name="seconds" type="number" min="1" placeholder="300" /></label></div>
    <${Note} error=${error} />
    ${made ? html`<div class="stack" role="status"><div class="secret"><code id="new-token">${made.token}</code><${Copy} text=${made.token} /></div><p class="small quiet">Until ${moment(made.expiresAt)}.</p></div>` : null}
    <div><button class="main">Make a token</button></div></form>`;
}

function Sure({ item, verb, onDone }) {
  const [error, fail] = useState(null);
  const submit = async (event) => {
    const { overlap } = fields(event);
    const path = `admin/keys/${id(item.id)}`;
    try {
      onDone(verb === "delete" ? await ask("DELETE", path) : await ask("POST", `${path}/rotate`, overlap ? { overlap } : {}));
    } catch (refused) {
      fail(refused);
    }
  };
  return html`<form class="stack" onSubmit=${submit}>
    ${verb === "delete" ? html`<p>The key <b>${item.id}</b> and its browser tokens end at once. Its usage stays.</p>` : html`<label>For how long the old key goes on working<input name="overlap" placeholder="10m" /></label>`}
    <${Note} error=${error} /><div><button class=${verb === "delete" ? "danger" : "main"}>${verb === "delete" ? "Delete" : "Rotate"}</button></div></form>`;
}

const OWNERS = [
  { title: "Whose", line: true, cell: (o) => (o.tenant ? `tenant ${o.tenant}` : `team ${o.team}`) },
  { title: "Part of", line: true, cell: (o) => ((o.tenant ? o.team : o.parent) ? `team ${o.tenant ? o.team : o.parent}` : "–") },
  { title: "Limits of all its keys together", line: true, cell: (o) => html`<${Limits} limits=${o.limits} />` },
];

// What stands right before this id in the order of ids, which are of characters below "~".
const before = (text) => (text ? `${text.slice(0, -1)}${String.fromCharCode(text.charCodeAt(text.length - 1) - 1)}~` : "");

function Budgets() {
  const { value, error } = useLoaded(() => get("admin/budgets?limit=200"), [], 10_000);
  const budgets = value?.budgets || [];
  return html`<section class="card"><h2>Budgets</h2><${Note} error=${error} />
    <${Table} label="Budgets" empty="Nobody has a budget." columns=${[{ title: "Whose", wide: true, cell: (b) => `${b.scope} ${b.owner}` }, { title: "Period", line: true, cell: (b) => b.name }, { title: "Limit", number: true, cell: (b) => dollars(b.limit_usd) }, { title: "Spent", number: true, cell: (b) => costs(b.spent_usd) }, { title: "Left", number: true, cell: (b) => html`<span class=${b.left_usd <= 0 ? "bad" : ""}>${costs(b.left_usd)}</span>` }, { title: "Share", cell: (b) => html`<meter min="0" max="1" low="0.8" high="0.95" optimum="0" value=${b.limit_usd > 0 ? b.spent_usd / b.limit_usd : 1} aria-label=${`Spent of the budget of ${b.scope} ${b.owner}`}></meter>` }, { title: "Ends", line: true, cell: (b) => moment(b.ends) }]} rows=${budgets} />
    ${value?.next ? html`<p class="small quiet">The first 200 whose budgets these are; <code>GET /admin/budgets</code> has all.</p>` : null}</section>`;
}

export function Keys() {
  const [pages, turn] = useState([""]);
  const after = pages[pages.length - 1];
  const { value, error, reload } = useLoaded(() => get(`admin/keys?limit=100${after ? `&after=${id(after)}` : ""}`), [after]);
  const tenants = useLoaded(() => get("admin/tenants"), []);
  const [open, show] = useState(null);
  const [problem, fail] = useState(null);
  const done = (made) => {
    show(made?.key ? { what: "shown", made } : null);
    reload();
  };
  const able = async (item) => {
    try {
      await ask("POST", `admin/keys/${id(item.id)}/${item.enabled ? "disable" : "enable"}`);
      fail(null);
    } catch (refused) {
      fail(refused);
    }
    reload();
  };
  const act = (what, item) => () => show({ what, item });
  const changes = can("POST /admin/keys");
  const token = (item) => (can("POST /ui/play/") && item.enabled && item.origins.length ? html`<button type="button" onClick=${act("token", item)}>Token</button>` : null);
  const actions = (item) =>
    !changes
      ? null
      : item.source === "config"
      ? html`<div class="actions"><span class="quiet small nowrap">in the file</span>${token(item)}</div>`
      : html`<div class="actions wraps">${token(item)}<button type="button" onClick=${act("change", item)}>Change</button><button type="button" onClick=${act("rotate", item)}>Rotate</button><button type="button" onClick=${() => able(item)}>${item.enabled ? "Disable" : "Enable"}</button><button type="button" class="danger" onClick=${act("delete", item)}>Delete</button></div>`;
  const columns = [
    { title: "Id", cell: (k) => html`<b>${k.id}</b>${k.last_four ? html`<br /><span class="quiet small">…${k.last_four}</span>` : null}` },
    { title: "Tenant", cell: (k) => k.tenant },
    { title: "State", cell: (k) => html`<${State} item=${k} />` },
    { title: "Aliases", cell: (k) => (k.aliases.includes("*") ? html`<span class="quiet">all</span>` : k.aliases.join(", ")) },
    { title: "Limits", wide: true, cell: (k) => html`<${Limits} limits=${k.limits} />` },
    { title: "Expires", cell: (k) => (k.expires ? moment(k.expires) : "never") },
    ...(changes ? [{ title: "Change", cell: actions }] : []),
  ];
  const titles = { make: "A new key", shown: "The new key", change: `Change ${open?.item?.id}`, rotate: `Rotate ${open?.item?.id}`, delete: `Delete ${open?.item?.id}?`, token: `A browser token of ${open?.item?.id}` };
  return html`
    <div class="head"><h1>Keys and tenants</h1>${changes ? html`<button class="main" type="button" onClick=${() => show({ what: "make" })}>Make a key</button>` : null}</div>
    <${Note} error=${error || problem} />
    <section class="card stack"><${Table} label="Keys" columns=${columns} rows=${value?.keys || []} />
      <div class="row">${pages.length > 1 || value?.next ? html`<button type="button" disabled=${pages.length < 2} onClick=${() => turn(pages.slice(0, -1))}>Back</button><button type="button" disabled=${!value?.next} onClick=${() => turn([...pages, value.next])}>Further</button><label class="row">From the id<input class="narrow" placeholder="team-7" onChange=${(event) => turn(["", before(event.target.value.trim())])} /></label>` : null}<span class="quiet small">${value ? `${value.total} in all` : ""}</span></div></section>
    <${Budgets} />
    <section class="card"><h2>Tenants and teams</h2><${Note} error=${tenants.error} /><${Table} label="Tenants and teams" empty="No tenant or team has limits of its own: they stand in the configuration, under tenants and teams." columns=${OWNERS} rows=${[...(tenants.value?.tenants || []), ...(tenants.value?.teams || [])]} /></section>
    ${open ? html`<${Dialog} key=${open.what} title=${titles[open.what]} onClose=${() => show(null)}>
      ${open.what === "make" ? html`<${Make} onMade=${done} />` : open.what === "shown" ? html`<${Shown} made=${open.made} />` : open.what === "token" ? html`<${Token} item=${open.item} />` : open.what === "change" ? html`<${Change} item=${open.item} onDone=${done} />` : html`<${Sure} item=${open.item} verb=${open.what} onDone=${done} />`}
    <//>` : null}`;
}
