package sqlite

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// lockFolder makes the folder where it is missing, and takes its lock; the lock ends with the process at the latest.
func lockFolder(dir string) (*os.File, error) {
	if err := makeFolder(dir); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	switch {
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return nil, fmt.Errorf("data folder %s is not writable by user id %d: change its owner (chown -R) or pass another --data: %w", dir, os.Geteuid(), err)
	case err != nil:
		return nil, fmt.Errorf("data folder %s: %w", dir, err)
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	switch {
	case errors.Is(err, syscall.EWOULDBLOCK):
		owner := lockOwner(f)
		return nil, errors.Join(fmt.Errorf("data folder %s is in use by another shortline (pid %s); stop it or pass another --data", dir, owner), f.Close())
	case err != nil:
		return nil, errors.Join(fmt.Errorf("data folder %s cannot be locked; it must be on a local disk: %w", dir, err), f.Close())
	}
	if err = f.Truncate(0); err == nil {
		_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("data folder %s: write the lock file: %w", dir, err), f.Close())
	}
	return f, nil
}

// lockOwner reads who holds the lock. It is a hint for people: the holder may be about to write it.
func lockOwner(f *os.File) string {
	b, err := io.ReadAll(io.LimitReader(f, 32))
	pid := strings.TrimSpace(string(b))
	if _, bad := strconv.Atoi(pid); err != nil || bad != nil {
		return "unknown"
	}
	return pid
}

// unlockFolder leaves the lock file in place, empty: removing it would let two processes lock two files of one name.
func unlockFolder(f *os.File) error { return errors.Join(f.Truncate(0), f.Close()) }

// makeFolder makes dir for its owner only, and writes its name in the folder above down to the disk.
func makeFolder(dir string) error {
	info, err := os.Stat(dir)
	switch {
	case err == nil && info.IsDir():
		return nil
	case err == nil, errors.Is(err, syscall.ENOTDIR):
		return fmt.Errorf("data folder %s is a file, or lies below one: pass another --data", dir)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("data folder %s cannot be reached by user id %d: change the rights of the folders above it or pass another --data: %w", dir, os.Geteuid(), err)
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("data folder %s: %w", dir, err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("data folder %s cannot be made by user id %d: make it by hand or pass another --data: %w", dir, os.Geteuid(), err)
	}
	parent, err := os.Open(filepath.Dir(dir))
	if err != nil {
		return fmt.Errorf("data folder %s: %w", dir, err)
	}
	// Some file systems refuse to sync a folder; there is nothing more to be done on these.
	if err := parent.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) {
		return errors.Join(fmt.Errorf("data folder %s: %w", dir, err), parent.Close())
	}
	return parent.Close()
}
