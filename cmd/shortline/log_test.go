package main

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

func TestLogJSON(t *testing.T) {
	var out bytes.Buffer
	log, err := newLogger(&out, "info", "json")
	if err != nil {
		t.Fatal(err)
	}
	log = introduce(log, "us-east", "us-east-1")
	log.Debug("not shown")
	log.With("part", "lease").Warn("slow", "took", 1500*time.Millisecond)
	var line struct {
		Level, Msg, Part, Took string
		Self                   struct{ Region, Node string }
	}
	if err := json.Unmarshal(out.Bytes(), &line); err != nil {
		t.Fatalf("%v: %s", err, out.String())
	}
	if line.Level != "WARN" || line.Msg != "slow" || line.Part != "lease" || line.Took != "1.5s" || line.Self.Region != "us-east" || line.Self.Node != "us-east-1" {
		t.Errorf("logged %s", out.String())
	}
}

func TestLogCounts(t *testing.T) {
	log, err := newLogger(new(bytes.Buffer), "warn", "text")
	if err != nil {
		t.Fatal(err)
	}
	registry := prometheus.NewRegistry()
	log.Handler().(*logHandler).counts.register(registry)
	log.Info("below the level")
	log.With("a", 1).Error("one")
	log.WithGroup("g").Log(t.Context(), slog.LevelError+2, "two")
	want := `# HELP shortline_log_lines_total Lines logged, by level.
# TYPE shortline_log_lines_total counter
shortline_log_lines_total{level="debug"} 0
shortline_log_lines_total{level="error"} 2
shortline_log_lines_total{level="info"} 0
shortline_log_lines_total{level="warn"} 0
`
	if err := testutil.GatherAndCompare(registry, strings.NewReader(want)); err != nil {
		t.Error(err)
	}
}
