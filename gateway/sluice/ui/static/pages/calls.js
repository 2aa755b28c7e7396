import { html, useState, useLoaded, Note, Table, Badge, Dialog, dollars, number, seconds, clock } from "../lib.js";
import { get, id } from "../api.js";

const FILTERS = ["alias", "key", "target", "frontend", "end", "error", "request_id"];

export function Calls() {
  const [filter, narrow] = useState({});
  const [live, follow] = useState(true);
  const [open, show] = useState(null);
  const [pages, turn] = useState([""]);
  const before = pages[pages.length - 1];
  const query = Object.entries(filter).filter(([, value]) => value).map(([name, value]) => `&${name}=${id(value)}`).join("");
  const { value, error } = useLoaded(() => get(`admin/calls?limit=50${before ? `&before=${before}` : ""}${query}`), [query, before], live && !before ? 2000 : 0);
  const columns = [
    { title: "When", cell: (c) => html`<button type="button" class="link" onClick=${() => show(c)}>${clock(c.at)}</button>` },
    { title: "Alias", cell: (c) => c.alias || "–" },
    { title: "Target", cell: (c) => c.target || "–" },
    { title: "Key", cell: (c) => c.key || "–" },
    { title: "Status", number: true, cell: (c) => c.status ?? "–" },
    { title: "End", cell: (c) => (c.error ? html`<${Badge} kind="bad">${c.error}<//>` : html`<${Badge} kind=${c.end === "done" ? "good" : "warn"}>${c.end}<//>`) },
    { title: "First token", number: true, cell: (c) => seconds(c.ttft) },
    { title: "Total", number: true, cell: (c) => seconds(c.duration) },
    { title: "Tokens", number: true, cell: (c) => (c.tokens_in === undefined || c.tokens_in === null ? "–" : `${number(c.tokens_in)} / ${number(c.tokens_out)}`) },
    { title: "Cost", number: true, cell: (c) => dollars(c.cost_usd) },
  ];
  const set = (name) => (event) => {
    turn([""]);
    narrow({ ...filter, [name]: event.target.value.trim() });
  };
  return html`
    <div class="head"><h1>Calls</h1><label class="check"><input type="checkbox" checked=${live} onChange=${(e) => follow(e.target.checked)} />Live</label></div>
    <section class="card stack"><div class="row">${FILTERS.map((name) => html`<label class="narrow">${name.replace("_", " ")}<input value=${filter[name] || ""} onChange=${set(name)} placeholder=${name === "error" ? "* for any" : ""} /></label>`)}</div><${Note} error=${error} /></section>
    <section class="card"><${Table} label="Calls" columns=${columns} rows=${value?.calls || []} />
      <div class="row"><button type="button" disabled=${pages.length < 2} onClick=${() => turn(pages.slice(0, -1))}>Newer</button><button type="button" disabled=${!value?.next} onClick=${() => turn([...pages, value.next])}>Older</button><span class="small quiet">${value ? `${value.kept} are remembered; never their content${value.missing_workers.length ? `. Not answered: worker ${value.missing_workers.join(", ")}` : ""}` : ""}</span></div></section>
    ${open ? html`<${Dialog} title=${`Call ${open.request_id}`} onClose=${() => show(null)}><pre class="wrap">${JSON.stringify(open, null, 2)}</pre><//>` : null}`;
}
