// Package span begins spans of OpenTelemetry below the doors of a process: the doors (HTTP, other nodes) decide whether a
// request belongs to a trace and put that into its context; everything behind them goes on with what the context has.
//
// It promises that where tracing is off, or a request is not sampled, nothing is allocated and nothing but the context is
// looked at. There is no global provider: a span comes from the provider of the one above it. It knows nothing of Shortline.
package span

import (
	"context"

	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

// Scope names the instrumentation in what is exported.
const Scope = "github.com/shortline/shortline"

// Propagator is how traces cross process boundaries: W3C's traceparent and tracestate.
var Propagator = propagation.TraceContext{}

// Of returns the span of ctx if it is recorded, else nil.
func Of(ctx context.Context) trace.Span {
	if s := trace.SpanFromContext(ctx); s.IsRecording() {
		return s
	}
	return nil
}

// Begin begins a span below the one of ctx, if that is recorded. Else the span does nothing. Give attributes to it with
// SetAttributes, after a look at IsRecording, so that they cost nothing where nobody records them.
func Begin(ctx context.Context, name string, kind trace.SpanKind) (context.Context, trace.Span) {
	above := Of(ctx)
	if above == nil {
		return ctx, noop.Span{}
	}
	return above.TracerProvider().Tracer(Scope).Start(ctx, name, trace.WithSpanKind(kind))
}

// Join begins one span for work that is done for many: below the first of them, and linked to all others, which are linked
// to it. nil stands for one that is not recorded; if all are, ctx is returned and the span does nothing.
func Join(ctx context.Context, name string, kind trace.SpanKind, spans []trace.Span) (context.Context, trace.Span) {
	var first trace.Span
	var links []trace.Link
	for _, s := range spans {
		switch {
		case s == nil:
		case first == nil:
			first = s
		case len(links) < maxLinks:
			links = append(links, trace.Link{SpanContext: s.SpanContext()})
		}
	}
	if first == nil {
		return ctx, noop.Span{}
	}
	ctx, joined := first.TracerProvider().Tracer(Scope).Start(trace.ContextWithSpan(ctx, first), name, trace.WithSpanKind(kind), trace.WithLinks(links...))
	for _, s := range spans {
		if s != nil && s != first {
			s.AddLink(trace.Link{SpanContext: joined.SpanContext()})
		}
	}
	return ctx, joined
}

// maxLinks is what the SDK keeps of links by default.
const maxLinks = 128

// End ends a span with the error that its work ended with, or nil.
func End(s trace.Span, err error) {
	if err != nil && s.IsRecording() {
		s.SetStatus(codes.Error, err.Error())
	}
	s.End()
}
