// Line charts over the last ten minutes, on uPlot.

import { html, useEffect, useRef } from "./vendor/htm-preact.js";
import { number, seconds } from "./format.js";

const KEPT = 600;

export function history() {
  const columns = { t: [], rps: [], tokens: [], inFlight: [], queued: [], ttft: [], tpot: [], e2e: [] };
  const push = (m) => {
    if (columns.t.length && m.at_unix_s <= columns.t[columns.t.length - 1]) return;
    columns.t.push(m.at_unix_s);
    columns.rps.push(m.requests_per_s);
    columns.tokens.push(m.output_tokens_per_s);
    columns.inFlight.push(m.in_flight);
    columns.queued.push(m.queued);
    columns.ttft.push(m.ttft_p99_s);
    columns.tpot.push(m.tpot_p99_s);
    columns.e2e.push(m.e2e_p99_s);
    if (columns.t.length > KEPT) for (const name in columns) columns[name].shift();
  };
  const reset = (moments) => {
    for (const name in columns) columns[name] = [];
    moments.forEach(push);
  };
  return { columns, push, reset };
}

const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

export function Chart({ title, lines, columns, tick, unit, theme }) {
  const box = useRef(null), plot = useRef(null);
  const show = unit === "s" ? seconds : number;

  useEffect(() => {
    const axis = { stroke: color("--muted"), grid: { stroke: color("--line"), width: 1 }, ticks: { show: false }, font: "11px system-ui" };
    const options = {
      padding: [null, 40, null, null],  // half of the last time, which stands under the end of the axis
      width: Math.max(200, box.current.clientWidth), height: 120,
      legend: { show: false }, cursor: { show: false },
      scales: { y: { range: (u, low, high) => [0, Math.max(high || 0, 1e-3) * 1.15] } },
      axes: [{ ...axis, space: 80, size: 26, values: (u, values) => values.map((v) => new Date(v * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" })) }, { ...axis, size: 58, values: (u, values) => values.map((v) => (v === 0 ? "0" : show(v))) }],
      series: [{}, ...lines.map((line) => ({ stroke: color(line.color), width: 1.75, points: { show: false }, spanGaps: true, dash: line.dash }))],
    };
    plot.current = new uPlot(options, [columns.t, ...lines.map((line) => columns[line.key])], box.current);
    const watch = new ResizeObserver(() => plot.current.setSize({ width: Math.max(200, box.current.clientWidth), height: 120 }));
    watch.observe(box.current);
    return () => { watch.disconnect(); plot.current.destroy(); };
  }, [theme]);

  useEffect(() => {
    if (plot.current) plot.current.setData([columns.t, ...lines.map((line) => columns[line.key])]);
  }, [tick]);

  const last = (key) => columns[key][columns[key].length - 1];
  const spoken = lines.map((line) => `${line.name} ${show(last(line.key))}`).join(", ");
  return html`<div class="chart" role="img" aria-label=${`${title}: ${spoken}`}>
    <p class="caption">${title} ${lines.map((line) => html`<span class="key"><i style=${`background:var(${line.color})`}></i>${line.name} <b>${show(last(line.key))}</b></span>`)}</p>
    <div ref=${box}></div>
  </div>`;
}
