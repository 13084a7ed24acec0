package docker

import (
	"bytes"
	"compress/flate"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// What the gateway keeps beside an object stands in labels of its own, which are not shown among the object's labels.
const (
	labelOrigin     = "isthmus.io/origin"
	labelOriginPeer = "isthmus.io/origin-peer"
)

const (
	originLimit     = 128 << 10 // of the label
	originReadLimit = 4 << 20   // what a label may become
	originEncoding  = "deflate"
)

// ownLabel tells whether a label is the gateway's, which no caller sets.
func ownLabel(key string) bool {
	return strings.HasPrefix(key, labelOrigin) || strings.HasPrefix(key, labelLosses) || key == labelFiles || key == labelImplicit ||
		strings.HasPrefix(key, labelPod) || strings.HasPrefix(key, labelSwitch)
}

// originLabel writes the caller's document for a label; ok false when it is too long to be kept.
func originLabel(origin *neutral.Origin) (text string, ok bool) {
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, flate.BestCompression)
	if err == nil {
		_, err = w.Write(origin.Spec)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil || len(origin.Spec) > originReadLimit {
		return "", false
	}
	text = string(origin.Dialect) + ":" + originEncoding + ":" + base64.RawStdEncoding.EncodeToString(b.Bytes())
	return text, len(text) <= originLimit
}

// parseOrigin reads what originLabel wrote.
func parseOrigin(text string) (*neutral.Origin, error) {
	dialect, rest, ok := strings.Cut(text, ":")
	encoding, body, ok2 := strings.Cut(rest, ":")
	if !ok || !ok2 || dialect == "" || encoding != originEncoding {
		return nil, fmt.Errorf("an origin has no encoding that is known")
	}
	if len(text) > originLimit {
		return nil, fmt.Errorf("an origin's label passes %d bytes", originLimit)
	}
	raw, err := base64.RawStdEncoding.Strict().DecodeString(body)
	if err != nil {
		return nil, fmt.Errorf("decode an origin: %w", err)
	}
	spec, err := io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(raw)), originReadLimit+1))
	if err != nil {
		return nil, fmt.Errorf("decompress an origin: %w", err)
	}
	if len(spec) > originReadLimit {
		return nil, fmt.Errorf("an origin passes %d bytes", originReadLimit)
	}
	return &neutral.Origin{Dialect: neutral.Orchestrator(dialect), Spec: spec}, nil
}

// callersLabels takes out the labels that no caller sets.
func callersLabels(field string, labels map[string]string) (map[string]string, []neutral.Loss) {
	var losses []neutral.Loss
	kept := map[string]string{}
	for key, value := range labels {
		if ownLabel(key) {
			losses = append(losses, neutral.Loss{Field: field, Change: "without " + key, Reason: "the gateway keeps this label itself"})
			continue
		}
		kept[key] = value
	}
	return kept, losses
}

// keepBeside writes what is kept beside an object into its labels.
func keepBeside(labels map[string]string, origin *neutral.Origin, peer string, losses []neutral.Loss) (more []neutral.Loss) {
	if origin != nil && len(origin.Spec) > 0 {
		text, ok := originLabel(origin)
		if ok {
			labels[labelOrigin] = text
			if origin.Peer != "" {
				peer = origin.Peer
			}
			if peer != "" {
				labels[labelOriginPeer] = peer
			}
		} else {
			more = append(more, neutral.Loss{Field: "metadata", Change: "the document is not kept beside the object", Reason: "it is too long"})
		}
	}
	if all := slices.Concat(losses, more); len(all) > 0 {
		if raw, err := json.Marshal(all); err == nil && len(raw) <= originLimit {
			labels[labelLosses] = string(raw)
		}
	}
	return more
}

// beside is what the gateway keeps beside an object.
type beside struct {
	labels map[string]string // the others
	origin *neutral.Origin
	losses []neutral.Loss
}

// readBeside takes apart the labels of an object. What cannot be read is not there.
func readBeside(labels map[string]string) beside {
	b := beside{labels: make(map[string]string, len(labels))}
	for key, value := range labels {
		if !ownLabel(key) {
			b.labels[key] = value
		}
	}
	if text := labels[labelOrigin]; text != "" {
		if origin, err := parseOrigin(text); err == nil {
			origin.Peer = labels[labelOriginPeer]
			b.origin = origin
		}
	}
	if text := labels[labelLosses]; text != "" && len(text) <= originLimit {
		if json.Unmarshal([]byte(text), &b.losses) != nil {
			b.losses = nil
		}
	}
	return b
}
