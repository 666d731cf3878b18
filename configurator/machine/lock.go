package machine

import (
	"context"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Lock excludes passes of other processes until unlock is called: two at once would take each other's targets for leftovers,
// and could not both wait for acknowledgements on the same port. The kernel releases the lock when the process dies.
// waiting, if not nil, is called once if another process holds the lock.
func (r Root) Lock(ctx context.Context, waiting func()) (unlock func(), err error) {
	if err := os.MkdirAll(r.Path(RunDir), 0o755); err != nil {
		return nil, fmt.Errorf("wait for another lastgasp-configurator: %w", err)
	}
	f, err := os.OpenFile(r.Path(RunDir, lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("wait for another lastgasp-configurator: %w", err)
	}
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if err != unix.EWOULDBLOCK {
			f.Close()
			return nil, fmt.Errorf("wait for another lastgasp-configurator: %w", err)
		}
		if waiting != nil {
			waiting()
			waiting = nil
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("wait for another lastgasp-configurator: %w", ctx.Err())
		case <-again.C:
		}
	}
}
