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
{{- if and .Values.secret.existingSecret .Values.externalSecret.enabled -}}
{{- fail "secret.existingSecret and externalSecret are two answers to one question: choose one" -}}
{{- end -}}
{{- if .Values.secret.existingSecret -}}
{{- .Values.secret.existingSecret -}}
{{- else if or .Values.secret.env .Values.externalSecret.enabled -}}
{{- include "sluice.fullname" . -}}
{{- end -}}
{{- end -}}

{{/* the most pods there may be */}}
{{- define "sluice.mostPods" -}}
{{- if .Values.autoscaling.enabled -}}
{{- if lt (int .Values.autoscaling.maxReplicas) (int .Values.autoscaling.minReplicas) -}}
{{- fail "autoscaling.maxReplicas is less than autoscaling.minReplicas" -}}
{{- end -}}
{{- int .Values.autoscaling.maxReplicas -}}
{{- else -}}
{{- int .Values.replicaCount -}}
{{- end -}}
{{- end -}}

{{/* a store's address, with the variable that it begins with replaced as far as the values say what is in it */}}
{{- define "sluice.address" -}}
{{- $address := default "" .address -}}
{{- $name := regexFind "^[$][{][A-Za-z0-9_]+" $address | trimPrefix "${" -}}
{{- if $name -}}
{{- $address = regexReplaceAll "^[$][{][A-Za-z0-9_]+(:-)?" $address "" -}}
{{- if and (hasKey .values.secret.env $name) (not .values.secret.existingSecret) -}}
{{- $address = get .values.secret.env $name -}}
{{- end -}}
{{- range .values.extraEnv -}}
{{- if and (eq .name $name) (hasKey . "value") -}}
{{- $address = .value -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $address -}}
{{- end -}}

{{/* "sqlite" where anything is kept in a file, which is one pod's; refuses what several pods cannot share */}}
{{- define "sluice.state" -}}
{{- $config := .Values.config -}}
{{- $several := gt (int (include "sluice.mostPods" .)) 1 -}}
{{- $sqlite := false -}}
{{- $stores := dict "config.state" $config.state "config.admin.store" (default dict $config.admin).store "config.responses.store" (default dict $config.responses).store -}}
{{- range $option, $address := $stores -}}
{{- if hasPrefix "sqlite:" (include "sluice.address" (dict "address" $address "values" $.Values)) -}}
{{- $sqlite = true -}}
{{- if $several -}}
{{- fail (printf "%s is sqlite, a file of one pod: set replicaCount to 1, or an address that all pods reach" $option) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and $several (hasPrefix "shared:" (include "sluice.address" (dict "address" (default dict $config.limits).store "values" .Values))) -}}
{{- fail "config.limits.store is shared:, a file of one host's workers: several pods need a Redis" -}}
{{- end -}}
{{- if $sqlite -}}sqlite{{- end -}}
{{- end -}}

{{/* the name of the ConfigMap with gateway.yaml */}}
{{- define "sluice.configMap" -}}
{{- default (include "sluice.fullname" .) .Values.existingConfigMap -}}
{{- end -}}

{{/* the file: what the values say, with the addresses and the drain that the rest of the chart relies on */}}
{{- define "sluice.config" -}}
{{- $server := dict "listen" ":8080" "admin_listen" ":8081" -}}
{{- $_ := set $server "drain_delay" (int .Values.drain.delaySeconds) -}}
{{- $_ := set $server "drain_timeout" (int .Values.drain.timeoutSeconds) -}}
{{- if eq .Values.reload "watch" -}}
{{- $_ := set $server "watch" true -}}
{{- else if (default dict .Values.config.server).watch -}}
{{- fail "config.server.watch beside reload: restart would follow a new configuration twice: set reload to watch" -}}
{{- end -}}
{{- $config := deepCopy .Values.config -}}
{{- $_ := set $config "server" (mergeOverwrite (default dict $config.server) $server) -}}
{{- $most := int (include "sluice.mostPods" .) -}}
{{- $limits := default dict $config.limits -}}
{{- if and (gt $most 1) (not (hasKey $limits "replicas")) (not (eq (default "memory" $limits.store) "memory")) -}}
{{- $_ := set $config "limits" (merge $limits (dict "replicas" $most)) -}}
{{- end -}}
{{- toYaml $config -}}
{{- end -}}

{{/* the gateway's environment, its files and its rights: of the container that serves and of those that check */}}
{{- define "sluice.container" -}}
image: {{ include "sluice.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- with include "sluice.secret" . }}
envFrom:
  - secretRef: { name: {{ . }} }
{{- end }}
{{- with .Values.extraEnv }}
env:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: { drop: [ALL] }
{{- with .Values.resources }}
resources:
  {{- toYaml . | nindent 2 }}
{{- end }}
volumeMounts:
  # the directory, never subPath: a file mounted by subPath does not follow its ConfigMap
  - { name: config, mountPath: /etc/sluice, readOnly: true }
  - { name: state, mountPath: /var/lib/sluice }
  - { name: tmp, mountPath: /tmp }
  {{- if .Values.certificate.enabled }}
  - { name: certificate, mountPath: {{ .Values.certificate.mountPath }}, readOnly: true }
  {{- end }}
  {{- with .Values.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}
