package peer

import (
	"context"
	"net/http"
	"strconv"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/shortline/shortline/internal/span"
)

// HeaderTraces carries the traces of single writes of a request: "3=00-…-01,17=00-…-01", by place in the request. It is a
// header and no part of the lines, since a node that does not know it has to be able to pass over it. It is not signed:
// nothing but what traces show depends on it.
const HeaderTraces = "Shortline-Traces"

// maxTraces bounds HeaderTraces; writes beyond are not traced at the other node.
const maxTraces = 32

// Outgoing begins the span of a request to another node, below the first of the spans that is recorded, and puts its trace into
// the request's headers. nil stands for a span that is not recorded.
func Outgoing(req *http.Request, spans []trace.Span) (*http.Request, trace.Span) {
	ctx, s := span.Join(req.Context(), req.Method+" "+req.URL.Path, trace.SpanKindClient, spans)
	if !s.IsRecording() {
		return req, s
	}
	s.SetAttributes(attribute.String("server.address", req.URL.Host), attribute.Int("shortline.writes", len(spans)))
	req = req.WithContext(ctx)
	span.Propagator.Inject(ctx, propagation.HeaderCarrier(req.Header))
	var traces []string
	first := true
	for i, own := range spans {
		switch {
		case own == nil || len(traces) == maxTraces:
			continue
		case first: // the request itself is below this one
			own, first = s, false
		}
		carrier := propagation.MapCarrier{}
		span.Propagator.Inject(trace.ContextWithSpan(ctx, own), carrier)
		traces = append(traces, strconv.Itoa(i)+"="+carrier["traceparent"])
	}
	req.Header.Set(HeaderTraces, strings.Join(traces, ","))
	return req, s
}

// Traces reads HeaderTraces: by place in the request, what a write's span is below. What cannot be read is left out.
func Traces(h http.Header) map[int]trace.SpanContext {
	text := h.Get(HeaderTraces)
	if text == "" {
		return nil
	}
	out := map[int]trace.SpanContext{}
	for n, one := range strings.SplitN(text, ",", maxTraces+1) {
		place, parent, ok := strings.Cut(one, "=")
		i, err := strconv.Atoi(place)
		if !ok || err != nil || n == maxTraces {
			continue
		}
		ctx := span.Propagator.Extract(context.Background(), propagation.MapCarrier{"traceparent": parent})
		if sc := trace.SpanContextFromContext(ctx); sc.IsValid() {
			out[i] = sc
		}
	}
	return out
}
