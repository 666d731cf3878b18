package lab

import "context"

// DebianSources returns the sources.list for a suite of Debian on the mirror that this machine's own apt uses. Only what
// Debian's keyring has signed is trusted.
func DebianSources(ctx context.Context, suite string) (string, error) {
	m, err := findMirror(ctx)
	if err != nil {
		return "", err
	}
	return m.sources(suite), nil
}
