package lazyregexp

import "testing"

// TestABadExpressionFailsItsTest: a program would notice it only when it uses it.
func TestABadExpressionFailsItsTest(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("New takes what cannot be compiled")
		}
	}()
	New("(")
}
