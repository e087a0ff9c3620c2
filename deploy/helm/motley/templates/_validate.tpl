{{/* What cannot work, said before anything is installed: one line with the remedy. */}}
{{- define "motley.validate" -}}
{{- $v := .Values -}}
{{- if not (or $v.pools $v.config.backends $v.config.discovery) -}}
{{- fail "nothing to serve: define engines under `pools` (examples/ holds whole fleets), or name running ones under `config.backends`" -}}
{{- end -}}
{{- range $name, $_ := $v.pools -}}
{{- include "motley.validatePool" (list $ $name) -}}
{{- end -}}
{{- include "motley.validateGateway" . -}}
{{- include "motley.validateCrds" . -}}
{{- end -}}

{{- define "motley.validatePool" -}}
{{- $ := index . 0 -}}
{{- $name := index . 1 -}}
{{- $pool := include "motley.pool" . | fromYaml -}}
{{- $at := printf "pools.%s" $name -}}
{{- $capability := int $pool.capability -}}
{{- if gt (len (printf "%s-%s" (include "motley.fullname" $) $name)) 52 -}}
{{- fail (printf "%s: the name is too long for Kubernetes with the release in front; use at most %d letters" $at (sub 51 (len (include "motley.fullname" $)))) -}}
{{- end -}}
{{- if not $capability -}}
{{- fail (printf "%s.gpu: %q is unknown; one of a100-40 a100-80 v100-16 v100-32 t4 l4 a10g a40 l40s h100 h200" $at (default "" $pool.gpu)) -}}
{{- end -}}
{{- if not $pool.model -}}
{{- fail (printf "%s.model is missing: a Hugging Face name, or a path in the cache" $at) -}}
{{- end -}}
{{- if and (hasPrefix "/" $pool.model) (not $pool.servedModelName) -}}
{{- fail (printf "%s.servedModelName is missing: clients ask for a name, not for the path %s; use one that Motley knows, or describe it under config.models" $at $pool.model) -}}
{{- end -}}
{{- if and (eq $pool.engine "sglang") (lt $capability 80) -}}
{{- fail (printf "%s: SGLang does not run on %s (its kernels need compute capability 8.0); set engine: vllm" $at $pool.gpu) -}}
{{- end -}}
{{- if not $pool.emulated -}}
{{- include "motley.validateRelease" (list $at $pool) -}}
{{- if not (or $pool.nodeSelector $pool.affinity) -}}
{{- fail (printf "%s: nodeSelector is missing: without one its pods may land on any GPU; for example nodeSelector: {agentpool: %s} (AKS), {cloud.google.com/gke-accelerator: ...} (GKE), {nvidia.com/gpu.product: ...} (GPU feature discovery)" $at $name) -}}
{{- end -}}
{{- end -}}
{{- if and (lt $capability 80) (eq $pool.dtype "bfloat16") -}}
{{- fail (printf "%s.dtype: %s has no bfloat16; set dtype: float16" $at $pool.gpu) -}}
{{- end -}}
{{- $least := get (dict "bf16" 80 "fp8" 80 "int8" 75 "awq" 75) (default "" $pool.quantization) -}}
{{- if and $least (lt $capability (int $least)) -}}
{{- fail (printf "%s.quantization: %s has no kernels for %s; use %s" $at $pool.gpu $pool.quantization (ternary "gptq, or fp16" "fp16" (ne $pool.quantization "bf16"))) -}}
{{- end -}}
{{- if not (has (int $pool.tensorParallel) (list 1 2 4 8)) -}}
{{- fail (printf "%s.tensorParallel: %v cards cannot share a model evenly; use 1, 2, 4 or 8" $at $pool.tensorParallel) -}}
{{- end -}}
{{- range $pool.args -}}
{{- $flag := index (splitList "=" (. | toString)) 0 -}}
{{- $setting := get (dict "--model" "model" "--model-path" "model" "--served-model-name" "servedModelName" "--tensor-parallel-size" "tensorParallel" "-tp" "tensorParallel" "--tp" "tensorParallel" "--tp-size" "tensorParallel" "--dtype" "dtype" "--max-model-len" "maxModelLen" "--context-length" "maxModelLen" "--quantization" "quantization" "-q" "quantization") $flag -}}
{{- if $setting -}}
{{- fail (printf "%s.args: %s is set by the chart; use %s.%s, so that the gateway knows of it" $at $flag $at $setting) -}}
{{- end -}}
{{- if has $flag (list "--port" "--host" "--api-key") -}}
{{- fail (printf "%s.args: %s is set by the chart%s" $at $flag (ternary "; use engineApiKey.existingSecret" "" (eq $flag "--api-key"))) -}}
{{- end -}}
{{- if and (lt $capability 80) (contains "FLASH_ATTN" (. | toString | upper)) -}}
{{- fail (printf "%s.args: FlashAttention needs compute capability 8.0, %s has less; use TRITON_ATTN" $at $pool.gpu) -}}
{{- end -}}
{{- if and (lt $capability 80) (hasPrefix "--kv-cache-dtype" (. | toString)) -}}
{{- fail (printf "%s.args: an fp8 KV cache needs compute capability 8.9, %s has less; leave --kv-cache-dtype out" $at $pool.gpu) -}}
{{- end -}}
{{- end -}}
{{- include "motley.validateScale" (list $ $at $pool) -}}
{{- end -}}

{{/* A release that has kernels for the card. */}}
{{- define "motley.validateRelease" -}}
{{- $at := index . 0 -}}
{{- $pool := index . 1 -}}
{{- $remedy := "set image.tag: v0.18.1, or leave it out" -}}
{{- if and (eq (int $pool.capability) 70) (not $pool.image.digest) -}}
{{- if not $pool.engineVersion -}}
{{- fail (printf "%s.image.tag: %q does not say which vLLM it holds, and a %s needs 0.18 or older: %s" $at $pool.image.tag $pool.gpu $remedy) -}}
{{- end -}}
{{- if semverCompare ">=0.19.0-0" $pool.engineVersion -}}
{{- fail (printf "%s.image.tag: vLLM %s does not run on %s (after 0.18 it needs compute capability 7.5): %s" $at $pool.engineVersion $pool.gpu $remedy) -}}
{{- end -}}
{{- if contains "cu13" $pool.image.tag -}}
{{- fail (printf "%s.image.tag: CUDA 13 dropped the %s: %s" $at $pool.gpu $remedy) -}}
{{- end -}}
{{- end -}}
{{- if and (eq $pool.engine "vllm") (lt (int $pool.capability) 80) $pool.engineVersion -}}
{{- if semverCompare "<0.10.2-0" $pool.engineVersion -}}
{{- fail (printf "%s.image.tag: vLLM %s has no V1 engine for %s; use v0.10.2 or newer" $at $pool.engineVersion $pool.gpu) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "motley.validateScale" -}}
{{- $ := index . 0 -}}
{{- $at := index . 1 -}}
{{- $pool := index . 2 -}}
{{- if $pool.autoscaling.enabled -}}
{{- if $.Values.placement.enabled -}}
{{- fail (printf "%s.autoscaling: the planner places replicas already (placement.enabled); switch one of them off" $at) -}}
{{- end -}}
{{- if not $.Values.monitoring.prometheusUrl -}}
{{- fail (printf "%s.autoscaling needs monitoring.prometheusUrl: KEDA asks Prometheus how much waits" $at) -}}
{{- end -}}
{{- if lt (int $pool.autoscaling.maxReplicas) (int $pool.autoscaling.minReplicas) -}}
{{- fail (printf "%s.autoscaling: maxReplicas is below minReplicas" $at) -}}
{{- end -}}
{{- end -}}
{{- $several := or (gt (int $pool.replicas) 1) $pool.autoscaling.enabled $.Values.placement.enabled -}}
{{- $shared := or (has "ReadWriteMany" $pool.cache.accessModes) (has "ReadOnlyMany" $pool.cache.accessModes) -}}
{{- if and (eq $pool.cache.type "pvc") $several (not $shared) -}}
{{- fail (printf "%s.cache.accessModes: several replicas cannot mount a %s volume on several nodes; use ReadWriteMany (Azure Files, EFS, Filestore), or type: hostPath" $at (first $pool.cache.accessModes)) -}}
{{- end -}}
{{- end -}}

{{- define "motley.validateGateway" -}}
{{- $v := .Values -}}
{{- range $path, $remedy := dict "reliability.drain_timeout_s" "gateway.drain.timeoutSeconds" "reliability.drain_delay_s" "gateway.drain.delaySeconds" "server.port" "service.port" "server.host" "networkPolicy" "server.workers" "gateway.workers" "admin.port" "admin.port" "planner.placement" "placement" "shared.url" "redis.existingSecret" -}}
{{- $parts := splitList "." $path -}}
{{- if hasKey (default dict (get $v.config (first $parts))) (last $parts) -}}
{{- fail (printf "config.%s is set by the chart, with what depends on it; use %s" $path $remedy) -}}
{{- end -}}
{{- end -}}
{{- if not (has $v.gateway.autoscaling.kind (list "none" "hpa" "keda")) -}}
{{- fail (printf "gateway.autoscaling.kind: %q; one of none, hpa, keda" $v.gateway.autoscaling.kind) -}}
{{- end -}}
{{- if and (eq $v.gateway.autoscaling.kind "keda") (not $v.monitoring.prometheusUrl) -}}
{{- fail "gateway.autoscaling.kind: keda needs monitoring.prometheusUrl, for example http://prometheus-operated.monitoring:9090" -}}
{{- end -}}
{{- if and (ne $v.gateway.autoscaling.kind "none") (lt (int $v.gateway.autoscaling.maxReplicas) (int $v.gateway.autoscaling.minReplicas)) -}}
{{- fail "gateway.autoscaling: maxReplicas is below minReplicas" -}}
{{- end -}}
{{- if and $v.placement.enabled (not $v.placement.stock) -}}
{{- fail "placement.stock is missing: how many cards of each type the planner may use, as in {a100-80: 4, t4: 8}" -}}
{{- end -}}
{{- if and $v.placement.enabled (not (include "motley.shared" .)) (or (gt (int $v.gateway.replicas) 1) (ne $v.gateway.autoscaling.kind "none")) -}}
{{- fail "placement.enabled with several gateway replicas needs Redis, so that one of them places: set redis.enabled, or gateway.replicas: 1" -}}
{{- end -}}
{{- if and $v.ingress.enabled (not $v.ingress.host) -}}
{{- fail "ingress.host is missing" -}}
{{- end -}}
{{- if and $v.httpRoute.enabled (not $v.httpRoute.parentRefs) -}}
{{- fail "httpRoute.parentRefs is missing: the Gateway to attach to, as in [{name: public, namespace: gateways}]" -}}
{{- end -}}
{{- if and $v.placement.enabled (not $v.rbac.create) (not $v.serviceAccount.name) -}}
{{- fail "rbac.create: false and no serviceAccount.name: placement needs a service account that may patch deployments/scale" -}}
{{- end -}}
{{- end -}}

{{/* Custom resources whose operator is not installed; only a live cluster can tell. */}}
{{- define "motley.validateCrds" -}}
{{- if lookup "v1" "Namespace" "" "kube-system" -}}
{{- $keda := eq .Values.gateway.autoscaling.kind "keda" -}}
{{- range $name, $_ := .Values.pools -}}
{{- if (include "motley.pool" (list $ $name) | fromYaml).autoscaling.enabled -}}{{- $keda = true -}}{{- end -}}
{{- end -}}
{{- if and $keda (not (.Capabilities.APIVersions.Has "keda.sh/v1alpha1")) -}}
{{- fail "the cluster has no KEDA (keda.sh/v1alpha1): install it (helm repo add kedacore https://kedacore.github.io/charts), or set autoscaling to none or hpa" -}}
{{- end -}}
{{- $monitors := or .Values.monitoring.serviceMonitor .Values.monitoring.podMonitor .Values.monitoring.rules -}}
{{- if and $monitors (not (.Capabilities.APIVersions.Has "monitoring.coreos.com/v1")) -}}
{{- fail "the cluster has no Prometheus operator (monitoring.coreos.com/v1): install kube-prometheus-stack, or set monitoring.serviceMonitor, podMonitor and rules to false" -}}
{{- end -}}
{{- if and .Values.httpRoute.enabled (not (.Capabilities.APIVersions.Has "gateway.networking.k8s.io/v1")) -}}
{{- fail "the cluster has no Gateway API (gateway.networking.k8s.io/v1): install its CRDs and a controller, or use ingress.enabled" -}}
{{- end -}}
{{- end -}}
{{- end -}}
