{{/* What no proxy is asked for, by commas. */}}
{{- define "penstock.noProxy" -}}
{{- $hosts := list "localhost" "127.0.0.1" "::1" ".svc" ".cluster.local" "10.0.0.0/8" "172.16.0.0/12" "192.168.0.0/16" -}}
{{- $otlp := urlParse (include "penstock.otlpEndpoint" .) -}}
{{- if eq $otlp.scheme "http" -}}
{{- $hosts = append $hosts $otlp.hostname -}}
{{- end -}}
{{ concat $hosts .Values.proxy.noProxy | uniq | join "," }}
{{- end }}

{{/* Variables by which what lies outside is reached, as a map. */}}
{{- define "penstock.outside" -}}
{{- with .Values.proxy }}
{{- with .https }}
HTTPS_PROXY: {{ quote . }}
{{- end }}
{{- with .http }}
HTTP_PROXY: {{ quote . }}
{{- end }}
{{- if or .https .http }}
NO_PROXY: {{ include "penstock.noProxy" $ | quote }}
{{- end }}
{{- end }}
{{- end }}

{{/* The same as a container's variables, with whom it trusts. */}}
{{- define "penstock.outsideEnv" -}}
{{- range $name, $value := include "penstock.outside" . | fromYaml }}
- name: {{ $name }}
  value: {{ quote $value }}
{{- end }}
{{- if .Values.trustedCA.configMap }}
- name: PENSTOCK_TRUSTED_CA
  value: /etc/penstock/trusted/ca.crt
{{- end }}
{{- end }}

{{- define "penstock.trustedMount" -}}
{{- if .Values.trustedCA.configMap }}
- {name: trusted, mountPath: /etc/penstock/trusted, readOnly: true}
{{- end }}
{{- end }}

{{- define "penstock.trustedVolume" -}}
{{- with .Values.trustedCA }}
{{- if .configMap }}
- name: trusted
  configMap: {name: {{ .configMap }}, items: [{key: {{ .key }}, path: ca.crt}]}
{{- end }}
{{- end }}
{{- end }}
