package kubernetes

import (
	"slices"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/fake"
	k8stesting "k8s.io/client-go/testing"

	"github.com/isthmus-mesh/isthmus/modules/fault"
)

func TestReviewToken(t *testing.T) {
	t.Parallel()
	client := fake.NewClientset()
	client.PrependReactor("create", "tokenreviews", func(action k8stesting.Action) (bool, runtime.Object, error) {
		review := action.(k8stesting.CreateAction).GetObject().(*authenticationv1.TokenReview).DeepCopy()
		switch review.Spec.Token {
		case "forbidden":
			return true, nil, apierrors.NewForbidden(schema.GroupResource{Resource: "tokenreviews"}, "", nil)
		case "good":
			review.Status.Authenticated, review.Status.User.Username = true, "system:serviceaccount:shop:ci"
			review.Status.User.Groups = []string{"system:serviceaccounts", "system:serviceaccounts:shop"}
			if slices.Contains(review.Spec.Audiences, "gateway") {
				review.Status.Audiences = []string{"gateway"}
			}
		case "liar":
			review.Status.User.Username = "admin"
		}
		return true, review, nil
	})
	c := &Cluster{client: client}
	for _, test := range []struct {
		token     string
		audiences []string
		want      string
	}{
		{"good", nil, "system:serviceaccount:shop:ci"},
		{"good", []string{"other", "gateway"}, "system:serviceaccount:shop:ci"},
		{"good", []string{"other"}, ""}, // an API server that does not look at audiences says none
		{"bad", nil, ""},
		{"liar", nil, ""},
	} {
		got, groups, err := c.ReviewToken(t.Context(), test.token, test.audiences)
		if got != test.want || err != nil || (len(groups) == 2) != (got != "") {
			t.Errorf("%s for %v: %q in %q, %v", test.token, test.audiences, got, groups, err)
		}
	}
	if got, _, err := c.ReviewToken(t.Context(), "forbidden", nil); got != "" || !fault.Is(err, fault.Denied) {
		t.Errorf("%q, %v", got, err)
	}
}
