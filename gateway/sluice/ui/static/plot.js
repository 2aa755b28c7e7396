// uPlot as a component: series over time or days, in the page's own colours, as wide as there is room.
import uPlot from "./vendor/uplot.js";
import { html, useEffect, useRef } from "./lib.js";

const COLOURS = ["--accent", "--warn", "--bad", "--good", "--quiet"];

// The legend has the newest values, unless the mouse is at others.
const newest = (plot) => plot.data[0].length && plot.setLegend({ idx: plot.data[0].length - 1 });

// `data`: [x in seconds, ...values]; `series`: their names.
// `step`: seconds between two bars.
export function Plot({ label, data, series, bars = false, step = 86_400, height = 190 }) {
  const place = useRef(null);
  const plot = useRef(null);
  const shape = `${series.join()} ${bars} ${step}`;
  useEffect(() => {
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name).trim();
    const scale = parseFloat(style.fontSize) / 16; // of the page's letters
    const tall = height * scale;
    const axis = { font: `${12 * scale}px system-ui, sans-serif`, stroke: colour("--quiet"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false } };
    const options = {
      width: place.current.clientWidth || 300,
      height: tall,
      cursor: { drag: { x: false, y: false } },
      // the pages' days are UTC's; what is live shows a minute at least
      ...(bars ? { tzDate: (at) => uPlot.tzDate(new Date(at * 1000), "Etc/UTC") } : {}),
      scales: { x: { range: (_, low, high) => (bars ? [low - step / 2, high + step / 2] : [Math.min(low, high - 60), high]) }, y: { range: (_, low, high) => [Math.min(0, low ?? 0), high > 0 ? high * 1.1 : 1] } },
      axes: [{ ...axis, size: 50 * scale }, { ...axis, size: 56 * scale }],
      series: [
        { label: "At" },
        ...series.map((name, at) => ({
          label: name,
          stroke: colour(COLOURS[at % COLOURS.length]),
          width: 1.5,
          points: { show: false },
          ...(bars ? { paths: uPlot.paths.bars({ size: [0.7, 40] }), fill: `${colour(COLOURS[at % COLOURS.length])}66` } : {}),
        })),
      ],
    };
    const around = place.current;
    const made = (plot.current = new uPlot(options, data, around));
    const first = requestAnimationFrame(() => newest(made)); // uPlot empties the legend when it is laid out
    made.over.addEventListener("mouseleave", () => newest(made));
    const watch = new ResizeObserver(() => around.clientWidth && made.setSize({ width: around.clientWidth, height: tall }));
    watch.observe(around);
    return () => {
      cancelAnimationFrame(first);
      watch.disconnect();
      made.destroy();
    };
  }, [shape]);
  useEffect(() => {
    plot.current?.setData(data);
    if (plot.current && plot.current.cursor.idx == null) newest(plot.current);
  }, [data]);
  return html`<div class="plot" role="img" aria-label=${label} ref=${place}></div>`;
}
