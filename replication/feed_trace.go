package replication

import (
	"context"
	"sync"
	"sync/atomic"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/internal/span"
)

// tracedWaits are the waits for the feed that belong to traces, so that what they wait for becomes part of these, too.
type tracedWaits struct {
	n  atomic.Int32 // of waits: the feed looks no further while there is none
	mu sync.Mutex
	of map[trace.Span]Token // guarded by mu
}

// maxTracedWaits bounds how many waits one application is linked to.
const maxTracedWaits = 64

// begin notes a wait. end is called with what came of it.
func (w *tracedWaits) begin(ctx context.Context, t Token) (end func(error)) {
	_, s := span.Begin(ctx, "wait for the feed", trace.SpanKindInternal)
	if !s.IsRecording() {
		return func(error) {}
	}
	s.SetAttributes(attribute.Int64("shortline.epoch", int64(t.Epoch)), attribute.Int64("shortline.xid", int64(t.XID)))
	w.mu.Lock()
	if w.of == nil {
		w.of = map[trace.Span]Token{}
	}
	w.of[s] = t
	w.n.Store(int32(len(w.of)))
	w.mu.Unlock()
	return func(err error) {
		w.mu.Lock()
		delete(w.of, s)
		w.n.Store(int32(len(w.of)))
		w.mu.Unlock()
		span.End(s, err)
	}
}

// applying begins a span for changes that somebody waits for; end is called when they have been applied.
func (w *tracedWaits) applying(ctx context.Context, changes []shortline.Change) (end func()) {
	if w.n.Load() == 0 {
		return func() {}
	}
	last := changes[len(changes)-1]
	var waiting []trace.Span
	w.mu.Lock()
	for s, t := range w.of {
		if t.XID <= last.XID && t.XID >= changes[0].XID && len(waiting) < maxTracedWaits {
			waiting = append(waiting, s)
		}
	}
	w.mu.Unlock()
	_, s := span.Join(ctx, "apply changes", trace.SpanKindConsumer, waiting)
	if s.IsRecording() {
		s.SetAttributes(attribute.Int("shortline.changes", len(changes)), attribute.Int64("shortline.xid", int64(last.XID)))
	}
	return func() { s.End() }
}
