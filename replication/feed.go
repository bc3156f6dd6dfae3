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
)

// ErrTokenLost says that what a token stands for is not in this history and never will be: the write was lost in a
// failover, or the token is of another deployment.
var ErrTokenLost = errors.New("the token's write is not in this history")

// View is memory that is being brought up to date: first rows and keys of a snapshot in any number of calls, then Built,
// then changes. It is called from one goroutine. Rows and changes may overlap and repeat; it applies the newest rev.
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
	// MinPoll and MaxPoll bound the wait between polls (5 ms and 250 ms), which grows with the time since something came
	// last. Poke polls at once.
	MinPoll, MaxPoll time.Duration
	// ReadTimeout bounds one read (10 s).
	ReadTimeout time.Duration
	// Lineage tells which history counts, as far as this node knows. It is called at every poll and must not block. Poke when
	// it changes. Nil: there is one region, and history never forks.
	Lineage func() Lineage
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

	applied atomic.Pointer[Applied]
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

	changes, snapshots, polls prometheus.Counter
	resyncs                   *prometheus.CounterVec
}

// Applied is how far the memory of a node has come.
type Applied struct {
	Token Token
	// Text is Token.String(), made once.
	Text string
	// At is a time as of which memory holds everything that had been committed, also by transactions that an older one,
	// still open, kept out of the feed for a while. Memory is at most this old.
	At time.Time
}

// NewFeed makes a Feed. It starts nothing; see Run.
func NewFeed(source Source, target Target, cfg FeedConfig) *Feed {
	if cfg.Chunk == 0 {
		cfg.Chunk = 1000
	}
	if cfg.MinPoll == 0 {
		cfg.MinPoll = 5 * time.Millisecond
	}
	if cfg.MaxPoll == 0 {
		cfg.MaxPoll = 250 * time.Millisecond
	}
	if cfg.ReadTimeout == 0 {
		cfg.ReadTimeout = 10 * time.Second
	}
	if cfg.LineageWait == 0 {
		cfg.LineageWait = 5 * time.Second
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

// Failure says in one line why what is in service is not following the database at the moment, or "".
func (f *Feed) Failure() string {
	if s := f.failure.Load(); s != nil {
		return *s
	}
	return ""
}

// Satisfies tells whether memory holds everything that the token stands for. A later epoch alone does not: it may have
// begun while an older transaction still held back changes of the former one.
func (a *Applied) Satisfies(t Token) bool { return a.Token.Epoch >= t.Epoch && a.Token.XID >= t.XID }

// Wait blocks until memory satisfies the token; the error is that of ctx.
func (f *Feed) Wait(ctx context.Context, t Token) error {
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

// newest is how far the primary is.
func (f *Feed) newest(ctx context.Context) (Head, error) {
	head := f.source.Head
	if l, ok := f.source.(Leader); ok {
		head = l.PrimaryHead
	}
	h, err := head(ctx)
	if err != nil {
		return Head{}, fmt.Errorf("read how far the primary is: %w", err)
	}
	return h, nil
}

// Latest blocks until memory holds everything that had been committed when it was called: what a strong read waits for.
func (f *Feed) Latest(ctx context.Context) error {
	head, err := f.newest(ctx)
	if err != nil {
		return err
	}
	return f.Wait(ctx, Token{Epoch: head.Epoch, XID: head.XMax - 1})
}

// Judge tells what a token that is not satisfied yet means: nil if it only has to be waited for, ErrTokenLost if the primary
// itself has not come that far, so that nobody ever acknowledged it.
func (f *Feed) Judge(ctx context.Context, t Token) error {
	head, err := f.newest(ctx)
	if err != nil {
		return err
	}
	if t.Epoch > head.Epoch || t.XID >= head.XMax {
		return ErrTokenLost
	}
	return nil
}

func (f *Feed) advanceTo(t Token, at time.Time) {
	old := f.applied.Load()
	if old != nil && old.Token == t {
		f.applied.Store(&Applied{Token: t, Text: old.Text, At: at})
		return
	}
	f.applied.Store(&Applied{Token: t, Text: t.String(), At: at})
	f.mu.Lock()
	close(f.advance)
	f.advance = make(chan struct{})
	f.mu.Unlock()
}
