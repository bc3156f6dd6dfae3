package replication

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/shortline/shortline/internal/span"
)

// beginCommit begins the span of a transaction: below the first write of it that is traced, linked with the others. The
// span does nothing where none is.
func beginCommit(ctx context.Context, batch []*pending, items int) (context.Context, trace.Span) {
	var spans []trace.Span
	for _, p := range batch {
		if p.span != nil {
			spans = append(spans, p.span)
		}
	}
	ctx, s := span.Join(ctx, "commit", trace.SpanKindClient, spans)
	if s.IsRecording() {
		s.SetAttributes(attribute.Int("shortline.writes", len(batch)), attribute.Int("shortline.items", items))
	}
	return ctx, s
}

func endCommit(s trace.Span, t Token, err error) {
	if s.IsRecording() {
		s.SetAttributes(attribute.Int64("shortline.epoch", int64(t.Epoch)), attribute.Int64("shortline.xid", int64(t.XID)))
	}
	span.End(s, err)
}
