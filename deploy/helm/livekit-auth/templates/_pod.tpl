{{- define "livekit-auth.pod" -}}
metadata:
  annotations:
    # A change to the settings restarts the pods. The server reloads policy, deny-list, keys and certificates itself.
    checksum/settings: {{ include "livekit-auth.settings" . | sha256sum }}
    {{- with .Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  labels:
    {{- include "livekit-auth.labels" . | nindent 4 }}
    {{- with .Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "livekit-auth.serviceAccountName" . }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  # Longer than the sleep before SIGTERM plus the drain after it, so that no call is cut off.
  terminationGracePeriodSeconds: {{ include "livekit-auth.stopSeconds" . }}
  securityContext:
    runAsNonRoot: true
    runAsUser: 10001
    runAsGroup: 10001
    fsGroup: 10001
    fsGroupChangePolicy: OnRootMismatch
    seccompProfile: {type: RuntimeDefault}
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  containers:
    - name: server
      image: {{ include "livekit-auth.image" . }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      ports:
        - {name: grpc, containerPort: 7443, protocol: TCP}
        - {name: metrics, containerPort: 9464, protocol: TCP}
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities: {drop: [ALL]}
      startupProbe:
        httpGet: {path: /livez, port: metrics}
        periodSeconds: 1
        failureThreshold: 60
      livenessProbe:
        httpGet: {path: /livez, port: metrics}
        periodSeconds: 10
        timeoutSeconds: 3
      readinessProbe:
        httpGet: {path: /readyz, port: metrics}
        periodSeconds: 5
        timeoutSeconds: 3
        failureThreshold: 2
      {{- if .Values.preStopSleep }}
      # DNS clients and kube-proxy learn late that a pod is terminating: delay SIGTERM and keep serving until they do.
      lifecycle:
        preStop:
          sleep: {seconds: {{ .Values.preStopSleep }}}
      {{- end }}
      resources:
        {{- toYaml .Values.resources | nindent 8 }}
      volumeMounts:
        - {name: configuration, mountPath: /etc/livekit-auth, readOnly: true}
        {{- if .Values.audit.persistence.enabled }}
        - {name: audit, mountPath: /var/lib/livekit-auth}
        {{- end }}
        {{- if include "livekit-auth.usesWorkloadApi" . }}
        - {name: workload-api, mountPath: {{ .Values.workloadApi.mountPath }}, readOnly: true}
        {{- end }}
  volumes:
    - name: configuration
      projected:
        {{- include "livekit-auth.configuration" . | nindent 8 }}
    {{- if include "livekit-auth.usesWorkloadApi" . }}
    - name: workload-api
      csi: {driver: {{ .Values.workloadApi.csiDriver }}, readOnly: true}
    {{- end }}
  topologySpreadConstraints:
    {{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
    - maxSkew: 1
      topologyKey: {{ . }}
      whenUnsatisfiable: {{ $.Values.topologySpread }}
      labelSelector:
        matchLabels:
          {{- include "livekit-auth.selector" $ | nindent 10 }}
    {{- end }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with .Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
