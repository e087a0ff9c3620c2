{{- define "motley.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "motley.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "motley.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "motley.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Labels of one component: (list $ "gateway") */}}
{{- define "motley.selector" -}}
{{- $ := index . 0 -}}
app.kubernetes.io/name: {{ include "motley.name" $ }}
app.kubernetes.io/instance: {{ $.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- define "motley.labels" -}}
{{- $ := index . 0 -}}
{{ include "motley.selector" . }}
app.kubernetes.io/version: {{ $.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $.Chart.Name $.Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "motley.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "motley.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* repository:tag, or @digest: (dict "repository" "tag" "digest") */}}
{{- define "motley.imageName" -}}
{{- if .digest -}}{{ .repository }}@{{ .digest }}{{- else -}}{{ .repository }}:{{ .tag }}{{- end -}}
{{- end -}}

{{- define "motley.image" -}}
{{- $image := .Values.image -}}
{{- include "motley.imageName" (dict "repository" $image.repository "tag" (default .Chart.AppVersion $image.tag) "digest" $image.digest) -}}
{{- end -}}

{{/* Compute capability times ten. */}}
{{- define "motley.capability" -}}
{{- get (dict "v100-16" "70" "v100-32" "70" "t4" "75" "a100-40" "80" "a100-80" "80" "a10g" "86" "a40" "86" "l4" "89" "l40s" "89" "h100" "90" "h200" "90") . -}}
{{- end -}}

{{/* The second of two mappings laid over the first, in place; unlike Sprig's merge it takes 0, false
and empty lists for what they are. */}}
{{- define "motley.overlay" -}}
{{- $base := index . 0 -}}
{{- range $key, $value := index . 1 -}}
{{- if and (kindIs "map" $value) (kindIs "map" (get $base $key)) -}}
{{- include "motley.overlay" (list (get $base $key) $value) -}}
{{- else -}}
{{- $_ := set $base $key $value -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* A pool with everything filled in, as YAML: (list $ name) */}}
{{- define "motley.pool" -}}
{{- $ := index . 0 -}}
{{- $name := index . 1 -}}
{{- $pool := deepCopy $.Values.poolDefaults -}}
{{- include "motley.overlay" (list $pool (deepCopy (get $.Values.pools $name))) -}}
{{- $capability := include "motley.capability" $pool.gpu | int -}}
{{- $_ := set $pool "capability" $capability -}}
{{- $_ := set $pool "clientName" (default $pool.model $pool.servedModelName) -}}
{{- if not $pool.dtype -}}
{{- $_ := set $pool "dtype" (ternary "float16" "auto" (lt $capability 80)) -}}
{{- end -}}
{{- $known := get $.Values.engineImages $pool.engine -}}
{{- $tag := ternary (default $known.tag $known.voltaTag) $known.tag (eq $capability 70) -}}
{{- $_ := set $pool.image "repository" (default $known.repository $pool.image.repository) -}}
{{- $_ := set $pool.image "tag" (default $tag $pool.image.tag) -}}
{{- $_ := set $pool "engineVersion" (regexFind "[0-9]+\\.[0-9]+\\.[0-9]+" $pool.image.tag) -}}
{{- if $pool.emulated -}}
{{- $_ := set $pool "engineVersion" "" -}}
{{- end -}}
{{- toYaml $pool -}}
{{- end -}}

{{/* One line of `backends`, as discovery and placement read it off pods and deployments. */}}
{{- define "motley.backendLine" -}}
{{- $pool := index . 0 -}}
{{- $line := dict "gpu" $pool.gpu "engine" $pool.engine "model" $pool.clientName "labels" (dict "pool" (index . 1)) -}}
{{- if gt (int $pool.tensorParallel) 1 -}}{{- $_ := set $line "tensor_parallel" (int $pool.tensorParallel) -}}{{- end -}}
{{- with $pool.engineVersion -}}{{- $_ := set $line "engine_version" . -}}{{- end -}}
{{- with $pool.quantization -}}{{- $_ := set $line "quantization" . -}}{{- end -}}
{{- with $pool.maxModelLen -}}{{- $_ := set $line "max_model_len" (int .) -}}{{- end -}}
{{- with $pool.zone -}}{{- $_ := set $line "zone" . -}}{{- end -}}
{{- toJson $line -}}
{{- end -}}

{{/* Whether somebody else than this chart decides on a pool's replicas. */}}
{{- define "motley.scaled" -}}
{{- if or (and (index . 0).Values.placement.enabled (not (index . 0).Values.placement.dryRun)) (index . 1).autoscaling.enabled -}}yes{{- end -}}
{{- end -}}

{{- define "motley.shared" -}}
{{- if or .Values.redis.enabled .Values.redis.existingSecret -}}yes{{- end -}}
{{- end -}}

{{/* Motley's own file: what the chart knows, and the user's `config` on top. */}}
{{- define "motley.config" -}}
{{- $v := .Values -}}
{{- $selector := printf "app.kubernetes.io/instance=%s,app.kubernetes.io/component=engine" .Release.Name -}}
{{- $made := dict "backends" list -}}
{{- if $v.pools -}}
{{- $_ := set $made "discovery" (dict "kubernetes" (list (dict "namespace" .Release.Namespace "label_selector" $selector "port" "http" "node_labels" false))) -}}
{{- end -}}
{{- $_ := set $made "server" (dict "host" "0.0.0.0" "port" 8000 "workers" (int $v.gateway.workers) "access_log" $v.gateway.accessLog) -}}
{{- $_ := set $made "reliability" (dict "drain_delay_s" $v.gateway.drain.delaySeconds "drain_timeout_s" $v.gateway.drain.timeoutSeconds) -}}
{{- if $v.admin.enabled -}}
{{- $_ := set $made "admin" (dict "host" "0.0.0.0" "port" (int $v.admin.port) "api_keys" $v.admin.apiKeys) -}}
{{- end -}}
{{- if $v.access.existingSecret -}}
{{- $_ := set $made "access" (dict "keys_file" (printf "/etc/motley-keys/%s" $v.access.key)) -}}
{{- end -}}
{{- if $v.engineApiKey.existingSecret -}}
{{- $_ := set $made "upstream" (dict "api_key_env" "ENGINE_API_KEY") -}}
{{- end -}}
{{- $planner := dict "history" "/var/lib/motley/plans.sqlite" -}}
{{- if $v.placement.enabled -}}
{{- $_ := set $planner "enabled" true -}}
{{- $place := dict "adapter" "kubernetes" "namespace" .Release.Namespace "stock" $v.placement.stock "interval_s" $v.placement.intervalSeconds "dry_run" $v.placement.dryRun "pause_s" $v.placement.minSecondsBetweenSteps "label_selector" (printf "app.kubernetes.io/instance=%s" .Release.Name) -}}
{{- with $v.placement.maxMoves -}}{{- $_ := set $place "max_moves" (int .) -}}{{- end -}}
{{- $_ := set $planner "placement" $place -}}
{{- end -}}
{{- $_ := set $made "planner" $planner -}}
{{- include "motley.overlay" (list $made (deepCopy $v.config)) -}}
{{- toYaml $made -}}
{{- end -}}

{{/* Every pool as a line of `backends`, for `motley check`: does the model fit, and how fast is it. */}}
{{- define "motley.poolsFile" -}}
backends:
{{- range $name, $_ := .Values.pools }}
  {{- $pool := include "motley.pool" (list $ $name) | fromYaml }}
  {{- $line := include "motley.backendLine" (list $pool $name) | fromJson }}
  {{- $_ := set $line "name" $name }}
  {{- $_ := set $line "count" (max 1 (int $pool.replicas)) }}
  {{- $urls := list }}
  {{- range $n := until (int $line.count) }}
  {{- $urls = append $urls (printf "http://%s-%s-%d:8000" (include "motley.fullname" $) $name $n) }}
  {{- end }}
  {{- $_ := set $line "url" $urls }}
  - {{ toJson $line }}
{{- end }}
{{- with .Values.config.models }}
models:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.config.overrides }}
overrides:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}
