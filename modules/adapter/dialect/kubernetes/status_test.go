package kubernetes

import (
	"errors"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/isthmus-mesh/isthmus/modules/fault"
)

// TestForbiddenHidesTheAccount holds that a caller learns what the gateway may not do, and not who the gateway is.
func TestForbiddenHidesTheAccount(t *testing.T) {
	t.Parallel()
	pods := schema.GroupResource{Resource: "pods"}
	for text, want := range map[string]string{
		`User "system:serviceaccount:isthmus:gateway" cannot list resource "pods" in API group "" in the namespace "team"`:                                          `pods is forbidden: the gateway cannot list resource "pods" in API group "" in the namespace "team"`,
		`User "isthmus:peer:west" cannot list resource "pods" in API group "" in the namespace "team"`:                                                              `pods is forbidden: User "isthmus:peer:west" cannot list resource "pods" in API group "" in the namespace "team"`,
		`User "isthmus:peer:west:x" cannot list resource "pods"`:                                                                                                    `pods is forbidden: the gateway cannot list resource "pods"`,
		`User "kubernetes-admin" cannot get path "/metrics"`:                                                                                                        `pods is forbidden: the gateway cannot get path "/metrics"`,
		`User "a\"b" cannot create resource "pods/exec" in API group "" in the namespace "x": RBAC: clusterrole.rbac.authorization.k8s.io "isthmus" not found`:      `pods is forbidden: the gateway cannot create resource "pods/exec" in API group "" in the namespace "x"`,
		`user "system:serviceaccount:isthmus:gateway" (groups=["system:serviceaccounts" "system:serviceaccounts:isthmus"]) is attempting to grant RBAC permissions`: `pods is forbidden: the gateway is attempting to grant RBAC permissions`,
		`admission webhook "x" denied the request: system:serviceaccount:isthmus:gateway. may not`:                                                                  `pods is forbidden: admission webhook "x" denied the request: the gateway's account. may not`,
		`exceeded quota: small, requested: pods=1, used: pods=2, limited: pods=2`:                                                                                   `pods is forbidden: exceeded quota: small, requested: pods=1, used: pods=2, limited: pods=2`,
	} {
		err := nativeFault(apierrors.NewForbidden(pods, "", errors.New(text)))
		got, ok := strings.CutPrefix(fault.Of(err).Message, "the cluster refuses it: ")
		if !fault.Is(err, fault.Denied) || !ok || got != want {
			t.Errorf("%s\ngot  %s\nwant %s", text, got, want)
		}
	}
}
