package mesh

import (
	"os"
	"path/filepath"
	"testing"
)

// TestManifests holds that the documentation shows the rights that the gateways of the tests run with.
func TestManifests(t *testing.T) {
	t.Parallel()
	for name, used := range map[string]string{"rbac.yaml": gatewayManifest, "peer-west.yaml": peerManifest} {
		shown, err := os.ReadFile(filepath.Join("..", "..", "docs", "examples", "kubernetes", name))
		if err != nil {
			t.Fatal(err)
		}
		if string(shown) != used {
			t.Errorf("docs/examples/kubernetes/%s is not e2e/mesh/manifests/%s", name, name)
		}
	}
}
