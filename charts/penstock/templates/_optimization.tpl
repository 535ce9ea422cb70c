{{/* The operator's arguments on optimization. */}}
{{- define "penstock.optimizationArguments" -}}
{{- with .Values.optimization }}
{{- if .artifactStore }}
- --artifact-store={{ .artifactStore }}
- --optimizer-image={{ include "penstock.image" (list $ $.Values.images.optimizer) }}
- --signing-key-secret={{ required "optimization.artifactStore needs optimization.signingKeySecret: the Secret, in the models' namespaces, with the private key" .signingKeySecret }}
{{- if not .trustedKeys }}
{{- fail "optimization.artifactStore needs optimization.trustedKeys: the public key (PEM) of optimization.signingKeySecret" }}
{{- end }}
{{- range $index, $key := .trustedKeys }}
- --trusted-key-file=/etc/penstock/settings/trusted-{{ $index }}.pem
{{- end }}
{{- with .workspaceClaim }}
- --optimizer-workspace-claim={{ . }}
{{- end }}
{{- range $claim, $path := .modelVolumes }}
- --model-volume={{ $claim }}={{ $path }}
{{- end }}
{{- range $name, $value := .jobEnv }}
- --optimizer-env={{ $name }}={{ $value }}
{{- end }}
{{- if not .jobEgress }}
{{- fail "optimization.artifactStore needs optimization.jobEgress: where that store is, such as 10.1.0.0/16:443 or namespace/storage:9000 (0.0.0.0/0:443 where its addresses are not known), since a search runs code that came with a model" }}
{{- end }}
{{- range .jobEgress }}
- --optimizer-egress={{ . }}
{{- end }}
{{- with .jobQueue }}
- --optimizer-queue={{ . }}
{{- end }}
{{- with .jobEnvSecret }}
- --optimizer-env-secret={{ . }}
{{- end }}
{{- with .replicaSecret }}
- --artifact-secret={{ . }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
