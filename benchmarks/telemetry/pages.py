"""A metrics page as long as a real vLLM's (about 780 lines, 65 kB), made here."""

from __future__ import annotations

_GAUGES = ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc")
_COUNTERS = ("prefix_cache_queries", "prefix_cache_hits", "num_preemptions")
_HISTOGRAMS = 26
_BUCKETS = 23
_LABELS = 'engine="0",model_name="llama-3.1-8b"'


def vllm_page(running: int = 12) -> bytes:
    """The page; the wanted families stand before, between and after the histograms."""
    lines = [f"process_open_fds {n}.0" for n in range(30)]
    lines.append("process_start_time_seconds 1.79520897632e+09")
    for name in _GAUGES:
        lines += _family(name, "gauge", [f"vllm:{name}{{{_LABELS}}} {running / 100}"])
    for name in _COUNTERS:
        lines += _family(f"{name}_total", "counter", [f"vllm:{name}_total{{{_LABELS}}} 400.0"])
    for n in range(_HISTOGRAMS):
        name = f"request_quantity_{n}_seconds"
        buckets = [
            f'vllm:{name}_bucket{{engine="0",le="{0.01 * 2**k}",model_name="llama-3.1-8b"}} {k}.0'
            for k in range(_BUCKETS)
        ]
        lines += _family(name, "histogram", [*buckets, f"vllm:{name}_sum{{{_LABELS}}} 1.5"])
    settings = ",".join(f'setting_{n}="value-{n}"' for n in range(35))
    info = f'vllm:cache_config_info{{block_size="16",{settings},num_gpu_blocks="32768"}} 1.0'
    lines += _family("cache_config_info", "gauge", [info])
    return ("\n".join(lines) + "\n").encode()


def _family(name: str, kind: str, lines: list[str]) -> list[str]:
    return [f"# HELP vllm:{name} What {name} is.", f"# TYPE vllm:{name} {kind}", *lines]
