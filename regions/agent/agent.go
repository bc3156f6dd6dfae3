// Package agent looks after one region's PostgreSQL: it starts it, keeps the role that it was commanded to have, starts it
// again after a crash, makes it a standby again after a failover, and saves what only it had before that.
//
// It promises that a command older than one that it has seen is refused, also after a restart; that a server which was
// primary does not take writes when it is started until somebody who knows says that it still is; and that nothing which
// only this server had is thrown away before it was written to a file. It knows PostgreSQL and what a controller may ask
// (regions.Database), and nothing of raft, gossip or the HTTP node. What it needs to know of Shortline's tables is the
// epoch of the control row and, for the export, the change feed.
package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/shortline/shortline/regions"
)

// Config sets up an Agent. Region, Dir, Listen and Password are required; for all else zero works.
type Config struct {
	Region regions.ID
	// Dir is the agent's own folder: what it remembers, the server's log, lost writes. It is made where it is missing.
	Dir string
	// Data is the server's data folder (Dir/data). Its parent folder must have room for a second copy while the server is
	// built anew.
	Data string
	// Bin is the folder of PostgreSQL's programs ("": the newest that is found).
	Bin string
	// Listen is the address, host:port, at which the server takes connections.
	Listen string
	// Peers are the addresses at which this region reaches the other regions' servers.
	Peers map[regions.ID]string
	// Password is that of RoleReplicator, the same in all regions. SSLMode is that of connections to peers (prefer).
	Password, SSLMode string
	// Database is the name of Shortline's (shortline).
	Database string
	// Settings go to shortline.conf and win over those that the agent chooses; ALTER SYSTEM wins over both.
	Settings map[string]string
	// Init says what to do with an empty data folder.
	Init Init
	// Bound ends the server when this process dies, however it does (Linux only). Without it the server goes on, and the next
	// agent takes it over.
	Bound bool
	// StopTimeout bounds a planned stop; then the server is stopped at once, and recovers when it starts (30 s).
	StopTimeout time.Duration
	// BeginEpoch writes an epoch into the control row of the database of the DSN, which is a primary. fork is 0 where nothing
	// forked. nil: there is no control row.
	BeginEpoch func(ctx context.Context, dsn string, epoch uint64, fork regions.LSN) error
	// Control tells what the control plane has agreed on, as far as it is known here; it must not block. nil: nobody tells, and
	// a primary waits for a command to serve writes after a start, unless Alone.
	Control func() (Control, bool)
	// Alone says that there is no other region and no control plane: a primary is one.
	Alone bool
	// Output gets the lines of the server's log (nil: they stay in Dir/postgres.log).
	Output func(line string)

	Log        *slog.Logger
	Registerer prometheus.Registerer

	mutant mutant
}

// Init is what is to become of an empty data folder. The zero value makes that an error.
type Init struct {
	// Primary makes a new database. SQL is run in it as the superuser, once.
	Primary bool
	SQL     string
	// From makes a copy of that region's.
	From regions.ID
}

// Control is what an agent needs to know of the control plane's state.
type Control struct {
	Epoch   uint64 // of Primary
	Primary regions.ID
	Sync    []regions.ID // that Primary is to wait for any one of
}

// mutant switches a safeguard off, for the tests of the tests.
type mutant uint8

const (
	mutantNone     mutant = iota
	mutantNoOrder         // orders are not compared
	mutantNoFence         // a primary that starts takes writes at once
	mutantNoExport        // nothing is saved before a rewind
	mutantNoSystem        // the upstream's identity and epoch are not looked at
	mutantForget          // what was seen is not kept over a restart
)

// Roles in the database that the agent uses; see grants.sql.
const (
	superuser      = "postgres"
	RoleAgent      = "shortline_agent"
	RoleReplicator = "shortline_replicator"
	roleWriter     = "shortline_writer"
)

// Validate reports every fault at once.
func (c *Config) Validate() error {
	var faults []error
	if _, err := regions.ParseID(string(c.Region)); err != nil {
		faults = append(faults, err)
	}
	if c.Dir == "" {
		faults = append(faults, errors.New("the agent's folder is not named"))
	}
	if _, _, err := net.SplitHostPort(c.Listen); err != nil {
		faults = append(faults, fmt.Errorf("the server's address %q is not one such as 10.0.0.5:5432", c.Listen))
	}
	if c.Password == "" {
		faults = append(faults, errors.New("the password of replication is missing"))
	}
	for _, id := range slices.Sorted(maps.Keys(c.Peers)) {
		if _, _, err := net.SplitHostPort(c.Peers[id]); err != nil {
			faults = append(faults, fmt.Errorf("the address %q of %s is not one such as 10.0.0.5:5432", c.Peers[id], id))
		}
		if id == c.Region {
			faults = append(faults, fmt.Errorf("%s is this region and cannot be its own peer", id))
		}
	}
	if c.Init.Primary && c.Init.From != "" {
		faults = append(faults, errors.New("an empty data folder becomes a new primary or a copy, not both"))
	}
	if from := c.Init.From; from != "" && c.Peers[from] == "" {
		faults = append(faults, fmt.Errorf("the data folder is to be a copy of %s, whose address is not given", from))
	}
	return errors.Join(faults...)
}

func (c *Config) defaults() {
	c.Data = cmp.Or(c.Data, filepath.Join(c.Dir, "data"))
	c.SSLMode, c.Database = cmp.Or(c.SSLMode, "prefer"), cmp.Or(c.Database, "shortline")
	c.StopTimeout = cmp.Or(c.StopTimeout, 30*time.Second)
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	c.Log = c.Log.With("region", c.Region)
}

// Agent looks after one server. Its methods are those of regions.Database and may be called from several goroutines; one
// command is carried out at a time. They fail while Run is not running.
type Agent struct {
	cfg     Config
	tools   tools
	metrics *metrics

	// busy is held by whoever changes the server or what is remembered of it. It is taken until Run has prepared.
	busy   chan struct{}
	memory atomic.Pointer[memory] // nil until Run has prepared
	server atomic.Pointer[process]
	trouble
	cache statusCache
	kept  atomic.Pointer[session] // between commands, or nil

	jobs chan *job
	job  atomic.Pointer[job] // the rejoin under way, or nil; only it may touch the server then
	// restartAt and backoff are when a server that has ended is started again, guarded by busy.
	restartAt time.Time
	backoff   time.Duration
	sweptAt   time.Time // guarded by busy: slots
	detached  *process  // guarded by busy: the server that was detached and has not been attached since
	fresh     bool      // guarded by busy: the database was made just now, and nobody else can have become primary

	tasks sync.WaitGroup // joins the waiters of processes
}

// trouble is what went wrong last, for people.
type trouble struct {
	mu   sync.Mutex
	text string // guarded by mu
}

func (t *trouble) set(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = ""
	if err != nil {
		t.text = err.Error()
	}
}

func (t *trouble) get() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.text
}

// New makes an Agent; it starts nothing. The error names every fault of the configuration, or what this machine lacks.
func New(cfg Config) (*Agent, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg.defaults()
	t, err := findTools(cfg.Bin)
	if err != nil {
		return nil, err
	}
	a := &Agent{cfg: cfg, tools: t, busy: make(chan struct{}, 1), jobs: make(chan *job, 1)}
	a.busy <- struct{}{}
	a.metrics = newMetrics(cfg.Registerer)
	return a, nil
}

// lock waits until no other command is being carried out. The caller unlocks.
func (a *Agent) lock(ctx context.Context) error {
	select {
	case a.busy <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for another command: %w", context.Cause(ctx))
	}
}

func (a *Agent) unlock() { <-a.busy }

// poll calls ready until it says so, fails or ctx ends; then the error has what it waited for.
func poll(ctx context.Context, what string, every time.Duration, ready func(context.Context) (bool, error)) error {
	for {
		ok, err := ready(ctx)
		if err != nil && ctx.Err() == nil {
			return fmt.Errorf("wait until %s: %w", what, err)
		}
		if ok && err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait until %s: %w", what, context.Cause(ctx))
		case <-time.After(every):
		}
	}
}
