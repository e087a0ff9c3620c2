"""Keeps a stopping engine alive until its streams have ended: vLLM cuts them at SIGTERM.

Kubernetes takes the pod out of the EndpointSlices first, so that the gateway sends nothing new.
Arguments: the port, and how many seconds at most.
"""

import sys
import time
import urllib.request

QUIET_S = 10.0  # the gateway learns within moments that the pod is leaving
LOOK_S = 1.0
COUNTS = (
    *("vllm:num_requests_running", "vllm:num_requests_waiting"),
    *("sglang:num_running_reqs", "sglang:num_queue_reqs"),
)


def under_way(port):
    """Requests that the engine says it has; 0 if it does not answer any more."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            lines = answer.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return 0.0
    return sum(
        float(line.rsplit(" ", 1)[1])
        for line in lines
        if line.split("{", 1)[0].split(" ", 1)[0] in COUNTS
    )


def main(port, most_s, quiet_s=QUIET_S):
    """Return once nothing is under way, or the time is over."""
    ends_s = time.monotonic() + most_s
    time.sleep(min(quiet_s, most_s))
    while time.monotonic() < ends_s and under_way(port):
        time.sleep(LOOK_S)


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
