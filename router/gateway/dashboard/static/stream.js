// The gateway's events, over fetch instead of EventSource: that one cannot send an API key.
// Reconnects by itself: after a dropped connection, a sleeping laptop, a restarted gateway.

const SILENT_MS = 8000;
const RETRY_MS = [500, 1000, 2000, 4000];
const STORED = "motley-key";

export function storedKey() {
  try { return sessionStorage.getItem(STORED) || ""; } catch { return ""; }
}

export function storeKey(key) {
  try { sessionStorage.setItem(STORED, key); } catch { /* private mode: ask again next time */ }
}

export function headers() {
  const key = storedKey();
  return key ? { authorization: `Bearer ${key}` } : {};
}

export function follow(onEvent, onStatus) {
  let stopped = false, abort = null, failures = 0, wake = null, lastHeard = Date.now();

  const watchdog = setInterval(() => {
    if (abort && Date.now() - lastHeard > SILENT_MS) abort.abort();
  }, 1000);

  const hurry = () => { if (document.visibilityState === "visible" && wake) wake(); };
  document.addEventListener("visibilitychange", hurry);
  window.addEventListener("online", hurry);

  async function once() {
    abort = new AbortController();
    lastHeard = Date.now();
    const answer = await fetch("dashboard/stream", { headers: headers(), signal: abort.signal, cache: "no-store" });
    if (answer.status === 401 || answer.status === 403) {
      stopped = true;
      onStatus(answer.status === 403 ? "forbidden" : storedKey() ? "unknown key" : "locked");
      return;
    }
    if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
    const reader = answer.body.getReader();
    const decoder = new TextDecoder();
    let rest = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      lastHeard = Date.now();
      rest += decoder.decode(value, { stream: true });
      const events = rest.split("\n\n");
      rest = events.pop();
      for (const event of events) {
        const name = /^event: (.*)$/m.exec(event), data = /^data: (.*)$/m.exec(event);
        if (name && data) {
          failures = 0;
          onStatus("live");
          onEvent(name[1], JSON.parse(data[1]));
        }
      }
    }
  }

  (async () => {
    while (!stopped) {
      try { await once(); } catch (error) { if (!(error instanceof TypeError) && error.name !== "AbortError") console.warn(`stream: ${error.message}`); }
      abort = null;
      if (stopped) break;
      onStatus("lost");
      const delay = RETRY_MS[Math.min(failures++, RETRY_MS.length - 1)];
      await new Promise((resolve) => { wake = resolve; setTimeout(resolve, delay); });
      wake = null;
    }
  })();

  return () => {
    stopped = true;
    clearInterval(watchdog);
    document.removeEventListener("visibilitychange", hurry);
    window.removeEventListener("online", hurry);
    if (abort) abort.abort();
  };
}
