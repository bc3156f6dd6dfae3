// Package postgres keeps everything in PostgreSQL 15 or newer: the store for regions, where writes go to one primary and
// every region reads from a standby of its own.
//
// It promises the contract of package replication. A Commit that returned is as durable as synchronous_commit makes it;
// what is known about a commit that went wrong is told exactly: an error means that nothing was written, unless it wraps
// replication.ErrOutcomeUnknown. Rows are locked in one order, so that commits never wait for each other in a circle. The
// feed is ordered by (xid, id) and ends below the oldest transaction that is still open, so that nothing ever appears
// behind a reader; reads work on a standby. It never asks the server to cancel a commit that waits for a standby: that
// would make visible what no standby has.
//
// It knows no HTTP and not who is primary: Config.Gate says whether a commit may be acknowledged, in which epoch, and is asked
// before COMMIT and after it.
//
// Any open transaction of the server that has a transaction number, in whatever database, holds the feed. Sessions made
// here end idle ones after 10 seconds; set idle_in_transaction_session_timeout for others. Connections must reach the
// server itself or a pooler that pools sessions.
//
// Space: Prune deletes changes and idempotency rows, some thousand a transaction, and leaves it to autovacuum to free the
// space for later ones. Rollups and tombstones stay.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/shortline/shortline/replication"
)

// Config sets up a Store. All but Write may be left out.
type Config struct {
	// Write is the DSN of the primary: "postgres://shortline_writer:…@host:5432/shortline".
	Write string
	// Read is the DSN of the local replica ("": Write).
	Read string
	// Owner is the DSN on the primary of the role that may change the schema ("": Write). It is used only where the schema
	// is older than this program; see Migrate.
	Owner string
	// WriteConns and ReadConns bound the connections (8 each). Callers beyond them wait.
	WriteConns, ReadConns int
	// ConnectTimeout bounds each new connection, and all that Open asks of a server but a migration (10 s).
	ConnectTimeout time.Duration
	// CommitTimeout bounds one Commit, whatever its context (15 s). Once COMMIT is sent, its end means an unknown outcome.
	CommitTimeout time.Duration
	// ReadTimeout bounds each read and each step of Prune (15 s).
	ReadTimeout time.Duration
	// Quorum says that a standby has to confirm commits; Open then refuses settings that would not wait for one.
	Quorum bool
	// Patient lets Open succeed while a server does not answer. What needs it fails until Run has found and checked it.
	Patient bool
	// Roams says that the server of Write is the region's own, which is the primary at some times and a standby at others; Open
	// then takes either.
	Roams bool
	// Gate is asked before and after each COMMIT (nil: writes may always be acknowledged, in whatever epoch the database is).
	Gate replication.Gate
	// Log is told about changes of state (discarded).
	Log *slog.Logger
	// Now is the clock that dates commits and ends the life of idempotency keys (time.Now).
	Now func() time.Time
}

func (c Config) withDefaults() Config {
	if c.Read == "" {
		c.Read = c.Write
	}
	if c.Owner == "" {
		c.Owner = c.Write
	}
	for _, n := range []*int{&c.WriteConns, &c.ReadConns} {
		if *n <= 0 {
			*n = 8
		}
	}
	for d, value := range map[*time.Duration]time.Duration{&c.ConnectTimeout: 10 * time.Second, &c.CommitTimeout: 15 * time.Second, &c.ReadTimeout: 15 * time.Second} {
		if *d <= 0 {
			*d = value
		}
	}
	if c.Gate == nil {
		c.Gate = replication.GateFunc(func() (uint64, error) { return 0, nil })
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c
}

// Store is a replication.Store in PostgreSQL. All methods may be called from several goroutines.
type Store struct {
	cfg    Config
	writes *pgxpool.Pool
	reads  *pgxpool.Pool
	closed atomic.Bool
	// faults say why a server cannot be used yet; nil: it has been checked.
	faults map[side]*atomic.Pointer[error]

	mutant mutant // tests only
}

// mutant names a safeguard that a test switches off to show that a test notices. It is none in service.
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
	mutantNoHorizon              // Changes shows what is committed, also above a transaction that is still open
	mutantNoEpochLock            // a commit does not wait for a change of epoch
	mutantNoLock                 // rows are read without their lock
	mutantTrustsWarnings         // a COMMIT that answered with a warning counts as one that a standby has
	mutantHidesTombstones        // a snapshot leaves out stores that are deleted
	mutantNoGateBefore           // the gate is not asked before COMMIT, nor is the epoch compared
	mutantNoGateAfter            // the gate is not asked after COMMIT
	mutantOwnToken               // a result that shows what others have written has the token of this transaction
	mutantCancels                // a deadline asks the server to cancel what it is at, also a commit that waits for a standby
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

// Open connects to both servers, migrates a schema that is missing or older, and checks what writes and reads rest on. The
// error is one line that names the remedy and no password.
func Open(ctx context.Context, cfg Config) (*Store, error) { return open(ctx, cfg, mutantNone) }

func open(ctx context.Context, cfg Config, m mutant) (_ *Store, err error) {
	s := &Store{cfg: cfg.withDefaults(), mutant: m, faults: map[side]*atomic.Pointer[error]{primary: new(atomic.Pointer[error]), replica: new(atomic.Pointer[error])}}
	defer func() {
		if err != nil {
			s.release()
		}
	}()
	if s.writes, err = newPool(primary, s.cfg.Write, s.cfg, m); err != nil {
		return nil, err
	}
	if s.reads, err = newPool(replica, s.cfg.Read, s.cfg, m); err != nil {
		return nil, err
	}
	s.faults[primary].Store(&errUnchecked)
	s.faults[replica].Store(&errUnchecked)
	for _, of := range []side{primary, replica} {
		err := s.prepare(ctx, of)
		switch {
		case err == nil:
		case s.cfg.Patient && unreachable(err):
			s.cfg.Log.Warn("a server cannot be used yet; it is tried until it can", "server", of, "err", err)
		default:
			return nil, err
		}
	}
	return s, nil
}

// step bounds a part of Open. A migration has a bound of its own.
func (s *Store) step(ctx context.Context, do func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.ConnectTimeout)
	defer cancel()
	return do(ctx)
}

// Close waits for what is under way and closes all connections. It may be called twice.
func (s *Store) Close() error {
	if !s.closed.Swap(true) {
		s.release()
	}
	return nil
}

func (s *Store) release() {
	for _, pool := range []*pgxpool.Pool{s.writes, s.reads} {
		if pool != nil {
			pool.Close()
		}
	}
}

// usable returns ErrClosed after Close, and the context's error where it has ended.
func (s *Store) usable(ctx context.Context, doing string) error {
	if s.closed.Load() {
		return fmt.Errorf("%s: %w", doing, replication.ErrClosed)
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	return nil
}

// explain says what was being done and, where the error has a remedy, which one it is.
func (s *Store) explain(doing string, err error) error {
	if s.closed.Load() && !errors.Is(err, replication.ErrOutcomeUnknown) {
		return fmt.Errorf("%s: %w (%w)", doing, replication.ErrClosed, err)
	}
	return explain(doing, err)
}
