package configurator

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/lastgasp/lastgasp/listener/netconsole"
)

// gasp returns the secret of this boot. It lives under /run, readable by its owner alone, beside the boot id it belongs
// to: a /run that survived a reboot, as in a container, must not keep it. Empty means that there is none yet.
func (r Root) gasp(boot string) (netconsole.Secret, error) {
	data, err := os.ReadFile(r.Path(runDir, gaspFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("read the secret of this boot: %w", err)
	}
	of, secret, _ := strings.Cut(strings.TrimSpace(string(data)), " ")
	if of != boot {
		return "", nil
	}
	return netconsole.Secret(secret), nil
}

// makeGasp is gasp, but makes the secret at the first call of the boot: 128 random bits.
func (r Root) makeGasp(boot string) (netconsole.Secret, error) {
	gasp, err := r.gasp(boot)
	if err != nil || gasp != "" {
		return gasp, err
	}
	var bits [16]byte
	rand.Read(bits[:]) // never fails: crypto/rand ends the program instead
	secret := base64.RawURLEncoding.EncodeToString(bits[:])
	if err := r.replace(runDir+"/"+gaspFile, []byte(boot+" "+secret+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("keep the secret of this boot: %w", err)
	}
	return netconsole.Secret(secret), nil
}
