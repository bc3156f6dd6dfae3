package edge

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"github.com/shortline/shortline/internal/peer"
	"github.com/shortline/shortline/internal/pki"
	"github.com/shortline/shortline/replication"
)

// ErrNotPrimary is replication.ErrNotPrimary: nothing was written, and whoever holds the write tries it again.
var ErrNotPrimary = replication.ErrNotPrimary

// PeerConfig sets up a Peer. ClusterKeys, Writer and Primary are required.
type PeerConfig struct {
	// Region is the name of this node's region ("local").
	Region string
	// ClusterKeys are the secrets that all nodes have in common, of 16 bytes or more.
	ClusterKeys peer.Keys
	// Identity is shown to whoever connects, and theirs is asked for (nil: no TLS).
	Identity *pki.Identity
	// Writer is the local one, never a Forwarder.
	Writer Writer
	// Primary tells whether this region takes writes, and in which epoch.
	Primary func() (primary bool, epoch uint64)
	// Applied is the token that this node's memory has applied; nil or an empty text where there is none.
	Applied func() string
	// Head tells how far the database is, and fails with ErrNotPrimary where this region may not speak for the primary. Nil:
	// other nodes cannot ask.
	Head func(context.Context) (replication.Head, error)
	// MaxBytes bounds the bodies being worked on at any time, together (64 MiB); past it a request is refused as overloaded.
	MaxBytes int64
	// ShutdownTimeout is how long requests under way may take to finish when the node stops (10 s).
	ShutdownTimeout time.Duration
	Now             func() time.Time // nil: time.Now
	// Tracing records what belongs to a trace at the other node; nil: nothing.
	Tracing    trace.TracerProvider
	Log        *slog.Logger
	Registerer prometheus.Registerer
}

// Peer takes the writes that nodes of other regions forward, and says how this node is. Every request must be signed with
// the cluster key; nothing of one that is refused is applied.
type Peer struct {
	cfg      PeerConfig
	verifier *peer.Verifier
	bytes    *semaphore.Weighted
	mux      *http.ServeMux

	requests, writes *prometheus.CounterVec
}

// NewPeer makes a Peer. It starts nothing; see Run. The error is peer.ErrNoKey, or names what is missing.
func NewPeer(cfg PeerConfig) (*Peer, error) {
	v, err := peer.NewVerifier(cfg.ClusterKeys, cfg.Now)
	if err != nil {
		return nil, err
	}
	if cfg.Writer == nil || cfg.Primary == nil {
		return nil, errors.New("a Peer needs a Writer and Primary")
	}
	if cfg.Region == "" {
		cfg.Region = "local"
	}
	if cfg.MaxBytes == 0 {
		cfg.MaxBytes = 64 << 20
	}
	cfg.MaxBytes = max(cfg.MaxBytes, maxPeerBytes) // or the largest request would never be let in
	if cfg.ShutdownTimeout == 0 {
		cfg.ShutdownTimeout = 10 * time.Second
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	p := &Peer{cfg: cfg, verifier: v, bytes: semaphore.NewWeighted(cfg.MaxBytes), mux: http.NewServeMux(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "shortline_peer_requests_total", Help: "Requests from other nodes, by what became of them."}, []string{"result"}),
		writes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "shortline_peer_writes_total", Help: "Writes from other nodes, by what became of them."}, []string{"result"}),
	}
	for _, kind := range []peer.Kind{"ok", peerNotPrimary, peerOverloaded, peerUnauthorized} {
		p.requests.WithLabelValues(string(kind))
	}
	for _, kind := range []peer.Kind{"ok", peerNotPrimary, peerOverloaded, peerExpired, peerMismatch, peerFailed, peerUnknown} {
		p.writes.WithLabelValues(string(kind))
	}
	if r := cfg.Registerer; r != nil {
		r.MustRegister(p.requests, p.writes)
	}
	p.mux.HandleFunc("POST "+peerWritesPath, p.postWrites)
	p.mux.HandleFunc("GET "+peerStatusPath, p.getStatus)
	if cfg.Head != nil {
		p.mux.Handle(peerHeadPath, peer.Handle(v, p.head))
	}
	return p, nil
}

// Handler is that of the internal listener.
func (p *Peer) Handler() http.Handler { return tracedHandler(p.mux, p.cfg.Tracing) }

// Run serves until ctx ends, then lets requests under way finish, and returns nil. It closes the listener.
func (p *Peer) Run(ctx context.Context, l net.Listener) error {
	server := peer.NewServer(p.Handler(), maxPeerTimeout+10*time.Second, p.cfg.Log)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		if err := server.Serve(peer.Listen(l, p.cfg.Identity)); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve other nodes on %s: %w", l.Addr(), err)
		}
		return nil
	})
	group.Go(func() error {
		<-ctx.Done()
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), p.cfg.ShutdownTimeout)
		defer cancel()
		if err := server.Shutdown(stop); err != nil {
			p.cfg.Log.Warn("some requests of other nodes did not finish in time and were cut off", "err", err)
			_ = server.Close()
		}
		return nil
	})
	return group.Wait()
}

// peerStatus is the HTTP status of a refusal.
func peerStatus(k peer.Kind) int {
	if k == peerNotPrimary {
		return http.StatusServiceUnavailable
	}
	return k.Status()
}

func (p *Peer) refuse(w http.ResponseWriter, r *http.Request, why *peer.Refusal) {
	p.requests.WithLabelValues(string(why.Kind)).Inc()
	if why.Kind != peerNotPrimary && why.Kind != peerOverloaded {
		p.cfg.Log.Warn("refused a request of another node", "from", r.RemoteAddr, "kind", why.Kind, "err", why.Detail)
	}
	w.Header().Set(peer.HeaderVersion, strconv.Itoa(peer.Version))
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(peerStatus(why.Kind))
	_ = json.NewEncoder(w).Encode(why)
}

func (p *Peer) getStatus(w http.ResponseWriter, r *http.Request) {
	if _, why := p.verifier.Verify(r); why != nil {
		p.refuse(w, r, why)
		return
	}
	status := PeerStatus{Version: peer.Version, Region: p.cfg.Region}
	status.Primary, status.Epoch = p.cfg.Primary()
	if p.cfg.Applied != nil {
		status.Token = p.cfg.Applied()
	}
	w.Header().Set(peer.HeaderVersion, strconv.Itoa(peer.Version))
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(&status)
}

func (p *Peer) head(ctx context.Context, _ struct{}) (replication.Head, error) {
	if primary, epoch := p.cfg.Primary(); !primary {
		return replication.Head{}, &peer.Refusal{Kind: peerNotPrimary, Detail: fmt.Sprintf("region %s is not the primary in epoch %d", p.cfg.Region, epoch)}
	}
	head, err := p.cfg.Head(ctx)
	if errors.Is(err, ErrNotPrimary) {
		return head, &peer.Refusal{Kind: peerNotPrimary, Detail: err.Error()}
	}
	return head, err
}

func (p *Peer) postWrites(w http.ResponseWriter, r *http.Request) {
	req, why := p.verifier.Verify(r)
	if why != nil {
		p.refuse(w, r, why)
		return
	}
	if primary, epoch := p.cfg.Primary(); !primary { // before the body, which need not be read to be sent elsewhere
		p.refuse(w, r, &peer.Refusal{Kind: peerNotPrimary, Detail: fmt.Sprintf("region %s is not the primary in epoch %d; nothing was written", p.cfg.Region, epoch)})
		return
	}
	body, done, why := p.readBody(w, r, req.Digest)
	if why != nil {
		p.refuse(w, r, why)
		return
	}
	defer done()
	writes, err := decodeWrites(body, req.Version > peer.Version)
	switch {
	case errors.Is(err, errTooMany):
		p.refuse(w, r, &peer.Refusal{Kind: peerTooLarge, Detail: err.Error()})
		return
	case err != nil:
		p.refuse(w, r, &peer.Refusal{Kind: peerMalformed, Detail: err.Error()})
		return
	}
	p.requests.WithLabelValues("ok").Inc()
	p.answer(w, r, writes)
}

// readBody reads the body that the signed digest is of. done gives back its share of the memory for bodies.
func (p *Peer) readBody(w http.ResponseWriter, r *http.Request, digest [sha256.Size]byte) (body []byte, done func(), why *peer.Refusal) {
	n := r.ContentLength
	switch {
	case n < 0:
		return nil, nil, &peer.Refusal{Kind: peerMalformed, Detail: "Content-Length is missing"}
	case n > maxPeerBytes:
		return nil, nil, &peer.Refusal{Kind: peerTooLarge, Detail: fmt.Sprintf("the body has %d bytes; at most %d are allowed", n, maxPeerBytes)}
	case !p.bytes.TryAcquire(n):
		return nil, nil, &peer.Refusal{Kind: peerOverloaded, Detail: "too many bytes are being worked on; nothing was written, try again"}
	}
	done = func() { p.bytes.Release(n) }
	body = make([]byte, n)
	if _, err := io.ReadFull(http.MaxBytesReader(w, r.Body, n), body); err != nil {
		done()
		return nil, nil, &peer.Refusal{Kind: peerMalformed, Detail: "the body ended before its time"}
	}
	if sum := sha256.Sum256(body); sum != digest {
		done()
		return nil, nil, &peer.Refusal{Kind: peerUnauthorized, Detail: "the body is not the one that was signed"}
	}
	return body, done, nil
}

// forwardedWrite marks the context of a write that came from another node, so that no Forwarder passes it on again.
type forwardedWrite struct{}

// answer submits the writes and streams a line for each as soon as it is known: one that waits keeps no other waiting.
func (p *Peer) answer(w http.ResponseWriter, r *http.Request, writes []incoming) {
	h := w.Header()
	h.Set(peer.HeaderVersion, strconv.Itoa(peer.Version))
	h.Set("Content-Type", "application/x-ndjson")
	ctx := context.WithValue(r.Context(), forwardedWrite{}, true)
	traces := p.traces(r)
	if len(writes) == 1 {
		_ = json.NewEncoder(w).Encode(p.submit(ctx, 0, &writes[0], traces))
		return
	}
	answers := make(chan wireAnswer, len(writes))
	for i := range writes { // each sends once into a channel that has room, and is waited for below
		go func() { answers <- p.submit(ctx, i, &writes[i], traces) }()
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	control := http.NewResponseController(w)
	for left := len(writes); left > 0; {
		a := <-answers
		for more := true; more; {
			_ = enc.Encode(&a)
			left--
			select {
			case a = <-answers:
			default:
				more = false
			}
		}
		_, _ = w.Write(b.Bytes()) // a sender that is gone learns by its idempotency keys
		_ = control.Flush()
		b.Reset()
	}
}

// submit hands one write to the local writer, with the time that its caller has left.
func (p *Peer) submit(ctx context.Context, i int, in *incoming, traces map[int]trace.SpanContext) wireAnswer {
	ctx, s := p.traced(ctx, i, traces)
	a := p.outcome(ctx, i, in)
	s.End()
	result := string(a.Error)
	if result == "" {
		result = "ok"
	}
	p.writes.WithLabelValues(result).Inc()
	return a
}

func (p *Peer) outcome(ctx context.Context, i int, in *incoming) wireAnswer {
	if in.fault != nil {
		return wireAnswer{Write: i, Error: peerInvalid, Detail: in.fault.Error()}
	}
	ctx, cancel := context.WithTimeout(ctx, in.timeout)
	defer cancel()
	res, token, err := p.cfg.Writer.Submit(ctx, in.write)
	switch {
	case err == nil && res.Err == nil:
		return encodeResult(i, res, token)
	case err == nil && errors.Is(res.Err, replication.ErrIdempotencyMismatch):
		return wireAnswer{Write: i, Error: peerMismatch, At: res.At, Token: token.String()}
	case err == nil:
		err = res.Err
	}
	return wireAnswer{Write: i, Error: errorKind(err), Detail: err.Error()}
}

// errorKind names an error of a Writer. The unknown outcome goes first, for it is often wrapped together with its cause.
func errorKind(err error) peerError {
	switch {
	case errors.Is(err, replication.ErrOutcomeUnknown):
		return peerUnknown
	case errors.Is(err, ErrNotPrimary), errors.Is(err, ErrNoPrimary):
		return peerNotPrimary
	case errors.Is(err, replication.ErrOverloaded):
		return peerOverloaded
	case errors.Is(err, replication.ErrClosed):
		return peerClosed
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return peerExpired
	}
	return peerFailed
}
