package kubernetes

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"math/big"
	"regexp"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// What isthmus keeps on the objects that it makes. State lives there and nowhere else, so that a restart of the
// gateway loses nothing.
const (
	gateNotStarted = "isthmus.io/not-started" // the scheduling gate of a container that is created and not started

	annotationNonce      = "isthmus.io/nonce"       // what makes a container's id; survives the Pod's replacement
	annotationName       = "isthmus.io/name"        // the caller's name where Kubernetes does not allow it
	annotationLabels     = "isthmus.io/labels"      // the caller's labels that Kubernetes does not allow, JSON
	annotationOrigin     = "isthmus.io/origin"      // the caller's own document: "<dialect>:<encoding>:<text>"
	annotationLosses     = "isthmus.io/losses"      // what the translation could not carry, JSON
	annotationRestart    = "isthmus.io/restart"     // a restart policy that has no word in Kubernetes
	annotationHealth     = "isthmus.io/health"      // the caller's health check, JSON; the probe is made from it
	annotationStopSignal = "isthmus.io/stop-signal" // sent by a hook
	annotationEntrypoint = "isthmus.io/entrypoint"  // "clear" when the caller cleared the image's entrypoint
	annotationError      = "isthmus.io/start-error" // why the last start failed
	annotationStopped    = "isthmus.io/stopped"     // when a caller stopped it, RFC 3339
	annotationPaused     = "isthmus.io/paused"      // when a caller paused it by quiesce, RFC 3339
	annotationUnpaused   = "isthmus.io/unpaused"    // when it was unpaused: it goes on from a pause, RFC 3339
	annotationDeadline   = "isthmus.io/deadline"    // activeDeadlineSeconds as it was before the stop; "" for none
	annotationCreated    = "isthmus.io/created"     // when its caller created it, where its Pod is a later one; RFC 3339
	annotationPeer       = "isthmus.io/peer"        // the peer that it was made for
	annotationOptions    = "isthmus.io/options"     // a volume's options as its maker wrote them, JSON
	annotationVolumes    = "isthmus.io/volumes"     // the names of volumes that Kubernetes does not allow, by those of their claims, JSON
	annotationReplacing  = "isthmus.io/replacing"   // the Pod is deleted only to be made anew under the same name

	labelAutoRemove = "isthmus.io/auto-remove"     // the container goes when it ends
	labelNetwork    = "isthmus.io/network"         // on what makes a network: its policy, its Service, the names of its containers
	labelNetworked  = "isthmus.io/networked"       // on Pods that are on one
	labelStored     = "isthmus.io/stored"          // on Secrets and ConfigMaps that callers made as secrets and configs
	labelVolume     = "isthmus.io/volume"          // on claims that callers made: named, or anonymous
	labelWorkload   = "isthmus.io/workload"        // selects the containers of a workload that isthmus made
	labelExport     = "isthmus.io/export"          // a caller's label: offer the workload's service to peers
	labelPause      = "isthmus.io/pause-semantics" // told of a container that is paused: how
	labelJournal    = "isthmus.io/journal"         // on the Secrets that keep a spec safe while its Pod is replaced

	// containerName is the name of the one container in a Pod that isthmus makes.
	containerName = "main"
)

// containerID is a container's id: 64 hex digits that are stable for as long as the caller thinks of it as the same
// container. container is "" unless the Pod has several.
func containerID(cluster string, pod *corev1.Pod, container string) string {
	nonce := pod.Annotations[annotationNonce]
	if nonce == "" {
		nonce = string(pod.UID)
	}
	return digest(cluster, pod.Namespace, pod.Name, nonce, container)
}

// digest hashes parts so that no two lists of parts meet.
func digest(parts ...string) string {
	text := make([]byte, 0, 256)
	for _, part := range parts {
		text = strconv.AppendInt(text, int64(len(part)), 10)
		text = append(text, ':')
		text = append(text, part...)
		text = append(text, ',')
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// shortID is a 25-character id as Swarm's objects have.
func shortID(parts ...string) string {
	raw, err := hex.DecodeString(digest(parts...))
	if err != nil {
		return ""
	}
	text := new(big.Int).SetBytes(raw).Text(36)
	for len(text) < 25 {
		text = "0" + text
	}
	return text[:25]
}

// newNonce makes what a new container's id is hashed from.
func newNonce() (string, error) {
	var raw [16]byte
	if _, err := rand.Read(raw[:]); err != nil {
		return "", fault.Wrap(fault.Internal, err, "no randomness for an id")
	}
	return hex.EncodeToString(raw[:]), nil
}

var (
	adjectives = strings.Fields(`agile amber bold brave bright brisk calm candid clever cosmic crisp daring eager early
		fair fancy fleet fond frank fresh gentle glad golden grand happy hardy honest jolly keen kind lively loyal lucid
		lucky merry mild modest neat nimble noble patient plucky polite prime proud quick quiet rapid ready robust rosy
		serene sharp silent silver simple sleek smart snug solid spry steady still sturdy subtle sunny swift tidy tranquil
		trusty upbeat vivid warm wise witty zesty`)
	nouns = strings.Fields(`anchor badger beacon birch bison bridge brook canal cedar comet coral crane delta dune eagle
		ember falcon fern finch fjord forge fox galaxy garden glacier grove harbor hawk heron hill island ivy jetty juniper
		kestrel lagoon lake lantern lark lynx maple marsh meadow meteor moose nebula oak oasis orbit orchid osprey otter
		owl pebble pine planet plover prairie quarry quartz rapids raven reef ridge river robin sable sparrow spruce summit
		swan thicket tide trout tundra valley walnut willow wren zephyr`)
)

// randomName makes a name for a container that its caller did not name, from the container's nonce. Its tail keeps
// two of them apart: unlike docker's engine, the gateway cannot look whether a name is taken.
func randomName(nonce string) string {
	sum := sha256.Sum256([]byte("name " + nonce))
	adjective := adjectives[binary.BigEndian.Uint32(sum[:4])%uint32(len(adjectives))]
	noun := nouns[binary.BigEndian.Uint32(sum[4:8])%uint32(len(nouns))]
	return adjective + "-" + noun + "-" + hex.EncodeToString(sum[8:10])
}

var dockerName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]+$`)

// legalName is the name that Kubernetes takes for a caller's name; kept tells that it is the same. A name that had to
// change carries a hash, so that two callers' names never become one.
func legalName(name string, legal func(string) []string, limit int) (changed string, kept bool) {
	if len(name) <= limit && len(legal(name)) == 0 {
		return name, true
	}
	base := strings.Trim(strings.Map(legalRune, name), "-")
	if base == "" || base[0] >= '0' && base[0] <= '9' {
		base = "c" + base
	}
	if room := limit - 9; len(base) > room {
		base = strings.TrimRight(base[:room], "-")
	}
	return base + "-" + digest(name)[:8], false
}

// legalRune is the character of a DNS label that takes another's place.
func legalRune(r rune) rune {
	switch {
	case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '-':
		return r
	case r >= 'A' && r <= 'Z':
		return r - 'A' + 'a'
	}
	return '-'
}

// podName is the Pod's name for a caller's container name.
func podName(name string) (string, bool, error) {
	if !dockerName.MatchString(name) {
		return "", false, fault.New(fault.Invalid,
			"Invalid container name (%s), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed", name)
	}
	legal, kept := legalName(name, validation.IsDNS1123Subdomain, validation.DNS1123LabelMaxLength)
	return legal, kept, nil
}

// displayName is the name that callers know a container by.
func displayName(pod *corev1.Pod, index int) string {
	name := pod.Name
	if original := pod.Annotations[annotationName]; original != "" {
		name = original
	}
	if len(pod.Spec.Containers) > 1 {
		name += "." + pod.Spec.Containers[index].Name
	}
	return name
}

// matchReference finds what ref names among n things, as docker does: the whole id, then the name, then the
// beginning of exactly one id. noun is what docker calls the thing in its answer.
func matchReference(ref, noun string, n int, id, name func(int) string) (int, error) {
	plain := strings.TrimPrefix(ref, "/")
	if plain == "" {
		return 0, fault.New(fault.NotFound, "No such %s: %s", noun, ref)
	}
	all := make([]int, n)
	for i := range all {
		all[i] = i
	}
	if i := slices.IndexFunc(all, func(i int) bool { return id(i) == plain }); i >= 0 {
		return i, nil
	}
	if i := slices.IndexFunc(all, func(i int) bool { return name(i) == plain }); i >= 0 {
		return i, nil
	}
	found := -1
	for i := range all {
		if !strings.HasPrefix(id(i), plain) {
			continue
		}
		if found >= 0 {
			return 0, fault.New(fault.Invalid, "Multiple IDs found with provided prefix: %s", plain)
		}
		found = i
	}
	if found < 0 {
		return 0, fault.New(fault.NotFound, "No such %s: %s", noun, plain)
	}
	return found, nil
}

// mayBe tells whether a container is one of those among which resolveContainer finds, or about which it complains.
func mayBe(c *neutral.Container, ref string) bool {
	plain := strings.TrimPrefix(ref, "/")
	return plain != "" && (strings.HasPrefix(c.ID, plain) || c.Name == plain || c.Pod == plain)
}

// resolveContainer finds the container that ref names.
func resolveContainer(containers []neutral.Container, ref string) (*neutral.Container, error) {
	i, err := matchReference(ref, "container", len(containers), func(i int) string { return containers[i].ID },
		func(i int) string { return containers[i].Name })
	if err == nil {
		return &containers[i], nil
	}
	var several []string
	for _, c := range containers {
		if c.Siblings > 0 && c.Pod == strings.TrimPrefix(ref, "/") {
			several = append(several, c.Name)
		}
	}
	if len(several) > 0 {
		return nil, fault.New(fault.NotFound, "No such container: %s (the Pod of that name has several: %s)", ref,
			strings.Join(several, ", "))
	}
	return nil, err
}
