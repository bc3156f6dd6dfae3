package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
)

// newLogger makes the log of a process. With form json each line has the process under the key self, so that lines of many
// nodes can be told apart in one place.
func newLogger(w io.Writer, level, form string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("--log-level %q is not debug, info, warn or error", level)
	}
	options := &slog.HandlerOptions{Level: l}
	switch form {
	case "text":
		return slog.New(&logHandler{Handler: slog.NewTextHandler(w, options), counts: new(logCounts)}), nil
	case "json":
		options.ReplaceAttr = func(_ []string, a slog.Attr) slog.Attr {
			if a.Value.Kind() == slog.KindDuration { // as in text: a bare number would be one of nanoseconds
				a.Value = slog.StringValue(a.Value.Duration().String())
			}
			return a
		}
		return slog.New(&logHandler{Handler: slog.NewJSONHandler(w, options), counts: new(logCounts), json: true}), nil
	}
	return nil, fmt.Errorf("--log-format %q is not text or json", form)
}

// logHandler counts what is logged, and puts the trace that a line belongs to into it.
type logHandler struct {
	slog.Handler
	counts *logCounts
	json   bool
}

// Handle is part of slog.Handler.
func (h *logHandler) Handle(ctx context.Context, r slog.Record) error {
	h.counts.of(r.Level).Add(1)
	if s := trace.SpanContextFromContext(ctx); s.IsSampled() {
		r.AddAttrs(slog.String("trace_id", s.TraceID().String()), slog.String("span_id", s.SpanID().String()))
	}
	return h.Handler.Handle(ctx, r)
}

// WithAttrs is part of slog.Handler.
func (h *logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &logHandler{h.Handler.WithAttrs(attrs), h.counts, h.json}
}

// WithGroup is part of slog.Handler.
func (h *logHandler) WithGroup(name string) slog.Handler {
	return &logHandler{h.Handler.WithGroup(name), h.counts, h.json}
}

// introduce puts the process into each line of a log in JSON.
func introduce(log *slog.Logger, region, node string) *slog.Logger {
	if h, ok := log.Handler().(*logHandler); ok && h.json {
		return log.With(slog.Group("self", "region", region, "node", node))
	}
	return log
}

var loggedLevels = []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError}

// logCounts are how many lines were logged, by level.
type logCounts [4]atomic.Uint64

func (c *logCounts) of(l slog.Level) *atomic.Uint64 {
	for i := len(loggedLevels) - 1; i > 0; i-- {
		if l >= loggedLevels[i] {
			return &c[i]
		}
	}
	return &c[0]
}

// register puts the counts into the registry.
func (c *logCounts) register(r prometheus.Registerer) {
	for _, l := range loggedLevels {
		n := c.of(l)
		r.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "shortline_log_lines_total", Help: "Lines logged, by level.",
			ConstLabels: prometheus.Labels{"level": strings.ToLower(l.String())}}, func() float64 { return float64(n.Load()) }))
	}
}
