{{/* Command line of an engine: (list $ pool) */}}
{{- define "motley.launch" -}}
{{- $ := index . 0 -}}
{{- $pool := index . 1 -}}
{{- if eq $pool.engine "vllm" -}}
command: [python3, -m, vllm.entrypoints.openai.api_server]
args:
  - --model={{ $pool.model }}
  - --served-model-name={{ $pool.clientName }}
  - --host=0.0.0.0
  - --port=8000
  - --dtype={{ $pool.dtype }}
  - --tensor-parallel-size={{ int $pool.tensorParallel }}
  {{- with $pool.maxModelLen }}
  - --max-model-len={{ int . }}
  {{- end }}
  {{- if eq $pool.quantization "fp8" }}
  - --quantization=fp8
  {{- end }}
  {{- if eq (int $pool.capability) 70 }}
  # The only attention kernels that vLLM has for compute capability 7.0.
  - --attention-backend=TRITON_ATTN
  {{- end }}
  - --enable-prompt-tokens-details
  {{- with $pool.args }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- else -}}
command: [python3, -m, sglang.launch_server]
args:
  - --model-path={{ $pool.model }}
  - --served-model-name={{ $pool.clientName }}
  - --host=0.0.0.0
  - --port=8000
  - --dtype={{ $pool.dtype }}
  - --tp-size={{ int $pool.tensorParallel }}
  {{- with $pool.maxModelLen }}
  - --context-length={{ int . }}
  {{- end }}
  {{- if eq $pool.quantization "fp8" }}
  - --quantization=fp8
  {{- end }}
  - --enable-metrics
  - --enable-cache-report
  {{- if $.Values.engineApiKey.existingSecret }}
  - --api-key=$(VLLM_API_KEY)
  {{- end }}
  {{- with $pool.args }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}
{{- end -}}

{{/* CPU and memory for the cards of one engine, unless the pool says so itself. */}}
{{- define "motley.engineResources" -}}
{{- $cards := int .tensorParallel -}}
{{- $made := dict "requests" (dict "cpu" (toString (mul 2 $cards)) "memory" (printf "%dGi" (add 8 (mul 8 $cards)))) "limits" (dict "memory" (printf "%dGi" (add 16 (mul 32 $cards)))) -}}
{{- if .emulated -}}
{{- $made = dict "requests" (dict "cpu" "100m" "memory" "192Mi") "limits" (dict "memory" "512Mi") -}}
{{- end -}}
{{- include "motley.overlay" (list $made (deepCopy .resources)) -}}
{{- if not .emulated -}}
{{- $_ := set $made.limits .gpuResource (toString $cards) -}}
{{- $_ := set $made.requests .gpuResource (toString $cards) -}}
{{- end -}}
{{- toYaml $made -}}
{{- end -}}
