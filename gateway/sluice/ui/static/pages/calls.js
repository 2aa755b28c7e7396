import { html, useState, useLoaded, Note, Table, Badge, Dialog, asked, bytes, id, costs, dollars, number, seconds, clock, moment } from "../lib.js";
import { can, get } from "../api.js";

// [name, title, what the field says where it is empty]
const FILTERS = [
  ["alias", "Alias", "any"],
  ["key", "Key", "any"],
  ["target", "Target", "upstream/model"],
  ["frontend", "Dialect", "openai"],
  ["status", "Status", "429 or 4xx"],
  ["end", "End", "done"],
  ["error", "Error", "* for any"],
  ["request_id", "Request id", "any"],
];
const HIDDEN = { retried: "with more than one attempt", ttft: "with a first token", tokens_out: "with known tokens" };
const speed = (call) => (call.stream && call.tokens_out && call.ttft && call.duration > call.ttft ? call.tokens_out / (call.duration - call.ttft) : null);
const tokens = (call) => (call.tokens_in === undefined || call.tokens_in === null ? "–" : `${number(call.tokens_in)} / ${number(call.tokens_out)}${call.estimated ? " ≈" : ""}`);

const End = ({ call }) => (call.error ? html`<${Badge} kind="bad">${call.error}<//>` : html`<${Badge} kind=${call.end === "done" ? "good" : "warn"}>${call.end}<//>`);

const NO_CONTENT = {
  none: "None are kept of this call: log.content is none, or the log_content of its alias or key.",
  forgotten: "They are forgotten: each worker keeps those of its newest 100 calls with texts, 8 MiB at most.",
};
const Digest = ({ name, of }) => html`<p class="small">${name}: ${number(of.chars)} characters, <code>${of.digest}</code></p>`;
const Text = ({ name, who, text }) => html`<div class=${`turn ${who}`}><span class="small quiet">${name}</span><br />${text || html`<span class="quiet">no text</span>`}</div>`;

function Texts({ call }) {
  const { value, error } = useLoaded(() => get(`admin/calls?content=true&request_id=${id(call.request_id)}`), [call.request_id, call.number, call.worker]);
  if (!value) return error ? html`<${Note} error=${error} />` : html`<p class="quiet small">…</p>`;
  const found = value.calls.find((one) => one.number === call.number && one.worker === call.worker);
  if (!found?.content) return html`<p class="quiet small">${NO_CONTENT[found?.no_content] || "The call is no longer remembered, or its worker has not answered."}</p>`;
  const { prompt, answer } = found.content;
  if (prompt.digest) return html`<${Digest} name="Prompt" of=${prompt} /><${Digest} name="Answer" of=${answer} />`;
  return html`<div class="stack">${prompt.messages.map((one) => html`<${Text} name=${one.role} who=${one.role} text=${one.content} />`)}
    <${Text} name="answer" who="assistant" text=${answer.text} />
    <p class="quiet small">${number(prompt.chars)} characters were asked, ${number(answer.chars)} answered. Of long ones the prompt's end and the answer's beginning are kept; what looks like a key is masked.</p></div>`;
}

// The texts are asked for when they are unfolded, for the log says who has read some.
function Folded({ call }) {
  const [open, show] = useState(false);
  if (!can("GET /v1/admin/conversations")) return html`<p class="quiet small">Texts of calls are shown to operators only.</p>`;
  if (!call.alias) return html`<p class="quiet small">No texts: it did not become a call of an alias, or the call went on without its client and has a line of its own.</p>`;
  return html`<details onToggle=${(e) => show(e.target.open)}><summary>Its texts</summary>${open ? html`<${Texts} call=${call} />` : null}</details>`;
}

// What is known of one call: what it asked for, its attempts in order, how it ended and what it took.
function Story({ call }) {
  // a single one lasted from the end of the waits to the end of the call, and has its cost
  const alone = call.attempts?.length === 1;
  const attempts = (call.attempts || []).map((text, at) => ({ at: at + 1, text, times: call.attempt_times?.[at] || (alone ? [call.waited || 0, call.duration - (call.waited || 0)] : [null, null]), cost: alone ? call.cost_usd : call.attempt_costs?.[at] }));
  const times = [{ title: "Began after", number: true, cell: (a) => seconds(a.times[0]) }, { title: "Lasted", number: true, cell: (a) => seconds(a.times[1]) }];
  const facts = [
    ["Ended", moment(call.at)],
    ["By", `${call.key || "nobody"}${call.address ? `, from ${call.address}` : ""}`],
    ["Route", `${call.route}${call.frontend ? ` (${call.frontend})` : ""}`],
    ["Alias", call.alias && `${call.alias}${call.model && call.model !== call.alias ? `, called ${call.model}` : ""}`],
    ["Answered by", call.target && `${call.target}${call.pod ? ` on ${call.pod}` : ""}`],
    ["Status", call.status],
    ["End", html`<${End} call=${call} />${call.error ? ` ${call.end}` : ""}`],
    ["Why", [call.reason, call.detail, call.upstream_status && `the upstream answered ${call.upstream_status}`, call.scope && `limit of ${call.resource} of the ${call.scope.replace("_", " ")}`].filter(Boolean).join("; ")],
    ["Waited", call.waited && `${seconds(call.waited)} before a target was asked`],
    ["First token", call.ttft !== null && call.ttft !== undefined && seconds(call.ttft)],
    ["Last byte", call.last_byte !== undefined && seconds(call.last_byte)],
    ["Total", seconds(call.duration)],
    ["Bytes in / out", call.bytes_in !== undefined && `${bytes(call.bytes_in)} / ${bytes(call.bytes_out)}`],
    ["Tokens in / out", tokens(call) !== "–" && `${tokens(call)}${speed(call) ? `, ${number(speed(call), 1)} a second` : ""}${call.estimated ? " (estimated)" : ""}`],
    ["Cost", call.cost_usd !== null && call.cost_usd !== undefined && dollars(call.cost_usd)],
    ["Trace", call.trace_id],
    ["Worker", call.worker],
  ].filter(([, value]) => value);
  return html`<dl class="facts">${facts.map(([name, value]) => html`<dt>${name}</dt><dd>${value}</dd>`)}</dl>
    ${attempts.length ? html`<${Table} label="Attempts" columns=${[{ title: "Attempt", number: true, cell: (a) => a.at }, { title: "Target and outcome", wide: true, cell: (a) => a.text }, ...times, { title: "Cost", number: true, cell: (a) => dollars(a.cost) }]} rows=${attempts} />` : html`<p class="quiet small">No target was asked.</p>`}
    <${Folded} call=${call} />
    <details><summary>All fields of its log line</summary><pre class="wrap" tabindex="0">${JSON.stringify(call, null, 2)}</pre></details>`;
}

const tries = (call) => (call.attempts || []).length;

const COLUMNS = [
  { title: "Alias", clip: (c) => c.alias, cell: (c) => c.alias || "–" },
  { title: "Target", clip: (c) => `${c.target || ""}${tries(c) > 1 ? `, ${tries(c)} attempts` : ""}`, cell: (c) => html`${tries(c) > 1 ? html`<span class="warn">${tries(c)} attempts · </span>` : null}${c.target || "–"}` },
  { title: "Key", clip: (c) => c.key, cell: (c) => c.key || "–" },
  { title: "End", cell: (c) => html`<span class="nowrap"><${End} call=${c} /> <span class="small quiet">${c.status ?? ""}</span></span>` },
  { title: "First token", number: true, sort: (c) => c.ttft ?? -1, cell: (c) => seconds(c.ttft) },
  { title: "Total", number: true, sort: (c) => c.duration ?? -1, cell: (c) => seconds(c.duration) },
  { title: "Tokens in / out", number: true, sort: (c) => c.tokens_out || -1, cell: tokens },
  { title: "Tokens/s", number: true, sort: (c) => speed(c) ?? -1, cell: (c) => number(speed(c), 1, 1) },
  { title: "Cost", number: true, sort: (c) => c.cost_usd ?? -1, cell: (c) => costs(c.cost_usd) },
];

export function Calls({ rest }) {
  const filter = asked(rest);
  const [live, follow] = useState(true);
  const [open, show] = useState(null);
  const [pages, turn] = useState([""]);
  const before = pages[pages.length - 1];
  const minutes = Number(filter.minutes) || 0;
  const query = Object.entries(filter).filter(([name, value]) => value && name !== "minutes").map(([name, value]) => `&${id(name)}=${id(value)}`).join("");
  const since = () => (minutes ? `&since=${Math.floor(Date.now() / 1000 - 60 * minutes)}` : "");
  const { value, error } = useLoaded(() => get(`admin/calls?limit=50${before ? `&before=${before}` : ""}${query}${since()}`), [query, minutes, before], live && !before ? 2000 : 0);
  const narrow = (changes) => {
    turn([""]);
    location.hash = `#calls/${new URLSearchParams(Object.entries({ ...filter, ...changes }).filter(([, one]) => one))}`;
  };
  const columns = [{ title: "When", cell: (c) => html`<button type="button" class="link" onClick=${() => show(c)}>${clock(c.at)}</button>` }, ...COLUMNS];
  const marks = [minutes && ["minutes", `of the last ${minutes} minutes`], ...Object.entries(HIDDEN).filter(([name]) => filter[name])].filter(Boolean);
  return html`
    <div class="head"><h1>Calls</h1><label class="check"><input type="checkbox" checked=${live} onChange=${(e) => follow(e.target.checked)} />Live</label></div>
    <section class="card stack"><div class="filters">${FILTERS.map(([name, title, hint]) => html`<label>${title}<input value=${filter[name] || ""} onChange=${(e) => narrow({ [name]: e.target.value.trim() })} placeholder=${hint} /></label>`)}</div>
      ${Object.keys(filter).length ? html`<div class="tabs">${marks.map(([name, text]) => html`<button type="button" onClick=${() => narrow({ [name]: "" })} aria-label=${`Not only those ${text}`}>${text} ✕</button>`)}<button type="button" onClick=${() => (location.hash = "#calls")}>All calls</button></div>` : null}
      <${Note} error=${error} /></section>
    <section class="card stack dense"><${Table} label="Calls" columns=${columns} rows=${value?.calls || []} empty=${value ? (Object.keys(filter).length ? "No remembered call matches." : "No calls since the start. The playground makes one.") : "…"} />
      <div class="row"><button type="button" disabled=${pages.length < 2} onClick=${() => turn(pages.slice(0, -1))}>Newer</button><button type="button" disabled=${!value?.next} onClick=${() => turn([...pages, value.next])}>Older</button><span class="small quiet">${value ? `${number(value.kept)} are remembered; the oldest are forgotten first${value.missing_workers.length ? `. Not answered: worker ${value.missing_workers.join(", ")}` : ""}.` : ""}</span></div></section>
    ${open ? html`<${Dialog} title=${`Call ${open.request_id}`} onClose=${() => show(null)}><${Story} call=${open} /><//>` : null}`;
}
