package kube

import (
	"context"
	"errors"
	"fmt"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lastgasp/lastgasp/listener/kube/v1alpha1"
)

// What Reader answers when a token does not suffice.
var (
	// ErrUnknownToken: the API server knows nobody by that token.
	ErrUnknownToken = errors.New("the API server does not accept this token")
	// ErrNoReader: its owner may not read NodeDeaths.
	ErrNoReader = errors.New("has no right to get nodedeaths")
)

// Reader names a token's owner (TokenReview), if they may read NodeDeaths (SubjectAccessReview). Any error but the two above means
// that there is no answer.
func (c *Cluster) Reader(ctx context.Context, token string) (user string, err error) {
	review, err := c.core.AuthenticationV1().TokenReviews().Create(ctx,
		&authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token}}, metav1.CreateOptions{})
	if err != nil {
		return "", explain(err, "review token")
	}
	who := review.Status.User
	if !review.Status.Authenticated || who.Username == "" {
		return "", ErrUnknownToken
	}
	extra := make(map[string]authorizationv1.ExtraValue, len(who.Extra))
	for key, value := range who.Extra {
		extra[key] = authorizationv1.ExtraValue(value)
	}
	access, err := c.core.AuthorizationV1().SubjectAccessReviews().Create(ctx, &authorizationv1.SubjectAccessReview{
		Spec: authorizationv1.SubjectAccessReviewSpec{
			User: who.Username, UID: who.UID, Groups: who.Groups, Extra: extra,
			ResourceAttributes: &authorizationv1.ResourceAttributes{
				Group: v1alpha1.GroupVersion().Group, Resource: v1alpha1.Resource, Verb: "get",
			},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		return "", explain(err, "review access of %s", who.Username)
	}
	if !access.Status.Allowed || access.Status.Denied {
		return "", fmt.Errorf("%s %w", printable(who.Username, nameSize), ErrNoReader)
	}
	return who.Username, nil
}
