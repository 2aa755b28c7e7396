// What every page needs: preact bound to htm, and the small pieces that several pages show.
import { h, render } from "./vendor/preact.js";
import { useCallback, useEffect, useErrorBoundary, useLayoutEffect, useMemo, useRef, useState } from "./vendor/hooks.js";
import htm from "./vendor/htm.js";

export const html = htm.bind(h);
export { render, useCallback, useEffect, useErrorBoundary, useLayoutEffect, useMemo, useRef, useState };

export const number = (value, digits = 0, least = 0) =>
  value === null || value === undefined ? "–" : Number(value).toLocaleString("en", { maximumFractionDigits: digits, minimumFractionDigits: least });
// Two digits that say something: $0.0028.
const cents = (value) => {
  const digits = value > 0 && value < 1 ? Math.min(9, Math.max(2, 1 - Math.floor(Math.log10(value)))) : 2;
  return value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
};
const signed = (value, text) => `${value < 0 ? "−" : ""}$${text}`;
export const dollars = (value) => (value === null || value === undefined ? "–" : signed(value, cents(Math.abs(Number(value)))));
// One of a column of amounts, which are compared: four digits for each, and thousands apart.
export const costs = (value) => {
  if (value === null || value === undefined) return "–";
  const amount = Math.abs(Number(value));
  return amount > 0 && amount < 0.00005 ? "<$0.0001" : signed(value, amount.toLocaleString("en", { minimumFractionDigits: 4, maximumFractionDigits: 4 }));
};
// The cost of a row of usage, of which some tokens may have no known price.
export const usageCost = ({ cost_usd: cost, unpriced_tokens: unpriced }) =>
  unpriced ? html`<span class=${cost === null ? "quiet" : ""} title=${`${number(unpriced)} tokens of models without a known price`}>${cost === null ? "no price" : `${costs(cost)} + ?`}</span>` : html`<span title=${`$${cost}`}>${costs(cost)}</span>`;
// A figure that has to be short: 12.4 K.
export const short = (value, digits = 1) => (Math.abs(value) < 10_000 ? number(value, digits) : Number(value).toLocaleString("en", { notation: "compact", maximumFractionDigits: 1 }));
export const share = (part, all) => (all ? `${number((100 * part) / all, part / all < 0.1 ? 1 : 0)} %` : "");
export const seconds = (value) =>
  value === null || value === undefined ? "–" : value < 1 ? `${Math.round(value * 1000)} ms` : `${value.toFixed(value < 10 ? 2 : 1)} s`;
export const id = (text) => encodeURIComponent(text);
// What stands in the address behind a page's name: #calls/error=*&minutes=5, or one id.
export const asked = (rest) => Object.fromEntries(new URLSearchParams(rest || ""));
export const plain = (rest) => {
  try {
    return decodeURIComponent(rest);
  } catch {
    return "";
  }
};
export const moment = (value) => (value ? new Date(typeof value === "number" ? value * 1000 : value).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium", hourCycle: "h23" }) : "–");
// The time, and the day where that is another one.
export const clock = (value) => {
  const at = new Date(value * 1000);
  const day = at.toDateString() === new Date().toDateString() ? {} : { month: "short", day: "numeric" };
  return at.toLocaleString(undefined, { ...day, hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
};
const UNITS = ["B", "KiB", "MiB", "GiB"];
export const bytes = (value) => {
  if (value === null || value === undefined) return "–";
  const power = Math.min(UNITS.length - 1, Math.floor(Math.log2(Math.max(1, value)) / 10));
  return `${number(value / 1024 ** power, power ? 1 : 0)} ${UNITS[power]}`;
};

// What `load` gives, again every `every` milliseconds while somebody looks; `reload` asks at once.
export function useLoaded(load, dependencies = [], every = 0) {
  const [state, set] = useState({ value: null, error: null });
  const [round, again] = useState(0);
  useEffect(() => {
    let gone = false;
    let timer = 0;
    let waits = false; // for somebody to look
    const step = async () => {
      waits = document.hidden;
      if (waits) return;
      try {
        const value = await load();
        if (!gone) set({ value, error: null });
      } catch (error) {
        if (!gone) set((before) => ({ ...before, error }));
      }
      if (every && !gone) timer = setTimeout(step, every);
    };
    const looked = () => waits && step();
    document.addEventListener("visibilitychange", looked);
    step();
    return () => {
      gone = true;
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", looked);
    };
  }, [...dependencies, round]);
  return { ...state, reload: useCallback(() => again((n) => n + 1), []) };
}

// Scrolls to the part of the page that the address names, once it is there.
export function useScroll(rest, there) {
  useLayoutEffect(() => {
    if (rest && there) document.getElementById(plain(rest))?.scrollIntoView();
  }, [rest, there]);
}

export const Note = ({ error, children }) =>
  error ? html`<p class="note bad" role="alert">${error.message || String(error)}</p>` : children ? html`<p class="note">${children}</p>` : null;

const kind = (column) => [column.number && "number", column.wide && "wide", column.clip && "clip", column.line && "nowrap"].filter(Boolean).join(" ");

// A column with `sort` (row => number) can be clicked, and then has the greatest first; `first`: the one that is at
// first. `wide` columns keep some width on a phone, too; texts of `clip` columns end in dots
// where they are long; those of `line` columns stay on one. `last`: a row below all others.
export function Table({ label, columns, rows, first = "", last = null, empty = "Nothing yet." }) {
  const [by, order] = useState(first);
  const sort = columns.find((column) => column.title === by)?.sort;
  const shown = sort ? [...rows].sort((a, b) => sort(b) - sort(a)) : rows;
  const head = (c) => (c.sort ? html`<button type="button" class="link" aria-pressed=${String(c.title === by)} onClick=${() => order(c.title === by ? "" : c.title)}>${c.title}<span aria-hidden="true">${c.title === by ? " ▾" : ""}</span></button>` : c.title);
  return html`<div class="scroll" role="region" aria-label=${label} tabindex="0">
    <table>
      <thead><tr>${columns.map((c) => html`<th scope="col" class=${kind(c)} aria-sort=${c.sort && c.title === by ? "descending" : undefined}>${head(c)}</th>`)}</tr></thead>
      <tbody>
        ${shown.length === 0 ? html`<tr><td colspan=${columns.length} class="quiet">${empty}</td></tr>` : null}
        ${shown.map((row) => html`<tr>${columns.map((c) => html`<td class=${kind(c)} title=${c.clip?.(row)}>${c.cell(row)}</td>`)}</tr>`)}
      </tbody>
      ${last ? html`<tfoot><tr>${columns.map((c) => html`<td class=${kind(c)}>${c.cell(last)}</td>`)}</tr></tfoot>` : null}
    </table>
  </div>`;
}

export const Badge = ({ kind = "quiet", children }) => html`<span class=${`badge ${kind}`}>${children}</span>`;

// Whether the text is in the clipboard now. Browsers offer it to pages of https and of this machine alone; elsewhere the
// older way works, with a text that is selected.
async function copied(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text).then(() => true, () => false);
  const field = Object.assign(document.createElement("textarea"), { value: text });
  (document.querySelector("dialog[open]") || document.body).append(field);
  field.select();
  const done = document.execCommand("copy");
  field.remove();
  return done;
}

export function Copy({ text, label = "Copy" }) {
  const [done, set] = useState(false);
  const copy = async () => {
    if (!(await copied(text))) return;
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
