#!/bin/bash
vllm-router --port 8001 \
  --service-discovery static \
  --static-backends http://10.0.0.1:8000,http://10.0.0.2:8000 \
  --static-models meta-llama/Llama-3.1-8B-Instruct,Qwen/Qwen2.5-7B-Instruct \
  --static-aliases gpt-4o:meta-llama/Llama-3.1-8B-Instruct \
  --engine-stats-interval 5 --request-stats-window 60 --log-stats \
  --routing-logic roundrobin --max-instance-failover-reroute-attempts 2 \
  --enable-batch-api --file-storage-path /var/lib/batches --sentry-dsn https://secret@sentry/1
