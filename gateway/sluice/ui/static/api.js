// The admin API, by a cookie that scripts cannot read and a token that only this page knows. Nothing is kept in storage.
const root = new URL("..", import.meta.url);
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
  if (response.status === 401) window.dispatchEvent(new Event("signed-out"));
  throw new Refused(response.status, body);
}

const sent = (method, body, headers = {}) => ({
  method,
  credentials: "same-origin",
  signal: leaving.signal,
  headers: { ...headers, "x-sluice-csrf": token, ...(body === undefined ? {} : { "content-type": "application/json" }) },
  body: body === undefined ? undefined : JSON.stringify(body),
});

export const ask = async (method, path, body) => answered(await fetch(new URL(path, root), sent(method, body)));
export const get = (path) => ask("GET", path);
export const id = (text) => encodeURIComponent(text);

export async function session() {
  const found = await answered(await fetch(new URL("ui/session", root), { credentials: "same-origin" }));
  return taken(found);
}

function taken(found) {
  token = found.token || "";
  routes = found.routes || [];
  role = found.role || "";
  return found;
}

export async function signIn(key) {
  return taken(await ask("POST", "ui/session", { key }));
}

// Goes to the OpenID provider, which sends the browser back here.
export async function signInElsewhere() {
  const { location: there } = await ask("POST", "ui/oidc", { page: new URL("ui/", root).href });
  location.assign(there);
}

export async function signOut() {
  leaving.abort(); // what is still asked for would be refused
  leaving = new AbortController();
  const found = await ask("DELETE", "ui/session");
  token = "";
  return found;
}

// A client's call in the name of a key; the response is the client's own.
export const play = (path, key, headers, body, signal) =>
  fetch(new URL(`ui/play${path}`, root), { ...sent("POST", body, { ...headers, "x-sluice-key": key }), signal });

export async function download(path, name) {
  const response = await fetch(new URL(path, root), sent("GET"));
  if (!response.ok) return answered(response);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await response.blob());
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
