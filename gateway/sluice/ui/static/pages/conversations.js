import { html, id, useState, useLoaded, Note, Table, Dialog, moment, number, plain } from "../lib.js";
import { ask, can, get } from "../api.js";

const MOST = 200; // that are shown
const ROUNDS = 50; // requests of a search, of some 2,000 conversations each

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
  return html`<div class="stack"><div class="head"><b>${value?.conversation.sessionId || (error ? "" : "…")}</b>
      ${value && can("DELETE /v1/admin/conversations/{conversationId}") ? (sure ? html`<div class="actions"><button type="button" class="danger" onClick=${remove}>Really delete</button><button type="button" onClick=${() => ask_(false)}>Keep</button></div>` : html`<button type="button" class="danger" onClick=${() => ask_(true)}>Delete</button>`) : null}</div>
    <${Note} error=${error || problem} />
    ${turns.map((turn) => html`<div class=${`turn ${turn.role}`}><span class="small quiet">${turn.role}, ${moment(turn.createdAt)}${turn.interrupted ? ", interrupted" : ""}</span><br />${turn.content}</div>`)}
  </div>`;
}

// The newest, or those with these words, as far as they are looked for: the gateway answers a search part by part.
async function listed(search) {
  const { stores, workers } = await get("admin/overview");
  const apart = workers > 1 && stores.conversations?.kind === "memory";
  if (!search) return { ...(await get(`v1/admin/conversations?limit=${MOST}`)), apart };
  const found = [];
  let part = { next: "" };
  for (let round = 0; round < ROUNDS && part.next !== null && found.length < MOST; round += 1) {
    part = await get(`v1/admin/conversations?search=${id(search)}&after=${id(part.next)}`);
    found.push(...part.conversations);
  }
  found.sort((a, b) => (a.updatedAt < b.updatedAt ? 1 : -1));
  return { ...part, conversations: found.slice(0, MOST), more: part.next !== null || found.length > MOST, apart };
}

export function Conversations({ rest }) {
  const [search, find] = useState("");
  const { value, error, reload } = useLoaded(() => listed(search), [search]);
  const found = value?.conversations || [];
  const close = () => (location.hash = "#conversations");
  const gone = () => {
    close();
    reload();
  };
  const hint = value && (search ? value.more && "There are more with these words: say more of them." : value.total > found.length && `The newest ${number(found.length)}; the others can be found by their words.`);
  return html`
    <div class="head"><h1>Conversations</h1><span class="small quiet">${value ? `${number(value.total)} in all` : ""}</span></div>
    ${value?.apart ? html`<${Note}>Each worker keeps its own conversations (state: memory). These are those of the one that answered.<//>` : null}
    <section class="card stack"><label>Find by session, id or words of the last message<input type="search" value=${search} onChange=${(e) => find(e.target.value.trim())} /></label><${Note} error=${error} />
      <${Table} label="Conversations" empty=${value ? (search ? "No conversation has these words." : "No conversations yet. Those of the NDJSON dialect (chat widgets) are kept.") : "…"} columns=${[{ title: "Session", wide: true, cell: (c) => html`<a href=${`#conversations/${id(c._id)}`}>${c.sessionId}</a>` }, { title: "Last message", wide: true, cell: (c) => c.lastMessage.slice(0, 120) }, { title: "Updated", line: true, cell: (c) => moment(c.updatedAt) }]} rows=${found} />
      ${hint ? html`<p class="small quiet">${hint}</p>` : null}</section>
    ${plain(rest) ? html`<${Dialog} key=${rest} title="A conversation" onClose=${close}><${Conversation} one=${plain(rest)} onGone=${gone} /><//>` : null}`;
}
