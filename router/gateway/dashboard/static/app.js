// The live fleet page: one snapshot a second from the gateway, drawn by Preact.

import { html, render, useEffect, useMemo, useState } from "./vendor/htm-preact.js";
import { Chart, history } from "./charts.js";
import { Explain } from "./explain.js";
import { Accuracy, Classes, Events, Fleet, Flow, Header, Plan, Requests, Trial } from "./panels.js";
import { follow, storeKey } from "./stream.js";
import { WhatIf } from "./whatif.js";

const media = window.matchMedia("(prefers-color-scheme: light)");

const REFUSED = {
  "locked": "",
  "unknown key": "The gateway does not know that key.",
  "forbidden": "That key may not watch the fleet: it takes an admin's.",
};

function Locked({ why, onKey }) {
  const [key, setKey] = useState("");
  return html`<form class="locked" onSubmit=${(e) => { e.preventDefault(); if (key) onKey(key); }}>
    <h1>Motley</h1><p>This gateway asks for an API key. It stays in this tab.</p>
    <p role="alert">${why}</p>
    <label>API key <input type="password" value=${key} onInput=${(e) => setKey(e.target.value)} autocomplete="off"/></label> <button>Open</button></form>`;
}

function App() {
  const [snapshot, setSnapshot] = useState(null);
  const [status, setStatus] = useState("connecting");
  const [session, setSession] = useState(0);
  const [asked, setAsked] = useState(null);
  const [only, setOnly] = useState("");
  const [theme, setTheme] = useState(media.matches ? "light" : "dark");
  const past = useMemo(history, []);

  useEffect(() => follow((name, data) => {
    if (name === "hello") { past.reset(data.history); setSnapshot(data.snapshot); }
    else { past.push(data.moment); if (document.visibilityState === "visible") setSnapshot(data); }
  }, setStatus), [session]);
  useEffect(() => { document.documentElement.dataset.theme = theme; }, [theme]);

  if (status in REFUSED) return html`<${Locked} why=${REFUSED[status]} onKey=${(key) => { storeKey(key); setStatus("connecting"); setSession(session + 1); }}/>`;
  if (!snapshot) return html`<p class="starting">${status === "lost" ? "The gateway does not answer; trying again …" : "Connecting to the gateway …"}</p>`;
  const chart = { columns: past.columns, tick: snapshot.at_unix_s, theme };
  return html`<${Header} snapshot=${snapshot} status=${status} theme=${theme} onTheme=${() => setTheme(theme === "dark" ? "light" : "dark")}/>
  <main>
    <div class="charts">
      <${Chart} ...${chart} title="P99 latency" unit="s" lines=${[{ key: "ttft", name: "TTFT", color: "--blue" }, { key: "e2e", name: "E2E", color: "--rose" }]}/>
      <${Chart} ...${chart} title="Time per token, P99" unit="s" lines=${[{ key: "tpot", name: "TPOT", color: "--green" }]}/>
      <${Chart} ...${chart} title="Load" lines=${[{ key: "inFlight", name: "in flight", color: "--blue" }, { key: "queued", name: "queued", color: "--amber" }]}/>
      <${Chart} ...${chart} title="Throughput" lines=${[{ key: "tokens", name: "tokens/s", color: "--green" }]}/>
    </div>
    <${Fleet} backends=${snapshot.backends} only=${only} onPick=${(name) => setOnly(only === name ? "" : name)}/>
    <div class="columns">
      <${Flow} flow=${snapshot.flow} backends=${snapshot.backends}/>
      <${Events} events=${snapshot.events}/>
    </div>
    <${Classes} classes=${snapshot.classes}/>
    <${Plan} plan=${snapshot.plan} backends=${snapshot.backends}/>
    <${Trial} trial=${snapshot.trial} policy=${snapshot.policy}/>
    <${Requests} requests=${snapshot.requests} only=${only} onClear=${() => setOnly("")} onExplain=${setAsked}/>
    <${Accuracy} backends=${snapshot.backends}/>
    <${WhatIf}/>
  </main>
  <footer><button class="link" onClick=${() => setAsked("")}>Explain a request</button> · <a href="metrics">metrics</a> · <a href="workers">workers</a> · <a href="docs">API</a> · Motley ${snapshot.version}</footer>
  ${asked !== null ? html`<${Explain} id=${asked} onAsk=${setAsked} onClose=${() => setAsked(null)}/>` : ""}`;
}

render(html`<${App}/>`, document.getElementById("app"));
