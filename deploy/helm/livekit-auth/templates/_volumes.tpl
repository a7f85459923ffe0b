{{/* One source of the projected volume: a key of a ConfigMap or of a Secret. Takes (dict "from" REFERENCE "path" PATH). */}}
{{- define "livekit-auth.source" -}}
{{- if .from.secretName -}}
- secret:
    name: {{ .from.secretName }}
    items:
      - {key: {{ .from.key | quote }}, path: {{ .path | quote }}}
{{- else -}}
- configMap:
    name: {{ .from.configMap }}
    items:
      - {key: {{ .from.key | quote }}, path: {{ .path | quote }}}
{{- end }}
{{- end }}

{{/* Every file that the server reads, in one volume: the kubelet replaces them together, without a restart. Only owner
and group can read them, because the server refuses key files that others can read. */}}
{{- define "livekit-auth.configuration" -}}
{{- $name := include "livekit-auth.fullname" . -}}
defaultMode: 0440
sources:
  {{- include "livekit-auth.source" (dict "from" (dict "configMap" $name "key" "server.yaml") "path" "server.yaml") | nindent 2 }}
  {{- $policy := dict "configMap" (default (printf "%s-policy" $name) .Values.policy.configMap) "key" .Values.policy.key }}
  {{- if .Values.policy.inline }}{{ $_ := set $policy "key" "policy.yaml" }}{{ end }}
  {{- include "livekit-auth.source" (dict "from" $policy "path" "policy/policy.yaml") | nindent 2 }}
  {{- $deny := default (dict "configMap" (printf "%s-deny" $name) "key" "deny.yaml") .Values.identity.denyList }}
  {{- include "livekit-auth.source" (dict "from" $deny "path" "deny/deny.yaml") | nindent 2 }}
  {{- range $project, $values := .Values.projects }}
  {{- include "livekit-auth.source" (dict "from" $values.keys "path" (printf "keys/%s.yaml" $project)) | nindent 2 }}
  {{- end }}
  {{- if not .Values.tls.workloadApi.enabled }}
  {{- $tls := include "livekit-auth.tlsSecret" . }}
  {{- range list "tls.crt" "tls.key" }}
  {{- include "livekit-auth.source" (dict "from" (dict "secretName" $tls "key" .) "path" (printf "tls/%s" .)) | nindent 2 }}
  {{- end }}
  {{- end }}
  {{- range $domain, $from := .Values.identity.trustDomains }}
  {{- include "livekit-auth.source" (dict "from" $from "path" (printf "bundles/%s.pem" $domain)) | nindent 2 }}
  {{- end }}
  {{- with .Values.identity.dnsBundle }}
  {{- include "livekit-auth.source" (dict "from" . "path" "dns/ca.pem") | nindent 2 }}
  {{- end }}
  {{- range $index, $from := .Values.identity.crls }}
  {{- include "livekit-auth.source" (dict "from" $from "path" (printf "crls/%d.pem" $index)) | nindent 2 }}
  {{- end }}
  {{- if .Values.redis.enabled }}
  {{- with .Values.redis.password }}
  {{- include "livekit-auth.source" (dict "from" . "path" "redis/password") | nindent 2 }}
  {{- end }}
  {{- with .Values.redis.ca }}
  {{- include "livekit-auth.source" (dict "from" . "path" "redis/ca.pem") | nindent 2 }}
  {{- end }}
  {{- end }}
{{- end }}
