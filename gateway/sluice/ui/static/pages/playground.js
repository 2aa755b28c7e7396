import { html, useEffect, useMemo, useRef, useState, useLoaded, Note, Copy, Table, number, seconds } from "../lib.js";
import { get, play } from "../api.js";
import { DIALECTS, reader, snippets } from "../dialects.js";

const RAW_MOST = 400_000;
const SHOWN_HEADERS = ["x-request-id", "x-sluice-target", "x-sluice-attempts", "x-sluice-cost-usd", "retry-after", "x-ratelimit-remaining-requests", "x-ratelimit-remaining-tokens"];

// Sends the call, and tells `seen` what has come so far, a frame of the screen at a time.
async function run(dialect, asked, key, signal, seen) {
  const begun = performance.now();
  const found = { text: "", reasoning: "", raw: "", tokens: null, status: 0, headers: [], pieces: 0, first: null, last: null, error: null };
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
    if (!part.text && !part.reasoning) return;
    found.first ??= performance.now() - begun;
    found.last = performance.now() - begun;
    found.pieces += 1;
    found.text += part.text || "";
    found.reasoning += part.reasoning || "";
  };
  try {
    await follow(dialect, asked, key, signal, found, { add, tell });
  } catch (broken) {
    if (broken.name !== "AbortError") throw broken;
    found.error = "cancelled";
  } finally {
    cancelAnimationFrame(due); // it would tell less than what is told now
    found.total = performance.now() - begun;
    seen({ ...found, over: true });
  }
}

async function follow(dialect, asked, key, signal, found, { add, tell }) {
  const spoken = DIALECTS[dialect];
  const answer = await play(spoken.path(asked), key, spoken.headers || {}, spoken.body(asked), signal);
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

const Figures = ({ found }) => {
  const streaming = found.first !== null && found.last > found.first;
  const tokens = found.tokens ?? found.pieces;
  const speed = streaming && tokens > 1 ? ((tokens - 1) / (found.last - found.first)) * 1000 : null;
  const shown = [["Status", found.status || "…"], ["First token", found.first === null ? "–" : seconds(found.first / 1000)], ["Tokens", `${number(tokens)}${found.tokens === null && tokens ? " (pieces)" : ""}`], ["Tokens per second", number(speed, 1)], ["Total", found.total ? seconds(found.total / 1000) : "…"]];
  return html`<div class="tiles">${shown.map(([name, value]) => html`<div class="tile"><span class="quiet">${name}</span><b>${value}</b></div>`)}</div>`;
};

export function Playground() {
  const { value, error } = useLoaded(async () => [(await get("admin/aliases")).aliases.map((a) => a.alias), (await get("admin/keys?limit=200")).keys.filter((k) => k.enabled), await get("admin/overview")], []);
  const [dialect, speak] = useState("openai chat");
  const [form, fill] = useState({ model: "", key: "", system: "", message: "Tell me something that takes a while to say.", most: "", stream: true, keep: false });
  const [history, remember] = useState([]);
  const [found, see] = useState(null);
  const [problem, fail] = useState(null);
  const [running, run_] = useState(false);
  const [language, show] = useState("curl");
  const stop = useRef(null);
  const session = useMemo(() => `playground-${crypto.randomUUID?.() || Math.random().toString(36).slice(2)}`, []);
  useEffect(() => () => stop.current?.abort(), []);
  if (!value) return html`<h1>Playground</h1><${Note} error=${error} />`;
  const [aliases, keys, overview] = value;
  const set = (name) => (event) => fill({ ...form, [name]: event.target.type === "checkbox" ? event.target.checked : event.target.value });
  const dialects = Object.keys(DIALECTS).filter((name) => overview.frontends.includes(DIALECTS[name].frontend));
  const spoken = dialects.includes(dialect) ? dialect : dialects[0];
  const model = form.model || aliases[0];
  const usable = keys.filter((key) => key.aliases.includes("*") || key.aliases.includes(model));
  const key = usable.some((one) => one.id === form.key) ? form.key : usable[0]?.id;
  const asked = { ...form, model, session, most: Number(form.most) || 0, history: form.keep ? history : [] };
  const [host, port] = [location.hostname, overview.listen.split(":").pop()];
  const code = snippets(spoken, asked, `${location.protocol}//${host}:${port}`);
  const submit = async (event) => {
    event.preventDefault();
    stop.current = new AbortController();
    fail(null);
    see(null);
    run_(true);
    let last = null;
    try {
      await run(spoken, asked, key, stop.current.signal, (state) => see((last = state)));
      if (form.keep && last?.text) remember([...history, { role: "user", content: form.message }, { role: "assistant", content: last.text }]);
    } catch (broken) {
      fail(broken);
    }
    run_(false);
  };
  return html`<h1>Playground</h1>
    <div class="two">
      <form class="card stack" onSubmit=${submit}>
        <div class="row">
          <label>Alias<select value=${model} onChange=${set("model")}>${aliases.map((name) => html`<option>${name}</option>`)}</select></label>
          <label>Dialect<select value=${spoken} onChange=${(event) => speak(event.target.value)}>${dialects.map((name) => html`<option>${name}</option>`)}</select></label>
          <label>In the name of<select value=${key} onChange=${set("key")}>${usable.map((one) => html`<option>${one.id}</option>`)}</select></label>
        </div>
        ${spoken.startsWith("widget") ? null : html`<label>System prompt<input value=${form.system} onInput=${set("system")} /></label>`}
        <label>Message<textarea rows="5" value=${form.message} onInput=${set("message")} required></textarea></label>
        <div class="row">
          <label class="narrow">Tokens at most<input type="number" min="1" max="1000000" value=${form.most} onInput=${set("most")} /></label>
          <label class="check"><input type="checkbox" checked=${form.stream} onChange=${set("stream")} />Stream</label>
          <label class="check"><input type="checkbox" checked=${form.keep} onChange=${set("keep")} />Several turns${history.length ? ` (${history.length / 2})` : ""}</label>
          ${history.length ? html`<button type="button" onClick=${() => remember([])}>Forget</button>` : null}
        </div>
        <div class="row"><button class="main" disabled=${running || !key}>Send</button><button type="button" disabled=${!running} onClick=${() => stop.current.abort()}>Cancel</button></div>
        ${usable.length ? null : html`<${Note}>No enabled key may use this alias: make one under Keys and tenants.<//>`}
        <p class="small quiet">The call counts for that key: its limits, budgets and usage.</p>
      </form>
      <section class="card stack" aria-live="polite" aria-busy=${running}>
        <h2>Answer</h2>
        <${Note} error=${problem || (found?.error && new Error(found.error))} />
        ${found?.reasoning ? html`<details open=${!found.text}><summary class="quiet">Reasoning</summary><div class="answer small quiet">${found.reasoning}</div></details>` : null}
        <div class="answer" id="answer">${found?.text || html`<span class="quiet">${running ? "…" : "Nothing sent yet."}</span>`}</div>
        ${found ? html`<${Figures} found=${found} />` : null}
      </section>
    </div>
    ${found ? html`<details class="card"><summary>Raw answer and headers</summary><div class="stack">
      <${Table} label="Headers" columns=${[{ title: "Header", cell: (r) => r[0] }, { title: "Value", cell: (r) => r[1] }]} rows=${found.headers} />
      <pre class="wrap" id="raw" tabindex="0">${found.raw}</pre></div></details>` : null}
    <section class="card stack"><div class="head"><h2>As code</h2><div class="tabs">
      ${Object.keys(code).map((name) => html`<button type="button" aria-pressed=${String(name === language)} onClick=${() => show(name)}>${name}</button>`)}
      <${Copy} text=${code[language]} /></div></div><pre tabindex="0">${code[language]}</pre></section>`;
}
