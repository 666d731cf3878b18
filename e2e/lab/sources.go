package lab

import "context"

// DebianSources is the sources.list of a suite of Debian on the mirror that this machine's own apt uses, to be believed
// only if Debian's keyring signed it.
func DebianSources(ctx context.Context, suite string) (string, error) {
	m, err := findMirror(ctx)
	if err != nil {
		return "", err
	}
	return m.sources(suite), nil
}
