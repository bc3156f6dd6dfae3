package edge

import (
	"context"
	"net/http"
	"net/netip"

	"github.com/labstack/echo/v4"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/attribute"
	metric "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/shortline/shortline/internal/peer"
	"github.com/shortline/shortline/internal/span"
)

// tracedHandler lets requests begin spans, or go on with those of the caller. nil: h as it is.
func tracedHandler(h http.Handler, provider trace.TracerProvider, more ...otelhttp.Option) http.Handler {
	if provider == nil {
		return h
	}
	return otelhttp.NewHandler(h, "", append(more, otelhttp.WithTracerProvider(provider), otelhttp.WithPropagators(span.Propagator),
		otelhttp.WithMeterProvider(metric.NewMeterProvider()), // Prometheus has ours
		otelhttp.WithSpanNameFormatter(func(_ string, r *http.Request) string { return r.Method + " " + r.URL.Path }))...)
}

// tracedEdge is tracedHandler for the public port. A trace of somebody who is not trusted is linked to and not gone on with: others do not
// decide what is recorded here.
func (s *Server) tracedEdge(h http.Handler, provider trace.TracerProvider) http.Handler {
	return tracedHandler(h, provider, otelhttp.WithPublicEndpointFn(func(r *http.Request) bool {
		addr, err := netip.ParseAddrPort(r.RemoteAddr)
		return err != nil || !s.steering.trusts(addr.Addr().Unmap())
	}))
}

// describe tells the request's span, where it has one that is recorded, what the router has found out.
func (s *Server) describe(c echo.Context, id string) {
	recorded := span.Of(c.Request().Context())
	if recorded == nil {
		return
	}
	route := c.Path()
	if route == "" {
		route = "none"
	}
	recorded.SetName(c.Request().Method + " " + route)
	recorded.SetAttributes(attribute.String("http.route", route), attribute.String("shortline.request_id", id))
}

// traces are the spans at the sending node that the writes of a request are below.
func (p *Peer) traces(r *http.Request) map[int]trace.SpanContext {
	if p.cfg.Tracing == nil {
		return nil
	}
	return peer.Traces(r.Header)
}

// traced begins the span of one write that came from another node, in the trace of that write.
func (p *Peer) traced(ctx context.Context, i int, traces map[int]trace.SpanContext) (context.Context, trace.Span) {
	if p.cfg.Tracing == nil {
		return ctx, noop.Span{}
	}
	sender, ok := traces[i]
	if !ok {
		return trace.ContextWithSpan(ctx, noop.Span{}), noop.Span{} // the request's own span is of another write
	}
	request := trace.SpanFromContext(ctx)
	opts := []trace.SpanStartOption{trace.WithSpanKind(trace.SpanKindConsumer)}
	if sender.TraceID() == request.SpanContext().TraceID() {
		return p.cfg.Tracing.Tracer(span.Scope).Start(ctx, "forwarded write", opts...)
	}
	opts = append(opts, trace.WithLinks(trace.Link{SpanContext: request.SpanContext()}))
	return p.cfg.Tracing.Tracer(span.Scope).Start(trace.ContextWithRemoteSpanContext(ctx, sender), "forwarded write", opts...)
}
