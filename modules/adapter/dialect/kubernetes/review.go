package kubernetes

import (
	"context"
	"slices"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
)

var _ dialect.TokenReviewer = (*Cluster)(nil)

// ReviewToken asks the API whose a token is. One that is for none of the audiences is nobody's, also where the API is
// too old to look at audiences.
// See https://kubernetes.io/docs/reference/kubernetes-api/authentication-resources/token-review-v1/
func (c *Cluster) ReviewToken(ctx context.Context, token string, audiences []string) (name string, groups []string, err error) {
	review, err := c.client.AuthenticationV1().TokenReviews().Create(asGateway(ctx), &authenticationv1.TokenReview{
		Spec: authenticationv1.TokenReviewSpec{Token: token, Audiences: audiences},
	}, metav1.CreateOptions{})
	if err != nil {
		return "", nil, nativeFault(err)
	}
	status := review.Status
	if !status.Authenticated {
		return "", nil, nil
	}
	if len(audiences) > 0 && !slices.ContainsFunc(status.Audiences, func(a string) bool { return slices.Contains(audiences, a) }) {
		return "", nil, nil
	}
	return status.User.Username, status.User.Groups, nil
}
