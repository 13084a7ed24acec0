package kubernetes

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"fmt"
	"io"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

const (
	originPlainLimit = 1 << 10   // longer documents are compressed
	originLimit      = 128 << 10 // Kubernetes takes 256 KiB of annotations in all
	originReadLimit  = 4 << 20   // what a compressed annotation may become
)

// originAnnotation writes the caller's document for an annotation; ok false when it is too long to be kept.
func originAnnotation(origin *neutral.Origin) (text string, ok bool) {
	prefix := string(origin.Dialect) + ":"
	if len(origin.Spec) <= originPlainLimit {
		return prefix + "plain:" + string(origin.Spec), true
	}
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, err := w.Write(origin.Spec)
	if closed := w.Close(); err != nil || closed != nil {
		return "", false
	}
	text = prefix + "gzip:" + base64.StdEncoding.EncodeToString(b.Bytes())
	return text, len(text) <= originLimit
}

// parseOrigin reads what originAnnotation wrote.
func parseOrigin(text string) (*neutral.Origin, error) {
	dialect, rest, ok := strings.Cut(text, ":")
	encoding, body, ok2 := strings.Cut(rest, ":")
	if !ok || !ok2 {
		return nil, fmt.Errorf("an origin has no encoding")
	}
	origin := &neutral.Origin{Dialect: neutral.Orchestrator(dialect)}
	switch encoding {
	case "plain":
		origin.Spec = []byte(body)
		return origin, nil
	case "gzip":
		raw, err := base64.StdEncoding.DecodeString(body)
		if err != nil {
			return nil, fmt.Errorf("decode an origin: %w", err)
		}
		r, err := gzip.NewReader(bytes.NewReader(raw))
		if err != nil {
			return nil, fmt.Errorf("decompress an origin: %w", err)
		}
		origin.Spec, err = io.ReadAll(io.LimitReader(r, originReadLimit+1))
		if err != nil {
			return nil, fmt.Errorf("decompress an origin: %w", err)
		}
		if len(origin.Spec) > originReadLimit {
			return nil, fmt.Errorf("an origin passes %d bytes", originReadLimit)
		}
		return origin, nil
	}
	return nil, fmt.Errorf("an origin has the unknown encoding %q", encoding)
}

// originFromMeta gives the caller's document; nil when there is none that can be read.
func originFromMeta(meta metav1.ObjectMeta) *neutral.Origin {
	text := meta.Annotations[annotationOrigin]
	if text == "" {
		return nil
	}
	origin, err := parseOrigin(text)
	if err != nil {
		return nil
	}
	origin.Peer = meta.Annotations[annotationPeer]
	return origin
}
