// The frame: signing in, the list of pages, the theme. Which page is shown stands in the address, behind the #.
import { html, render, useEffect, useErrorBoundary, useLayoutEffect, useState, Note, fields } from "./lib.js";
import { can, session, signIn, signInElsewhere, signOut } from "./api.js";
import { Overview } from "./pages/overview.js";
import { Aliases } from "./pages/aliases.js";
import { Playground } from "./pages/playground.js";
import { Keys } from "./pages/keys.js";
import { Usage } from "./pages/usage.js";
import { Calls } from "./pages/calls.js";
import { Conversations } from "./pages/conversations.js";
import { Configuration } from "./pages/configuration.js";

const PAGES = [
  ["overview", "Overview", Overview],
  ["aliases", "Providers and aliases", Aliases],
  ["playground", "Playground", Playground, "POST /ui/play/"],
  ["keys", "Keys and tenants", Keys],
  ["usage", "Usage", Usage],
  ["calls", "Calls", Calls],
  ["conversations", "Conversations", Conversations, "GET /v1/admin/conversations"],
  ["configuration", "Configuration", Configuration],
];
// The fourth of a page: the route that it cannot do without, which a viewer's session has not.
const offered = () => PAGES.filter((page) => !page[3] || can(page[3]));
const RENEW = 10 * 60_000;

const here = () => {
  const [name, ...rest] = location.hash.slice(1).split("/");
  return [offered().find((page) => page[0] === name) || PAGES[0], rest.join("/")];
};

const REFUSED = {
  expired: "That took too long, or was begun in another browser. Try again.",
  denied: "The provider did not sign you in.",
  provider: "The provider could not be asked. Try again; the gateway's log says why.",
  token: "What came back from the provider cannot be believed. The gateway's log says why.",
  stay: "You are signed out here. The provider offers no way to sign out there, or could not be asked.",
  role: "You may not use these pages: no role is given to you.",
  busy: "Too many attempts. Wait some minutes.",
};

function SignIn({ onDone, possible, oidc, leave }) {
  const [name, reason] = location.hash.slice(1).split("/");
  const [error, fail] = useState(name === "sign-in" && REFUSED[reason] ? new Error(REFUSED[reason]) : null);
  const refusal = (refused) => (refused.status === 401 ? new Error("That is not an admin key. Keys of callers do not count here.") : refused.status === 429 ? new Error(REFUSED.busy) : refused);
  const submit = async (event) => {
    const { key } = fields(event);
    try {
      onDone(await signIn(key));
    } catch (refused) {
      fail(refusal(refused));
    }
  };
  const elsewhere = () => signInElsewhere().catch((refused) => fail(refusal(refused)));
  return html`<main class="signin"><div class="card stack">
    <div class="brand"><img src="icon.svg" alt="" /><h1>Sluice</h1></div>
    ${possible || oidc ? null : html`<${Note}>No admin key is configured (admin.digest), so nobody can sign in.<//>`}
    <${Note} error=${error} />
    ${oidc ? html`<button type="button" class="main" onClick=${elsewhere}>Sign in with ${oidc}</button>` : null}
    ${oidc && !possible ? null : html`<form class="stack" onSubmit=${submit}>
      <label>Admin key<input name="key" type="password" autocomplete="current-password" required autofocus=${!oidc} /></label>
      <p class="small quiet">Printed by <code>sluice init</code>, or by <code>make run</code>. Its digest is <code>admin.digest</code> of the configuration; <code>sluice keys new</code> makes another key.</p>
      <button class=${oidc ? "" : "main"}>${oidc ? "Sign in with the key" : "Sign in"}</button>
    </form>`}
    ${leave ? html`<a href=${leave} rel="noreferrer">Sign out of ${oidc}, too</a>` : null}
  </div></main>`;
}

function Theme() {
  const [theme, set] = useState(localStorage.getItem("theme") || "");
  useEffect(() => {
    if (theme) document.documentElement.dataset.theme = theme;
    else delete document.documentElement.dataset.theme;
    localStorage.setItem("theme", theme);
  }, [theme]);
  const next = { "": "dark", dark: "light", light: "" };
  return html`<button type="button" onClick=${() => set(next[theme])}>Theme: ${theme || "system"}</button>`;
}

// What a page draws. One that fails says so, and the others stay within reach.
function Drawn({ page, rest }) {
  const [error, retry] = useErrorBoundary((failed) => console.error(failed));
  return error
    ? html`<h1>${page[1]}</h1><${Note} error=${new Error(`This page cannot be shown: ${error.message}`)} /><div><button type="button" onClick=${retry}>Try again</button></div>`
    : html`<${page[2]} rest=${rest} />`;
}

function Shell({ name, role, onLeave }) {
  const [[page, rest], go] = useState(here());
  const [open, unfold] = useState(false); // the list of pages, where there is little room
  useLayoutEffect(() => {
    const moved = () => (go(here()), unfold(false));
    window.addEventListener("hashchange", moved);
    return () => window.removeEventListener("hashchange", moved);
  }, []);
  useEffect(() => {
    document.title = `${page[1]} – Sluice`;
  }, [page]);
  const leave = async () => {
    window.dispatchEvent(new Event("signed-out"));
    onLeave(await signOut().catch(() => null));
  };
  const skip = (event) => {
    event.preventDefault();
    document.getElementById("content").focus();
  };
  return html`<div class="shell">
    <a class="skip" href="#content" onClick=${skip}>Skip to the content</a>
    <nav class=${open ? "side open" : "side"} aria-label="Pages">
      <div class="brand"><img src="icon.svg" alt="" /><span>Sluice</span><button type="button" class="menu" aria-expanded=${String(open)} onClick=${() => unfold(!open)}>Menu</button></div>
      ${offered().map(([name, title]) => html`<a href=${`#${name}`} aria-current=${name === page[0] ? "page" : undefined}>${title}</a>`)}
      <div class="end"><p class="small quiet who" title=${name}>${name}<br />${role}</p><${Theme} /><button type="button" onClick=${leave}>Sign out</button></div>
    </nav>
    <main id="content" tabindex="-1"><${Drawn} key=${page[0]} page=${page} rest=${rest} /></main>
  </div>`;
}

function App() {
  const [state, set] = useState(null);
  const look = (left) => session().then((found) => set({ ...found, leave: left?.leave }), (error) => set({ error }));
  useEffect(() => {
    look();
    // another tab may have signed in anew, which gives this one another token, or have signed out
    const again = () => session().then((found) => (found.signed_in || window.dispatchEvent(new Event("signed-out")), set(found)), () => {});
    window.addEventListener("session-changed", again);
    const timer = setInterval(() => document.hidden || again(), RENEW);
    return () => {
      window.removeEventListener("session-changed", again);
      clearInterval(timer);
    };
  }, []);
  if (!state) return null;
  if (state.error) return html`<main class="signin"><${Note} error=${state.error} /></main>`;
  return state.signed_in
    ? html`<${Shell} name=${state.name} role=${state.role} onLeave=${look} />`
    : html`<${SignIn} possible=${state.possible} oidc=${state.oidc} leave=${state.leave} onDone=${set} />`;
}

render(html`<${App} />`, document.getElementById("app"));
