// The panels of the page. Every text from outside goes through htm and is escaped by it.

import { html } from "./vendor/htm-preact.js";
import { DASH, clock, dollars, duration, factor, groupName, number, percent, seconds } from "./format.js";

const STATES = { up: ["up", "●"], draining: ["draining", "◐"], down: ["down", "✕"], open: ["cut off", "✕"], half_open: ["on probation", "◐"] };
const COMPACT_ABOVE = 24;
const HUES = [208, 38, 150, 335, 265, 95, 15, 185, 300, 60];
const PHONE = window.matchMedia("(max-width: 760px)");
const seen = new Map();

// One hue a GPU type, in order of appearance: neighbours in the list never look alike.
function gpuColor(gpu) {
  if (!seen.has(gpu)) seen.set(gpu, HUES[seen.size % HUES.length]);
  return `hsl(${seen.get(gpu)} 60% 55%)`;
}

export function Header({ snapshot: s, status, theme, onTheme }) {
  const t = s.totals;
  const lost = t.failed + t.rejected;
  const said = { live: "live", lost: "reconnecting …", stale: "no news" }[status] || status;
  return html`<header>
    <h1><img src="dashboard/assets/icon.svg" alt="" width="26" height="26"/>Motley</h1>
    <p class=${`status ${status}`} role="status"><i></i>${said}</p>
    <dl>
      <div><dt>policy</dt><dd>${s.policy}</dd></div>
      <div><dt>requests</dt><dd>${number(t.requests_per_s)}<small>/s</small></dd></div>
      <div><dt>tokens out</dt><dd>${number(t.output_tokens_per_s)}<small>/s</small></dd></div>
      <div><dt>in flight</dt><dd>${t.in_flight}</dd></div>
      <div class=${t.queued ? "warn" : ""}><dt>queued</dt><dd>${t.queued}</dd></div>
      <div><dt>done</dt><dd>${number(t.completed, 4)}</dd></div>
      <div class=${lost ? "bad" : ""}><dt>failed</dt><dd>${lost}</dd></div>
      ${t.usd_per_hour !== null && html`<div><dt>cost</dt><dd>${dollars(t.usd_per_hour)}<small>/h</small></dd></div>`}
      ${t.usd_per_million_tokens !== null && html`<div><dt>per M tokens</dt><dd>${dollars(t.usd_per_million_tokens)}</dd></div>`}
      ${t.watts !== null && html`<div><dt>power</dt><dd>${number(t.watts)}<small> W</small></dd></div>`}
      ${t.joules_per_token !== null && html`<div><dt>energy</dt><dd>${number(t.joules_per_token)}<small> J/token</small></dd></div>`}
      <div><dt>up</dt><dd>${duration(s.uptime_s)}</dd></div>
    </dl>
    <button class="theme" onClick=${onTheme} aria-label="Switch between dark and light">${theme === "dark" ? "☀" : "☾"}</button>
  </header>`;
}

function Speed({ name, value, deviation }) {
  if (value === null) return html`<span class="speed unknown" title=${`${name}: nothing learned yet`}>${name} ${DASH}</span>`;
  const off = Math.abs(value - 1) > Math.max(0.1, 2 * (deviation || 0));
  const word = off ? (value > 1 ? "slow" : "fast") : "asbelieved";
  return html`<span class=${`speed ${word}`} title=${`${name} takes ${factor(value)} of what the catalogue says, give or take ${percent(deviation)}`}>${name} ${factor(value)}</span>`;
}

function Bar({ label, share, text, parts }) {
  const width = (x) => `width:${(Math.min(1, Math.max(0, x)) * 100).toFixed(1)}%`;
  return html`<div class="bar" role="img" aria-label=${`${label}: ${text}`}><span>${label}</span>
    <div>${(parts || [[share, "load"]]).map(([x, kind]) => html`<i class=${kind} style=${width(x)}></i>`)}</div><b>${text}</b></div>`;
}

const watts = (b) => `${b.watts_are_estimated ? "~" : ""}${number(b.watts)} W`;

// All that is known of the backend that was picked, in words.
function Detail({ b, onClose }) {
  const speed = (f, deviation) => (f === null ? "nothing learned yet" : `${factor(f)} of the catalogue's time, ± ${percent(deviation)}`);
  const facts = [
    ["cards", `${b.cards} × ${b.gpu}${b.zone ? `, ${b.zone}` : ""}`], ["engine", `${b.engine}, ${b.model}`],
    ["health", (STATES[b.state] || [b.state])[0]], ["load", `${b.prefilling} in prefill, ${b.decoding} decoding`],
    ["queue", b.engine_waiting === null ? "not told" : `${b.engine_waiting} waiting in the engine`],
    ["KV", `${percent(b.kv_usage)} of ${number(b.kv_capacity_tokens)} tokens${b.kv_is_told ? "" : ", by the router's count"}`],
    ["prefill takes", speed(b.prefill_factor, b.prefill_deviation)], ["decode takes", speed(b.decode_factor, b.decode_deviation)],
    ["slower than it was", b.degraded.length ? b.degraded.map(([phase, x]) => `${phase} ${factor(x)}`).join(", ") : "no"],
    ["figures are", b.signal_age_s === null ? "none yet" : `${seconds(b.signal_age_s)} old`],
    ["costs", b.usd_per_hour === null ? DASH : `${dollars(b.usd_per_hour)} an hour`], ["power", b.watts === null ? DASH : watts(b)],
  ];
  return html`<div class="detail" role="region" aria-label=${`About ${b.name}`}><h3>${b.name} <button class="link" onClick=${onClose}>close</button></h3>
    <dl>${facts.map(([name, text]) => html`<div key=${name}><dt>${name}</dt><dd>${text}</dd></div>`)}</dl></div>`;
}

function Tile({ b, most, picked, onPick }) {
  const [word, mark] = STATES[b.state] || [b.state, "?"];
  const sick = b.degraded.length > 0;
  const waiting = b.engine_waiting ? `, ${b.engine_waiting} waiting inside` : "";
  const cards = b.cards > 1 ? `${b.cards}×` : "";
  return html`<div role="button" aria-pressed=${picked} class=${`tile ${b.state} ${sick ? "sick" : ""}`} style=${`--gpu:${gpuColor(b.gpu)}`} tabindex="0"
      data-backend=${b.name} aria-label=${`${b.name}, ${cards}${b.gpu}, ${b.engine}, ${word}, ${b.in_flight} in flight${waiting}`}
      onClick=${() => onPick(b.name)} onKeyDown=${(e) => { if (e.key === "Enter" || e.key === " ") { e.preventDefault(); onPick(b.name); } }}>
    <p class="name"><span class="mark" aria-hidden="true">${mark}</span>${b.name}<small>${cards}${b.gpu} · ${b.engine}</small></p>
    <p class="word">${b.state === "up" ? "" : word}${sick ? b.degraded.map(([phase, x]) => ` ${phase} ${factor(x)} slower than new`) : ""}</p>
    <${Bar} label="load" text=${b.in_flight} parts=${[[b.decoding / most, "decode"], [b.prefilling / most, "prefill"]]}/>
    <${Bar} label="queue" text=${b.engine_waiting === null ? DASH : b.engine_waiting} parts=${[[(b.engine_waiting || 0) / most, "waiting"]]}/>
    <${Bar} label=${b.kv_is_told ? "KV" : "KV ~"} share=${b.kv_usage} text=${percent(b.kv_usage)}/>
    <p class="fine"><${Speed} name="prefill" value=${b.prefill_factor} deviation=${b.prefill_deviation}/> <${Speed} name="decode" value=${b.decode_factor} deviation=${b.decode_deviation}/></p>
    <p class="fine">${number(b.requests_per_s, 2)} req/s · ${number(b.output_tokens_per_s)} tok/s${b.watts === null ? "" : ` · ${watts(b)}`}</p>
  </div>`;
}

export function Fleet({ backends, only, onPick }) {
  const groups = new Map();
  for (const b of backends) groups.set(b.group, [...(groups.get(b.group) || []), b]);
  const most = Math.max(8, ...backends.map((b) => b.in_flight));
  const up = backends.filter((b) => b.state === "up").length;
  const picked = backends.find((b) => b.name === only), name = groupName([...groups.keys()]);
  return html`<section aria-labelledby="fleet"><h2 id="fleet">Fleet <small>${up} of ${backends.length} up · load is requests in flight: <i class="dot decode"></i>decoding <i class="dot prefill"></i>in prefill · learned speed: 1.20× takes 20 % longer than the catalogue says</small></h2>
    ${picked ? html`<${Detail} b=${picked} onClose=${() => onPick(picked.name)}/>` : ""}
    <div class=${backends.length > COMPACT_ABOVE ? "fleet compact" : "fleet"}>
      ${[...groups].map(([group, members]) => html`<div class="group" key=${group}><h3>${name(group)}${members[0].price ? html` <span class="price" title="What the policy adds for a second of engine time here, in seconds of delay">price in force ${number(members[0].price)}</span>` : ""}</h3>
        <div class="tiles">${members.map((b) => html`<${Tile} key=${b.name} b=${b} most=${most} picked=${b.name === only} onPick=${onPick}/>`)}</div></div>`)}
    </div></section>`;
}

function Against({ value, target, what }) {
  const missed = value !== null && target !== null && value > target;
  const hint = target === null ? "no target" : `target ${seconds(target)}`;
  return html`<td class=${missed ? "bad" : ""} title=${`${what}: ${hint}`}>${seconds(value)}${missed ? html`<span class="missed" title="over the target"> ▲</span>` : ""}</td>`;
}

export function Classes({ classes }) {
  return html`<section aria-labelledby="slo"><h2 id="slo">Latency against SLO <small>last five minutes</small></h2><div class="scroll" tabindex="0" role="region" aria-label="Latency against SLO"><table>
    <thead><tr><th rowspan="2">class</th><th rowspan="2">SLO met</th><th rowspan="2">goodput</th><th colspan="3" class="span">TTFT</th><th colspan="3" class="span">TPOT</th><th colspan="3" class="span">E2E</th></tr>
      <tr>${["p50", "p90", "p99", "p50", "p90", "p99", "p50", "p90", "p99"].map((p) => html`<th>${p}</th>`)}</tr></thead>
    <tbody>${classes.map((c) => html`<tr key=${c.name}><th scope="row">${c.name}<small>${[["TTFT", c.ttft_target_s], ["TPOT", c.tpot_target_s], ["E2E", c.e2e_target_s]].filter(([, t]) => t !== null).map(([n, t]) => `${n} ${seconds(t)}`).join(", ") || "no targets"}</small></th>
      <td class=${c.attainment !== null && c.attainment < 0.99 ? "bad" : ""}>${percent(c.attainment, 1)}</td><td>${number(c.goodput_per_s)}/s</td>
      ${[["TTFT", c.ttft, c.ttft_target_s], ["TPOT", c.tpot, c.tpot_target_s], ["E2E", c.e2e, c.e2e_target_s]].map(([what, values, target]) => values.map((v, i) => html`<${Against} key=${what + i} value=${v} target=${target} what=${what}/>`))}</tr>`)}</tbody></table></div></section>`;
}

export function Flow({ flow, backends }) {
  const gpuOf = Object.fromEntries(backends.map((b) => [b.group, b.gpu]));
  const classes = [...new Set(flow.map((f) => f.slo_class))], groups = [...new Set(flow.map((f) => f.group))];
  const total = flow.reduce((sum, f) => sum + f.requests, 0);
  const rows = Math.max(classes.length, groups.length, 1), height = Math.max(120, rows * 46);
  const narrow = PHONE.matches, left = narrow ? 84 : 150, right = narrow ? 210 : 400, width = narrow ? 340 : 640, bend = (right - left) / 2;
  const name = groupName(backends.map((b) => b.group));
  const at = (list, i) => ((i + 0.5) / list.length) * height;
  const sum = (key, name) => flow.reduce((s, f) => s + (f[key] === name ? f.requests : 0), 0);
  return html`<section aria-labelledby="flow"><h2 id="flow">Who serves whom <small>requests finished in the last minute, class → GPU group</small></h2>
    ${total === 0 ? html`<p class="empty">No traffic in the last minute.</p>` : html`<svg class="flow" viewBox=${`0 0 ${width} ${height}`} role="img" aria-label=${flow.map((f) => `${f.slo_class} to ${f.group}: ${f.requests}`).join("; ")}>
      ${flow.map((f) => { const y1 = at(classes, classes.indexOf(f.slo_class)), y2 = at(groups, groups.indexOf(f.group));
        return html`<path key=${f.slo_class + f.group} d=${`M${left} ${y1} C ${left + bend} ${y1}, ${left + bend} ${y2}, ${right} ${y2}`} fill="none" stroke=${gpuColor(gpuOf[f.group] || f.group)} stroke-opacity="0.6" stroke-width=${Math.max(1.5, (26 * f.requests) / total)}><title>${`${f.slo_class} → ${f.group}: ${f.requests} requests, ${number(f.output_tokens)} tokens`}</title></path>`; })}
      ${classes.map((c, i) => html`<text key=${c} x=${left - 8} y=${at(classes, i) - 2} text-anchor="end">${c}</text><text x=${left - 8} y=${at(classes, i) + 13} text-anchor="end" class="sub">${sum("slo_class", c)}</text>`)}
      ${groups.map((g, i) => html`<text key=${g} x=${right + 8} y=${at(groups, i) - 2}>${name(g)}</text><text x=${right + 8} y=${at(groups, i) + 13} class="sub">${sum("group", g)} · ${percent(sum("group", g) / total)}</text>`)}
    </svg>`}</section>`;
}

// What all names begin with, up to a slash: "llama-3.1-8b/interactive/".
function commonFolder(names) {
  let length = names.length ? names[0].lastIndexOf("/") + 1 : 0;
  while (length && !names.every((name) => name.startsWith(names[0].slice(0, length)))) length = names[0].lastIndexOf("/", length - 2) + 1;
  return names.length ? names[0].slice(0, length) : "";
}

export function Plan({ plan, backends }) {
  if (!plan.enabled) return html`<section aria-labelledby="plan"><h2 id="plan">Plan</h2><p class="empty">The planner is off: set <code>planner.enabled: true</code> to get shares and prices.</p></section>`;
  const groups = [...new Set([...plan.shares.map((s) => s.group), ...plan.prices.map(([g]) => g)])].sort();
  const name = groupName(groups), prices = new Map(plan.prices), inForce = new Map(backends.map((b) => [b.group, b.price]));
  const works = [...new Set(plan.shares.map((s) => s.work_class))].sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
  const common = commonFolder(works);
  const share = (w, g) => (plan.shares.find((s) => s.work_class === w && s.group === g) || { share: 0 }).share;
  return html`<section aria-labelledby="plan"><h2 id="plan">Plan <small>${plan.age_s === null ? "first round is to come" : `solved ${duration(plan.age_s)} ago in ${seconds(plan.solve_s)}`}${plan.next_in_s !== null ? `, next in ${duration(plan.next_in_s)}` : ""}</small></h2>
    ${plan.failures ? html`<p class="note bad">${plan.failures} rounds failed: ${plan.last_failure}</p>` : ""}
    ${plan.prices.length ? html`<p class="fine">Price: the delay, in seconds over all requests, that one more second of work would bring to a group. In force: as much of it as the policy counts.</p>` : ""}
    ${works.length ? html`<div class="scroll tall" tabindex="0" role="region" aria-label="Planned shares"><table class="heat"><thead><tr><th>${common ? `share of ${common}…` : "share of class"}</th>${groups.map((g) => html`<th key=${g}>${name(g)}${prices.has(g) ? html`<small>price ${number(prices.get(g), 2)} · in force ${number(inForce.get(g) || 0, 2)}</small>` : ""}</th>`)}</tr></thead>
      <tbody>${works.map((w) => html`<tr key=${w}><th scope="row">${w.slice(common.length).replaceAll("<=", " ≤ ").replaceAll("/", " · ")}</th>${groups.map((g) => html`<td key=${g} style=${`--heat:${share(w, g)}`}>${share(w, g) > 0.0005 ? percent(share(w, g)) : ""}</td>`)}</tr>`)}</tbody></table></div>` : ""}</section>`;
}

export function Trial({ trial, policy }) {
  const { shadow: s, canary: c, verdict } = trial;
  if (!s && !c && !verdict) return "";
  return html`<section aria-labelledby="trial"><h2 id="trial">Policies on trial <small>against ${policy}</small></h2>
    ${verdict ? html`<p class="note bad">${verdict}</p>` : ""}
    ${s ? html`<p><b>${s.name}</b> as a shadow, last ten minutes: agrees on ${percent(s.agreement)} of ${number(s.decisions)} decisions;
      predicted P99 TTFT ${seconds(s.shadow_ttft_p99_s)} instead of ${seconds(s.ttft_p99_s)}, E2E ${seconds(s.shadow_e2e_p99_s)} instead of ${seconds(s.e2e_p99_s)};
      mean regret ${s.regret_s === null ? DASH : s.regret_s > 0 ? `${seconds(s.regret_s)}: its choices would have been that much faster` : `−${seconds(-s.regret_s)}: its choices would have been that much slower`}.</p>` : ""}
    ${c ? html`<p><b>${c.name}</b> as a canary with ${percent(c.share)} of the traffic: ${percent(c.attainment, 1)} of its ${number(c.judged)} requests kept their SLO, ${percent(c.main_attainment, 1)} of the ${number(c.main_judged)} others.</p>` : ""}
  </section>`;
}

export function Accuracy({ backends }) {
  const known = backends.filter((b) => b.forecasts.length);
  const get = (b, figure) => b.forecasts.find((f) => f.figure === figure);
  const cell = (f) => f ? html`<td class=${Math.abs(Math.log(f.bias)) > 0.25 ? "warn" : ""}>${factor(f.bias)}</td><td>${percent(f.p50_error)} / ${percent(f.p95_error)}</td><td>${percent(f.coverage)}</td>` : html`<td>${DASH}</td><td>${DASH}</td><td>${DASH}</td>`;
  return html`<section aria-labelledby="accuracy"><h2 id="accuracy">Predicted against actual <small>bias is actual over predicted; the 90 % band should cover 90 %</small></h2>
    ${known.length === 0 ? html`<p class="empty">Nothing finished yet.</p>` : html`<div class="scroll tall" tabindex="0" role="region" aria-label="Predicted against actual"><table><thead><tr><th rowspan="2">backend</th><th colspan="3" class="span">TTFT</th><th colspan="3" class="span">TPOT</th><th colspan="3" class="span">E2E</th></tr><tr>${[0, 1, 2].map(() => html`<th>bias</th><th>error p50 / p95</th><th>covered</th>`)}</tr></thead>
    <tbody>${known.map((b) => html`<tr key=${b.name}><th scope="row">${b.name}</th>${["ttft", "tpot", "e2e"].map((f) => cell(get(b, f)))}</tr>`)}</tbody></table></div>`}</section>`;
}

export function Events({ events }) {
  return html`<section aria-labelledby="events"><h2 id="events">Events</h2>
    <ol class="events" aria-live="polite" aria-label="Events" tabindex="0">${events.map((e) => html`<li key=${e.number} class=${e.severity}><time>${clock(e.at_unix_s)}</time><b>${e.subject}</b> ${e.text}</li>`)}</ol>
    ${events.length === 0 ? html`<p class="empty">Nothing happened since the start.</p>` : ""}</section>`;
}

export function Requests({ requests, only, onExplain, onClear }) {
  const rows = only ? requests.filter((r) => r.backend === only) : requests;
  return html`<section aria-labelledby="requests"><h2 id="requests">Requests <small>under way, then the last that ended${only ? html` · only ${only} <button class="link" onClick=${onClear}>show all</button>` : ""}</small></h2>
    ${rows.length === 0 ? html`<p class="empty">None yet.</p>` : html`<div class="scroll tall" tabindex="0" role="region" aria-label="Requests"><table class="requests"><thead><tr><th>request</th><th>class</th><th>backend</th><th>state</th><th>tokens in / out</th><th>TTFT</th><th>predicted</th><th>E2E</th><th>predicted</th></tr></thead>
    <tbody>${rows.map((r) => html`<tr key=${r.request_id + r.status} class=${r.status}><th scope="row"><button class="link" title="Why did it go there?" onClick=${() => onExplain(r.request_id)}>${r.request_id.slice(0, 13)}</button></th><td>${r.slo_class}</td><td>${r.backend}</td><td>${r.status}</td>
      <td>${number(r.prompt_tokens)} / ${r.output_tokens || DASH}</td><td>${seconds(r.ttft_s)}</td><td class="fine">${seconds(r.predicted_ttft_s)}</td><td>${r.e2e_s === null ? html`<span class="fine">${seconds(r.age_s)} so far</span>` : seconds(r.e2e_s)}</td><td class="fine">${seconds(r.predicted_e2e_s)}</td></tr>`)}</tbody></table></div>`}</section>`;
}
