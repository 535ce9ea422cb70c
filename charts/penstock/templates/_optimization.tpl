{{/* The operator's arguments on optimization. */}}
{{- define "penstock.optimizationArguments" -}}
{{- with .Values.optimization }}
{{- if .artifactStore }}
- {{ include "penstock.argument" (printf "--artifact-store=%v" .artifactStore) }}
- {{ include "penstock.argument" (printf "--optimizer-image=%v" (include "penstock.image" (list $ $.Values.images.optimizer))) }}
- {{ include "penstock.argument" (printf "--optimizer-gpu-image=%v" (include "penstock.gpuImage" (list $ $.Values.images.optimizerGpu $.Values.images.optimizer))) }}
{{- range $index, $key := .trustedKeys }}
- {{ include "penstock.argument" (printf "--trusted-key-file=/etc/penstock/settings/trusted-%v.pem" $index) }}
{{- end }}
{{- with .workspaceClaim }}
- {{ include "penstock.argument" (printf "--optimizer-workspace-claim=%v" .) }}
{{- end }}
{{- with .jobDisk }}
- {{ include "penstock.argument" (printf "--optimizer-disk=%v" .) }}
{{- end }}
{{- range $claim, $path := .modelVolumes }}
- {{ include "penstock.argument" (printf "--model-volume=%v=%v" $claim $path) }}
{{- end }}
{{- range $name, $value := include "penstock.outside" $ | fromYaml }}
- {{ include "penstock.argument" (printf "--optimizer-env=%v=%v" $name $value) }}
{{- end }}
{{- range $name, $value := .jobEnv }}
- {{ include "penstock.argument" (printf "--optimizer-env=%v=%v" $name $value) }}
{{- end }}
{{- if not .jobEgress }}
{{- fail "optimization.artifactStore needs optimization.jobEgress: where that store is, such as 10.1.0.0/16:443 or namespace/storage:9000 (0.0.0.0/0:443 where its addresses are not known), since a search runs code that came with a model" }}
{{- end }}
{{- range .jobEgress }}
- {{ include "penstock.argument" (printf "--optimizer-egress=%v" .) }}
{{- end }}
{{- with .jobQueue }}
- {{ include "penstock.argument" (printf "--optimizer-queue=%v" .) }}
{{- end }}
{{- with .jobEnvSecret }}
- {{ include "penstock.argument" (printf "--optimizer-env-secret=%v" .) }}
{{- end }}
{{- if eq .sandbox "Pod" }}
- --optimizer-no-sandbox
{{- end }}
{{- if .sharedStore }}
- --shared-store
{{- end }}
{{- with .replicaSecret }}
- {{ include "penstock.argument" (printf "--artifact-secret=%v" .) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
