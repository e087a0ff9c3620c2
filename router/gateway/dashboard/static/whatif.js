// Another fleet under one's own traffic: a form, progress, and two worlds side by side.

import { html, useEffect, useState } from "./vendor/htm-preact.js";
import { dollars, number, percent, seconds } from "./format.js";
import { headers } from "./stream.js";

const words = (text) => text.split(/[\s,]+/).filter(Boolean);

async function call(method, body) {
  const reply = await fetch("dashboard/whatif", { method, headers: { ...headers(), "content-type": "application/json" }, body: body && JSON.stringify(body) });
  const answer = await reply.json().catch(() => ({}));
  if (!reply.ok) throw new Error((answer.error && answer.error.message) || `The gateway answered ${reply.status}.`);
  return answer;
}

export function WhatIf() {
  const [fields, setFields] = useState({ add: "", remove: "", policy: "", load: "1", minutes: "60" });
  const [report, setReport] = useState({ state: "none" });
  const [problem, setProblem] = useState("");
  const running = report.state === "running";

  const look = (method, body) => call(method, body).then((r) => { setReport(r); setProblem(""); }).catch((error) => setProblem(error.message));
  useEffect(() => { look("GET"); }, []);
  useEffect(() => {
    if (!running) return undefined;
    const timer = setInterval(() => look("GET"), 1000);
    return () => clearInterval(timer);
  }, [running]);

  const ask = (event) => {
    event.preventDefault();
    look("POST", { add: words(fields.add), remove: words(fields.remove), policy: fields.policy.trim(), load: Number(fields.load), last_s: Number(fields.minutes) * 60 });
  };
  const field = (name, label, hint, size) => html`<label>${label} <input size=${size} value=${fields[name]} placeholder=${hint} autocomplete="off" spellcheck="false" onInput=${(e) => setFields({ ...fields, [name]: e.target.value })}/></label>`;

  return html`<section aria-labelledby="whatif" class="whatif"><h2 id="whatif">What if <small>your recorded traffic, replayed in the simulator on another fleet; the gateway is not touched</small></h2>
    <form onSubmit=${ask}>${field("add", "add", "t4x2:2", 12)} ${field("remove", "remove", "v100", 12)} ${field("policy", "policy", "as now", 14)} ${field("load", "load ×", "1", 4)} ${field("minutes", "last minutes", "60", 4)}
      <button disabled=${running}>Try it</button> ${running ? html`<button type="button" onClick=${() => look("DELETE")}>Cancel</button>` : ""}</form>
    ${problem ? html`<p class="note bad" role="alert">${problem}</p>` : ""}
    ${running ? html`<p role="status"><progress max="1" value=${report.share} aria-label="how far the replays are"></progress> ${percent(report.share)}, ${report.what}</p>` : ""}
    ${report.state === "failed" ? html`<p class="note bad" role="alert">${report.error}</p>` : ""}
    ${report.state === "cancelled" ? html`<p class="empty">Cancelled.</p>` : ""}
    ${report.study ? html`<${Study} s=${report.study}/>` : ""}</section>`;
}

function Study({ s }) {
  const show = (line, value, sign) => {
    if (value === null) return "–";
    const plus = sign && value > 0 ? "+" : sign && value < 0 ? "−" : "";
    const size = sign ? Math.abs(value) : value;
    const units = { share: (x) => percent(x, 1), per_s: (x) => `${number(x)}/s`, usd: dollars };
    return plus + (units[line.unit] || seconds)(size);
  };
  const bill = (name, now, then) => html`<tr><th scope="row">${name}</th><td>${now}</td><td>${then}</td><td></td><td></td><td></td></tr>`;
  const kinds = (fleet) => Object.entries(fleet).map(([kind, n]) => `${n} × ${kind}`).join(", ");
  return html`<p class="fine">${number(s.requests)} requests over ${Math.round(s.span_s / 60)} minutes, ${s.seeds} replays in each world. Now: ${kinds(s.fleet_now)}, ${s.policy_now}. Then: ${kinds(s.fleet_then)}, ${s.policy_then}.</p>
    <div class="scroll" tabindex="0" role="region" aria-label="What would change"><table><thead><tr><th>figure</th><th>now</th><th>then</th><th>change</th><th>95 % interval</th><th>verdict</th></tr></thead><tbody>
    ${s.lines.map((l) => html`<tr key=${l.name}><th scope="row">${l.name}</th><td>${show(l, l.now)}</td><td>${show(l, l.then)}</td><td>${show(l, l.change, true)}</td><td class="fine">${show(l, l.low, true)} to ${show(l, l.high, true)}</td><td class=${`verdict ${l.verdict}`}>${l.low === 0 && l.high === 0 ? "the same" : l.verdict}</td></tr>`)}
    ${bill("$ per hour", dollars(s.bill_now.usd_per_hour), dollars(s.bill_then.usd_per_hour))}
    ${bill("lost", s.bill_now.lost, s.bill_then.lost)}</tbody></table></div>
    ${s.notes.map((note) => html`<p class="fine">${note}</p>`)}`;
}
