// The frame: signing in, the list of pages, the theme. Which page is shown stands in the address, behind the #.
import { html, render, useEffect, useLayoutEffect, useState, Note, fields } from "./lib.js";
import { session, signIn, signOut } from "./api.js";
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
  ["playground", "Playground", Playground],
  ["keys", "Keys and tenants", Keys],
  ["usage", "Usage", Usage],
  ["calls", "Calls", Calls],
  ["conversations", "Conversations", Conversations],
  ["configuration", "Configuration", Configuration],
];
const RENEW = 10 * 60_000;

const here = () => {
  const [name, ...rest] = location.hash.slice(1).split("/");
  return [PAGES.find((page) => page[0] === name) || PAGES[0], rest.map(decodeURIComponent).join("/")];
};

function SignIn({ onDone, possible }) {
  const [error, fail] = useState(null);
  const submit = async (event) => {
    const { key } = fields(event);
    try {
      await signIn(key);
      onDone();
    } catch (refused) {
      fail(refused.status === 401 ? new Error("That is not the admin key.") : refused.status === 429 ? new Error("Too many attempts. Wait some minutes.") : refused);
    }
  };
  return html`<main class="signin"><form class="card stack" onSubmit=${submit}>
    <div class="brand"><img src="icon.svg" alt="" /><h1>Sluice</h1></div>
    ${possible ? null : html`<${Note}>No admin key is configured (admin.digest), so nobody can sign in.<//>`}
    <label>Admin key<input name="key" type="password" autocomplete="current-password" required autofocus /></label>
    <${Note} error=${error} />
    <button class="main">Sign in</button>
  </form></main>`;
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

function Shell({ onLeave }) {
  const [[page, rest], go] = useState(here());
  useLayoutEffect(() => {
    const moved = () => go(here());
    window.addEventListener("hashchange", moved);
    return () => window.removeEventListener("hashchange", moved);
  }, []);
  useEffect(() => {
    document.title = `${page[1]} – Sluice`;
  }, [page]);
  const leave = async () => {
    window.dispatchEvent(new Event("signed-out"));
    await signOut().catch(() => {});
    onLeave();
  };
  const skip = (event) => {
    event.preventDefault();
    document.getElementById("content").focus();
  };
  return html`<div class="shell">
    <a class="skip" href="#content" onClick=${skip}>Skip to the content</a>
    <nav class="side" aria-label="Pages">
      <div class="brand"><img src="icon.svg" alt="" /><span>Sluice</span></div>
      ${PAGES.map(([name, title]) => html`<a href=${`#${name}`} aria-current=${name === page[0] ? "page" : undefined}>${title}</a>`)}
      <div class="end"><${Theme} /><button type="button" onClick=${leave}>Sign out</button></div>
    </nav>
    <main id="content" tabindex="-1"><${page[2]} key=${page[0]} rest=${rest} /></main>
  </div>`;
}

function App() {
  const [state, set] = useState(null);
  const look = () => session().then(set, (error) => set({ error }));
  useEffect(() => {
    look();
    const left = () => set((before) => ({ ...before, signed_in: false, possible: true }));
    window.addEventListener("signed-out", left);
    const timer = setInterval(() => !document.hidden && session().then((found) => found.signed_in || left(), () => {}), RENEW);
    return () => {
      window.removeEventListener("signed-out", left);
      clearInterval(timer);
    };
  }, []);
  if (!state) return null;
  if (state.error) return html`<main class="signin"><${Note} error=${state.error} /></main>`;
  return state.signed_in
    ? html`<${Shell} onLeave=${look} />`
    : html`<${SignIn} possible=${state.possible} onDone=${() => set({ signed_in: true })} />`;
}

render(html`<${App} />`, document.getElementById("app"));
