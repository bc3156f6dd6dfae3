package replication

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"

	"github.com/shortline/shortline/internal/span"
)

// BatcherConfig sets up a Batcher. Its zero value works.
type BatcherConfig struct {
	// InFlight is the most transactions that may be under way at once (1, which suits a store with a single writer). More than
	// one is for a store that takes Commit from several goroutines and locks rows in one order.
	InFlight int
	// Linger is how long a write waits for company at most, for each transaction that is under way (2 ms). With none under way
	// it goes at once.
	Linger time.Duration
	// MaxItems is the most items in one transaction (500). A single larger Write goes in a transaction of its own.
	MaxItems int
	// MaxWaiting is the most items that may wait to be committed (20,000); past it Submit returns
	// ErrOverloaded. What is being committed does not count.
	MaxWaiting int
	// CommitTimeout bounds one transaction (30 s). It is a bound on a hanging disk, not a client's deadline.
	CommitTimeout time.Duration
	// Committed, if set, is called after each transaction with the token that covers it, before its writers are answered.
	// With several in flight it is called from several goroutines at once, with tokens in no particular order; while it
	// blocks, it holds up the transaction that called it.
	Committed  func(Token)
	Log        *slog.Logger
	Registerer prometheus.Registerer
}

// Batcher turns the writes of all clients of a node into few transactions (group commit). While one transaction is being
// made durable, the writes that arrive meanwhile gather, and all go into the next one: a lone writer is never kept waiting
// for company, and a thousand writers share the cost of one flush to disk.
//
// Several transactions may be under way at once, so that one that waits for a standby far away does not hold up everything. No
// two of them have a store in common: a write to a store that is being written waits, instead of a connection at the database,
// and is folded with all others of that store that come meanwhile. The order that this keeps:
//   - A Submit that begins after another was acknowledged comes after it, whatever their stores.
//   - Of writes under way at once, those that have a store in common are committed in the order in which they were submitted.
//   - Beyond that there is none.
//
// The same request sent again is behind the original and not beside it, where it would wait for the idempotency row.
type Batcher struct {
	cfg   BatcherConfig
	store Committer
	queue *waiting

	commitSeconds prometheus.Histogram
	batchItems    prometheus.Histogram
	inFlight      prometheus.Gauge
	overloaded    prometheus.Counter
}

type outcome struct {
	result Result
	token  Token
	err    error
}

// NewBatcher makes a Batcher that commits to the store. It starts nothing; see Run.
func NewBatcher(store Committer, cfg BatcherConfig) *Batcher {
	if cfg.InFlight == 0 {
		cfg.InFlight = 1
	}
	if cfg.Linger == 0 {
		cfg.Linger = 2 * time.Millisecond
	}
	if cfg.MaxItems == 0 {
		cfg.MaxItems = 500
	}
	if cfg.MaxWaiting == 0 {
		cfg.MaxWaiting = 20_000
	}
	if cfg.CommitTimeout == 0 {
		cfg.CommitTimeout = 30 * time.Second
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	b := &Batcher{
		cfg: cfg, store: store, queue: newWaiting(cfg.MaxItems, cfg.MaxWaiting, cfg.InFlight, cfg.Linger),
		commitSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "shortline_store_commit_seconds", Help: "Time of one write transaction until it is durable.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14)}),
		batchItems: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "shortline_store_commit_items", Help: "Items written in one transaction.",
			Buckets: prometheus.ExponentialBuckets(1, 2, 11)}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "shortline_store_commits_in_flight", Help: "Write transactions under way."}),
		overloaded: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "shortline_writes_overloaded_total", Help: "Writes refused because too many were waiting."}),
	}
	if r := cfg.Registerer; r != nil {
		waiting := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "shortline_writes_waiting", Help: "Items waiting to be committed."}, func() float64 { return float64(b.queue.count()) })
		r.MustRegister(b.commitSeconds, b.batchItems, b.inFlight, b.overloaded, waiting)
	}
	return b
}

// Submit hands in one write and waits for its result, which is durable. The error is ErrOverloaded or ErrClosed (nothing
// was written), an error of ctx (withdrawn in time: nothing was written), ErrOutcomeUnknown (ctx ended while the write was
// being committed), or the store's own (nothing was written, unless it wraps ErrOutcomeUnknown; ErrNotPrimary: try again).
func (b *Batcher) Submit(ctx context.Context, w Write) (Result, Token, error) {
	if len(w.Items) == 0 {
		return Result{}, Token{}, nil
	}
	if err := ctx.Err(); err != nil {
		return Result{}, Token{}, err
	}
	if span.Of(ctx) == nil {
		return b.submit(ctx, w, nil)
	}
	ctx, s := span.Begin(ctx, "write in a batch", trace.SpanKindProducer)
	result, token, err := b.submit(ctx, w, s)
	span.End(s, err)
	return result, token, err
}

func (b *Batcher) submit(ctx context.Context, w Write, s trace.Span) (Result, Token, error) {
	p, err := b.queue.add(w, s)
	if err != nil {
		if errors.Is(err, ErrOverloaded) {
			b.overloaded.Inc()
		}
		return Result{}, Token{}, err
	}
	select {
	case o := <-p.done:
		return o.result, o.token, o.err
	case <-ctx.Done():
	}
	if b.queue.withdraw(p) {
		return Result{}, Token{}, ctx.Err()
	}
	select { // it may have been answered at the same moment
	case o := <-p.done:
		return o.result, o.token, o.err
	default:
		return Result{}, Token{}, fmt.Errorf("%w: %w", ErrOutcomeUnknown, ctx.Err())
	}
}

// Run commits until ctx ends, then refuses what comes, commits what has been accepted, and returns nil.
func (b *Batcher) Run(ctx context.Context) error {
	defer context.AfterFunc(ctx, b.queue.close)()
	committing := context.WithoutCancel(ctx)
	var flights sync.WaitGroup
	defer flights.Wait()
	alarm := time.NewTimer(time.Hour)
	defer alarm.Stop()
	for {
		next, look, open := b.queue.next(time.Now())
		switch {
		case len(next.writes) > 0:
			flights.Go(func() {
				defer b.queue.end(next)
				b.commit(committing, next.writes)
			})
			continue
		case !open:
			return nil
		case look.IsZero():
			<-b.queue.wake
			continue
		}
		alarm.Reset(time.Until(look))
		select {
		case <-alarm.C:
		case <-b.queue.wake:
		}
	}
}

func (b *Batcher) commit(ctx context.Context, batch []*pending) {
	err := b.try(ctx, batch)
	switch {
	case err == nil:
	case len(batch) > 1 && retryAlone(err):
		b.commitEach(ctx, batch, err)
	default:
		for _, p := range batch {
			p.done <- outcome{err: err}
		}
	}
}

// try commits a batch in one transaction and, where that succeeds, answers those who wait for it.
func (b *Batcher) try(ctx context.Context, batch []*pending) error {
	writes, items := make([]Write, len(batch)), 0
	for i, p := range batch {
		writes[i], items = p.write, items+len(p.write.Items)
	}
	ctx, cancel := context.WithTimeout(ctx, b.cfg.CommitTimeout)
	defer cancel()
	ctx, commit := beginCommit(ctx, batch, items)
	start := time.Now()
	b.inFlight.Inc()
	results, token, err := b.store.Commit(ctx, writes)
	b.inFlight.Dec()
	b.commitSeconds.Observe(time.Since(start).Seconds())
	b.batchItems.Observe(float64(items))
	endCommit(commit, token, err)
	if err != nil {
		level := slog.LevelError
		if errors.Is(err, ErrNotPrimary) { // whoever holds and retries the writes says so once
			level = slog.LevelDebug
		}
		b.cfg.Log.Log(ctx, level, "commit", "writes", len(writes), "items", items, "err", err)
		return err
	}
	if b.cfg.Committed != nil {
		b.cfg.Committed(token)
	}
	for i, p := range batch {
		p.done <- outcome{result: results[i], token: token}
	}
	return nil
}

// maxFailedAlone is how many writes in a row may fail alone until it is plain that the fault is not theirs.
const maxFailedAlone = 8

// commitEach commits every write of a batch that failed on its own: nothing of it was written, and one write that the
// database cannot take must not fail its neighbours. cause is the error of the batch, for those that are not tried again.
func (b *Batcher) commitEach(ctx context.Context, batch []*pending, cause error) {
	failed := 0
	for _, p := range batch {
		if failed >= maxFailedAlone {
			p.done <- outcome{err: cause}
			continue
		}
		err := b.try(ctx, []*pending{p})
		switch {
		case err == nil:
			failed = 0
			continue
		case retryAlone(err):
			failed++
		default:
			failed = maxFailedAlone
			if !errors.Is(err, ErrOutcomeUnknown) { // that is of p alone: the rest is known not to be written
				cause = err
			}
		}
		p.done <- outcome{err: err}
	}
}

// retryAlone tells whether an error may be the fault of a single write: an unknown outcome must not be tried again, and
// a store that hangs, closes or takes no writes would do so once more for every write.
func retryAlone(err error) bool {
	return !errors.Is(err, ErrOutcomeUnknown) && !errors.Is(err, ErrNotPrimary) && !errors.Is(err, ErrClosed) && !errors.Is(err, context.DeadlineExceeded)
}
