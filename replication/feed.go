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
	// MinPoll and MaxPoll bound the wait between polls that find nothing (5 ms and 250 ms); it doubles from one to the
	// other. Poke polls at once.
	MinPoll, MaxPoll time.Duration
	// ReadTimeout bounds one read (10 s).
	ReadTimeout time.Duration
	Log         *slog.Logger
	Registerer  prometheus.Registerer
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

	changes prometheus.Counter
	resyncs prometheus.Counter
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
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	f := &Feed{
		cfg: cfg, source: source, target: target, poke: make(chan struct{}, 1), advance: make(chan struct{}),
		changes: prometheus.NewCounter(prometheus.CounterOpts{Name: "shortline_feed_changes_total", Help: "Changes read from the feed."}),
		resyncs: prometheus.NewCounter(prometheus.CounterOpts{Name: "shortline_feed_snapshots_total", Help: "Full snapshots taken, the first one at start included."}),
	}
	if r := cfg.Registerer; r != nil {
		r.MustRegister(f.changes, f.resyncs, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "shortline_feed_lag_seconds", Help: "Upper bound of how far memory is behind the local database; -1 before the first snapshot."},
			func() float64 {
				if a := f.applied.Load(); a != nil {
					return time.Since(a.At).Seconds()
				}
				return -1
			}))
	}
	return f
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

// Failure says in one line why the feed is not following at the moment, or "".
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

// Latest blocks until memory holds everything that had been committed when it was called: what a strong read waits for
// at a node whose database is the primary.
func (f *Feed) Latest(ctx context.Context) error {
	head, err := f.source.Head(ctx)
	if err != nil {
		return fmt.Errorf("read how far the database is: %w", err)
	}
	return f.Wait(ctx, Token{Epoch: head.Epoch, XID: head.XMax - 1})
}

// Judge tells what a token that is not satisfied yet means, at a node whose database is the primary: nil if it only has to
// be waited for, ErrTokenLost if the database itself has not come that far, so that nobody ever acknowledged it here.
func (f *Feed) Judge(ctx context.Context, t Token) error {
	head, err := f.source.Head(ctx)
	if err != nil {
		return fmt.Errorf("read how far the database is: %w", err)
	}
	if t.Epoch > head.Epoch || t.XID >= head.XMax {
		return ErrTokenLost
	}
	return nil
}

// Run takes a snapshot and follows until ctx ends, then returns nil. It never gives up: while the database cannot be read
// it goes on trying, and what is in service stays there and grows older.
func (f *Feed) Run(ctx context.Context) error {
	backoff := time.Duration(0)
	for ctx.Err() == nil {
		err := f.follow(ctx, func() { backoff = 0 })
		if ctx.Err() != nil {
			break
		}
		text := err.Error()
		if f.failure.Swap(&text) == nil || backoff == 0 {
			f.cfg.Log.Error("the feed stopped; memory stays as it is until the database can be read", "err", err)
		}
		backoff = min(max(2*backoff, 100*time.Millisecond), 5*time.Second)
		sleep(ctx, backoff)
	}
	return nil
}

// follow builds a new view from a snapshot, installs it when it has caught up, and tails until something fails.
func (f *Feed) follow(ctx context.Context, healthy func()) error {
	view, cursor, next, err := f.snapshot(ctx)
	if err != nil {
		return fmt.Errorf("read the snapshot: %w", err)
	}
	installed := false
	var asOf time.Time // of memory, once installed
	wait := f.cfg.MinPoll
	for retry := time.Duration(0); ; {
		at := time.Now() // before the read: what is newer than this may be missing from it
		page, err := f.page(ctx, cursor)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, ErrPruned):
			return fmt.Errorf("follow the changes: %w", err) // a new snapshot
		case err != nil:
			// The place in the feed is still good: go on from it, without another snapshot.
			text := err.Error()
			if f.failure.Swap(&text) == nil {
				f.cfg.Log.Error("the feed cannot read changes; memory stays as it is until it can", "err", err)
			}
			retry = min(max(2*retry, 50*time.Millisecond), 2*time.Second)
			sleep(ctx, retry)
			continue
		}
		retry = 0
		if f.failure.Swap(nil) != nil {
			f.cfg.Log.Info("the feed follows again")
		}
		healthy()
		if n := len(page.Changes); n > 0 {
			view.Apply(page.Changes)
			f.changes.Add(float64(n))
			last := page.Changes[n-1]
			cursor = Cursor{XID: last.XID, ID: last.ID}
			wait = f.cfg.MinPoll
		}
		if page.More {
			continue
		}
		if cursor.XID < page.Head.Horizon {
			cursor = Cursor{XID: page.Head.Horizon}
		}
		if page.Head.Horizon >= next.xmax {
			if !installed {
				f.target.Install(view)
				installed = true
			}
			asOf, next = next.at, mark{xmax: page.Head.XMax, at: at}
			if page.Head.Horizon >= next.xmax { // no transaction is open
				asOf = at
			}
		}
		if installed {
			f.advanceTo(Token{Epoch: page.Head.Epoch, XID: page.Head.Horizon - 1, LSN: page.Head.LSN}, asOf)
		}
		if len(page.Changes) > 0 {
			continue
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
			wait = min(2*wait, f.cfg.MaxPoll)
		case <-f.poke:
			wait = f.cfg.MinPoll
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// mark is a moment before the database's XMax was read: memory holds all that was committed by then once the horizon has
// reached xmax.
type mark struct {
	xmax uint64
	at   time.Time
}

// snapshot reads all rows and keys in chunks into a new view. The changes after the cursor that it returns, taken before
// the first chunk, make the view whole once the horizon has reached the mark, taken after the last chunk.
func (f *Feed) snapshot(ctx context.Context) (view View, cursor Cursor, whole mark, err error) {
	start := time.Now()
	f.resyncs.Inc()
	head, err := f.head(ctx)
	if err != nil {
		return nil, Cursor{}, mark{}, err
	}
	view = f.target.Begin()
	rows := 0
	for after := shortline.StoreID(""); ; {
		chunk, err := f.chunk(ctx, after)
		if err != nil {
			return nil, Cursor{}, mark{}, err
		}
		view.Load(chunk)
		rows += len(chunk)
		if len(chunk) < f.cfg.Chunk {
			break
		}
		after = chunk[len(chunk)-1].Store.ID
	}
	keys, err := f.keys(ctx)
	if err != nil {
		return nil, Cursor{}, mark{}, err
	}
	view.LoadKeys(keys)
	view.Built()
	whole.at = time.Now()
	end, err := f.head(ctx)
	if err != nil {
		return nil, Cursor{}, mark{}, err
	}
	f.cfg.Log.Info("snapshot loaded", "stores", rows, "keys", len(keys), "seconds", time.Since(start).Seconds())
	// Changes of head.Horizon itself are yet to come, and their ids are greater than 0.
	whole.xmax = end.XMax
	return view, Cursor{XID: head.Horizon}, whole, nil
}

func (f *Feed) head(ctx context.Context) (Head, error) {
	ctx, cancel := context.WithTimeout(ctx, f.cfg.ReadTimeout)
	defer cancel()
	return f.source.Head(ctx)
}

func (f *Feed) chunk(ctx context.Context, after shortline.StoreID) ([]Row, error) {
	ctx, cancel := context.WithTimeout(ctx, f.cfg.ReadTimeout)
	defer cancel()
	return f.source.Snapshot(ctx, after, f.cfg.Chunk)
}

func (f *Feed) keys(ctx context.Context) ([]shortline.Key, error) {
	ctx, cancel := context.WithTimeout(ctx, f.cfg.ReadTimeout)
	defer cancel()
	return f.source.Keys(ctx)
}

func (f *Feed) page(ctx context.Context, after Cursor) (Page, error) {
	ctx, cancel := context.WithTimeout(ctx, f.cfg.ReadTimeout)
	defer cancel()
	return f.source.Changes(ctx, after, f.cfg.Chunk)
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

// sleep waits for d or the end of ctx.
func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
