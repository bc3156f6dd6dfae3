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
)

// BatcherConfig sets up a Batcher. Its zero value works.
type BatcherConfig struct {
	// MaxItems is the most items in one transaction (500). A single larger Write goes in a transaction of its own.
	MaxItems int
	// MaxWaiting is the most items that may wait to be committed (20,000); past it Submit returns ErrOverloaded.
	MaxWaiting int
	// CommitTimeout bounds one transaction (30 s). It is a bound on a hanging disk, not a client's deadline.
	CommitTimeout time.Duration
	// Committed, if set, is called after each transaction with the token that covers it, before its writers are answered.
	Committed  func(Token)
	Log        *slog.Logger
	Registerer prometheus.Registerer
}

// Batcher turns the writes of all clients of a node into few transactions (group commit). While one transaction is being
// made durable, the writes that arrive meanwhile gather, and all go into the next one: a lone writer is never kept waiting
// for company, and a thousand writers share the cost of one flush to disk.
type Batcher struct {
	cfg   BatcherConfig
	store Committer
	queue chan *pending
	// mu is held for reading while a write is put into queue, and for writing when the Batcher closes, so that nothing
	// enters the queue once Run has begun to empty it for the last time.
	mu      sync.RWMutex
	down    bool // guarded by mu
	waiting atomic.Int64

	commitSeconds prometheus.Histogram
	batchItems    prometheus.Histogram
	overloaded    prometheus.Counter
}

// pending is one write on its way. Whoever moves state away from waiting owns the write.
type pending struct {
	write Write
	state atomic.Int32
	done  chan outcome // holds one
}

const (
	stateWaiting int32 = iota
	stateTaken
	stateWithdrawn
)

type outcome struct {
	result Result
	token  Token
	err    error
}

// NewBatcher makes a Batcher that commits to the store. It starts nothing; see Run.
func NewBatcher(store Committer, cfg BatcherConfig) *Batcher {
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
		cfg: cfg, store: store, queue: make(chan *pending, cfg.MaxWaiting),
		commitSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "shortline_store_commit_seconds", Help: "Time of one write transaction until it is durable.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14)}),
		batchItems: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "shortline_store_commit_items", Help: "Items written in one transaction.",
			Buckets: prometheus.ExponentialBuckets(1, 2, 11)}),
		overloaded: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "shortline_writes_overloaded_total", Help: "Writes refused because too many were waiting."}),
	}
	if r := cfg.Registerer; r != nil {
		waiting := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "shortline_writes_waiting", Help: "Items waiting to be committed."}, func() float64 { return float64(b.waiting.Load()) })
		r.MustRegister(b.commitSeconds, b.batchItems, b.overloaded, waiting)
	}
	return b
}

// Submit hands in one write and waits for its result, which is durable. The error is ErrOverloaded or ErrClosed (nothing
// was written), an error of ctx (withdrawn in time: nothing was written), ErrOutcomeUnknown (ctx ended while the write was
// being committed), or the store's own (nothing was written, unless it wraps ErrOutcomeUnknown).
func (b *Batcher) Submit(ctx context.Context, w Write) (Result, Token, error) {
	if len(w.Items) == 0 {
		return Result{}, Token{}, nil
	}
	if err := ctx.Err(); err != nil {
		return Result{}, Token{}, err
	}
	p := &pending{write: w, done: make(chan outcome, 1)}
	if err := b.enqueue(p); err != nil {
		return Result{}, Token{}, err
	}
	select {
	case o := <-p.done:
		return o.result, o.token, o.err
	case <-ctx.Done():
	}
	if p.state.CompareAndSwap(stateWaiting, stateWithdrawn) {
		return Result{}, Token{}, ctx.Err()
	}
	select { // it may have been answered at the same moment
	case o := <-p.done:
		return o.result, o.token, o.err
	default:
		return Result{}, Token{}, fmt.Errorf("%w: %w", ErrOutcomeUnknown, ctx.Err())
	}
}

func (b *Batcher) enqueue(p *pending) error {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if b.down {
		return ErrClosed
	}
	n := int64(len(p.write.Items))
	if w := b.waiting.Add(n); w > int64(b.cfg.MaxWaiting) && w > n { // one large write into an empty queue is let in
		b.waiting.Add(-n)
		b.overloaded.Inc()
		return ErrOverloaded
	}
	select {
	case b.queue <- p:
		return nil
	default:
		b.waiting.Add(-n)
		b.overloaded.Inc()
		return ErrOverloaded
	}
}

// Run commits until ctx ends, then commits what has been accepted, refuses the rest, and returns nil.
func (b *Batcher) Run(ctx context.Context) error {
	var carried *pending // taken from the queue but too large for the batch at hand
	for {
		first := carried
		carried = nil
		if first == nil {
			select {
			case first = <-b.queue:
			case <-ctx.Done():
				b.mu.Lock()
				b.down = true
				b.mu.Unlock()
				select {
				case first = <-b.queue:
				default:
					return nil
				}
			}
		}
		var batch []*pending
		batch, carried = b.gather(first)
		b.commit(context.WithoutCancel(ctx), batch)
	}
}

// gather returns first and what else waits, up to MaxItems items, and the write that no longer fitted.
func (b *Batcher) gather(first *pending) (batch []*pending, next *pending) {
	batch, items := []*pending{first}, len(first.write.Items)
	for items < b.cfg.MaxItems {
		select {
		case p := <-b.queue:
			if items+len(p.write.Items) > b.cfg.MaxItems {
				return batch, p
			}
			batch, items = append(batch, p), items+len(p.write.Items)
		default:
			return batch, nil
		}
	}
	return batch, nil
}

func (b *Batcher) commit(ctx context.Context, batch []*pending) {
	taken := batch[:0]
	writes := make([]Write, 0, len(batch))
	for _, p := range batch {
		b.waiting.Add(-int64(len(p.write.Items)))
		if p.state.CompareAndSwap(stateWaiting, stateTaken) {
			taken, writes = append(taken, p), append(writes, p.write)
		}
	}
	if len(taken) == 0 {
		return
	}
	err := b.try(ctx, taken, writes)
	switch {
	case err == nil:
	case len(taken) > 1 && retryAlone(err):
		b.commitEach(ctx, taken, err)
	default:
		for _, p := range taken {
			p.done <- outcome{err: err}
		}
	}
}

// try commits writes in one transaction and, where that succeeds, answers those who wait for them.
func (b *Batcher) try(ctx context.Context, batch []*pending, writes []Write) error {
	items := 0
	for i := range writes {
		items += len(writes[i].Items)
	}
	ctx, cancel := context.WithTimeout(ctx, b.cfg.CommitTimeout)
	defer cancel()
	start := time.Now()
	results, token, err := b.store.Commit(ctx, writes)
	b.commitSeconds.Observe(time.Since(start).Seconds())
	b.batchItems.Observe(float64(items))
	if err != nil {
		b.cfg.Log.Error("commit", "writes", len(writes), "items", items, "err", err)
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
// database cannot take must not fail its neighbours. cause is the error of the batch.
func (b *Batcher) commitEach(ctx context.Context, batch []*pending, cause error) {
	failed := 0
	for _, p := range batch {
		if failed >= maxFailedAlone {
			p.done <- outcome{err: cause}
			continue
		}
		err := b.try(ctx, []*pending{p}, []Write{p.write})
		switch {
		case err == nil:
			failed = 0
			continue
		case retryAlone(err):
			failed++
		default:
			failed = maxFailedAlone
		}
		p.done <- outcome{err: err}
	}
}

// retryAlone tells whether an error may be the fault of a single write: an unknown outcome must not be tried again, and
// a store that hangs or closes would do so once more for every write.
func retryAlone(err error) bool {
	return !errors.Is(err, ErrOutcomeUnknown) && !errors.Is(err, ErrClosed) && !errors.Is(err, context.DeadlineExceeded)
}
