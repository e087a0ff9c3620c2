#!/bin/sh
# start
exec python3 -m sglang_router.launch_router \
  --worker-urls http://gpu1:30000 http://gpu2:30000 \
  --policy cache_aware --cache-threshold 0.5 --balance-abs-threshold 32 \
  --max-concurrent-requests 256 --queue-size 64 --retry-max-retries 3 --retry-max-backoff-ms 3000 \
  --cb-failure-threshold 5 --health-check-interval-secs 30 --prometheus-port 29000 --prometheus-host 0.0.0.0 \
  --api-key sk-secret --log-level warn --host 0.0.0.0 --port 30000 --load-monitor-interval 10 --wasm-thing 1
