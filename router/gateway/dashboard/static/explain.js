// Why did this request go there? Asks /debug/decisions/{id} and draws the candidates.

import { html, useEffect, useRef, useState } from "./vendor/htm-preact.js";
import { DASH, number, seconds } from "./format.js";
import { headers } from "./stream.js";

export function Explain({ id, onClose, onAsk }) {
  const dialog = useRef(null);
  const [text, setText] = useState(id || "");
  const [answer, setAnswer] = useState(null);
  const [problem, setProblem] = useState("");

  useEffect(() => { if (dialog.current && !dialog.current.open) dialog.current.showModal(); }, []);
  useEffect(() => {
    setText(id || ""); setAnswer(null); setProblem("");
    if (!id) return;
    let left = false;
    fetch(`debug/decisions/${encodeURIComponent(id)}`, { headers: headers() })
      .then(async (reply) => {
        const body = await reply.json().catch(() => ({}));
        if (left) return;
        if (reply.ok) setAnswer(body);
        else setProblem((body.error && body.error.message) || `The gateway answered ${reply.status}.`);
      })
      .catch(() => { if (!left) setProblem("The gateway cannot be reached."); });
    return () => { left = true; };
  }, [id]);

  const submit = (event) => { event.preventDefault(); if (text.trim()) onAsk(text.trim()); };
  return html`<dialog ref=${dialog} class="explain" aria-labelledby="explain-title" onClose=${onClose}>
    <form onSubmit=${submit}><h2 id="explain-title">Why did it go there?</h2>
      <label>Request id <input value=${text} onInput=${(e) => setText(e.target.value)} placeholder="x-request-id of the answer" autocomplete="off" spellcheck="false"/></label>
      <button type="submit">Explain</button> <button type="button" onClick=${() => dialog.current.close()}>Close</button></form>
    ${problem ? html`<p class="note bad" role="alert">${problem}</p>` : ""}
    ${answer ? html`<${Answer} a=${answer}/>` : ""}
  </dialog>`;
}

function Answer({ a }) {
  const candidates = a.candidates || [];
  const columns = [["predicted_ttft_s", "TTFT", seconds], ["predicted_tpot_s", "TPOT", seconds], ["predicted_e2e_s", "E2E", seconds], ["queued_prefill_tokens", "queued tokens", number], ["in_flight", "in flight", number], ["cached_tokens", "cached", number], ["price", "price", number], ["score", "score", number]]
    .filter(([key]) => candidates.some((c) => c[key] !== undefined && c[key] !== null));
  const show = (f, v) => (v === undefined || v === null ? DASH : f(v));
  return html`<p>Policy <b>${a.policy}</b> chose <b>${a.backend || a.chosen || "to wait"}</b> among ${candidates.length} candidates.</p>
    <div class="scroll tall"><table><thead><tr><th>backend</th>${columns.map(([, name]) => html`<th>${name}</th>`)}<th>why</th></tr></thead>
    <tbody>${candidates.map((c) => html`<tr key=${c.backend} class=${c.chosen || c.backend === (a.backend || a.chosen) ? "chosen" : ""}><th scope="row">${c.backend}</th>${columns.map(([key, , f]) => html`<td>${show(f, c[key])}</td>`)}<td class="why">${c.why || c.reason || ""}</td></tr>`)}</tbody></table></div>
    ${a.actual ? html`<p>Actually: TTFT ${seconds(a.actual.ttft_s)}, E2E ${seconds(a.actual.e2e_s)}, ${number(a.actual.output_tokens)} tokens.</p>` : ""}
    <details><summary>As JSON</summary><pre>${JSON.stringify(a, null, 2)}</pre></details>`;
}
