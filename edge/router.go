package edge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/shortline/shortline/regions"
	"github.com/shortline/shortline/replication"
)

// RouterConfig sets up a Router. Region, Directory and Local are required.
type RouterConfig struct {
	// Region is this node's.
	Region    regions.ID
	Directory Directory
	// Local makes writes durable while this region is the primary. Its Submit fails with ErrNotPrimary where nothing was
	// written and another attempt makes sense.
	Local Writer
	// Remote passes writes on to the region that is the primary, and holds them while there is none; *Forwarder is one. Nil:
	// there is no other region.
	Remote Writer
	// Hold bounds a Submit whose caller sets no earlier deadline (10 s).
	Hold time.Duration
	// MaxHeld and MaxHeldBytes bound the items that are held here to be tried again, and about their size (20,000; 64 MiB).
	// Past them Submit returns replication.ErrOverloaded. What Remote holds does not count.
	MaxHeld, MaxHeldBytes int
	// RetryMin and RetryMax are the pause between two attempts, at first and at most (10 ms, 500 ms). Half of it is random.
	RetryMin, RetryMax time.Duration
	Log                *slog.Logger
	Registerer         prometheus.Registerer
}

// Router is the Writer of a node that may be in the primary region or in another one, which changes while it runs. Where
// this region is the primary, a write goes to the local writer; if that cannot take it for now, the write is held and tried
// again until it can, another region has become the primary, or time is up. Where there are other regions every write has
// an idempotency key, the client's or one made here, so that one whose outcome is unknown is settled by the next attempt.
type Router struct {
	cfg         RouterConfig
	tenure      atomic.Pointer[tenure]
	held, bytes atomic.Int64
	retries     prometheus.Counter
	writes      map[peerError]prometheus.Counter
}

// tenure is a time in which a region is the primary in one epoch.
type tenure struct {
	local bool // the region is this node's
	known bool // there is one at all
	epoch uint64
	who   regions.ID
	over  context.Context // ends with it
	end   context.CancelFunc
}

// NewRouter makes a Router. Run lets it follow the Directory.
func NewRouter(cfg RouterConfig) *Router {
	setDefault(&cfg.Hold, 10*time.Second)
	setDefault(&cfg.MaxHeld, 20_000)
	setDefault(&cfg.MaxHeldBytes, 64<<20)
	setDefault(&cfg.RetryMin, 10*time.Millisecond)
	setDefault(&cfg.RetryMax, 500*time.Millisecond)
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	r := &Router{cfg: cfg, retries: prometheus.NewCounter(prometheus.CounterOpts{
		Name: "shortline_write_retries_total", Help: "Further attempts of writes that this node's database did not take, or whose outcome was unknown."})}
	writes := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "shortline_writes_total", Help: "Writes of this node's clients, wherever they were made durable, by what became of them."}, []string{"result"})
	r.writes = map[peerError]prometheus.Counter{}
	for _, result := range []peerError{writeDone, writeRefused, writeReplayed, writeNoPrimary, peerOverloaded, peerUnknown, peerExpired, peerClosed, peerFailed} {
		r.writes[result] = writes.WithLabelValues(string(result))
	}
	if cfg.Registerer != nil {
		cfg.Registerer.MustRegister(r.retries, writes, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "shortline_writes_held", Help: "Items held because this node's database takes no writes."}, func() float64 { return float64(r.held.Load()) }))
	}
	r.look()
	return r
}

// Run follows the Directory until ctx ends and returns nil. A write that is under way here when another region becomes the
// primary, or another epoch begins, is given up and tried again there.
func (r *Router) Run(ctx context.Context) error {
	for {
		changed := r.cfg.Directory.Changed()
		r.look()
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

// look begins a new tenure if the primary or the epoch is another one.
func (r *Router) look() {
	var now tenure
	now.who, now.epoch, now.known = r.cfg.Directory.Primary()
	now.local = now.known && now.who == r.cfg.Region
	old := r.tenure.Load()
	if old != nil && old.known == now.known && old.who == now.who && old.epoch == now.epoch {
		return
	}
	now.over, now.end = context.WithCancel(context.Background())
	r.tenure.Store(&now)
	if old != nil {
		old.end()
		r.cfg.Log.Info("the primary changed", "region", now.who, "epoch", now.epoch, "known", now.known, "here", now.local)
	}
}

// Submit makes one write durable, wherever the primary is, and returns its result. The error is replication.ErrOverloaded,
// ErrNoPrimary (time ran out), replication.ErrClosed, of ctx, or that of the store: of all these it is certain that nothing
// was written. Only where it wraps replication.ErrOutcomeUnknown it is not.
func (r *Router) Submit(ctx context.Context, w replication.Write) (replication.Result, replication.Token, error) {
	if len(w.Items) == 0 {
		return r.cfg.Local.Submit(ctx, w)
	}
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Hold)
	defer cancel()
	own := w.Idempotency == nil && r.cfg.Remote != nil
	if own {
		w.Idempotency = ownKey()
	}
	a := attempts{router: r, write: w}
	defer a.release()
	for {
		o, done := a.once(ctx)
		if !done {
			continue
		}
		if own { // the client sent no key; that it took several attempts is nothing to it
			o.result.Replayed = false
		}
		r.count(&o)
		return o.result, o.token, o.err
	}
}

// Results of writes beside the kinds of errors.
const (
	writeDone      peerError = "ok"
	writeReplayed  peerError = "replayed" // the answer to an earlier request with the same key
	writeRefused   peerError = "refused"  // what it asks for cannot be: a store that is not there, a key used for something else
	writeNoPrimary peerError = "no-primary"
)

func (r *Router) count(o *forwardOutcome) {
	result := writeDone
	switch {
	case errors.Is(o.err, ErrNoPrimary), errors.Is(o.err, ErrNotPrimary):
		result = writeNoPrimary
	case o.err != nil:
		result = errorKind(o.err)
	case o.result.Err != nil:
		result = writeRefused
	case o.result.Replayed:
		result = writeReplayed
	}
	r.writes[result].Inc()
}

// attempts are those of one write.
type attempts struct {
	router *Router
	write  replication.Write
	n      int
	maybe  bool  // one ended in a way that does not tell whether it was written
	last   error // of the last one
	holds  int64 // items and bytes that it counts for as held; 0: it does not
	size   int64
}

// once makes an attempt where the primary is now, and says whether that settles the write; if not, it has waited until
// another attempt makes sense.
func (a *attempts) once(ctx context.Context) (o forwardOutcome, done bool) {
	r := a.router
	t := r.tenure.Load()
	switch {
	case t.local:
		o = a.local(ctx, t)
	case r.cfg.Remote != nil:
		o.result, o.token, o.err = r.cfg.Remote.Submit(ctx, a.write)
		return a.sure(o), true // it has held the write as long as there was time
	default:
		o.err = fmt.Errorf("%w: there is no primary region", ErrNotPrimary)
	}
	unknown := errors.Is(o.err, replication.ErrOutcomeUnknown)
	switch {
	case o.err == nil:
		return o, true
	case ctx.Err() == nil && unknown && a.write.Idempotency != nil:
		a.maybe = true
	case unknown || !errors.Is(o.err, ErrNotPrimary):
		return a.sure(o), true
	}
	a.last = o.err
	if err := a.hold(); err != nil {
		return a.sure(forwardOutcome{err: err}), true
	}
	if err := a.pause(ctx, t); err != nil {
		return a.sure(forwardOutcome{err: err}), true
	}
	return o, false
}

// local makes one attempt at the local writer, for no longer than the tenure lasts.
func (a *attempts) local(ctx context.Context, t *tenure) (o forwardOutcome) {
	attempt, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(t.over, cancel)()
	if a.n++; a.n > 1 {
		a.router.retries.Inc()
	}
	o.result, o.token, o.err = a.router.cfg.Local.Submit(attempt, a.write)
	if errors.Is(o.err, context.Canceled) && ctx.Err() == nil && !errors.Is(o.err, replication.ErrOutcomeUnknown) {
		o.err = fmt.Errorf("%w: another region has become the primary", ErrNotPrimary) // withdrawn before it was begun
	}
	return o
}

// pause waits for the time of the next attempt, or until the primary is another one.
func (a *attempts) pause(ctx context.Context, t *tenure) error {
	timer := time.NewTimer(backoff(a.router.cfg.RetryMin, a.router.cfg.RetryMax, a.n))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.over.Done():
	case <-ctx.Done():
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return fmt.Errorf("%w: %v; nothing was written", ErrNoPrimary, a.last)
		}
		return ctx.Err()
	}
	return nil
}

// sure makes an error say that the outcome is unknown, if that of an earlier attempt is.
func (a *attempts) sure(o forwardOutcome) forwardOutcome {
	if a.maybe && o.err != nil && !errors.Is(o.err, replication.ErrOutcomeUnknown) {
		o.err = fmt.Errorf("%w: an earlier attempt was cut off, and the last ended with: %v", replication.ErrOutcomeUnknown, o.err)
	}
	return o
}

// hold counts the write as held, if there is room.
func (a *attempts) hold() error {
	if a.holds > 0 {
		return nil
	}
	r := a.router
	items, size := int64(len(a.write.Items)), writeSize(&a.write)
	held, bytes := r.held.Add(items), r.bytes.Add(size)
	if held > items && (held > int64(r.cfg.MaxHeld) || bytes > int64(r.cfg.MaxHeldBytes)) { // one large write is let in where none is held
		r.held.Add(-items)
		r.bytes.Add(-size)
		return replication.ErrOverloaded
	}
	if a.holds, a.size = items, size; held == items {
		r.cfg.Log.Warn("writes are held: the database takes none", "for", r.cfg.Hold, "err", a.last)
	}
	return nil
}

func (a *attempts) release() {
	if a.holds == 0 {
		return
	}
	a.router.bytes.Add(-a.size)
	if a.router.held.Add(-a.holds) == 0 {
		a.router.cfg.Log.Info("no write is held any more")
	}
}

// writeSize is about what a write takes in memory.
func writeSize(w *replication.Write) int64 {
	size := 256
	for i := range w.Items {
		size += 128
		if p := w.Items[i].Put; p != nil {
			size += 512 + len(p.Name) + len(p.Hours)
			for _, tag := range p.Tags {
				size += 16 + len(tag)
			}
		}
		if k := w.Items[i].Key; k != nil {
			size += 256 + 32*len(k.Stores)
		}
	}
	return int64(size)
}
