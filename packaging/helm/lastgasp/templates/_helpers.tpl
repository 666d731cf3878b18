{{/* The manifest "file" of packaging/kubernetes or packaging/monitoring, in the namespace of the release of "root". */}}
{{- define "lastgasp.manifest" -}}
{{- $text := .root.Files.Get .file | required (printf "the chart lacks %s" .file) -}}
{{- replace "namespace: lastgasp\n" (printf "namespace: %s\n" .root.Release.Namespace) $text -}}
{{- end }}

{{/* listener.yaml: the values over the file that kustomize installs. */}}
{{- define "lastgasp.config" -}}
{{- $config := .Files.Get "files/kubernetes/listener.yaml" | fromYaml -}}
{{- with .Values.page }}{{ if .secret -}}
{{- $address := printf ":%d" (int .port) -}}
{{- $_ := set $config "page" (dict "address" $address "cert" "/etc/lastgasp-page/tls.crt" "key" "/etc/lastgasp-page/tls.key") -}}
{{- end }}{{ end -}}
{{- mergeOverwrite $config .Values.config | toYaml -}}
{{- end }}

{{/* The port of an address. */}}
{{- define "lastgasp.port" -}}
{{ regexFind "[0-9]+$" . }}
{{- end }}

{{- define "lastgasp.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end }}
