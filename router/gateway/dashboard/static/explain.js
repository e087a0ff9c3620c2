// Why did this request go there? Asks /debug/decisions/{id} and draws the candidates.

import { html, useEffect, useRef, useState } from "./vendor/htm-preact.js";
import { DASH, number, percent, seconds } from "./format.js";
import { headers } from "./stream.js";

async function get(path) {
  const reply = await fetch(path, { headers: headers() });
  const body = await reply.json().catch(() => ({}));
  if (!reply.ok) throw new Error((body.error && body.error.message) || `The gateway answered ${reply.status}.`);
  return body;
}

export function Explain({ id, onClose, onAsk }) {
  const dialog = useRef(null);
  const [text, setText] = useState(id || "");
  const [answer, setAnswer] = useState(null);
  const [recent, setRecent] = useState([]);
  const [problem, setProblem] = useState("");

  useEffect(() => { if (dialog.current && !dialog.current.open) dialog.current.showModal(); }, []);
  useEffect(() => {
    let left = false;
    const tell = (error) => { if (!left) setProblem(error instanceof TypeError ? "The gateway cannot be reached." : error.message); };
    setText(id || ""); setAnswer(null); setProblem("");
    get("debug/decisions").then((body) => { if (!left) setRecent(body.decisions.slice(0, 12)); }).catch(() => {});
    if (id) get(`debug/decisions/${encodeURIComponent(id)}`).then((body) => { if (!left) setAnswer(body); }).catch(tell);
    return () => { left = true; };
  }, [id]);

  const submit = (event) => { event.preventDefault(); if (text.trim()) onAsk(text.trim()); };
  return html`<dialog ref=${dialog} class="explain" aria-labelledby="explain-title" onClose=${onClose}>
    <form onSubmit=${submit}><h2 id="explain-title">Why did it go there?</h2>
      <label>Request id <input value=${text} onInput=${(e) => setText(e.target.value)} placeholder="x-request-id of the answer" autocomplete="off" spellcheck="false"/></label>
      <button type="submit">Explain</button> <button type="button" onClick=${() => dialog.current.close()}>Close</button></form>
    ${problem ? html`<p class="note bad" role="alert">${problem}</p>` : ""}
    ${answer ? html`<${Answer} a=${answer}/>` : ""}
    ${!answer && recent.length ? html`<p class="fine">Accounts are kept of those that ask (x-motley-explain: 1) and of one request a second. The newest:</p>
      <ul class="accounts">${recent.map((d) => html`<li key=${d.request_id}><button class="link" onClick=${() => onAsk(d.request_id)}>${d.request_id}</button> ${d.slo_class} → ${d.backend || d.reason || d.decision}</li>`)}</ul>` : ""}
  </dialog>`;
}

const COLUMNS = [["predicted_ttft_s", "TTFT", seconds], ["predicted_tpot_s", "TPOT", seconds], ["predicted_e2e_s", "E2E", seconds], ["backlog_s", "prefill backlog", seconds], ["in_flight", "in flight", number], ["kv_share", "KV", percent], ["cached_tokens", "cached tokens", number], ["price", "price", number], ["score", "score", number]];

function Answer({ a }) {
  const columns = COLUMNS.filter(([key]) => a.candidates.some((c) => c[key]));
  const show = (f, value) => (value === undefined || value === null ? DASH : f(value));
  const predicted = a.candidates.find((c) => c.backend === a.backend);
  return html`<p><b>${a.policy}</b> ${a.backend ? html`chose <b>${a.backend}</b>` : html`decided to ${a.decision}${a.reason ? ` (${a.reason})` : ""}`} among ${a.candidates.length} candidates,
      for a prompt of ${number(a.prompt_tokens)} tokens and an expected answer of ${number(a.forecast_mean_tokens)} (P90 ${number(a.forecast_p90_tokens)}), after ${seconds(a.waited_s)} in the router with ${a.queued} queued.</p>
    <div class="scroll tall" tabindex="0" role="region" aria-label="Candidates"><table><thead><tr><th>backend</th>${columns.map(([, name]) => html`<th>${name}</th>`)}<th class="why">why not</th></tr></thead>
    <tbody>${a.candidates.map((c) => html`<tr key=${c.backend} class=${c.backend === a.backend ? "chosen" : ""}><th scope="row">${c.backend}</th>${columns.map(([key, , f]) => html`<td title=${key === "score" ? Object.entries(c.terms || {}).map(([k, v]) => `${k} ${show(number, v)}`).join(", ") : ""}>${show(f, c[key])}</td>`)}<td class="why">${c.lost_because || ""}</td></tr>`)}</tbody></table></div>
    ${a.actual ? html`<p>It came to: ${a.actual.status}, TTFT ${seconds(a.actual.ttft_s)}${predicted ? ` (predicted ${seconds(predicted.predicted_ttft_s + a.waited_s)})` : ""}, E2E ${seconds(a.actual.e2e_s)}${predicted ? ` (predicted ${seconds(predicted.predicted_e2e_s + a.waited_s)})` : ""}, ${number(a.actual.output_tokens)} tokens.</p>` : html`<p class="fine">It is still under way.</p>`}
    <details><summary>As JSON</summary><pre>${JSON.stringify(a, null, 2)}</pre></details>`;
}
