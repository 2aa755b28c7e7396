import { html, useEffect, useRef, useState, useLoaded, Note, Table, Badge, Copy, moment, seconds } from "../lib.js";
import { ask, can, get, isViewer } from "../api.js";

const AFTER = 600; // milliseconds after the last key

const Diff = ({ lines }) => html`<pre tabindex="0">${lines.map((line) => html`<span class=${line.startsWith("+") ? "plus" : line.startsWith("-") ? "minus" : ""}>${`${line}\n`}</span>`)}</pre>`;

const Found = ({ found }) => html`<div class="stack" role="status">
  <div>${found.ok ? html`<${Badge} kind="good">no problems<//>` : html`<${Badge} kind="bad">${found.problems.length} problem${found.problems.length === 1 ? "" : "s"}<//>`}</div>
  ${found.problems?.length ? html`<pre class="wrap bad" tabindex="0">${found.problems.join("\n")}</pre>` : null}
  ${found.warnings?.length ? html`<pre class="wrap warn" tabindex="0">${found.warnings.join("\n")}</pre>` : null}
  ${found.needs_restart?.length ? html`<${Note}>Only a restart can change: ${found.needs_restart.join(", ")}<//>` : null}
  ${found.diff ? (found.diff.length ? html`<${Diff} lines=${found.diff} />` : html`<p class="quiet">${found.changed ? "The file's bytes differ, what it says does not, but perhaps for secrets." : "The file is what runs."}</p>`) : null}</div>`;

// A text with the numbers of its lines, those with something to mend marked; and what that is, below, as far as it is known.
function Editor({ text, places, change }) {
  const field = useRef(null);
  const numbers = useRef(null);
  const lines = text.split("\n");
  const marks = new Map();
  for (const place of places) if (!marks.has(place.line) || place.severity === "problem") marks.set(place.line, place);
  const go = (place) => () => {
    const start = lines.slice(0, place.line - 1).reduce((sum, line) => sum + line.length + 1, 0);
    field.current.focus();
    field.current.setSelectionRange(start, start + (lines[place.line - 1] || "").length);
    field.current.scrollTop = (place.line - 6) * (field.current.scrollHeight / lines.length);
  };
  const follow = () => (numbers.current.scrollTop = field.current.scrollTop);
  useEffect(follow, [text, places]);
  const kind = (place) => (place.severity === "problem" ? "bad" : "warn");
  return html`<div class="stack">
    <div class="editor"><div class="numbers" aria-hidden="true" ref=${numbers}>${lines.map((_, at) => {
      const mark = marks.get(at + 1);
      return html`<span class=${mark ? kind(mark) : ""} title=${mark?.message}>${`${mark ? "● " : ""}${at + 1}\n`}</span>`;
    })}</div>
    <textarea class="code" aria-label="Configuration (YAML)" name="text" rows="24" wrap="off" spellcheck="false" autocapitalize="off" ref=${field} value=${text} onInput=${(e) => change(e.target.value)} onScroll=${follow}></textarea></div>
    ${places.length ? html`<div role="status"><ul class="places">${places.map((place) => html`<li class=${kind(place)}><button type="button" class="link" onClick=${go(place)}>line ${place.line}</button> ${place.path ? `${place.path}: ` : ""}${place.message}</li>`)}</ul></div>` : null}</div>`;
}

// The file, where this page may write it; else a text to try, that somebody puts into the file.
function Edit({ editable, running, onApplied }) {
  const [file, take] = useState(null);
  const [text, write] = useState(null);
  const [found, see] = useState(null);
  const [problem, fail] = useState(null);
  const [done, tell] = useState(null);
  const [busy, wait] = useState(false);
  const read = async () => {
    try {
      const given = editable ? await get("admin/config/file") : { text: running };
      take(given);
      write(given.text);
      see(null);
      fail(null);
    } catch (refused) {
      fail(refused);
    }
  };
  useEffect(() => {
    read();
  }, [editable]);
  const changed = file && text !== file.text;
  useEffect(() => {
    if (!changed) return;
    let gone = false;
    const timer = setTimeout(async () => {
      try {
        const judged = await ask("POST", editable ? "admin/config/file/check" : "admin/config/check", { text });
        if (!gone) see(judged), fail(null);
      } catch (refused) {
        if (!gone) fail(refused);
      }
    }, AFTER);
    return () => {
      gone = true;
      clearTimeout(timer);
    };
  }, [text, changed]);
  const apply = async () => {
    wait(true);
    try {
      await ask("PUT", "admin/config/file", { text, hash: file.hash });
      tell("Written, and the gateway follows it.");
      await read();
    } catch (refused) {
      fail(refused);
    }
    wait(false);
    onApplied();
  };
  if (text === null) return html`<section class="card"><h2>Edit</h2><${Note} error=${problem} /></section>`;
  const places = changed && found ? found.places : [];
  return html`<section class="card stack"><div class="head"><h2>Edit</h2><div class="actions">
      <button type="button" disabled=${!changed || busy} onClick=${() => (write(file.text), see(null))}>Undo all</button>
      ${editable ? html`<button type="button" onClick=${() => (tell(null), read())} disabled=${busy}>Read again</button><button type="button" class="main" disabled=${!changed || !found?.ok || found.needs_restart.length > 0 || busy} onClick=${apply}>Write and apply</button>` : html`<${Copy} text=${text} label="Copy the text" />`}
    </div></div>
    <p class="small quiet">${editable ? html`${file.path} on the gateway's disk, with the secrets that stand in it. It is checked as you type, written only without problems, and put back if the gateway does not follow it after all.` : "A text to try: it starts as what runs, with its secrets masked and its comments gone. It is checked as you type, without looking up variables and files. This page does not write the gateway's file (admin.edit): put the text there yourself, then check and apply it above."}</p>
    <${Note} error=${problem}>${changed ? null : done}<//>
    <${Editor} text=${text} places=${places} change=${(next) => (tell(null), write(next))} />
    ${changed && found ? html`<div class="row"><${Badge} kind=${found.ok ? "good" : "bad"}>${found.ok ? "no problems" : `${found.problems.length} problem${found.problems.length === 1 ? "" : "s"}`}<//>${found.needs_restart?.length ? html`<span class="warn small">Only a restart can change: ${found.needs_restart.join(", ")}</span>` : null}</div>` : null}
    ${changed && found?.diff?.length ? html`<details open><summary>What is changed</summary><${Diff} lines=${found.diff} /></details>` : null}
  </section>`;
}

const RELOADS = [
  { title: "When", cell: (r) => moment(r.at) },
  { title: "Result", cell: (r) => html`<${Badge} kind=${r.result === "ok" ? "good" : "bad"}>${r.result.replace("_", " ")}<//>` },
  { title: "File", cell: (r) => html`<code>${r.hash || "–"}</code>` },
  { title: "Took", number: true, cell: (r) => seconds(r.seconds) },
  { title: "Why, and warnings", cell: (r) => (r.problems.length + r.warnings.length ? html`<details><summary>${r.problems[0] || r.warnings[0]}</summary><pre class="wrap">${[...r.problems, ...r.warnings].join("\n")}</pre></details>` : "–") },
];

export function Configuration() {
  const { value, error, reload } = useLoaded(() => get("admin/config"), []);
  const [file, look] = useState(null);
  const [done, tell] = useState(null);
  const [problem, fail] = useState(null);
  const check = async () => {
    try {
      look(await ask("POST", "admin/config/check", {}));
      tell(null);
      fail(null);
    } catch (refused) {
      fail(refused);
    }
  };
  const apply = async () => {
    try {
      await ask("POST", "admin/reload");
      tell("The gateway follows the file now.");
      look(null);
      fail(null);
    } catch (refused) {
      fail(refused);
    }
    reload();
  };
  const editable = Boolean(value?.editable && can("PUT /admin/config/file"));
  return html`
    <div class="head"><h1>Configuration</h1><span class="small quiet">${value ? html`${value.path}, <code>${value.hash}</code>, since ${moment(value.since)}` : ""}</span></div>
    <${Note} error=${error || problem}>${done}<//>
    <section class="card stack"><div class="head"><h2>The file</h2><div class="actions"><button type="button" onClick=${check}>Check and compare</button>${can("POST /admin/reload") ? html`<button type="button" class="main" disabled=${!file?.ok || !file?.changed} onClick=${apply}>Apply</button>` : null}</div></div>
      <p class="quiet small">The file on the gateway's disk, against what runs.${can("POST /admin/reload") ? "" : isViewer() ? " Operators can apply it." : " This gateway takes a changed file at its next start."}</p>
      ${file ? html`<${Found} found=${file} />` : null}</section>
    ${value ? html`<${Edit} key=${editable} editable=${editable} running=${value.text} onApplied=${reload} />` : null}
    <section class="card stack"><h2>Running</h2><p class="quiet small">Without defaults; secrets are masked.</p><pre tabindex="0">${value?.text || "…"}</pre></section>
    <section class="card stack"><h2>Reloads</h2><${Table} label="Reloads" empty="No reload since the start." columns=${RELOADS} rows=${value?.reloads || []} /></section>`;
}
