package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/pflag"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// otlpEndpointEnv is the variable by which OpenTelemetry's own programs are told of a collector.
const otlpEndpointEnv = "OTEL_EXPORTER_OTLP_ENDPOINT"

// traceSettings say where traces go. Headers, timeouts and certificates for the collector come from OpenTelemetry's variables
// (OTEL_EXPORTER_OTLP_HEADERS, …), and so do limits of spans.
type traceSettings struct {
	endpoint string
	sample   float64
	getenv   func(string) string
}

func (s *traceSettings) bind(f *pflag.FlagSet) {
	f.StringVar(&s.endpoint, "otlp-endpoint", "", "`URL` of a collector that takes traces as OTLP over HTTP, such as http://127.0.0.1:4318; default: "+otlpEndpointEnv+", else no traces")
	f.Float64Var(&s.sample, "otlp-sample", 0.01, "`share` of requests that are traced; those that a trusted proxy traces are traced as well")
}

// resolve takes the endpoint from OpenTelemetry's variable where the flag does not say one, and checks both.
func (s *traceSettings) resolve() error {
	var faults []error
	if s.endpoint == "" && s.getenv != nil && s.getenv("OTEL_SDK_DISABLED") != "true" {
		s.endpoint = s.getenv(otlpEndpointEnv)
	}
	if u, err := url.Parse(s.endpoint); s.endpoint != "" && (err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "") {
		faults = append(faults, fmt.Errorf("--otlp-endpoint %q is not a URL such as http://127.0.0.1:4318", s.endpoint))
	}
	if !(s.sample >= 0 && s.sample <= 1) {
		faults = append(faults, fmt.Errorf("--otlp-sample %v is not between 0 and 1", s.sample))
	}
	return errors.Join(faults...)
}

// tracing is what a process records of its requests; off where provider is nil.
type tracing struct {
	provider trace.TracerProvider // nil: off. An interface, so that nothing else of the SDK is known further down
	stop     func(context.Context) error
}

// flushTime is how long the last spans may take to be sent when the process ends.
const flushTime = 3 * time.Second

// close sends what has not been sent yet.
func (t *tracing) close() {
	if t.stop != nil {
		ctx, cancel := context.WithTimeout(context.Background(), flushTime)
		defer cancel()
		_ = t.stop(ctx) // the exporter's failures are counted and logged
	}
}

// openTracing begins to export. Spans wait in a bounded queue and are dropped where the collector is slower; no request waits for it.
func (s *traceSettings) openTracing(ctx context.Context, version, region, node string, log *slog.Logger, r prometheus.Registerer) (*tracing, error) {
	if s.endpoint == "" {
		return new(tracing), nil
	}
	target, err := url.Parse(s.endpoint)
	if err != nil {
		return nil, fmt.Errorf("--otlp-endpoint: %w", err)
	}
	if strings.Trim(target.Path, "/") == "" {
		target.Path = "/v1/traces"
	}
	exporter, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(target.String()))
	if err != nil {
		return nil, fmt.Errorf("--otlp-endpoint: %w", err)
	}
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { // the SDK has no other way to say it; else it prints to stderr
		log.Warn("traces were not exported", "err", err)
	}))
	self := resource.NewSchemaless(attribute.String("service.name", "shortline"), attribute.String("service.version", version),
		attribute.String("service.instance.id", node), attribute.String("cloud.region", region))
	provider := sdk.NewTracerProvider(sdk.WithResource(self), sdk.WithSampler(sdk.ParentBased(sdk.TraceIDRatioBased(s.sample))),
		sdk.WithBatcher(newCountedExporter(exporter, r)))
	log.Info("traces are exported", "to", target.Redacted(), "share", s.sample)
	return &tracing{provider, provider.Shutdown}, nil
}

// countedExporter counts what becomes of spans.
type countedExporter struct {
	sdk.SpanExporter
	sent, failed prometheus.Counter
}

func newCountedExporter(e sdk.SpanExporter, r prometheus.Registerer) *countedExporter {
	spans := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "shortline_trace_spans_total", Help: "Spans handed to the collector of --otlp-endpoint, by what became of them."}, []string{"result"})
	r.MustRegister(spans)
	return &countedExporter{e, spans.WithLabelValues("sent"), spans.WithLabelValues("failed")}
}

// ExportSpans is part of sdk.SpanExporter.
func (e *countedExporter) ExportSpans(ctx context.Context, spans []sdk.ReadOnlySpan) error {
	err := e.SpanExporter.ExportSpans(ctx, spans)
	if err != nil {
		e.failed.Add(float64(len(spans)))
	} else {
		e.sent.Add(float64(len(spans)))
	}
	return err
}
