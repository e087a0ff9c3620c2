"""Load a gateway with Locust: streamed chats, TTFT and tokens per second beside Locust's own times.

    pip install locust
    locust -f deploy/locust/locustfile.py --host http://127.0.0.1:8000 --headless -u 20 -r 5 -t 1m

Set ``MODEL`` (the first that the gateway lists, if not), ``OPENAI_API_KEY``, ``PROMPT_TOKENS`` and
``OUTPUT_TOKENS``. For percentiles over exact arrivals, use ``motley bench``.
"""

from __future__ import annotations

import json
import os
import random
import time

from locust import HttpUser, between, events, task

TEXT = "time year people way day man thing woman life child world school state family student group"
WORDS = TEXT.split(" ")
PROMPT_TOKENS = int(os.environ.get("PROMPT_TOKENS", "400"))
OUTPUT_TOKENS = int(os.environ.get("OUTPUT_TOKENS", "128"))
CLASSES = ("interactive", "throughput", "bulk")


class Chatter(HttpUser):
    """Asks, reads the whole streamed answer, thinks, asks again."""

    wait_time = between(0.5, 2.0)

    def on_start(self) -> None:
        """Find out what to ask for."""
        self.headers = {"content-type": "application/json"}
        key = os.environ.get("OPENAI_API_KEY")
        if key:
            self.headers["authorization"] = f"Bearer {key}"
        self.model = os.environ.get("MODEL") or self._first_model()

    def _first_model(self) -> str:
        with self.client.get("/v1/models", headers=self.headers, catch_response=True) as answer:
            name: str = answer.json()["data"][0]["id"]
        return name

    @task(8)
    def chat(self) -> None:
        """An interactive chat."""
        self._ask("interactive")

    @task(2)
    def work(self) -> None:
        """Something that can wait."""
        self._ask(random.choice(CLASSES[1:]))

    def _ask(self, slo_class: str) -> None:
        text = " ".join(random.choices(WORDS, k=PROMPT_TOKENS))
        body = {
            "model": self.model,
            "stream": True,
            "stream_options": {"include_usage": True},
            "max_tokens": OUTPUT_TOKENS,
            "messages": [{"role": "user", "content": text}],
        }
        began, first_s, tokens = time.perf_counter(), None, 0
        with self.client.post(
            "/v1/chat/completions",
            data=json.dumps(body),
            headers=self.headers | {"x-motley-class": slo_class},
            stream=True,
            catch_response=True,
            name=f"chat ({slo_class})",
        ) as answer:
            if answer.status_code != 200:
                answer.failure(f"HTTP {answer.status_code}: {answer.text[:120]}")
                return
            for line in answer.iter_lines():
                event = line.decode() if isinstance(line, bytes) else line
                if not event.startswith("data: {"):
                    continue
                chunk = json.loads(event[6:])
                if chunk.get("error"):
                    answer.failure(str(chunk["error"])[:120])
                    return
                said = [c for c in chunk.get("choices", []) if c.get("delta", {}).get("content")]
                if said and first_s is None:
                    first_s = time.perf_counter() - began
                tokens = (chunk.get("usage") or {}).get("completion_tokens", tokens)
            answer.success()
        if first_s is not None:
            report("TTFT", slo_class, first_s * 1000.0, tokens)


def report(kind: str, name: str, milliseconds: float, size: int) -> None:
    """Show a figure of our own in Locust's table."""
    events.request.fire(
        request_type=kind,
        name=name,
        response_time=milliseconds,
        response_length=size,
        exception=None,
        context={},
    )
