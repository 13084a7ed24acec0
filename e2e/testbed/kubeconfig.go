package testbed

import (
	"encoding/json"
	"fmt"
)

// kubeconfig renders a kubeconfig with everything embedded. JSON is YAML.
func kubeconfig(cluster, server string, ca []byte, user string, credential map[string]any) ([]byte, error) {
	type named map[string]any
	raw, err := json.MarshalIndent(map[string]any{
		"apiVersion":      "v1",
		"kind":            "Config",
		"current-context": cluster,
		"clusters": []named{{"name": cluster, "cluster": named{
			"server":                     server,
			"certificate-authority-data": ca,
		}}},
		"users": []named{{"name": user, "user": credential}},
		"contexts": []named{{"name": cluster, "context": named{
			"cluster": cluster, "user": user, "namespace": "default",
		}}},
	}, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("kubeconfig: %w", err)
	}
	return append(raw, '\n'), nil
}
