package app

import (
	"bytes"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/modules/proxy"
)

func TestClientLine(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		listen string
		port   uint16
		want   string
	}{
		{"127.0.0.1:15432", 5432, "psql -h 127.0.0.1 -p 15432 -U postgres"},
		{"0.0.0.0:13306", 3306, "mysql -h 127.0.0.1 -P 13306 -u root -p"},
		{"[::1]:18080", 8080, "curl http://[::1]:18080/"},
		{"127.0.0.1:1443", 443, "curl --insecure https://127.0.0.1:1443/"},
		{"127.0.0.1:6379", 6379, "redis-cli -h 127.0.0.1 -p 6379"},
		{"127.0.0.1:27017", 27017, "mongosh --host 127.0.0.1 --port 27017"},
		{"10.0.0.1:2222", 22, "ssh -p 2222 root@10.0.0.1"},
		{"127.0.0.1:9000", 9000, ""},
	} {
		if got := clientLine(AccessState{Listen: test.listen, Port: test.port}); got != test.want {
			t.Errorf("%s, %d: %q", test.listen, test.port, got)
		}
	}
}

func TestPrintAccesses(t *testing.T) {
	t.Parallel()
	db := AccessState{Name: "15432", Listen: "127.0.0.1:15432", Peer: "east", Target: "db-0.shop", Port: 5432}
	for want, all := range map[string][]AccessState{
		"NAME   LISTEN           PEER  TARGET     PORT\n15432  127.0.0.1:15432  east  db-0.shop  5432\n": {db},
		"NAME   LISTEN           PEER  TARGET     PORT  NETWORK MODE  LAYER\n15432  127.0.0.1:15432  east  db-0.shop  5432  -             -\n" +
			"16379  127.0.0.1:16379  east  q.shop     6379  bridge        commit\n": {
			db, {Name: "16379", Listen: "127.0.0.1:16379", Peer: "east", Target: "q.shop", Port: 6379, NetworkMode: "bridge", Layer: "commit"}},
	} {
		var out bytes.Buffer
		if err := printAccesses(&out, all); err != nil || out.String() != want {
			t.Errorf("%v\n%s", err, out.String())
		}
	}
}

// TestPrintPlan holds that each refusal is told and makes the command fail, and that a peer's words move no cursor.
func TestPrintPlan(t *testing.T) {
	t.Parallel()
	access := AccessState{Peer: "east", Target: "db-0.shop", Port: 5432}
	for name, test := range map[string]struct {
		plan  proxy.Plan
		says  []string
		fails bool
	}{
		"serves": {plan: proxy.Plan{Target: "shop/db-0", Mode: "bridge", Serves: true}, says: []string{
			"target     shop/db-0 port 5432 of east\n", "needs      any in which the port is reached\n", "switch     none:"}},
		"switches": {plan: proxy.Plan{Target: "shop/db-0", Mode: "none", Needs: "bridge", Switch: &proxy.Switch{Object: "container shop/db-0", From: "none", To: "bridge",
			Restore: true, Recreated: []string{"db-0"}, Lost: []string{"the address \x1b[2J"}, Away: "3s"}}, says: []string{
			"switch     container shop/db-0 from none to bridge, and back when it is no longer used\n", "away       about 3s, each way\n",
			"recreated  db-0\n", `lost       the address \x1b[2J`}},
		"live": {plan: proxy.Plan{Switch: &proxy.Switch{Object: "x", Live: true, Away: "0s"}}, says: []string{"away       not at all: nothing is restarted\n", "and is left so\n"}},
		"refused": {plan: proxy.Plan{Switch: &proxy.Switch{From: "none", To: "bridge", Refusals: []string{"it has changed files", "it is not running"}}},
			says: []string{"refused    it has changed files\nrefused    it is not running\n"}, fails: true},
	} {
		var out bytes.Buffer
		if err := printPlan(&out, test.plan, access); (err != nil) != test.fails {
			t.Errorf("%s: %v", name, err)
		}
		for _, say := range test.says {
			if !strings.Contains(out.String(), say) {
				t.Errorf("%s says nothing of %q:\n%s", name, say, out.String())
			}
		}
	}
}

func TestPrintHosts(t *testing.T) {
	t.Parallel()
	for want, all := range map[string][]proxy.Placement{
		"NAMESPACE  CONTAINER  HOST  NETWORK MODE  STATE\nshop       db         n1    none          not running\n": {
			{Namespace: "shop", Container: "db", Host: "n1", NetworkMode: "none"}},
		"NAMESPACE  POD  CONTAINER  HOST  NETWORK MODE  STATE\nshop       db   main       -     pod           running\n": {
			{Namespace: "shop", Pod: "db", Container: "main", NetworkMode: "pod", Running: true}},
	} {
		var out bytes.Buffer
		if err := printHosts(&out, proxy.HostList{Containers: all}); err != nil || out.String() != want {
			t.Errorf("%v\n%s", err, out.String())
		}
	}
}
