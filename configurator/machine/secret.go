package machine

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/lastgasp/lastgasp/listener/atomicfile"
	"github.com/lastgasp/lastgasp/listener/netconsole"
)

// Secret returns the secret of this boot, empty if there is none yet. Its file is under /run, readable by its owner only, and
// also holds the boot id: in a container /run may survive a reboot, and the secret must not.
func (r Root) Secret(boot string) (netconsole.Secret, error) {
	data, err := os.ReadFile(r.Path(RunDir, secretFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("read the secret of this boot: %w", err)
	}
	of, secret, _ := strings.Cut(strings.TrimSpace(string(data)), " ")
	if of != boot {
		return "", nil
	}
	return netconsole.Secret(secret), nil
}

// MakeSecret is Secret, but makes the secret at the first call of the boot: 128 random bits.
func (r Root) MakeSecret(boot string) (netconsole.Secret, error) {
	known, err := r.Secret(boot)
	if err != nil || known != "" {
		return known, err
	}
	var bits [16]byte
	rand.Read(bits[:]) // never fails: crypto/rand ends the program instead
	secret := base64.RawURLEncoding.EncodeToString(bits[:])
	if err := atomicfile.Write(r.Path(RunDir+"/"+secretFile), []byte(boot+" "+secret+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("write the secret of this boot: %w", err)
	}
	return netconsole.Secret(secret), nil
}
