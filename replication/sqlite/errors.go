package sqlite

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	sqlite3 "github.com/mattn/go-sqlite3"

	"github.com/shortline/shortline/replication"
)

// explain says what was being done and, where SQLite's error has a remedy, which one it is.
func (s *Store) explain(doing string, err error) error {
	switch remedy := remedy(err, s.dir); {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%s: %w", doing, err)
	case s.closed.Load():
		return fmt.Errorf("%s: %w (%w)", doing, replication.ErrClosed, err)
	case remedy != "":
		return fmt.Errorf("%s: %w: %s", doing, err, remedy)
	default:
		return fmt.Errorf("%s: %w", doing, err)
	}
}

// remedy returns what an operator can do about an error of SQLite, or "".
func remedy(err error, dir string) string {
	var e sqlite3.Error
	if !errors.As(err, &e) {
		if errors.Is(err, fs.ErrPermission) {
			return rightsRemedy(dir)
		}
		return ""
	}
	if diskFull(e) {
		return "the disk with " + dir + " is full; make room and try again, nothing stored is harmed"
	}
	switch e.Code {
	case sqlite3.ErrCorrupt, sqlite3.ErrNotADB:
		return "the database in " + dir + " is damaged; stop shortline, keep a copy of the folder, then restore a backup, or save what can be read with: sqlite3 " +
			dbName + " .recover"
	case sqlite3.ErrReadonly, sqlite3.ErrPerm, sqlite3.ErrCantOpen, sqlite3.ErrAuth:
		return rightsRemedy(dir)
	case sqlite3.ErrIoErr:
		return "the disk with " + dir + " fails; look at the kernel's log, and move the folder to a sound disk"
	case sqlite3.ErrBusy, sqlite3.ErrLocked, sqlite3.ErrProtocol:
		return "another program holds the lock of the database in " + dir + "; close it"
	case sqlite3.ErrNomem:
		return "there is no memory left"
	}
	return ""
}

func rightsRemedy(dir string) string {
	return "check that the files in " + dir + " belong to the user that runs shortline (chown -R), and that the disk is not mounted read-only"
}

func diskFull(e sqlite3.Error) bool {
	return e.Code == sqlite3.ErrFull || e.Code == sqlite3.ErrIoErr && (e.SystemErrno == syscall.ENOSPC || e.SystemErrno == syscall.EDQUOT)
}

// commitFailure says what is known when COMMIT itself failed. A full disk and a lock that was not given stop it before its
// last page, which is the one that counts, is written. After anything else, such as a failed fsync, that page may be on
// the disk and count again when the file is next opened after a crash.
func commitFailure(err error) error {
	var e sqlite3.Error
	if errors.As(err, &e) && (e.Code == sqlite3.ErrFull || e.Code == sqlite3.ErrBusy || e.Code == sqlite3.ErrConstraint) {
		return err
	}
	return fmt.Errorf("%w: %w", replication.ErrOutcomeUnknown, err)
}
