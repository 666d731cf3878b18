package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// CacheDir returns the folder for what is costly to make again: kernels, tool chains, built binaries. It is
// $LAB_CACHE, or lastgasp in the user's cache directory, and may be deleted at any time.
func CacheDir() (string, error) {
	dir := os.Getenv("LAB_CACHE")
	if dir == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("find a cache directory (set LAB_CACHE to choose one): %w", err)
		}
		dir = filepath.Join(user, "lastgasp")
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("make the cache directory: %w", err)
	}
	return dir, nil
}

// Cached returns the cache's folder called key. If there is none yet, build fills an empty one, which appears under its
// name only when build has succeeded. Processes that want the same key wait for each other.
func Cached(ctx context.Context, key string, build func(dir string) error) (string, error) {
	cache, err := CacheDir()
	if err != nil {
		return "", err
	}
	unlock, err := lockCache(ctx, key)
	if err != nil {
		return "", err
	}
	defer unlock()

	dir := filepath.Join(cache, key)
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	tmp := dir + ".partial" // left behind by a build that was killed, or made now
	if err := os.RemoveAll(tmp); err != nil {
		return "", fmt.Errorf("clear a broken-off build: %w", err)
	}
	if err := os.MkdirAll(tmp, 0o755); err != nil {
		return "", fmt.Errorf("make a folder in the cache: %w", err)
	}
	if err := build(tmp); err != nil {
		return "", errors.Join(err, os.RemoveAll(tmp))
	}
	if err := os.Rename(tmp, dir); err != nil {
		return "", fmt.Errorf("name a finished build: %w", err)
	}
	return dir, nil
}

// CachedDownload is Cached for what build downloads: a mirror or a proxy may have a bad moment.
func CachedDownload(ctx context.Context, s Scope, key string, build func(dir string) error) (dir string, err error) {
	err = Retry(ctx, s, "fetch "+key, func() error {
		dir, err = Cached(ctx, key, build)
		return err
	})
	return dir, err
}

// lockCache makes processes that touch the same key of the cache take turns.
func lockCache(ctx context.Context, key string) (unlock func(), err error) {
	cache, err := CacheDir()
	if err != nil {
		return nil, err
	}
	path := filepath.Join(cache, key+".lock")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("make a folder in the cache: %w", err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open a lock in the cache: %w", err)
	}
	// flock(2) cannot be interrupted by a context: ask again and again.
	retry := time.NewTicker(100 * time.Millisecond)
	defer retry.Stop()
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("wait for %s, held by another process: %w", path, ctx.Err())
		case <-retry.C:
		}
	}
}
