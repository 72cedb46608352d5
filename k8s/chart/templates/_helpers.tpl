{{/* The objects of a file of k8s/, in the release's namespace. */}}
{{- define "gigarouter.objects" -}}
{{- regexReplaceAll "(?m)^  namespace: gigarouter$" (.root.Files.Get (printf "objects/%s" .file)) (printf "  namespace: %s" .root.Release.Namespace) -}}
{{- end }}

{{/* The Serve config, byte for byte. */}}
{{- define "gigarouter.serveConfig" -}}
{{- .Values.serve.config | default (.Files.Get (printf "objects/%s.serve_config.yaml" .Values.serve.preset)) -}}
{{- end }}

{{/* The variables of the transport, as JSON. */}}
{{- define "gigarouter.transport" -}}
{{- $text := .Values.serve.transport | default (.Files.Get (printf "objects/%s.transport.env" .Values.serve.preset)) -}}
{{- $data := dict -}}
{{- range splitList "\n" $text -}}
{{- if . -}}
{{- $pair := splitn "=" 2 . -}}
{{- $_ := set $data $pair._0 $pair._1 -}}
{{- end -}}
{{- end -}}
{{- toJson $data -}}
{{- end }}

{{/* The name of their ConfigMap, with the hash of its content that kustomize gives it: other values are another cluster. */}}
{{- define "gigarouter.transportName" -}}
{{- $data := include "gigarouter.transport" . | fromJson -}}
{{- $hash := dict "kind" "ConfigMap" "name" "" "data" $data | toJson | sha256sum | trunc 10 -}}
{{- $hash = $hash | replace "0" "g" | replace "1" "h" | replace "3" "k" | replace "a" "m" | replace "e" "t" -}}
gigarouter-transport-{{ $hash }}
{{- end }}
