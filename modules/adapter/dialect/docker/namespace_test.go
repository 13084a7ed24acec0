package docker

import (
	"testing"

	"github.com/isthmus-mesh/isthmus/modules/fault"
)

func TestNeutralName(t *testing.T) {
	t.Parallel()
	stack := func(n string) map[string]string { return map[string]string{labelStack: n} }
	project := func(n string) map[string]string { return map[string]string{labelComposeProject: n} }
	for _, test := range []struct {
		docker          string
		labels          map[string]string
		namespace, name string
	}{
		{"web", nil, "default", "web"},
		{"/web", nil, "default", "web"},
		{"default_web", nil, "default", "default_web"},
		{"default_default", stack("default"), "default", "default"},
		{"shop_web", nil, "default", "shop_web"},
		{"shop_web", stack("shop"), "shop", "web"},
		{"web", stack("shop"), "shop", "web"},
		{"shop_", stack("shop"), "shop", "shop_"},
		{"shop_data", project("shop"), "shop", "data"},
		{"shop-web-1", project("shop"), "shop", "shop-web-1"},
	} {
		if namespace, name := neutralName(test.docker, test.labels); namespace != test.namespace || name != test.name {
			t.Errorf("%s %v is %s/%s", test.docker, test.labels, namespace, name)
		}
	}
	for _, name := range []string{"web", "default"} {
		for _, namespace := range []string{"", "default", "shop"} {
			if _, back := neutralName(networkName(namespace, name), networkLabels(namespace, name, nil)); back != name {
				t.Errorf("network %s of %s comes back as %s", name, namespace, back)
			}
		}
	}
}

func TestFind(t *testing.T) {
	t.Parallel()
	stack := map[string]string{labelStack: "shop"}
	all := []named{nameOf("aaa1", "web", nil), nameOf("aab2", "web", stack), nameOf("ccc3", "shop_web", stack), nameOf("ddd4", "db", stack)}
	for _, test := range []struct {
		namespace, ref string
		want           int
		kind           fault.Kind
	}{
		{"", "web", 0, 0}, {"default", "web", 0, 0}, {"shop", "web", 2, 0}, {"shop", "db", 3, 0}, {"", "shop_web", 2, 0},
		{"", "aaa1", 0, 0}, {"", "aab", 1, 0}, {"shop", "aa", 1, 0}, {"", "aa", 0, fault.Invalid}, {"default", "ddd4", 0, fault.NotFound},
		{"", "db", 3, 0}, {"default", "db", 0, fault.NotFound}, {"", "", 0, fault.NotFound}, {"shop", "shop_web", 0, fault.NotFound},
	} {
		i, err := find("service", test.namespace, test.ref, all)
		if i != test.want || (test.kind != 0) != (err != nil) || err != nil && !fault.Is(err, test.kind) {
			t.Errorf("%q in %q is %d, %v", test.ref, test.namespace, i, err)
		}
	}
}
