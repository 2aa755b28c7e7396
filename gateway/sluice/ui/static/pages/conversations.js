import { html, id, useState, useLoaded, Note, Table, moment, plain } from "../lib.js";
import { ask, can, get } from "../api.js";

function Conversation({ one, onGone }) {
  const { value, error } = useLoaded(() => get(`v1/admin/conversations/${id(one)}`), [one]);
  const [problem, fail] = useState(null);
  const [sure, ask_] = useState(false);
  const remove = async () => {
    try {
      await ask("DELETE", `v1/admin/conversations/${id(one)}`);
      onGone();
    } catch (refused) {
      fail(refused);
    }
  };
  const turns = value?.messages || [];
  return html`<section class="card stack"><div class="head"><h2>${value?.conversation.sessionId || "…"}</h2>
      ${can("DELETE /v1/admin/conversations/{conversationId}") ? (sure ? html`<div class="actions"><button type="button" class="danger" onClick=${remove}>Really delete</button><button type="button" onClick=${() => ask_(false)}>Keep</button></div>` : html`<button type="button" class="danger" onClick=${() => ask_(true)}>Delete</button>`) : null}</div>
    <${Note} error=${error || problem} />
    ${turns.map((turn) => html`<div class=${`turn ${turn.role}`}><span class="small quiet">${turn.role}, ${moment(turn.createdAt)}${turn.interrupted ? ", interrupted" : ""}</span><br />${turn.content}</div>`)}
  </section>`;
}

export function Conversations({ rest }) {
  const [search, find] = useState("");
  const { value, error, reload } = useLoaded(() => get(`v1/admin/conversations?limit=200${search ? `&search=${id(search)}` : ""}`), [search]);
  const found = (value?.conversations || []).filter((one) => [one._id, one.sessionId, one.lastMessage].join("\n").toLowerCase().includes(search.toLowerCase()));
  const gone = () => {
    location.hash = "#conversations";
    reload();
  };
  return html`
    <div class="head"><h1>Conversations</h1><span class="small quiet">${value ? `${value.total} in all` : ""}</span></div>
    <section class="card stack"><label>Find by session, id or words of the last message<input type="search" value=${search} onChange=${(e) => find(e.target.value.trim())} /></label><${Note} error=${error} />
      <${Table} label="Conversations" empty="None." columns=${[{ title: "Session", cell: (c) => html`<a href=${`#conversations/${id(c._id)}`}>${c.sessionId}</a>` }, { title: "Last message", cell: (c) => c.lastMessage.slice(0, 120) }, { title: "Updated", cell: (c) => moment(c.updatedAt) }]} rows=${found} /></section>
    ${plain(rest) ? html`<${Conversation} key=${rest} one=${plain(rest)} onGone=${gone} />` : null}`;
}
