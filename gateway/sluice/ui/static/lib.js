// What every page needs: preact bound to htm, and the small pieces that several pages show.
import { h, render } from "./vendor/preact.js";
import { useCallback, useEffect, useLayoutEffect, useMemo, useRef, useState } from "./vendor/hooks.js";
import htm from "./vendor/htm.js";

export const html = htm.bind(h);
export { render, useCallback, useEffect, useLayoutEffect, useMemo, useRef, useState };

export const number = (value, digits = 0) =>
  value === null || value === undefined ? "–" : Number(value).toLocaleString("en", { maximumFractionDigits: digits });
export const dollars = (value) => (value === null || value === undefined ? "–" : `$${Number(value).toFixed(value && value < 0.01 ? 6 : 2)}`);
export const seconds = (value) =>
  value === null || value === undefined ? "–" : value < 1 ? `${Math.round(value * 1000)} ms` : `${value.toFixed(value < 10 ? 2 : 1)} s`;
export const moment = (value) => (value ? new Date(typeof value === "number" ? value * 1000 : value).toLocaleString() : "–");
export const clock = (value) => new Date(value * 1000).toLocaleTimeString();

// What `load` gives, again every `every` milliseconds while somebody looks; `reload` asks at once.
export function useLoaded(load, dependencies = [], every = 0) {
  const [state, set] = useState({ value: null, error: null });
  const [round, again] = useState(0);
  useEffect(() => {
    let gone = false;
    let timer = 0;
    const step = async () => {
      if (!document.hidden) {
        try {
          const value = await load();
          if (!gone) set({ value, error: null });
        } catch (error) {
          if (!gone) set((before) => ({ ...before, error }));
        }
      }
      if (every && !gone) timer = setTimeout(step, every);
    };
    step();
    return () => {
      gone = true;
      clearTimeout(timer);
    };
  }, [...dependencies, round]);
  return { ...state, reload: useCallback(() => again((n) => n + 1), []) };
}

export const Note = ({ error, children }) =>
  error ? html`<p class="note bad" role="alert">${error.message || String(error)}</p>` : children ? html`<p class="note">${children}</p>` : null;

export const Table = ({ label, columns, rows, empty = "Nothing yet." }) => html`
  <div class="scroll" role="region" aria-label=${label} tabindex="0">
    <table>
      <thead><tr>${columns.map((c) => html`<th scope="col" class=${c.number ? "number" : ""}>${c.title}</th>`)}</tr></thead>
      <tbody>
        ${rows.length === 0 ? html`<tr><td colspan=${columns.length} class="quiet">${empty}</td></tr>` : null}
        ${rows.map((row) => html`<tr>${columns.map((c) => html`<td class=${c.number ? "number" : ""}>${c.cell(row)}</td>`)}</tr>`)}
      </tbody>
    </table>
  </div>`;

export const Badge = ({ kind = "quiet", children }) => html`<span class=${`badge ${kind}`}>${children}</span>`;

export function Copy({ text, label = "Copy" }) {
  const [done, set] = useState(false);
  const copy = async () => {
    await navigator.clipboard.writeText(text);
    set(true);
    setTimeout(() => set(false), 1500);
  };
  return html`<button type="button" onClick=${copy}>${done ? "Copied" : label}</button>`;
}

// A dialog of the browser's own: it keeps the focus inside, and Escape closes it.
export function Dialog({ title, onClose, children }) {
  const ref = useRef(null);
  useLayoutEffect(() => {
    ref.current.showModal();
  }, []);
  return html`<dialog ref=${ref} onClose=${onClose} aria-label=${title}>
    <div class="stack"><div class="head"><h2>${title}</h2><button type="button" onClick=${() => ref.current.close()}>Close</button></div>${children}</div>
  </dialog>`;
}

export const fields = (event) => {
  event.preventDefault();
  return Object.fromEntries(new FormData(event.target));
};
