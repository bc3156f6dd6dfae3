// Package sqlite keeps everything of one node in one SQLite file: the store for a town, a laptop or a demo, with nothing
// to install.
//
// It promises the contract of package replication on a local disk: a Commit that returned is on the disk, also when power
// fails right after it (WAL with an fsync for every commit); reads never wait for the writer; a folder is used by one
// process at a time; and a file that it does not understand is refused and left as it is. It knows no HTTP and no other
// region: there is one writer, transactions are numbered in the order in which they commit, and LSN is always 0.
//
// Space: pruned changes leave free pages, which later changes fill. Where more than a quarter of the file is free after
// Prune, it is given back to the file system, bit by bit. Rollups and the tombstones of deleted stores stay for good.
package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/shortline/shortline/replication"
)

// Config sets up a Store. Its zero value works.
type Config struct {
	// Dir is the data folder; it is made, for its owner only, where it is missing ("shortline-data").
	Dir string
	// Log is told about changes of state (discarded).
	Log *slog.Logger
	// Now is the clock that dates commits and ends the life of idempotency keys (time.Now).
	Now func() time.Time
}

// Sizes that were measured or reasoned once, and need no knob.
const (
	dbName   = "shortline.db"
	lockName = "lock"

	// writerCacheKiB holds the inner pages of every index at a million stores, and the leaves that queues touch.
	writerCacheKiB = 64 << 10
	// readerCacheKiB is small, because the page cache of the operating system stands behind it.
	readerCacheKiB = 8 << 10
	// checkpointPages: at this many pages in the log a commit copies them to the file (8 MiB).
	checkpointPages = 2048
	// walLimit bounds the log on disk. It is passed only while a read goes on for very long.
	walLimit = 64 << 20
	// pruneChunk is how many rows one transaction of Prune drops; commits wait for one of these at most.
	pruneChunk = 5000
	// busyTimeout is how long to wait for a foreign program, such as the sqlite3 shell, that holds the file's lock.
	busyTimeout = 5 * time.Second
)

// Store is a replication.Store in one SQLite file. All methods may be called from several goroutines.
type Store struct {
	dir  string
	log  *slog.Logger
	now  func() time.Time
	lock *os.File

	closed atomic.Bool
	// turn holds the one token of whoever writes. It is a channel, so that waiting for it can end with a context; those
	// who wait are served in the order in which they came.
	turn    chan struct{}
	w       *writer // guarded by turn; nil after Close
	walNext int64   // guarded by turn: the size of the log from which on it is cut by force

	readers *sql.DB
	read    reads

	mutant mutant // tests only
}

// mutant names a safeguard that a test switches off to show that the conformance suite notices. It is none in service.
type mutant uint8

const (
	mutantNone            mutant = iota
	mutantRevRestarts            // a store that comes back after a delete starts at rev 1 again
	mutantForgetsKeys            // idempotency keys are not looked up
	mutantRevivesKeys            // an API key is what was put last
	mutantGhostQueue             // a delete leaves the store's queue behind
	mutantUnfolded               // each update of a queue is a change of its own
	mutantFoldsFlow              // of the updates of a queue only the first moves its flow on
	mutantHidesMore              // Changes does not say that there is more
	mutantPrunesInSilence        // Prune does not record how far it went
)

// planFault is the part of a mutant that is not of this package.
func (m mutant) planFault() replication.PlanFault {
	switch m {
	case mutantRevRestarts:
		return replication.PlanRevRestarts
	case mutantForgetsKeys:
		return replication.PlanForgetsKeys
	case mutantRevivesKeys:
		return replication.PlanRevivesKeys
	case mutantGhostQueue:
		return replication.PlanGhostQueue
	case mutantUnfolded:
		return replication.PlanUnfolded
	case mutantFoldsFlow:
		return replication.PlanFoldsFlow
	}
	return replication.PlanSound
}

var _ replication.Store = (*Store)(nil)

// Open opens the data folder, making or migrating what is missing in it, and locks it against other processes until Close.
// An error names the remedy; unless it speaks of a migration, nothing in the folder was changed.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	if cfg.Dir == "" {
		cfg.Dir = "shortline-data"
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("data folder %s: %w", cfg.Dir, err)
	}
	lock, err := lockFolder(dir)
	if err != nil {
		return nil, err
	}
	s := &Store{dir: dir, log: cfg.Log, now: cfg.Now, lock: lock, turn: make(chan struct{}, 1), walNext: walLimit}
	if err := s.open(ctx); err != nil {
		return nil, errors.Join(err, s.release())
	}
	return s, nil
}

func (s *Store) open(ctx context.Context) error {
	path := filepath.Join(s.dir, dbName)
	version, err := inspect(path)
	if err != nil && remedy(err, s.dir) != "" {
		return s.explain("open "+path, err)
	}
	if err != nil {
		return err // it names the file itself
	}
	if s.w, err = openWriter(path); err != nil {
		return s.explain("open "+path, err)
	}
	if err := s.w.migrate(version, s.now()); err != nil {
		return s.explain("prepare "+path, err)
	}
	s.readers = sql.OpenDB(readConnector{path})
	n := max(4, 2*runtime.GOMAXPROCS(0))
	s.readers.SetMaxOpenConns(n)
	s.readers.SetMaxIdleConns(n)
	if err := s.read.prepare(ctx, s.readers); err != nil {
		return s.explain("read "+path, err)
	}
	head, err := s.Head(ctx)
	if err != nil {
		return err
	}
	s.log.Info("data folder opened", "dir", s.dir, "schema", len(migrations), "created", version == 0, "epoch", head.Epoch, "horizon", head.Horizon)
	return nil
}

// Close waits for what is under way, folds the log into the file and gives the folder free. It may be called twice.
func (s *Store) Close() error {
	if s.closed.Swap(true) {
		return nil
	}
	s.turn <- struct{}{}
	defer func() { <-s.turn }()
	if err := s.w.exec("PRAGMA optimize"); err != nil {
		s.log.Warn("statistics were not renewed", "err", err)
	}
	return s.release()
}

// release closes whatever is open, in the order in which the last connection is the writer's, which then empties the log.
func (s *Store) release() error {
	var errs []error
	if s.readers != nil {
		errs = append(errs, s.readers.Close())
	}
	if s.w != nil {
		errs = append(errs, s.w.close())
		s.w = nil
	}
	errs = append(errs, unlockFolder(s.lock))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close %s: %w", s.dir, err)
	}
	return nil
}

// acquire takes the writer's turn; release it with <-s.turn. The error is ctx's or ErrClosed, and then nothing is held.
func (s *Store) acquire(ctx context.Context) error {
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	if s.closed.Load() {
		<-s.turn
		return replication.ErrClosed
	}
	if err := ctx.Err(); err != nil {
		<-s.turn
		return err
	}
	return nil
}

// boundLog cuts the log where it has grown past its limit because reads never left a gap for that. It waits for them a
// tenth of a second at most; where that is not enough it is tried again after as much growth.
func (s *Store) boundLog() {
	info, err := os.Stat(filepath.Join(s.dir, dbName+"-wal"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.log.Warn("the size of the log is not known", "err", err)
	}
	if err != nil || info.Size() <= s.walNext {
		if err == nil && info.Size() <= walLimit {
			s.walNext = walLimit
		}
		return
	}
	s.walNext = info.Size() + walLimit
	if err := s.w.truncateLog(); err != nil {
		s.log.Warn("the log grows, because a read goes on for very long", "bytes", info.Size(), "err", err)
	}
}
