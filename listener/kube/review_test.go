package kube

import (
	"errors"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	kubetesting "k8s.io/client-go/testing"
)

func TestReader(t *testing.T) {
	down := errors.New("connection refused")
	for _, tt := range []struct {
		name           string
		authenticated  bool
		user           string
		allowed        bool
		denied         bool
		tokens, access error // of the API server
		want           error // nil: it is u
	}{
		{"who may read", true, "u", true, false, nil, nil, nil},
		{"who may not", true, "u", false, false, nil, nil, ErrNoReader},
		{"who is denied by one authorizer", true, "u", true, true, nil, nil, ErrNoReader},
		{"a token that is unknown", false, "", true, false, nil, nil, ErrUnknownToken},
		{"a token that is unknown though it names somebody", false, "u", true, false, nil, nil, ErrUnknownToken},
		{"a token without a name", true, "", true, false, nil, nil, ErrUnknownToken},
		{"no answer about the token", true, "u", true, false, down, nil, down},
		{"no answer about the right", true, "u", true, false, nil, down, down},
	} {
		t.Run(tt.name, func(t *testing.T) {
			core := fake.NewClientset()
			core.PrependReactor("create", "tokenreviews", func(a kubetesting.Action) (bool, runtime.Object, error) {
				r := a.(kubetesting.CreateAction).GetObject().(*authenticationv1.TokenReview)
				if r.Spec.Token != "token" {
					t.Errorf("token %q reviewed", r.Spec.Token)
				}
				r.Status.Authenticated = tt.authenticated
				r.Status.User = authenticationv1.UserInfo{Username: tt.user, UID: "7", Groups: []string{"g"}, Extra: map[string]authenticationv1.ExtraValue{"k": {"v"}}}
				return true, r, tt.tokens
			})
			core.PrependReactor("create", "subjectaccessreviews", func(a kubetesting.Action) (bool, runtime.Object, error) {
				r := a.(kubetesting.CreateAction).GetObject().(*authorizationv1.SubjectAccessReview)
				is := r.Spec.ResourceAttributes
				if r.Spec.User != "u" || r.Spec.UID != "7" || r.Spec.Groups[0] != "g" || r.Spec.Extra["k"][0] != "v" ||
					is.Group != "lastgasp.dev" || is.Resource != "nodedeaths" || is.Verb != "get" || is.Name != "" {
					t.Errorf("access reviewed: %+v", r.Spec)
				}
				r.Status.Allowed, r.Status.Denied = tt.allowed, tt.denied
				return true, r, tt.access
			})
			_, c := newAPI(t, 500, "")
			c.core = core
			user, err := c.Reader(t.Context(), "token")
			if !errors.Is(err, tt.want) || (err == nil) != (user == "u") {
				t.Errorf("%q, %v; want %v", user, err, tt.want)
			}
		})
	}
}
