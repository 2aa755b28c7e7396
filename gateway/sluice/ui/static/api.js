// The admin API, by a cookie that scripts cannot read and a token that only this page knows. Nothing is kept in storage.
const root = new URL("..", document.baseURI); // of the page: this file is below a hash
let token = "";
let routes = [];
let role = "";
let leaving = new AbortController();

// Whether the gateway has a route of the admin API that begins so, as "POST /admin/reload".
export const can = (route) => routes.some((one) => one.startsWith(route));

export const isViewer = () => role === "viewer";

export class Refused extends Error {
  constructor(status, body) {
    const details = (body?.details || body?.problems || []).map((d) => (d.field ? `${d.field}: ${d.reason}` : String(d)));
    super([body?.error || `The gateway answered ${status}`, body?.reason, ...details].filter(Boolean).join(" – "));
    this.status = status;
    this.body = body;
  }
}

async function answered(response) {
  const text = await response.text();
  let body = null;
  try {
    body = text ? JSON.parse(text) : null;
  } catch {
    body = { error: text.slice(0, 300) };
  }
  if (response.ok) return body;
  if (response.status === 401) window.dispatchEvent(new Event("session-changed"));
  throw new Refused(response.status, body);
}

const sent = (method, body, headers = {}) => ({
  method,
  credentials: "same-origin",
  signal: leaving.signal,
  headers: { ...headers, "x-sluice-csrf": token, ...(body === undefined ? {} : { "content-type": "application/json" }) },
  body: body === undefined ? undefined : JSON.stringify(body),
});

const SILENT = 15_000; // the gateway says something every five seconds
const SLOWEST = 15_000;

// The events of a stream while somebody looks at the page: `seen(name, data)`. It is opened anew where it ends or
// breaks (`failed(error)`), and closed with the tab hidden, signed out, or by the function that is returned.
export function watch(path, seen, failed) {
  let control = null;
  let timer = 0;
  let tries = 0;
  let over = false;
  const close = () => {
    clearTimeout(timer);
    control?.abort();
    control = null;
  };
  const open = async () => {
    close();
    if (over || document.hidden || leaving.signal.aborted || !token) return;
    const mine = (control = new AbortController());
    try {
      const response = await fetch(new URL(path, root), { ...sent("GET"), signal: mine.signal });
      if (!response.ok) await answered(response);
      for await (const [name, data] of events(response, mine)) {
        tries = 0;
        seen(name, data);
      }
    } catch (error) {
      if (control !== mine) return;
      failed(error.status ? error : new Error("The gateway cannot be reached. Trying again."));
    }
    if (control === mine) timer = setTimeout(open, Math.min(500 * 2 ** tries++, SLOWEST));
  };
  const end = () => {
    over = true;
    close();
    document.removeEventListener("visibilitychange", open);
    window.removeEventListener("signed-out", end);
  };
  document.addEventListener("visibilitychange", open);
  window.addEventListener("signed-out", end);
  open();
  return end;
}

async function* events(response, control) {
  const pieces = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const silent = setTimeout(() => control.abort(), SILENT);
    const { value, done } = await pieces.read().finally(() => clearTimeout(silent));
    if (done) return;
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const named = /^event: (.*)\ndata: (.*)$/.exec(block);
      if (named) yield [named[1], JSON.parse(named[2])];
    }
  }
}

export const ask = async (method, path, body) => answered(await fetch(new URL(path, root), sent(method, body)));
export const get = (path) => ask("GET", path);

export async function session() {
  const found = await answered(await fetch(new URL("ui/session", root), { credentials: "same-origin" }));
  return taken(found);
}

function taken(found) {
  if (leaving.signal.aborted) leaving = new AbortController();
  token = found.token || "";
  routes = found.routes || [];
  role = found.role || "";
  return found;
}

// Other tabs of this browser look again at whether they are signed in.
const tabs = new BroadcastChannel("sluice");
tabs.onmessage = () => window.dispatchEvent(new Event("session-changed"));

export async function signIn(key) {
  const found = taken(await ask("POST", "ui/session", { key }));
  tabs.postMessage("");
  return found;
}

// Goes to the OpenID provider, which sends the browser back here.
export async function signInElsewhere() {
  const { location: there } = await ask("POST", "ui/oidc", { page: new URL("ui/", root).href });
  location.assign(there);
}

export async function signOut() {
  leaving.abort(); // what is asked for until the session is looked at again would be refused
  const found = await answered(await fetch(new URL("ui/session", root), { ...sent("DELETE"), signal: undefined }));
  token = "";
  tabs.postMessage("");
  return found;
}

// A client's call in the name of a key; the response is the client's own.
export const play = (path, key, headers, body, signal) =>
  fetch(new URL(`ui/play${path}`, root), { ...sent("POST", body, { ...headers, "x-sluice-key": key }), signal });

export const playFor = async (key, path, body) => answered(await play(path, key, {}, body));

export async function download(path, name) {
  const response = await fetch(new URL(path, root), sent("GET"));
  if (!response.ok) return answered(response);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await response.blob());
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
