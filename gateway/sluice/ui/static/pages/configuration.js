import { html, useState, useLoaded, Note, Badge, fields } from "../lib.js";
import { ask, can, get, isViewer } from "../api.js";

const Found = ({ found }) => html`<div class="stack" role="status">
  <div>${found.ok ? html`<${Badge} kind="good">no problems<//>` : html`<${Badge} kind="bad">${found.problems.length} problem${found.problems.length === 1 ? "" : "s"}<//>`}</div>
  ${found.problems?.length ? html`<pre class="wrap bad">${found.problems.join("\n")}</pre>` : null}
  ${found.warnings?.length ? html`<pre class="wrap warn">${found.warnings.join("\n")}</pre>` : null}
  ${found.needs_restart?.length ? html`<${Note}>Only a restart can change: ${found.needs_restart.join(", ")}<//>` : null}
  ${found.diff ? (found.diff.length ? html`<pre tabindex="0">${found.diff.map((line) => html`<span class=${line.startsWith("+") ? "plus" : line.startsWith("-") ? "minus" : ""}>${line}\n</span>`)}</pre>` : html`<p class="quiet">${found.changed ? "The file's bytes differ, what it says does not, but perhaps for secrets." : "The file is what runs."}</p>`) : null}</div>`;

export function Configuration() {
  const { value, error, reload } = useLoaded(() => get("admin/config"), []);
  const [file, look] = useState(null);
  const [text, judge] = useState(null);
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
      reload();
    } catch (refused) {
      fail(refused);
    }
  };
  const submit = async (event) => {
    try {
      judge(await ask("POST", "admin/config/check", { text: fields(event).text }));
      fail(null);
    } catch (refused) {
      fail(refused);
    }
  };
  return html`
    <div class="head"><h1>Configuration</h1><span class="small quiet">${value ? `${value.path}, ${value.hash}` : ""}</span></div>
    <${Note} error=${error || problem}>${done}<//>
    <section class="card stack"><div class="head"><h2>The file</h2><div class="actions"><button type="button" onClick=${check}>Check and compare</button>${can("POST /admin/reload") ? html`<button type="button" class="main" disabled=${!file?.ok || !file?.changed} onClick=${apply}>Apply</button>` : null}</div></div>
      <p class="quiet small">The file on the gateway's disk, against what runs.${can("POST /admin/reload") ? "" : isViewer() ? " Operators can apply it." : " This gateway takes a changed file at its next start."}</p>
      ${file ? html`<${Found} found=${file} />` : null}</section>
    <section class="card stack"><h2>Running</h2><p class="quiet small">Without defaults; secrets are masked.</p><pre tabindex="0">${value?.text || "…"}</pre></section>
    <section class="card stack"><h2>Check a text</h2><form class="stack" onSubmit=${submit}><label>Configuration (YAML)<textarea class="code" name="text" rows="10" required></textarea></label><div><button class="main">Check</button></div></form>${text ? html`<${Found} found=${text} />` : null}</section>`;
}
