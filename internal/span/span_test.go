package span

import (
	"context"
	"errors"
	"testing"

	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	api "go.opentelemetry.io/otel/trace"
)

type key struct{}

func TestOffCostsNothing(t *testing.T) {
	ctx := context.WithValue(t.Context(), key{}, 1)
	spans := make([]api.Span, 3)
	if n := testing.AllocsPerRun(100, func() {
		c, s := Begin(ctx, "work", api.SpanKindInternal)
		if s.IsRecording() || c != ctx {
			t.Fatal("something is recorded")
		}
		End(s, nil)
		_, s = Join(ctx, "joined", api.SpanKindInternal, spans)
		End(s, nil)
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestJoin(t *testing.T) {
	memory := tracetest.NewInMemoryExporter()
	provider := trace.NewTracerProvider(trace.WithSyncer(memory))
	door := provider.Tracer("test")
	var spans []api.Span
	for range 3 {
		_, s := door.Start(t.Context(), "door")
		spans = append(spans, s, nil)
	}
	ctx, joined := Join(t.Context(), "commit", api.SpanKindInternal, spans)
	_, below := Begin(ctx, "flush", api.SpanKindInternal)
	End(below, errors.New("disk full"))
	End(joined, nil)
	for _, s := range spans {
		if s != nil {
			s.End()
		}
	}
	got := memory.GetSpans()
	if len(got) != 5 {
		t.Fatalf("%d spans", len(got))
	}
	flush, commit, doors := got[0], got[1], got[2:]
	if flush.Parent.SpanID() != commit.SpanContext.SpanID() || flush.Status.Code != codes.Error || flush.Status.Description != "disk full" {
		t.Errorf("below the joined span: %+v", flush)
	}
	if commit.Parent.SpanID() != doors[0].SpanContext.SpanID() || len(commit.Links) != 2 || len(doors[0].Links) != 0 {
		t.Errorf("the joined span has parent %v and links %v", commit.Parent.SpanID(), commit.Links)
	}
	for _, d := range doors[1:] {
		if len(d.Links) != 1 || d.Links[0].SpanContext.SpanID() != commit.SpanContext.SpanID() {
			t.Errorf("links of one that joined: %v", d.Links)
		}
	}
}
