{{- define "sluice.fullname" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "sluice.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "sluice.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "sluice.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "sluice.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "sluice.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "sluice.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{- printf "%s@%s" .repository .digest -}}
{{- else -}}
{{- printf "%s:%s" .repository (default $.Chart.AppVersion .tag) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "sluice.secret" -}}
{{- if .Values.secret.existingSecret -}}
{{- .Values.secret.existingSecret -}}
{{- else if .Values.secret.env -}}
{{- include "sluice.fullname" . -}}
{{- end -}}
{{- end -}}

{{/* "sqlite" where conversations are in a file, which is one pod's */}}
{{- define "sluice.state" -}}
{{- $state := default "memory" .Values.config.state -}}
{{- if hasPrefix "sqlite:" $state -}}
{{- if gt (int .Values.replicaCount) 1 -}}
{{- fail "config.state is sqlite, a file of one pod: set replicaCount to 1" -}}
{{- end -}}
sqlite
{{- else -}}
{{- $state -}}
{{- end -}}
{{- end -}}

{{/* the file: what the values say, with the addresses and the drain that the rest of the chart relies on */}}
{{- define "sluice.config" -}}
{{- $server := dict "listen" ":8080" "admin_listen" ":8081" -}}
{{- $_ := set $server "drain_delay" (int .Values.drain.delaySeconds) -}}
{{- $_ := set $server "drain_timeout" (int .Values.drain.timeoutSeconds) -}}
{{- $config := deepCopy .Values.config -}}
{{- $_ := set $config "server" (mergeOverwrite (default dict $config.server) $server) -}}
{{- toYaml $config -}}
{{- end -}}
