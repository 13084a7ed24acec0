package testbed

import (
	"os"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect/kubernetes/apiserver/discovery"
)

func TestParseStat(t *testing.T) {
	t.Parallel()
	// A program may be called anything.
	raw := []byte("42 (a ) R (b) S 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987654 1 2 3")
	state, start := parseStat(raw)
	if state != 'S' || start != 987654 {
		t.Errorf("parseStat = %c, %d, want S, 987654", state, start)
	}
	if state, start := processStat(os.Getpid()); start == 0 || state == 0 {
		t.Errorf("processStat of this process = %c, %d", state, start)
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte("42 (a ) R (b) S 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987654 1 2 3"))
	f.Add([]byte("1 () "))
	f.Add([]byte(")"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if state, start := parseStat(raw); start != 0 && state == 0 {
			t.Errorf("a start time %d without a state", start)
		}
	})
}

const counterTable = `Chain link-0-in (1 references)
    pkts      bytes target     prot opt in     out     source               destination
       7      420 ACCEPT     tcp  --  *      *       10.200.0.2           10.200.0.1           tcp dpt:15443
      11      660 ACCEPT     tcp  --  *      *       10.200.0.2           10.200.0.1           tcp spt:15443 ctstate ESTABLISHED ctdir REPLY
       5      300 DROP       all  --  *      *       0.0.0.0/0            0.0.0.0/0
`

func TestParseCounters(t *testing.T) {
	t.Parallel()
	if accepted, dropped := parseCounters(counterTable); accepted != 18 || dropped != 5 {
		t.Errorf("parseCounters = %d, %d, want 18, 5", accepted, dropped)
	}
}

func FuzzParseCounters(f *testing.F) {
	f.Add(counterTable)
	f.Add("")
	f.Fuzz(func(t *testing.T, table string) {
		once, _ := parseCounters(table)
		if twice, _ := parseCounters(table + "\n" + table); twice != 2*once {
			t.Errorf("a table has %d accepted packets, two of it have %d", once, twice)
		}
	})
}

func TestOptions(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		options Options
		valid   bool
	}{
		"whole":         {Options{Root: "/tmp/x", Docker: []string{"west"}, Kubernetes: []KubernetesOptions{{Name: "east"}}, Links: [][2]string{{"west", "east"}}}, true},
		"no root":       {Options{Docker: []string{"west"}}, false},
		"long root":     {Options{Root: "/tmp/0123456789012345678901234567890123456789012345678901234567890123456789"}, false},
		"bad name":      {Options{Root: "/tmp/x", Docker: []string{"West-1"}}, false},
		"plain":         {Options{Root: "/tmp/x", Docker: []string{"west"}, Plain: []string{"west"}}, true},
		"plain nothing": {Options{Root: "/tmp/x", Docker: []string{"west"}, Plain: []string{"east"}}, false},
		"twice":         {Options{Root: "/tmp/x", Docker: []string{"west"}, Kubernetes: []KubernetesOptions{{Name: "west"}}}, false},
		"unknown link":  {Options{Root: "/tmp/x", Docker: []string{"west"}, Links: [][2]string{{"west", "east"}}}, false},
		"link to self":  {Options{Root: "/tmp/x", Docker: []string{"west"}, Links: [][2]string{{"west", "west"}}}, false},
		"name of a bed": {Options{Root: "/tmp/x", Name: "a/b"}, false},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if err := c.options.complete(); (err == nil) != c.valid {
				t.Errorf("complete() = %v, want valid %v", err, c.valid)
			}
		})
	}
}

// TestServedRelease holds the release that isthmus says it is, as an API server, to the one that it is compared with.
func TestServedRelease(t *testing.T) {
	if want := "v" + discovery.Major + "." + discovery.Minor + "."; !strings.HasPrefix(kubernetesVersion, want) {
		t.Errorf("isthmus serves %s, the testbed has %s", want, kubernetesVersion)
	}
}
