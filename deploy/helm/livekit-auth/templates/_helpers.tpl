{{- define "livekit-auth.name" -}}
{{- .Chart.Name -}}
{{- end }}

{{- define "livekit-auth.fullname" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{- define "livekit-auth.selector" -}}
app.kubernetes.io/name: {{ include "livekit-auth.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "livekit-auth.labels" -}}
{{ include "livekit-auth.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "livekit-auth.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "livekit-auth.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.name: required without serviceAccount.create" .Values.serviceAccount.name -}}
{{- end -}}
{{- end }}

{{- define "livekit-auth.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}
{{- end }}

{{- define "livekit-auth.tlsSecret" -}}
{{- if .Values.tls.certManager.enabled -}}
{{ include "livekit-auth.fullname" . }}-tls
{{- else -}}
{{ .Values.tls.existingSecret }}
{{- end -}}
{{- end }}

{{- define "livekit-auth.usesWorkloadApi" -}}
{{- if or .Values.tls.workloadApi.enabled .Values.identity.workloadApi -}}true{{- end -}}
{{- end }}

{{- define "livekit-auth.stopSeconds" -}}
{{- add (int .Values.preStopSleep) (int .Values.drain) 15 -}}
{{- end }}
