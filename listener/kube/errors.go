package kube

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/lastgasp/lastgasp/listener/cleanup"
)

// errNotSynced is temporary: the API server has not yet answered the first list.
var errNotSynced = errors.New("the cache is not filled yet")

// explain says what was tried and adds the sentinel of cleanup that the API server's answer stands for, if any. The
// answer itself stays in the chain.
func explain(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	what := fmt.Sprintf(format, args...)
	if s := sentinel(err); s != nil {
		return fmt.Errorf("%s: %w: %w", what, s, err)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// sentinel is nil for every fault that may pass and is worth repeating: 429, 5xx, time-outs, an unreachable server.
// client-go has honoured Retry-After several times by then.
func sentinel(err error) error {
	switch {
	case apierrors.HasStatusCause(err, metav1.CauseTypeUnexpectedServerResponse):
		// "404 page not found": the path is not served. The CRD is missing, not the object.
		return nil
	case isDeniedByAdmission(err) && !strings.Contains(err.Error(), "ValidatingAdmissionPolicy 'lastgasp-"):
		return cleanup.ErrDenied // at once: an API server that does not know our rights yet does not get as far as its webhooks
	case apierrors.IsForbidden(err):
		return cleanup.ErrForbidden
	case apierrors.IsNotFound(err):
		return cleanup.ErrNotFound
	case apierrors.IsAlreadyExists(err):
		return cleanup.ErrExists
	case apierrors.IsConflict(err), otherUID(err):
		return cleanup.ErrConflict
	case isFull(err):
		return cleanup.ErrFull
	case apierrors.IsInvalid(err), apierrors.IsBadRequest(err), apierrors.IsRequestEntityTooLargeError(err):
		return cleanup.ErrDenied
	}
	return nil
}

// isDeniedByAdmission recognizes a denial by an admission webhook or policy, which chooses the code of its answer itself: its 404
// does not say that the object is gone, its 409 not that it has changed, and its 401 not that our token has expired. A webhook that
// answers 429 or 5xx has met a fault of its own (k8s.io/apiserver pkg/admission/plugin/webhook/errors/statuserror.go,
// plugin/policy/validating/dispatcher.go).
func isDeniedByAdmission(err error) bool {
	var s apierrors.APIStatus
	if !errors.As(err, &s) || s.Status().Code >= http.StatusInternalServerError || s.Status().Code == http.StatusTooManyRequests {
		return false
	}
	text := s.Status().Message
	return strings.HasPrefix(text, "admission webhook ") && strings.Contains(text, " denied the request") ||
		strings.Contains(text, "ValidatingAdmissionPolicy '") && strings.Contains(text, " denied request: ")
}

// otherUID recognizes a patch that named another UID than the object has. The API server takes it for an attempt to
// change an immutable field and answers 422, not 409.
func otherUID(err error) bool {
	return slices.ContainsFunc(causes(err), func(c metav1.StatusCause) bool { return c.Field == "metadata.uid" })
}

// isFull recognizes an object that would have more annotations than ValidateAnnotationsSize in k8s.io/apimachinery lets pass, or would
// be larger than etcd takes: the API server calls that an internal error, in etcd's words (isTooLargeError in
// k8s.io/apiserver/pkg/endpoints/handlers/rest.go).
func isFull(err error) bool {
	var s apierrors.APIStatus
	if errors.As(err, &s) && s.Status().Code == http.StatusInternalServerError {
		return strings.Contains(s.Status().Message, "etcdserver: request is too large") ||
			strings.Contains(s.Status().Message, "trying to send message larger than max")
	}
	return slices.ContainsFunc(causes(err), func(c metav1.StatusCause) bool {
		return c.Field == "metadata.annotations" && c.Type == metav1.CauseType(field.ErrorTypeTooLong)
	})
}

func causes(err error) []metav1.StatusCause {
	var s apierrors.APIStatus
	if !apierrors.IsInvalid(err) || !errors.As(err, &s) || s.Status().Details == nil {
		return nil
	}
	return s.Status().Details.Causes
}
