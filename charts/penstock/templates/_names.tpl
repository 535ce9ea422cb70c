{{/* Labels of every object. */}}
{{- define "penstock.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/part-of: penstock
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{ include "penstock.common" . }}
{{- end }}

{{/* Labels by which the release's pods are known, of whatever version. */}}
{{- define "penstock.common" -}}
app.kubernetes.io/name: penstock
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* The reference of an image. Argument: [root, image]. */}}
{{- define "penstock.image" -}}
{{- $root := index . 0 -}}
{{- $image := index . 1 -}}
{{- with $root.Values.images.registry }}{{ trimSuffix "/" . }}/{{ end -}}
{{ $image.repository }}
{{- if $image.digest }}@{{ $image.digest }}{{ else }}:{{ $image.tag | default $root.Chart.AppVersion }}{{ end }}
{{- end }}

{{/*
The image for nodes with GPUs: beside the plain one, where nothing else is said. Argument: [root, image, plain image]. A digest is of
one image alone.
*/}}
{{- define "penstock.gpuImage" -}}
{{- $image := index . 1 -}}
{{- $plain := index . 2 -}}
{{- $repository := $image.repository | default (printf "%s-gpu" $plain.repository) -}}
{{- include "penstock.image" (list (index . 0) (dict "repository" $repository "tag" ($image.tag | default $plain.tag) "digest" $image.digest)) -}}
{{- end }}

{{/* The Secret that tokens are derived from. */}}
{{- define "penstock.gatewaySecret" -}}
{{ .Values.gateway.secret.existingSecret | default "penstock-gateway-secret" }}
{{- end }}

{{/* The port of the gateway's Service. */}}
{{- define "penstock.gatewayPort" -}}
{{ .Values.gateway.service.port | default (ternary 443 80 (ne .Values.gateway.tls.secretName "")) | int }}
{{- end }}

{{/* The gateway inside the cluster. */}}
{{- define "penstock.gatewayService" -}}
{{- $tls := ne .Values.gateway.tls.secretName "" -}}
{{- $port := include "penstock.gatewayPort" . | int -}}
{{ ternary "https" "http" $tls }}://penstock-gateway.{{ .Release.Namespace }}.svc{{ if ne $port (ternary 443 80 $tls) }}:{{ $port }}{{ end }}
{{- end }}

{{/*
How many gateways the Deployment is to have. The field is never left out: in an upgrade that leaves it out Helm sends null, of
which Kubernetes makes 1. So what the cluster has is looked up, which finds nothing in a first installation and where the chart
is rendered without the cluster.
*/}}
{{- define "penstock.gatewayReplicas" -}}
{{- $present := dig "spec" "replicas" nil (lookup "apps/v1" "Deployment" .Release.Namespace "penstock-gateway") -}}
{{- $scaling := .Values.gateway.autoscaling -}}
{{- $own := .Values.gateway.replicas -}}
{{- if $scaling.enabled -}}
{{ max ($present | default $own | int) ($scaling.minReplicas | int) }}
{{- else if not (kindIs "invalid" $own) -}}
{{ int $own }}
{{- else if kindIs "invalid" $present -}}
2
{{- else -}}
{{ int $present }}
{{- end -}}
{{- end }}

{{/* Whether gateways, replicas and the operator speak TLS to each other. */}}
{{- define "penstock.replicaTLS" -}}
{{ .Values.gateway.replicaTLS | default "Disabled" }}
{{- end }}

{{/* Where clients reach the gateway. */}}
{{- define "penstock.publicUrl" -}}
{{- if .Values.gateway.publicUrl -}}
{{ .Values.gateway.publicUrl }}
{{- else if and .Values.gateway.ingress.enabled .Values.gateway.ingress.host -}}
{{ ternary "https" "http" (ne .Values.gateway.ingress.tlsSecret "") }}://{{ .Values.gateway.ingress.host }}{{ .Values.gateway.pathPrefix }}
{{- else if and .Values.gateway.httpRoute.enabled .Values.gateway.httpRoute.hostnames -}}
https://{{ first .Values.gateway.httpRoute.hostnames }}{{ .Values.gateway.pathPrefix }}
{{- else -}}
{{ include "penstock.gatewayService" . }}
{{- end -}}
{{- end }}

{{/* Where operator, gateways and replicas send their spans. */}}
{{- define "penstock.otlpEndpoint" -}}
{{- if .Values.tracing.otlpEndpoint -}}
{{ .Values.tracing.otlpEndpoint }}
{{- else if .Values.collector.enabled -}}
http://penstock-collector.{{ .Release.Namespace }}.svc:4318
{{- end -}}
{{- end }}

{{/* Every pod's own rights: none. What a value has as null is left out. */}}
{{- define "penstock.podSecurity" -}}
{{- include "penstock.said" .Values.podSecurityContext }}
{{- end }}

{{- define "penstock.containerSecurity" -}}
{{- include "penstock.said" .Values.containerSecurityContext }}
{{- end }}

{{- define "penstock.said" -}}
{{- $said := dict -}}
{{- range $name, $value := . -}}
{{- if not (kindIs "invalid" $value) -}}
{{- $_ := set $said $name $value -}}
{{- end -}}
{{- end -}}
{{ toYaml $said }}
{{- end }}

{{/* A ServiceAccount. Arguments: [root, the component's values, its name]. */}}
{{- define "penstock.serviceAccount" -}}
{{- $root := index . 0 -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: penstock-{{ index . 2 }}
  namespace: {{ $root.Release.Namespace }}
  labels: {{- include "penstock.labels" $root | nindent 4 }}
  {{- with (index . 1).serviceAccount.annotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
automountServiceAccountToken: false
{{- end }}

{{/* What keeps a pod out of meshes, or puts it in. Arguments: [root, its component]. Only gateways are ever in one. */}}
{{- define "penstock.meshLabels" -}}
{{- if and (eq (index . 0).Values.mesh "Istio") (eq (index . 1) "gateway") -}}
sidecar.istio.io/inject: "true"
{{- else -}}
sidecar.istio.io/inject: "false"
istio.io/dataplane-mode: none
{{- end }}
{{- end }}

{{- define "penstock.meshAnnotations" -}}
{{- $root := index . 0 -}}
{{- if and (eq $root.Values.mesh "Istio") (eq (index . 1) "gateway") -}}
# Clients come through the mesh. Replicas and the operator do not, and are known by the addresses that they come from; what the
# gateway itself connects to, it knows by tokens and certificates.
traffic.sidecar.istio.io/includeInboundPorts: "8080"
traffic.sidecar.istio.io/includeOutboundIPRanges: ""
# The proxy outlives the requests that it carries.
proxy.istio.io/config: '{"terminationDrainDuration": "{{ add $root.Values.gateway.shutdownDelaySeconds $root.Values.gateway.drainSeconds }}s"}'
{{- else -}}
linkerd.io/inject: disabled
{{- end }}
{{- end }}

{{/* A pod's own labels, over what is said of meshes. Arguments: [root, the component's values, its name]. */}}
{{- define "penstock.podLabels" -}}
{{- $mesh := include "penstock.meshLabels" (list (index . 0) (index . 2)) | fromYaml -}}
{{ toYaml (merge (dict) ((index . 1).podLabels | default dict) $mesh) }}
{{- end }}

{{/* Its annotations, likewise. */}}
{{- define "penstock.podAnnotations" -}}
{{- $mesh := include "penstock.meshAnnotations" (list (index . 0) (index . 2)) | fromYaml -}}
{{ toYaml (merge (dict) ((index . 1).podAnnotations | default dict) $mesh) }}
{{- end }}

{{/* A node affinity for nodes that the images were built for. Arguments: [root, the component's values]. */}}
{{- define "penstock.architectures" -}}
{{- $architectures := (index . 0).Values.images.architectures -}}
{{- if and $architectures (not (hasKey ((index . 1).nodeSelector | default dict) "kubernetes.io/arch")) -}}
nodeAffinity:
  requiredDuringSchedulingIgnoredDuringExecution:
    nodeSelectorTerms:
    - matchExpressions:
      - {key: kubernetes.io/arch, operator: In, values: {{ toJson $architectures }}}
{{- end }}
{{- end }}

{{/* Where pods run. Arguments: [root, the component's values, its name]. */}}
{{- define "penstock.placement" -}}
{{- $root := index . 0 -}}
{{- $values := index . 1 -}}
{{- $component := index . 2 -}}
{{- $labels := dict "app.kubernetes.io/name" "penstock" "app.kubernetes.io/instance" $root.Release.Name "app.kubernetes.io/component" $component -}}
{{- with $values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $values.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- with $values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
affinity:
{{- if $values.affinity }}
  {{- toYaml $values.affinity | nindent 2 }}
{{- else }}
  {{- if ne $component "collector" }}
  {{- with include "penstock.architectures" (list $root $values) }}
  {{- . | nindent 2 }}
  {{- end }}
  {{- end }}
  podAntiAffinity:
    preferredDuringSchedulingIgnoredDuringExecution:
    - weight: 100
      podAffinityTerm:
        topologyKey: kubernetes.io/hostname
        labelSelector:
          matchLabels: {{- toYaml $labels | nindent 12 }}
{{- end }}
{{- if kindIs "slice" $values.topologySpreadConstraints }}
topologySpreadConstraints: {{- toYaml $values.topologySpreadConstraints | nindent 2 }}
{{- else }}
topologySpreadConstraints:
- maxSkew: 1
  topologyKey: topology.kubernetes.io/zone
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels: {{- toYaml $labels | nindent 6 }}
{{- end }}
{{- end }}

{{/* An argument of a container as it is meant: neither YAML nor the kubelet, which expands $(NAME), reads anything into it. */}}
{{- define "penstock.argument" -}}
{{ . | replace "$(" "$$(" | quote }}
{{- end }}

{{/* "true" where the operator may take its finalizers off what is being deleted in any namespace. */}}
{{- define "penstock.letsGoEverywhere" -}}
{{- if and .Values.operator.watchNamespaces .Values.operator.letGoEverywhere .Values.admissionPolicies.enabled }}true{{ end }}
{{- end }}
