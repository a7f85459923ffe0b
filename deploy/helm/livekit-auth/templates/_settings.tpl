{{/* server.yaml. Paths are relative to its folder; _volumes.tpl puts the files there. */}}
{{- define "livekit-auth.settings" -}}
{{- $settings := dict
  "listen" (printf "%s:7443" .Values.listenHost)
  "metrics" (printf "%s:9464" .Values.listenHost)
  "policy" "policy/policy.yaml"
  "drain" .Values.drain
  "log" (dict "format" "json")
-}}
{{- if gt (int .Values.workers) 1 }}{{ $_ := set $settings "workers" (int .Values.workers) }}{{ end -}}
{{- $projects := dict -}}
{{- range $name, $project := .Values.projects -}}
{{- $_ := set $projects $name (dict "url" $project.url "keys" (dict "file" (printf "keys/%s.yaml" $name))) -}}
{{- end -}}
{{- $_ := set $settings "projects" $projects -}}
{{- $_ := set $settings "tls" (dict "certificate" "tls/tls.crt" "key" "tls/tls.key") -}}
{{- $_ := set $settings "identity" (include "livekit-auth.identity" . | fromYaml) -}}
{{- $_ := mergeOverwrite $settings (include "livekit-auth.workloadApiSettings" . | fromYaml) -}}
{{- if .Values.tls.workloadApi.enabled }}{{ $_ := set $settings "tls" (dict "workload_api" true) }}{{ end -}}
{{- if .Values.audit.persistence.enabled -}}
{{- $_ := set $settings "audit" (dict "path" "/var/lib/livekit-auth/audit" "required" true) -}}
{{- end -}}
{{- if .Values.redis.enabled }}{{ $_ := set $settings "redis" (include "livekit-auth.redis" . | fromYaml) }}{{ end -}}
{{- mergeOverwrite $settings .Values.settings | toYaml -}}
{{- end }}

{{/* The server's settings for the Workload API, except the one under tls. Only this template knows their names. */}}
{{- define "livekit-auth.workloadApiSettings" -}}
{{- if include "livekit-auth.usesWorkloadApi" . -}}
workload_api:
  socket: unix://{{ .Values.workloadApi.mountPath }}/{{ .Values.workloadApi.socket }}
  {{- with .Values.workloadApi.id }}
  id: {{ . }}
  {{- end }}
{{- with .Values.identity.workloadApi }}
identity:
  workload_api: {{ toJson . }}
{{- end }}
{{- end -}}
{{- end }}

{{- define "livekit-auth.identity" -}}
deny_list: deny/deny.yaml
{{- with .Values.identity.trustDomains }}
trust_domains:
  {{- range $domain, $_ := . }}
  {{ $domain }}: bundles/{{ $domain }}.pem
  {{- end }}
{{- end }}
{{- if .Values.identity.dnsBundle }}
dns_bundle: dns/ca.pem
{{- end }}
{{- with .Values.identity.crls }}
crls:
  {{- range $index, $_ := . }}
  - crls/{{ $index }}.pem
  {{- end }}
{{- end }}
{{- end }}

{{- define "livekit-auth.redis" -}}
url: {{ .Values.redis.url | quote }}
when_unavailable: {{ .Values.redis.whenUnavailable }}
{{- if .Values.redis.password }}
password_file: redis/password
{{- end }}
{{- if .Values.redis.ca }}
ca: redis/ca.pem
{{- end }}
{{- end }}
