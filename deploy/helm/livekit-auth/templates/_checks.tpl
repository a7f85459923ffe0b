{{/* Checks that the schema can't express. Each mistake fails the rendering with a message that says what to do. */}}
{{- define "livekit-auth.check" -}}
{{- include "livekit-auth.refuseSecrets" . -}}
{{- $sources := 0 -}}
{{- if .Values.tls.existingSecret }}{{ $sources = add1 $sources }}{{ end -}}
{{- if .Values.tls.certManager.enabled }}{{ $sources = add1 $sources }}{{ end -}}
{{- if .Values.tls.workloadApi.enabled }}{{ $sources = add1 $sources }}{{ end -}}
{{- if ne (int $sources) 1 -}}
{{- fail "tls: set exactly one of existingSecret, certManager.enabled and workloadApi.enabled" -}}
{{- end -}}
{{- if and .Values.tls.certManager.enabled (not .Values.tls.certManager.issuerRef.name) -}}
{{- fail "tls.certManager.issuerRef: name the issuer, such as {name: internal-ca, kind: ClusterIssuer}" -}}
{{- end -}}
{{- if not (or .Values.identity.trustDomains .Values.identity.workloadApi .Values.identity.dnsBundle) -}}
{{- fail "identity: no caller could be authenticated; set trustDomains, workloadApi or dnsBundle" -}}
{{- end -}}
{{- if and .Values.identity.deny .Values.identity.denyList -}}
{{- fail "identity: set deny or denyList, not both" -}}
{{- end -}}
{{- if eq (empty .Values.policy.inline) (empty .Values.policy.configMap) -}}
{{- fail "policy: set exactly one of inline and configMap" -}}
{{- end -}}
{{- if and .Values.redis.enabled (not .Values.redis.url) -}}
{{- fail "redis.url: required with redis.enabled" -}}
{{- end -}}
{{- if and .Values.networkPolicy.enabled (not .Values.networkPolicy.callers) -}}
{{- fail "networkPolicy.callers: no caller could connect; list peers, or set networkPolicy.enabled: false" -}}
{{- end -}}
{{- if and .Values.networkPolicy.enabled .Values.redis.enabled (not .Values.networkPolicy.redis) -}}
{{- fail "networkPolicy.redis: the server couldn't reach Redis; list its peers" -}}
{{- end -}}
{{- if and .Values.metrics.prometheusRule.enabled (not .Values.metrics.prometheusRule.rules) -}}
{{- fail "metrics.prometheusRule.rules: pass the rules with --set-file metrics.prometheusRule.rules=deploy/prometheus/alerts.yaml" -}}
{{- end -}}
{{- end }}

{{/* Refuses private keys, passwords in URLs and text in fields named like a secret. Messages don't repeat the value. */}}
{{- define "livekit-auth.refuseSecrets" -}}
{{- $text := toYaml .Values -}}
{{- if regexMatch "-----BEGIN [A-Z ]*PRIVATE KEY" $text -}}
{{- fail "values: they contain a private key; put it into a Secret and name the Secret" -}}
{{- end -}}
{{- if regexMatch "[a-z]+://[^/@[:space:]]*:[^/@[:space:]]*@" $text -}}
{{- fail "values: a URL contains a password; put it into a Secret and name the Secret" -}}
{{- end -}}
{{- if regexMatch "(?mi)^[-[:space:]]*[\"']?(api[-_]?)?(secret|password|passphrase|private[-_]?key|secret[-_]?key)[\"']?:[ \t]*[^[:space:]{\\[]" $text -}}
{{- fail "values: a field named like a secret has a value; put it into a Secret and name the Secret" -}}
{{- end -}}
{{- if regexMatch "(?m)^[-[:space:]]*[\"']?API[A-Za-z0-9]{6,}[\"']?:[ \t]*[^[:space:]]" $text -}}
{{- fail "values: they contain a LiveKit API key with its secret; put them into a Secret and name it in projects.NAME.keys" -}}
{{- end -}}
{{- end }}
