import { html, useEffect, useMemo, useRef, useState, useLoaded, Note, Copy, Table, number, seconds } from "../lib.js";
import { get, play } from "../api.js";
import { DIALECTS, reader, snippets } from "../dialects.js";

const RAW_MOST = 400_000;
const IMAGES = 4;
const IMAGE_MOST = 5_000_000;
const SHOWN_HEADERS = ["x-request-id", "x-sluice-target", "x-sluice-attempts", "x-sluice-cost-usd", "retry-after", "x-ratelimit-remaining-requests", "x-ratelimit-remaining-tokens"];
const TOOLS = JSON.stringify([{ name: "get_weather", description: "The weather of a city", parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] } }], null, 2);

// Sends the call, and tells `seen` what has come so far, a frame of the screen at a time.
async function run(dialect, asked, { key, only, signal }, seen) {
  const begun = performance.now();
  const found = { text: "", reasoning: "", tools: new Map(), raw: "", tokens: null, status: 0, headers: [], pieces: 0, first: null, last: null, error: null };
  let due = 0;
  const tell = () => {
    due ||= requestAnimationFrame(() => {
      due = 0;
      seen({ ...found });
    });
  };
  const add = (part) => {
    if (part.error) found.error = part.error;
    if (part.tokens) found.tokens = part.tokens;
    if (!part.text && !part.reasoning && !part.tools?.length) return;
    found.first ??= performance.now() - begun;
    found.last = performance.now() - begun;
    found.pieces += 1;
    found.text += part.text || "";
    found.reasoning += part.reasoning || "";
    for (const { at, name, text } of part.tools || []) {
      const call = found.tools.get(at) || { name: "", text: "" };
      found.tools.set(at, { name: call.name || name, text: call.text + text });
    }
  };
  try {
    await follow(dialect, asked, { key, only, signal }, found, { add, tell });
  } catch (broken) {
    found.error = broken.name === "AbortError" ? "cancelled" : `The connection was lost: ${broken.message}`;
  } finally {
    cancelAnimationFrame(due); // it would tell less than what is told now
    found.total = performance.now() - begun;
    seen({ ...found, over: true });
  }
  return found;
}

async function follow(dialect, asked, { key, only, signal }, found, { add, tell }) {
  const spoken = DIALECTS[dialect];
  const headers = { ...(spoken.headers || {}), ...(only ? { "x-sluice-only": only } : {}) };
  const answer = await play(spoken.path(asked), key, headers, spoken.body(asked), signal);
  found.status = answer.status;
  found.headers = SHOWN_HEADERS.filter((name) => answer.headers.has(name)).map((name) => [name, answer.headers.get(name)]);
  const streamed = asked.stream && answer.ok;
  const take = reader();
  const pieces = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  for (;;) {
    const { value, done } = await pieces.read();
    if (done) break;
    if (found.raw.length < RAW_MOST) found.raw += value;
    if (streamed) take(value).map(spoken.read).forEach(add);
    tell();
  }
  if (streamed) take("\n").map(spoken.read).forEach(add);
  else {
    try {
      add(spoken.whole(JSON.parse(found.raw)));
    } catch {
      found.error ??= `The answer (${answer.status}) is no JSON`;
    }
  }
}

const Figures = ({ found, streamed }) => {
  const streaming = found.first !== null && found.last > found.first;
  const tokens = found.tokens ?? (streamed ? found.pieces : null);
  const speed = streaming && tokens > 1 ? ((tokens - 1) / (found.last - found.first)) * 1000 : null;
  const shown = [["Status", found.status || "…"], ["First token", found.first === null ? "–" : seconds(found.first / 1000)], ["Tokens", `${number(tokens)}${found.tokens === null && tokens ? " (pieces)" : ""}`], ["Tokens/s", number(speed, 1)], ["Total", found.total ? seconds(found.total / 1000) : "…"]];
  return html`<div class="tiles small">${shown.map(([name, value]) => html`<div class="tile"><span class="quiet">${name}</span><b>${value}</b></div>`)}</div>`;
};

// One answer; two of them stand side by side.
function Answer({ title, found, running, streamed, first }) {
  const tools = found ? [...found.tools.values()] : [];
  return html`<section class="card stack answers" aria-live="polite" aria-busy=${running}>
    <h2>${title}</h2>
    <${Note} error=${found?.error && new Error(found.error)} />
    ${found?.reasoning ? html`<details open=${!found.text}><summary class="quiet">Reasoning</summary><div class="answer small quiet">${found.reasoning}</div></details>` : null}
    <div class="answer" id=${first ? "answer" : undefined}>${found?.text || html`<span class="quiet">${running ? "…" : found ? (tools.length ? "" : "No text.") : "Nothing sent yet."}</span>`}</div>
    ${tools.map((call) => html`<div class="stack tool"><span class="small quiet">calls the tool <b>${call.name}</b></span><pre class="wrap" tabindex="0">${call.text}</pre></div>`)}
    ${found ? html`<${Figures} found=${found} streamed=${streamed} />
      <details><summary>Raw answer and headers</summary><div class="stack">
        <${Table} label=${`Headers of ${title}`} columns=${[{ title: "Header", cell: (r) => r[0] }, { title: "Value", cell: (r) => r[1] }]} rows=${found.headers} />
        <pre class="wrap raw" id=${first ? "raw" : undefined} tabindex="0">${found.raw}${found.raw.length >= RAW_MOST ? "\n… (more has come than is kept here)" : ""}</pre></div></details>` : null}
  </section>`;
}

// What may answer: the alias as callers have it, or one of its targets alone.
function Which({ label, aliases, chosen, choose }) {
  const targets = aliases.find((one) => one.alias === chosen.model)?.targets || [];
  return html`<div class="row"><label>${`Alias${label}`}<select value=${chosen.model} onChange=${(e) => choose({ model: e.target.value, only: "" })}>${aliases.map((one) => html`<option>${one.alias}</option>`)}</select></label>
    <label>${`Target${label}`}<select value=${chosen.only} onChange=${(e) => choose({ ...chosen, only: e.target.value })}><option value="">as the alias routes</option>${targets.map((one) => html`<option>${one}</option>`)}</select></label></div>`;
}

const imageOf = (file) =>
  new Promise((done, fail) => {
    const reading = new FileReader();
    reading.onload = () => done({ name: file.name, type: file.type, data: reading.result.slice(reading.result.indexOf(",") + 1) });
    reading.onerror = () => fail(new Error(`${file.name} cannot be read`));
    reading.readAsDataURL(file);
  });

const loaded = async () => {
  const [found, keys, overview] = await Promise.all([get("admin/aliases"), get("admin/keys?limit=200"), get("admin/overview")]);
  const aliases = found.aliases.filter((one) => !one.alias.endsWith("*")).map((one) => ({ alias: one.alias, targets: one.tiers.flatMap((tier) => tier.targets.map((target) => `${target.upstream}/${target.model}`)) }));
  return { aliases, keys: keys.keys.filter((one) => one.enabled), overview };
};
const usable = (keys, names) => keys.filter((one) => names.every((name) => one.aliases.includes("*") || one.aliases.includes(name)));

export function Playground() {
  const { value, error } = useLoaded(loaded, []);
  const [dialect, speak] = useState("openai chat");
  const [form, fill] = useState({ key: "", system: "", message: "Tell me something that takes a while to say.", most: "", stream: true, keep: false, tools: "", images: [] });
  const [chosen, choose] = useState([null]);
  const [history, remember] = useState([]);
  const [found, see] = useState([]);
  const [problem, fail] = useState(null);
  const [running, run_] = useState(false);
  const [language, show] = useState("curl");
  const stop = useRef(null);
  const session = useMemo(() => `playground-${crypto.randomUUID?.() || Math.random().toString(36).slice(2)}`, []);
  useEffect(() => () => stop.current?.abort(), []);
  if (!value) return html`<h1>Playground</h1><${Note} error=${error} />`;
  const { aliases, overview } = value;
  if (!aliases.length) return html`<h1>Playground</h1><${Note}>There is no alias to talk to (aliases, in the configuration).<//>`;
  const dialects = Object.keys(DIALECTS).filter((name) => overview.frontends.includes(DIALECTS[name].frontend));
  const spoken = dialects.includes(dialect) ? dialect : dialects[0];
  if (!spoken) return html`<h1>Playground</h1><${Note}>None of the dialects that this page speaks is served (server.frontends).<//>`;
  const plain = DIALECTS[spoken].plain;
  const set = (name) => (event) => fill({ ...form, [name]: event.target.type === "checkbox" ? event.target.checked : event.target.value });
  const which = chosen.map((one, at) => one || { model: aliases[Math.min(at, aliases.length - 1)].alias, only: "" });
  const two = which.length > 1;
  const keys = usable(value.keys, which.map((one) => one.model));
  const key = keys.some((one) => one.id === form.key) ? form.key : keys[0]?.id;
  let tools = [];
  let wrong = null;
  try {
    tools = form.tools.trim() && !plain ? JSON.parse(form.tools) : [];
    if (!Array.isArray(tools)) throw new Error("expected a list");
  } catch (broken) {
    tools = [];
    wrong = new Error(`Tools are no JSON list: ${broken.message}`);
  }
  const asked = (at) => ({ ...form, tools, images: plain ? [] : form.images, model: which[at].model, session: `${session}${two ? `-${at}` : ""}`, most: Number(form.most) || 0, history: form.keep && !two ? history : [] });
  const [host, port] = [location.hostname, overview.listen.split(":").pop()];
  const code = snippets(spoken, asked(0), `${location.protocol}//${host}:${port}`);
  const images = async (event) => {
    const files = [...event.target.files];
    try {
      if (files.length > IMAGES || files.some((file) => file.size > IMAGE_MOST)) throw new Error(`At most ${IMAGES} images of ${IMAGE_MOST / 1e6} MB`);
      fill({ ...form, images: await Promise.all(files.map(imageOf)) });
      fail(null);
    } catch (refused) {
      event.target.value = "";
      fail(refused);
    }
  };
  const submit = async (event) => {
    event.preventDefault();
    if (wrong) return fail(wrong);
    stop.current = new AbortController();
    fail(null);
    see([]);
    run_(true);
    const one = (at) => run(spoken, asked(at), { key, only: which[at].only, signal: stop.current.signal }, (state) => see((all) => which.map((_, n) => (n === at ? state : all[n]))));
    const [last] = await Promise.all(which.map((_, at) => one(at)));
    if (form.keep && !two && last.text) remember([...history, { role: "user", content: form.message }, { role: "assistant", content: last.text }]);
    run_(false);
  };
  const titles = which.map((one) => (two ? `${one.model}${one.only ? `: ${one.only}` : ""}` : "Answer"));
  const answers = which.map((_, at) => html`<${Answer} key=${at} title=${titles[at]} found=${found[at]} running=${running} streamed=${form.stream} first=${at === 0} />`);
  return html`<h1>Playground</h1>
    <div class=${two ? "stack" : "two"}>
      <form class="card stack" onSubmit=${submit}>
        <${Which} label=${two ? ", left" : ""} aliases=${aliases} chosen=${which[0]} choose=${(next) => choose([next, ...which.slice(1)])} />
        ${two ? html`<${Which} label=", right" aliases=${aliases} chosen=${which[1]} choose=${(next) => choose([which[0], next])} />` : null}
        <div class="row">
          <label>Dialect<select value=${spoken} onChange=${(event) => speak(event.target.value)}>${dialects.map((name) => html`<option value=${name}>${DIALECTS[name].title}</option>`)}</select></label>
          <label>In the name of<select value=${key} onChange=${set("key")}>${keys.map((one) => html`<option>${one.id}</option>`)}</select></label>
        </div>
        ${plain ? null : html`<label>System prompt<input value=${form.system} onInput=${set("system")} /></label>`}
        <label>Message<textarea rows="5" value=${form.message} onInput=${set("message")} required></textarea></label>
        ${plain ? null : html`<div class="row"><label>Images<input type="file" accept="image/png,image/jpeg,image/webp,image/gif" multiple onChange=${images} /></label></div>
        <details><summary>Tools${tools.length ? ` (${tools.length})` : ""}</summary><div class="stack"><label>Functions as a JSON list<textarea class="code" rows="8" value=${form.tools} onInput=${set("tools")} placeholder=${TOOLS}></textarea></label><div><button type="button" onClick=${() => fill({ ...form, tools: TOOLS })}>An example</button></div></div></details>`}
        <div class="row">
          <label class="narrow">Tokens at most<input type="number" min="1" max="1000000" value=${form.most} onInput=${set("most")} /></label>
          <label class="check"><input type="checkbox" checked=${form.stream} onChange=${set("stream")} />Stream</label>
          <label class="check"><input type="checkbox" checked=${two} onChange=${(e) => (see([]), choose(e.target.checked ? [which[0], which[0]] : [which[0]]))} />Side by side</label>
          ${two ? null : html`<label class="check"><input type="checkbox" checked=${form.keep} onChange=${set("keep")} />Several turns${history.length ? ` (${history.length / 2})` : ""}</label>`}
          ${history.length && !two ? html`<button type="button" onClick=${() => remember([])}>Forget</button>` : null}
        </div>
        <div class="row"><button class="main" disabled=${running || !key}>Send</button><button type="button" disabled=${!running} onClick=${() => stop.current.abort()}>Cancel</button></div>
        ${keys.length ? null : html`<${Note}>No enabled key may use ${two ? "both aliases" : "this alias"}: make one under Keys and tenants.<//>`}
        <${Note} error=${problem || wrong} />
        <p class="small quiet">${two ? "The calls count" : "The call counts"} for that key: its limits, budgets and usage. A target chosen here is asked alone; callers cannot choose one.</p>
      </form>
      ${two ? html`<div class="two">${answers}</div>` : answers}
    </div>
    <section class="card stack"><div class="head"><h2>As code</h2><div class="tabs">
      ${Object.keys(code).map((name) => html`<button type="button" aria-pressed=${String(name === language)} onClick=${() => show(name)}>${name}</button>`)}
      <${Copy} text=${code[language]} /></div></div><pre tabindex="0">${code[language]}</pre></section>`;
}
