package edge

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"

	"github.com/shortline/shortline/internal/peer"
	"github.com/shortline/shortline/internal/span"
	"github.com/shortline/shortline/replication"
)

// verdict is what an attempt that brought no result means for a write.
type verdict struct {
	err        error
	maybe      bool // it may have been written
	overloaded bool
	final      bool // trying again will not help
}

// sure returns err, unless an earlier attempt leaves it open whether the write was written.
func (p *heldWrite) sure(err error) error {
	if p.maybe {
		return fmt.Errorf("%w: an earlier attempt was cut off, and the last ended with: %w", replication.ErrOutcomeUnknown, err)
	}
	return err
}

// send makes one request and answers its writes as the results come in. Writes without a result are tried again.
func (f *Forwarder) send(ctx context.Context, b *forwardBatch) {
	f.metrics.requests.Inc()
	if b.retry {
		f.metrics.retried.Inc()
	}
	last := b.writes[0].deadline
	for _, p := range b.writes {
		if p.deadline.After(last) {
			last = p.deadline
		}
	}
	ctx, cancel := context.WithDeadline(ctx, last) // one caller that leaves does not cancel the others
	defer cancel()
	left := make(map[int]*heldWrite, len(b.writes))
	for i, p := range b.writes {
		left[i] = p
	}
	v, failed := f.exchange(ctx, b, left)
	if failed {
		f.cfg.Log.Debug("forward writes", "node", b.lane.peer.Name, "writes", len(b.writes), "unanswered", len(left), "err", v.err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	f.queue.settle(b.lane, failed, now)
	for _, p := range left {
		f.judgeLocked(p, v, now)
	}
}

// judgeLocked does with a write that got no result what the verdict says.
func (f *Forwarder) judgeLocked(p *heldWrite, v verdict, now time.Time) {
	if v.final {
		f.queue.finish(p, forwardOutcome{err: p.sure(v.err)})
		return
	}
	f.queue.again(p, v, now)
}

// exchange sends the batch and takes writes that have been answered out of left. The verdict is for those that remain, and
// failed tells that the node should be left alone.
func (f *Forwarder) exchange(ctx context.Context, b *forwardBatch, left map[int]*heldWrite) (v verdict, failed bool) {
	res, err := f.request(ctx, b)
	if err != nil {
		return verdict{err: err, maybe: !peer.NeverSent(err)}, true
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		return f.refused(res, b), true
	}
	dec := json.NewDecoder(io.LimitReader(res.Body, 4*maxPeerBytes))
	turned := false // the node said of a write that it is not, or no longer, one to ask
	for len(left) > 0 {
		var a wireAnswer
		if err := dec.Decode(&a); err != nil {
			return verdict{err: fmt.Errorf("the answer of %s was cut off: %w", b.lane.peer.Name, err), maybe: true}, true
		}
		p := left[a.Write]
		if p == nil {
			return verdict{err: fmt.Errorf("%s answered a write %d that it was not asked", b.lane.peer.Name, a.Write), maybe: true}, true
		}
		delete(left, a.Write)
		f.deliver(p, &a, b.lane.peer.Name)
		turned = turned || a.Error == peerNotPrimary || a.Error == peerClosed
	}
	return verdict{err: ErrNotPrimary}, turned
}

// deliver does with one write what its line of the answer says.
func (f *Forwarder) deliver(p *heldWrite, a *wireAnswer, node string) {
	var o forwardOutcome
	v := verdict{err: fmt.Errorf("%s answered %s: %s", node, a.Error, clipDetail(a.Detail))}
	switch a.Error {
	case "", peerMismatch:
		if o.result, o.token, o.err = a.result(p.items); o.err != nil {
			v.err, v.maybe = fmt.Errorf("the answer of %s: %w", node, o.err), true
			break
		}
		if p.ownKey {
			o.result.Replayed = false // the client sent no key; that we had to try twice is nothing to it
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		f.queue.finish(p, o)
		return
	case peerNotPrimary, peerClosed, peerExpired:
	case peerOverloaded:
		v.overloaded = true
	case peerInvalid, peerFailed:
		v.final = true
	default: // peerUnknown, and what only a newer node knows
		v.maybe = true
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.judgeLocked(p, v, time.Now())
}

func (f *Forwarder) request(ctx context.Context, b *forwardBatch) (*http.Response, error) {
	body := make([]byte, 0, b.bytes+32*len(b.writes))
	now := time.Now()
	for _, p := range b.writes {
		body = appendLine(body, p.line, peerTimeout(p.deadline.Sub(now)))
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, peer.Scheme(f.cfg.Identity)+b.lane.peer.Addr+peerWritesPath, bytes.NewReader(body))
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: err} // an address that is none: nothing was sent
	}
	req.Header.Set("Content-Type", "application/x-ndjson")
	f.signer.Sign(req, body, 1, now)
	req, s := peer.Outgoing(req, spansOf(b.writes))
	res, err := f.transport.RoundTrip(req)
	span.End(s, err)
	return res, err
}

// spansOf are the spans of the writes, in their order; nil where none is traced.
func spansOf(writes []*heldWrite) []trace.Span {
	var spans []trace.Span
	for i, p := range writes {
		if p.span != nil && spans == nil {
			spans = make([]trace.Span, i, len(writes))
		}
		if spans != nil {
			spans = append(spans, p.span)
		}
	}
	return spans
}

// peerTimeout is what of the time left the other node may use: it should give up, and say so, while the caller still listens.
func peerTimeout(left time.Duration) time.Duration {
	return left - min(left/5, 300*time.Millisecond)
}

// refused reads the answer to a request that was refused as a whole. That nothing was written is certain only where the
// answer is from a node and not from something in between.
func (f *Forwarder) refused(res *http.Response, b *forwardBatch) verdict {
	text, _ := io.ReadAll(io.LimitReader(res.Body, 4<<10))
	var why peer.Refusal
	if res.Header.Get(peer.HeaderVersion) == "" || json.Unmarshal(text, &why) != nil {
		return verdict{err: fmt.Errorf("%s answered %s", b.lane.peer.Name, res.Status), maybe: true}
	}
	v := verdict{err: fmt.Errorf("%s refused: %s: %s", b.lane.peer.Name, why.Kind, clipDetail(why.Detail))}
	switch why.Kind {
	case peerNotPrimary, peerClosed:
	case peerOverloaded:
		v.overloaded = true
	case peerUnauthorized, peerSkewed, peerTooNew, peerReplayed, peerLoop: // elsewhere, or once it is mended
		f.cfg.Log.Warn("another node refused writes", "node", b.lane.peer.Name, "err", v.err)
	case peerMalformed, peerTooLarge:
		f.cfg.Log.Error("another node could not read writes", "node", b.lane.peer.Name, "err", v.err)
		v.final = true
	default:
		v.maybe = true
	}
	return v
}

func clipDetail(s string) string { return s[:min(len(s), 500)] }

type forwardMetrics struct {
	forwarded, requests, retried prometheus.Counter
	failed                       *prometheus.CounterVec
	seconds                      prometheus.Histogram
}

func newForwardMetrics(r prometheus.Registerer, f *Forwarder) *forwardMetrics {
	m := &forwardMetrics{
		forwarded: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "shortline_forward_writes_total", Help: "Writes that the primary region answered."}),
		requests: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "shortline_forward_requests_total", Help: "Requests with writes sent to the primary region, retries too."}),
		retried: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "shortline_forward_retries_total", Help: "Requests with writes that had been sent before."}),
		failed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "shortline_forward_failed_total", Help: "Writes that could not be forwarded, by kind."}, []string{"kind"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "shortline_forward_seconds", Help: "Time from a write's arrival until it was answered.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 15)}),
	}
	for _, kind := range []peerError{"no-primary", peerOverloaded, peerUnknown, peerExpired, peerFailed} {
		m.failed.WithLabelValues(string(kind))
	}
	if r != nil {
		held := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "shortline_forward_held", Help: "Writes held because no node of the primary region takes them."}, func() float64 {
			f.mu.Lock()
			defer f.mu.Unlock()
			return float64(f.queue.parked.Len())
		})
		r.MustRegister(m.forwarded, m.requests, m.retried, m.failed, m.seconds, held)
	}
	return m
}

func (m *forwardMetrics) fail(err error) {
	kind := errorKind(err)
	if errors.Is(err, ErrNoPrimary) {
		kind = "no-primary"
	}
	m.failed.WithLabelValues(string(kind)).Inc()
}
