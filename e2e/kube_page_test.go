//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lastgasp/lastgasp/listener/kube"
)

// checkReaders asks the API server, with the rights of the listener's account, about tokens that come to the page of deaths.
func (w *kubeWorld) checkReaders(t *testing.T) {
	token := func(account string) string {
		t.Helper()
		accounts := w.admin.CoreV1().ServiceAccounts("default")
		if _, err := accounts.Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: account}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		made, err := accounts.CreateToken(t.Context(), account, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return made.Status.Token
	}
	reader, stranger, deleted := token("page-reader"), token("page-stranger"), token("page-deleted")
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "page-reader"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "lastgasp-view"},
		Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Name: "page-reader", Namespace: "default"}},
	}
	if _, err := w.admin.RbacV1().ClusterRoleBindings().Create(t.Context(), binding, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := w.admin.CoreV1().ServiceAccounts("default").Delete(t.Context(), "page-deleted", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the reader's right to be granted", func() error {
		_, err := w.cluster.Reader(t.Context(), reader)
		return err
	})
	for _, tt := range []struct {
		name, token string
		want        error
	}{
		{"of a reader", reader, nil},
		{"of somebody without the right", stranger, kube.ErrNoReader},
		{"changed", reader[:len(reader)-4] + "AAAA", kube.ErrUnknownToken},
		{"made up", "forged", kube.ErrUnknownToken},
		{"without a signature", reader[:len(reader)/2], kube.ErrUnknownToken},
		{"of an account that was deleted", deleted, kube.ErrUnknownToken},
	} {
		t.Run(tt.name, func(t *testing.T) {
			eventually(t, "the API server's answer", func() error { // it learns of a deletion some moments later
				if user, err := w.cluster.Reader(t.Context(), tt.token); !errors.Is(err, tt.want) {
					return fmt.Errorf("%q, %v; want %v", user, err, tt.want)
				}
				return nil
			})
		})
	}
}
