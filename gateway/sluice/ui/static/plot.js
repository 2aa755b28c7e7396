// uPlot as a component: bars or lines over time, in the page's own colours, as wide as there is room, with a legend
// of the page's own: text that can be read out, with the values under the mouse, else the newest.
import uPlot from "./vendor/uplot.js";
import { html, useEffect, useMemo, useRef, useState } from "./lib.js";

const COLOURS = 8; // --series-1 to --series-8 of the sheet
const DAY = 86_400;
const WHOLE = Array.from({ length: 12 }, (_, power) => [1, 2, 5].map((one) => one * 10 ** power)).flat();

const time = (at, zone, parts) => new Date(at * 1000).toLocaleString("en-GB", { timeZone: zone, hourCycle: "h23", ...parts });
const DATE = { day: "numeric", month: "short" };
const CLOCK = { hour: "2-digit", minute: "2-digit" };

// The time below a tick: days of months, or hours and minutes, with the day where one begins.
const ticks = (zone) => (_, splits, __, ___, step) =>
  splits.map((at, n) => {
    if (step >= DAY) return time(at, zone, DATE);
    const text = time(at, zone, step < 60 ? { ...CLOCK, second: "2-digit" } : CLOCK);
    return step >= 60 && (text === "00:00" || (n === 0 && step >= 3600)) ? `${text}\n${time(at, zone, DATE)}` : text;
  });

const moment = (at, zone, step) => time(at, zone, step >= DAY ? { ...DATE, year: "numeric" } : step >= 60 ? { ...DATE, ...CLOCK } : { ...CLOCK, second: "2-digit" });

// What stands on each other: the sums up to each series, the topmost first, as they are painted.
const sums = (series) => {
  const below = series[0]?.values.map(() => 0) || [];
  return series.map(({ values }) => values.map((value, at) => (below[at] += value || 0))).reverse();
};

// Another theme has other colours: plots are painted anew.
function useTheme() {
  const [round, next] = useState(0);
  useEffect(() => {
    const changed = () => next((n) => n + 1);
    const system = matchMedia("(prefers-color-scheme: dark)");
    const watch = new MutationObserver(changed);
    watch.observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });
    system.addEventListener("change", changed);
    return () => {
      watch.disconnect();
      system.removeEventListener("change", changed);
    };
  }, []);
  return round;
}

// `x`: seconds since the epoch; `series`: [{name, values, colour}], a value of null being none; `stacked`: the first is
// the lowest. `step`: seconds between two of `x`; `range`: of x, else what there is; `zone`: of times, else the reader's.
// `sums`: the legend has the sums while the mouse is elsewhere. `format`: a value as text; `whole`: values have no fractions. `empty`: what is said where there is nothing above zero.
export function Plot({ label, x, series, bars = false, stacked = false, sums: summed = false, step, range = null, zone, format = String, whole = false, height = 220, empty = "" }) {
  const place = useRef(null);
  const plot = useRef(null);
  const [under, look] = useState(null);
  const theme = useTheme();
  const data = useMemo(() => [x, ...(stacked ? sums(series) : series.map((one) => one.values))], [x, series, stacked]);
  const now = useRef(null);
  now.current = { range, format };
  const colours = series.map((one, at) => one.colour || `--series-${(at % COLOURS) + 1}`);
  const shape = JSON.stringify([colours, bars, stacked, step, zone, whole, height, theme]);
  useEffect(() => {
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name).trim();
    const scale = parseFloat(style.fontSize) / 16; // of the page's letters
    const tall = height * scale;
    const axis = { font: `${12 * scale}px system-ui, sans-serif`, stroke: colour("--quiet"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false } };
    const wide = (_, texts) => Math.max(3, ...(texts || []).map((text) => text.length)) * 7.5 * scale + 12;
    const painted = stacked ? [...colours].reverse() : colours;
    const options = {
      width: place.current.clientWidth || 300,
      height: tall,
      padding: [8 * scale, 8 * scale, 0, 0],
      legend: { show: false },
      cursor: { drag: { x: false, y: false }, y: false, points: { show: !bars } },
      hooks: { setCursor: [({ cursor }) => look(cursor.idx ?? null)] },
      ...(zone ? { tzDate: (at) => uPlot.tzDate(new Date(at * 1000), zone) } : {}),
      scales: {
        x: { range: (_, low, high) => now.current.range || (bars ? [low - step / 2, high + step / 2] : [low, high]) },
        y: { range: (_, low, high) => [0, high > 0 ? high * 1.08 : 1] },
      },
      axes: [
        { ...axis, values: ticks(zone), grid: { show: false }, size: (step >= 60 && step < DAY ? 40 : 26) * scale, space: 42 * scale, ...(step < 60 ? { incrs: [60, 120, 300, 600] } : {}), ...(step >= DAY ? { incrs: [1, 2, 7, 14, 30, 60, 90].map((days) => days * DAY) } : {}) },
        { ...axis, values: (_, splits) => splits.map((value) => now.current.format(value)), size: wide, ...(whole ? { incrs: WHOLE } : {}) },
      ],
      series: [
        {},
        ...painted.map((name) => ({
          stroke: bars ? undefined : colour(name),
          width: bars ? 0 : 2,
          points: { show: !bars, size: 5 * scale, fill: colour(name) },
          ...(bars ? { paths: uPlot.paths.bars({ size: [0.8, 44 * scale] }), fill: colour(name) } : {}),
        })),
      ],
    };
    const around = place.current;
    const made = (plot.current = new uPlot(options, data, around));
    const watch = new ResizeObserver(() => around.clientWidth && made.setSize({ width: around.clientWidth, height: tall }));
    watch.observe(around);
    return () => {
      watch.disconnect();
      made.destroy();
    };
  }, [shape]);
  useEffect(() => plot.current?.setData(data), [data]);
  const chosen = under !== null && under < x.length;
  const at = chosen ? under : x.length - 1;
  const value = (one) => (summed && !chosen ? one.values.reduce((sum, next) => sum + (next || 0), 0) : one.values[at]);
  const text = (one) => (value(one) === null || value(one) === undefined ? "–" : format(value(one)));
  const some = series.some((one) => one.values.some((next) => next));
  return html`<figure class="plot">
    <div class="canvas" role="img" aria-label=${label} ref=${place}>${some || !empty ? null : html`<p class="empty quiet">${empty}</p>`}</div>
    <figcaption class="legend small">${x.length && (series.length || !summed) ? html`<span class="quiet when">${summed && !chosen ? "in all" : moment(x[at], zone, step)}</span>` : null}
      ${series.map((one, n) => html`<span class="entry"><i style=${{ background: `var(${colours[n]})` }}></i><span>${one.name}</span> <b>${text(one)}</b></span>`)}</figcaption>
  </figure>`;
}
