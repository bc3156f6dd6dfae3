package edge

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"

	"github.com/shortline/shortline/internal/peer"
	"github.com/shortline/shortline/internal/pki"
	"github.com/shortline/shortline/internal/span"
	"github.com/shortline/shortline/replication"
)

// ErrNoPrimary says that no node of the primary region took the write in time. Nothing was written.
var ErrNoPrimary = errors.New("no node of the primary region could be reached")

// ownKeyLife is how long the answer to a write is kept whose idempotency key was made here: longer than any retry. The scope
// of such keys is that of no request.
const (
	ownKeyLife  = 15 * time.Minute
	ownKeyScope = "forward"
)

// PeerNode is a node that writes can be forwarded to.
type PeerNode struct {
	Name string
	Addr string // host:port of its internal listener
}

// ForwarderConfig sets up a Forwarder. Peers and ClusterKeys are required; for all else zero works.
type ForwarderConfig struct {
	// Peers returns the nodes of the primary region, none while it is not known. The answer may change at any time, also to
	// nodes of this very region; it is asked for often, must not block, and its result is not changed.
	Peers func() []PeerNode
	// Changed returns a channel that is closed once another region has become primary or the old one can be tried again:
	// nodes that failed before are then tried at once. nil: changes of Peers are seen within Poll.
	Changed func() <-chan struct{}
	// ClusterKeys are the secrets that all nodes have in common, of 16 bytes or more.
	ClusterKeys peer.Keys
	// Identity is shown to the nodes, and theirs is asked for (nil: no TLS).
	Identity *pki.Identity
	// Timeout bounds a Submit whose caller sets no earlier deadline (10 s).
	Timeout time.Duration
	// MaxWaiting and MaxWaitingBytes bound the items that are held or under way, and their size as JSON (20,000; 64 MiB).
	// Past them Submit returns replication.ErrOverloaded.
	MaxWaiting      int
	MaxWaitingBytes int
	// BatchItems and BatchBytes bound one request (500; 1 MiB). A single larger write goes alone.
	BatchItems int
	BatchBytes int
	// InFlight is the most requests to one node at a time (8).
	InFlight int
	// RetryRatio is the greatest part of requests that may be retries (0.1), beside RetryMin a second (5, and as many at once).
	RetryRatio float64
	RetryMin   float64
	// AvoidMin and AvoidMax are how long a node that failed is not asked, at first and at most (50 ms; 1 s). Half of it is
	// random.
	AvoidMin, AvoidMax time.Duration
	// Poll is how often Peers is asked while writes are held (100 ms).
	Poll time.Duration
	// Transport replaces the one that speaks HTTP/2 over TCP, for tests.
	Transport  http.RoundTripper
	Log        *slog.Logger
	Registerer prometheus.Registerer
}

func (c *ForwarderConfig) defaults() {
	setDefault(&c.Timeout, 10*time.Second)
	setDefault(&c.MaxWaiting, 20_000)
	setDefault(&c.MaxWaitingBytes, 64<<20)
	setDefault(&c.BatchItems, 500)
	setDefault(&c.BatchBytes, 1<<20)
	setDefault(&c.InFlight, 8)
	setDefault(&c.RetryRatio, 0.1)
	setDefault(&c.RetryMin, 5)
	setDefault(&c.AvoidMin, 50*time.Millisecond)
	setDefault(&c.AvoidMax, time.Second)
	setDefault(&c.Poll, 100*time.Millisecond)
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Forwarder is the Writer of a node whose region is not the primary: it passes writes on to nodes of the region that is,
// in batches, and holds them while there is none. Every write goes with an idempotency key, the client's or one made here,
// so that it can be tried again after a cut connection without being applied twice.
type Forwarder struct {
	cfg       ForwarderConfig
	signer    *peer.Signer
	transport http.RoundTripper
	metrics   *forwardMetrics
	kick      chan struct{} // holds one: there is something to plan

	mu    sync.Mutex
	queue forwardQueue // guarded by mu
}

// NewForwarder makes a Forwarder. It starts nothing; see Run. The error is peer.ErrNoKey, or names what is missing.
func NewForwarder(cfg ForwarderConfig) (*Forwarder, error) {
	s, err := peer.NewSigner(cfg.ClusterKeys)
	if err != nil {
		return nil, err
	}
	if cfg.Peers == nil {
		return nil, errors.New("a Forwarder needs Peers")
	}
	cfg.defaults()
	f := &Forwarder{cfg: cfg, signer: s, transport: cfg.Transport, kick: make(chan struct{}, 1)}
	if f.transport == nil {
		f.transport = peer.NewTransport(cfg.Identity)
	}
	f.queue = newForwardQueue(&f.cfg)
	f.metrics = newForwardMetrics(cfg.Registerer, f)
	return f, nil
}

type forwardOutcome struct {
	result replication.Result
	token  replication.Token
	err    error
}

// Submit passes one write on and waits for its result. The error is replication.ErrOverloaded, ErrNoPrimary,
// replication.ErrClosed or ErrNotPrimary (the write had been forwarded to this node already), of ctx, or that of the store:
// of all these it is certain that nothing was written. Only where it wraps replication.ErrOutcomeUnknown it is not.
func (f *Forwarder) Submit(ctx context.Context, w replication.Write) (replication.Result, replication.Token, error) {
	if span.Of(ctx) == nil {
		return f.submit(ctx, w, nil)
	}
	ctx, s := span.Begin(ctx, "forward", trace.SpanKindProducer)
	result, token, err := f.submit(ctx, w, s)
	span.End(s, err)
	return result, token, err
}

func (f *Forwarder) submit(ctx context.Context, w replication.Write, s trace.Span) (replication.Result, replication.Token, error) {
	var none replication.Result
	if len(w.Items) == 0 {
		return none, replication.Token{}, nil
	}
	if ctx.Value(forwardedWrite{}) != nil {
		return none, replication.Token{}, fmt.Errorf("a write that was forwarded is not forwarded again: %w", ErrNotPrimary)
	}
	ctx, cancel := context.WithTimeout(ctx, f.cfg.Timeout)
	defer cancel()
	if err := ctx.Err(); err != nil {
		return none, replication.Token{}, err
	}
	deadline, _ := ctx.Deadline()
	p, err := newHeldWrite(w, deadline)
	if err != nil {
		return none, replication.Token{}, err
	}
	p.span = s
	start := time.Now()
	f.mu.Lock()
	err = f.queue.add(p, start)
	f.mu.Unlock()
	if err != nil {
		f.metrics.fail(err)
		return none, replication.Token{}, err
	}
	f.wake()
	var o forwardOutcome
	select {
	case o = <-p.done:
	case <-ctx.Done():
		o = f.leave(p, ctx.Err())
	}
	f.metrics.seconds.Observe(time.Since(start).Seconds())
	if o.err != nil {
		f.metrics.fail(o.err)
	} else {
		f.metrics.forwarded.Inc()
	}
	return o.result, o.token, o.err
}

// leave withdraws a write whose caller waits no longer, and says what is known of it.
func (f *Forwarder) leave(p *heldWrite, cause error) forwardOutcome {
	f.mu.Lock()
	defer f.mu.Unlock()
	select { // it may have been answered at the same moment
	case o := <-p.done:
		return o
	default:
	}
	flying := f.queue.leave(p)
	switch {
	case flying || p.maybe:
		return forwardOutcome{err: fmt.Errorf("%w: %w", replication.ErrOutcomeUnknown, cause)}
	case errors.Is(cause, context.DeadlineExceeded) && (p.last != nil || len(f.queue.lanes) == 0):
		return forwardOutcome{err: p.noPrimary()}
	}
	return forwardOutcome{err: cause}
}

func (f *Forwarder) wake() {
	select {
	case f.kick <- struct{}{}:
	default:
	}
}

// Run sends what is submitted until ctx ends. Then it refuses what is held, waits for the requests under way and returns
// nil; so the callers of Submit should be gone by then.
func (f *Forwarder) Run(ctx context.Context) error {
	var group errgroup.Group
	var changed <-chan struct{}
	if f.cfg.Changed != nil {
		changed = f.cfg.Changed()
	}
	timer := time.NewTimer(f.cfg.Poll)
	defer timer.Stop()
	if t, ok := f.transport.(*http.Transport); ok {
		defer t.CloseIdleConnections()
	}
	for {
		peers := f.cfg.Peers()
		f.mu.Lock()
		batches, next := f.queue.plan(peers, time.Now())
		f.mu.Unlock()
		for _, b := range batches {
			group.Go(func() error {
				f.send(context.WithoutCancel(ctx), b)
				f.wake()
				return nil
			})
		}
		timer.Reset(next)
		select {
		case <-f.kick:
		case <-timer.C:
		case <-changed:
			changed = f.cfg.Changed()
			f.mu.Lock()
			f.queue.forgive()
			f.mu.Unlock()
		case <-ctx.Done():
			f.mu.Lock()
			f.queue.close()
			f.mu.Unlock()
			return group.Wait()
		}
	}
}

// heldWrite is one write on its way. All but the first five fields are guarded by Forwarder.mu.
type heldWrite struct {
	line     []byte // as encodeWrite makes it
	items    int
	deadline time.Time
	span     trace.Span          // nil: it belongs to no trace that is recorded
	done     chan forwardOutcome // holds one

	spot      spot
	store     string // its first store, which decides where it goes
	ownKey    bool   // the idempotency key was made here
	attempts  int
	notBefore time.Time
	maybe     bool  // an attempt ended in a way that does not tell whether it was written
	last      error // of the last attempt
	gone      bool  // the caller has left
}

func newHeldWrite(w replication.Write, deadline time.Time) (*heldWrite, error) {
	p := &heldWrite{items: len(w.Items), deadline: deadline, done: make(chan forwardOutcome, 1), store: w.Items[0].Subject()}
	if w.Idempotency == nil {
		p.ownKey = true
		w.Idempotency = ownKey()
	}
	var err error
	if p.line, err = encodeWrite(&w); err != nil {
		return nil, err
	}
	if len(p.line) > maxPeerBytes-100 || p.items > maxPeerWriteItems {
		return nil, &apiError{kind: kindTooLarge, detail: fmt.Sprintf("a write of %d items and %d bytes cannot be passed on to the primary region; send less at a time", p.items, len(p.line))}
	}
	return p, nil
}

// ownKey makes an idempotency key for a write that came without one. Nobody else can have it, so the hash of the body guards
// against nothing.
func ownKey() *replication.Idempotency {
	return &replication.Idempotency{Scope: ownKeyScope, Key: rand.Text(), BodyHash: sha256.Sum256(nil), TTL: ownKeyLife}
}

// noPrimary is the error of a write that was certainly not written.
func (p *heldWrite) noPrimary() error {
	if p.last == nil {
		return fmt.Errorf("%w: none is known; nothing was written", ErrNoPrimary)
	}
	return fmt.Errorf("%w: %v; nothing was written", ErrNoPrimary, p.last) // %v: what the attempt met is not what the caller met
}
