package testbed

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// gatewayUser is whom the image of a gateway runs as, and whom charts/isthmus names.
const gatewayUser = 65532

// WriteGatewayImage writes the archive of an image with a gateway's two programs, isthmus and Envoy, and the libraries
// of this machine that they are linked with. There is nothing else in it, and no shell. It is for this machine's
// architecture, of which Envoy is.
func WriteGatewayImage(path, reference, isthmus, envoy string) error {
	l := newLayer()
	for _, name := range []string{"etc", "lib", "lib64", "run", "usr", "usr/local", "usr/local/bin", "var", "var/lib"} {
		l.dir(name, 0o755)
	}
	l.dir("tmp", 0o1777)
	for _, name := range []string{"run/isthmus", "var/lib/isthmus"} {
		l.ownedDir(name, 0o755, gatewayUser)
	}
	l.file("etc/passwd", 0o644, fmt.Appendf(nil, "isthmus:x:%d:%[1]d::/var/lib/isthmus:/sbin/nologin\n", gatewayUser))
	l.file("etc/group", 0o644, fmt.Appendf(nil, "isthmus:x:%d:\n", gatewayUser))
	files := map[string]string{"usr/local/bin/isthmus": isthmus, "usr/local/bin/envoy": envoy}
	var programs []string
	for _, name := range []string{isthmus, envoy} {
		absolute, err := filepath.Abs(name)
		if err != nil {
			return fmt.Errorf("image %s: %w", reference, err)
		}
		programs = append(programs, absolute)
	}
	libraries, loader, err := linked("/", programs)
	if err != nil {
		return fmt.Errorf("image %s: %w", reference, err)
	}
	for name, from := range libraries {
		files["lib/"+name] = from
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		content, err := os.ReadFile(files[name])
		if err != nil {
			return fmt.Errorf("image %s: %w", reference, err)
		}
		l.file(name, 0o755, content)
	}
	if name := filepath.Base(loader); loader != "" && loader != "/lib/"+name {
		l.link(strings.TrimPrefix(loader, "/"), "/lib/"+name)
	}
	root, err := l.bytes()
	if err != nil {
		return err
	}
	return writeImage(path, reference, imageConfig{
		Entrypoint: []string{"/usr/local/bin/isthmus"},
		Env:        []string{"PATH=/usr/local/bin"},
		User:       fmt.Sprintf("%d:%[1]d", gatewayUser),
	}, root)
}
