package replication

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/internal/span"
)

// ErrTokenLost says that what a token stands for is not in this history and never will be: the write was lost in a
// failover, or the token is of another deployment.
var ErrTokenLost = errors.New("the token's write is not in this history")

// View is memory that is being brought up to date: first rows and keys of a snapshot in any number of calls, then Built,
// then changes. It is not called while a call is under way. Rows and changes may overlap and repeat; it applies the newest rev.
type View interface {
	Load(rows []Row)
	LoadKeys(keys []shortline.Key)
	Built()
	Apply(changes []shortline.Change)
}

// Target is what a feed keeps up to date. Begin makes an empty View beside the one in service; Install puts it in service
// at once, when it has caught up. Readers never see one that is half full.
type Target interface {
	Begin() View
	Install(View)
}

// FeedConfig sets up a Feed. Its zero value works.
type FeedConfig struct {
	// Chunk is how many rows or changes are read at a time (1,000).
	Chunk int
	// Readers is how many parts of a snapshot are read at once (4), where the source is a Splitter.
	Readers int
	// MinPoll and MaxPoll bound the wait between polls (5 ms and 50 ms), which grows with the time since something came last: it
	// is at most twice MinPoll for a minute. Poke polls at once.
	MinPoll, MaxPoll time.Duration
	// ReadTimeout bounds one read (10 s).
	ReadTimeout time.Duration
	// Lineage tells which history counts, as far as this node knows. It is called at every poll and must not block. Poke when
	// it changes. Nil: there is one region, and history never forks.
	Lineage func() Lineage
	// ForkOf tells up to which log position what was written in a former epoch belongs to the history that counts (NoFork: all
	// of it), and whether that is known; Forks has one. It must not block. Nil: history never forks.
	ForkOf func(epoch uint64) (lsn uint64, known bool)
	// PrimaryHead reads how far the primary is, for tokens that this node lacks and for strong reads. It fails, also, where
	// whoever was asked may not speak for the primary any more. Nil: the source is asked, and its PrimaryHead if it is a Leader.
	PrimaryHead func(ctx context.Context) (Head, error)
	// Patience is how long a token that this node lacks is waited for before the primary is asked what it means (100 ms).
	Patience time.Duration
	// LineageWait is how long the feed waits to learn where the database's epoch began before it reads all anew (5 s).
	LineageWait time.Duration
	// Fallback is what to answer from if the database cannot be read for FallbackAfter (5 s) from the start on. Nil: nothing.
	Fallback      Fallback
	FallbackAfter time.Duration
	Log           *slog.Logger
	Registerer    prometheus.Registerer
}

// Feed brings a Target in step with a Source: a snapshot at a known position, then every change after it. It is the only
// way by which changes reach memory, so what is served never runs ahead of the database it speaks of.
type Feed struct {
	cfg    FeedConfig
	source Source
	target Target
	poke   chan struct{}
	heads  headReads
	traced tracedWaits

	applied atomic.Pointer[Applied]
	covers  atomic.Pointer[Applied] // see Covers; set before memory has what it stands for
	mu      sync.Mutex
	advance chan struct{} // guarded by mu: closed and replaced whenever applied advances
	failure atomic.Pointer[string]
	// local is set while what is in service came from the fallback.
	local atomic.Pointer[SnapshotInfo]
	// headLSN is where the database was at the last poll, unreplayed what it had not replayed by then; -1: not known.
	headLSN    atomic.Uint64
	unreplayed atomic.Int64

	// The rest belongs to Run.
	began         time.Time
	triedFallback bool
	dated         bool // changes are dated into this node's future, and that was told

	changes, snapshots, polls prometheus.Counter
	resyncs                   *prometheus.CounterVec
}

// Applied is how far the memory of a node has come.
type Applied struct {
	// Token is how far: memory satisfies what is not past it. It moves with the database's log, also where nothing is written.
	Token Token
	// Shows stands for what memory shows, and for no more: the last change that it took over, with the log position of then. So
	// that it outlives a failover whenever what was shown does. Right after a snapshot it is Token.
	Shows Token
	// Text is Shows.String(), made once.
	Text string
	// At is a time as of which memory holds everything that had been committed, also by transactions that an older one,
	// still open, kept out of the feed for a while. Memory is at most this old.
	At time.Time

	cfg *FeedConfig // for ForkOf
}

// NewFeed makes a Feed. It starts nothing; see Run.
func NewFeed(source Source, target Target, cfg FeedConfig) *Feed {
	if cfg.Chunk == 0 {
		cfg.Chunk = 1000
	}
	if cfg.Readers == 0 {
		cfg.Readers = 4
	}
	if cfg.MinPoll == 0 {
		cfg.MinPoll = 5 * time.Millisecond
	}
	if cfg.MaxPoll == 0 {
		cfg.MaxPoll = 50 * time.Millisecond
	}
	if cfg.ReadTimeout == 0 {
		cfg.ReadTimeout = 10 * time.Second
	}
	if cfg.LineageWait == 0 {
		cfg.LineageWait = 5 * time.Second
	}
	if cfg.Patience == 0 {
		cfg.Patience = 100 * time.Millisecond
	}
	if cfg.FallbackAfter == 0 {
		cfg.FallbackAfter = 5 * time.Second
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	f := &Feed{
		cfg: cfg, source: source, target: target, poke: make(chan struct{}, 1), advance: make(chan struct{}),
		changes:   prometheus.NewCounter(prometheus.CounterOpts{Name: "shortline_feed_changes_total", Help: "Changes read from the feed."}),
		snapshots: prometheus.NewCounter(prometheus.CounterOpts{Name: "shortline_feed_snapshots_total", Help: "Full snapshots begun, the first one at start included."}),
		polls:     prometheus.NewCounter(prometheus.CounterOpts{Name: "shortline_feed_polls_total", Help: "Times that the database was asked for changes."}),
		resyncs: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "shortline_feed_resyncs_total",
			Help: "Times that memory could not be brought up to date from where it was and had to be read anew."}, []string{"reason"}),
	}
	f.unreplayed.Store(-1)
	f.heads.init(f.newest, cfg.ReadTimeout)
	for _, reason := range []string{resyncPruned, resyncHistory} {
		f.resyncs.WithLabelValues(reason)
	}
	if cfg.Registerer != nil {
		f.register(cfg.Registerer)
	}
	return f
}

func (f *Feed) register(r prometheus.Registerer) {
	r.MustRegister(f.changes, f.snapshots, f.polls, f.resyncs,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "shortline_feed_lag_seconds", Help: "Upper bound of how far memory is behind the local database; -1 before the first snapshot."},
			func() float64 {
				if a := f.applied.Load(); a != nil {
					return time.Since(a.At).Seconds()
				}
				return -1
			}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "shortline_feed_local_snapshot", Help: "1 while the node answers from its local snapshot, because the database cannot be read."},
			func() float64 {
				if f.local.Load() != nil {
					return 1
				}
				return 0
			}))
	if _, ok := f.source.(Lagger); ok {
		r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "shortline_feed_lag_bytes", Help: "Log that the local database has received and memory does not show; -1 while it is not known."}, f.lagBytes))
	}
}

// Poke says that there is something new; the next poll happens at once.
func (f *Feed) Poke() {
	select {
	case f.poke <- struct{}{}:
	default:
	}
}

// Applied returns how far memory has come, or nil before the first snapshot is in service.
func (f *Feed) Applied() *Applied { return f.applied.Load() }

// Covers returns a position that stands for everything that can have been found in memory by now: that of Applied, or the
// one ahead of it whose changes are just being taken over. A read that answered with less could be followed, at another
// node, by an older one. It is nil before the first snapshot is in service.
func (f *Feed) Covers() *Applied { return f.covers.Load() }

// cover is called before memory in service takes over what shows stands for, which is not past t.
func (f *Feed) cover(t, shows Token) {
	if old := f.covers.Load(); old == nil || old.Shows != shows {
		f.covers.Store(&Applied{Token: t, Shows: shows, Text: shows.String(), cfg: &f.cfg})
	}
}

// Ahead returns a token that stands for everything that the source had when it was called, which memory may not have yet:
// for whoever has read the source itself.
func (f *Feed) Ahead(ctx context.Context) (Token, error) {
	if n, ok := f.source.(Newest); ok {
		t, err := n.Newest(ctx)
		if err != nil {
			return t, fmt.Errorf("read the newest change: %w", err)
		}
		return t, nil
	}
	head, err := f.source.Head(ctx)
	if err != nil {
		return Token{}, fmt.Errorf("read how far the database is: %w", err)
	}
	return Token{Epoch: head.Epoch, XID: head.XMax - 1, LSN: head.LSN}, nil
}

// Failure says in one line why what is in service is not following the database at the moment, or "".
func (f *Feed) Failure() string {
	if s := f.failure.Load(); s != nil {
		return *s
	}
	return ""
}

// Satisfies tells whether memory is known to hold everything that the token stands for. A later epoch alone does not tell
// that: it may have begun while an older transaction still held back changes of the former one, and what the former one wrote
// past the fork is lost.
func (a *Applied) Satisfies(t Token) bool {
	return a.Token.XID >= t.XID && (a.Token.Epoch == t.Epoch || a.Token.Epoch > t.Epoch && a.kept(t))
}

// kept tells whether what a token of a former epoch stands for is known to have outlived it.
func (a *Applied) kept(t Token) bool {
	if a.cfg == nil || a.cfg.ForkOf == nil {
		return true
	}
	fork, known := a.cfg.ForkOf(t.Epoch)
	return known && t.LSN <= fork
}

// Wait blocks until memory satisfies the token; the error is that of ctx.
func (f *Feed) Wait(ctx context.Context, t Token) error {
	if a := f.applied.Load(); a != nil && a.Satisfies(t) {
		return nil
	}
	if span.Of(ctx) == nil {
		return f.wait(ctx, t)
	}
	end := f.traced.begin(ctx, t)
	err := f.wait(ctx, t)
	end(err)
	return err
}

func (f *Feed) wait(ctx context.Context, t Token) error {
	for {
		f.mu.Lock()
		advance := f.advance
		f.mu.Unlock()
		if a := f.applied.Load(); a != nil && a.Satisfies(t) {
			return nil
		}
		f.Poke()
		select {
		case <-advance:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (f *Feed) advanceTo(t, shows Token, at time.Time) {
	old := f.applied.Load()
	a := &Applied{Token: t, Shows: shows, At: at, cfg: &f.cfg}
	if old != nil && old.Shows == shows {
		a.Text = old.Text
	} else {
		a.Text = shows.String()
	}
	f.covers.Store(a)
	f.applied.Store(a)
	if old != nil && old.Token == t {
		return
	}
	f.mu.Lock()
	close(f.advance)
	f.advance = make(chan struct{})
	f.mu.Unlock()
}
