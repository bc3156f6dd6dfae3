package main

import (
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/maxmind/mmdbwriter"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/shortline/shortline/edge/client"
	"github.com/shortline/shortline/internal/planet"
	"github.com/shortline/shortline/regions"
)

// TestPlanetObserved holds what is written about metrics against what the processes of two regions and a witness tell. With
// SHORTLINE_TEST_UPDATE=1 it writes the table of docs/metrics.md anew.
func TestPlanetObserved(t *testing.T) {
	collector := newOTLPReceiver(t)
	w := startWorld(t, 4, planet.Options{Env: []string{otlpEndpointEnv + "=" + collector.URL, "OTEL_BSP_SCHEDULE_DELAY=100"}, Regions: []regions.ID{"us-east", "ap-southeast"}, Nodes: 1,
		NodeArgs: []string{"--dns-listen", "127.0.0.1:0", "--dns-zone", "shortline.test", "--geoip", emptyGeoIP(t), "--log-format", "json", "--otlp-sample", "1"}})
	w.eventually("spans are sent", func() bool {
		for _, m := range w.scrape(w.Nodes()[0].Admin())["shortline_trace_spans_total"].GetMetric() {
			if m.GetCounter().GetValue() > 0 {
				return true
			}
		}
		return false
	})
	w.setQueue(w.Region("ap-southeast").Nodes[0], new(client.Session), w.stores[1], 5)
	all := w.told()
	for _, part := range []struct {
		name string
		test func(*world, told)
	}{
		{"docs/metrics.md", (*world).testMetricsPage},
		{"rules and dashboards", (*world).testRules},
		{"doctor", (*world).testDoctor},
		{"a trace of a write", func(w *world, _ told) { w.testTrace(collector) }},
		{"writes that share a transaction", func(w *world, _ told) { w.testTracedBatch(collector) }},
	} {
		t.Run(part.name, func(t *testing.T) { part.test(w.part(t), all) })
	}
}

// emptyGeoIP makes a database of no place.
func emptyGeoIP(t *testing.T) string {
	t.Helper()
	db, err := mmdbwriter.New(mmdbwriter.Options{DatabaseType: "Test-City", Description: map[string]string{"en": "empty"}, RecordSize: 24})
	if err != nil {
		t.Fatal(err)
	}
	return writtenGeoIP(t, db)
}

// writtenGeoIP writes a database to a file of its own.
func writtenGeoIP(t *testing.T, db *mmdbwriter.Tree) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "geo.mmdb")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.WriteTo(f); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

// toldMetric is one metric as the page describes it.
type toldMetric struct {
	kind   string // of Prometheus
	labels []string
	help   string
	by     []string        // which kinds of processes tell it
	values map[string]bool // "label=value" as told; nil: not known
}

type told map[string]*toldMetric

// rareMetrics are told only where there is something to tell, which a test cannot bring about in a minute.
var rareMetrics = told{
	"shortline_forecast_error_people":        {"gauge", []string{"forecast", "horizon_hours"}, "Mean absolute error of hourly forecasts, by horizon and by who forecasts: the model, the same hour last week, or as it is.", []string{"node"}, nil},
	"shortline_forecast_band_coverage_ratio": {"gauge", []string{"horizon_hours"}, "Share of hours within the forecast's 80 % band, by horizon.", []string{"node"}, nil},
}

// told asks every process of the planet for its metrics.
func (w *world) told() told {
	w.Helper()
	all := told{}
	for name, m := range rareMetrics {
		c := *m
		all[name] = &c
	}
	add := func(who, url string) {
		for name, f := range w.scrape(url) {
			if !strings.HasPrefix(name, "shortline_") {
				continue
			}
			m := all[name]
			if m == nil {
				m = &toldMetric{kind: strings.ToLower(f.GetType().String()), help: f.GetHelp(), values: map[string]bool{}}
				all[name] = m
			}
			if !slices.Contains(m.by, who) {
				m.by = append(m.by, who)
			}
			for _, series := range f.GetMetric() {
				for _, l := range series.GetLabel() {
					if m.values != nil {
						m.values[l.GetName()+"="+l.GetValue()] = true
					}
					if !slices.Contains(m.labels, l.GetName()) {
						m.labels = append(m.labels, l.GetName())
					}
				}
			}
		}
	}
	for _, r := range w.Regions() {
		for _, n := range r.Nodes {
			add("node", n.Admin())
		}
		add("db", r.Postgres.Admin())
	}
	if witness := w.Witness(); witness != nil {
		add("witness", witness.Admin())
	}
	for _, m := range all {
		slices.Sort(m.labels)
		slices.Sort(m.by)
	}
	return all
}

func (w *world) scrape(url string) map[string]*dto.MetricFamily {
	w.Helper()
	res, err := w.http.Get(url + "/metrics")
	w.check(err)
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		w.Fatalf("%s/metrics answers %s", url, res.Status)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(res.Body)
	w.check(err)
	return families
}

const metricsPage, metricsTable = "../../docs/metrics.md", "| name | type | labels | told by | meaning | alerts |\n|---|---|---|---|---|---|\n"

// testMetricsPage compares the page with what is told, both ways: the lines must be the same.
func (w *world) testMetricsPage(told told) {
	text, err := os.ReadFile(metricsPage)
	w.check(err)
	head, have, ok := strings.Cut(string(text), metricsTable)
	if !ok {
		w.Fatalf("%s has no table that begins with %q", metricsPage, metricsTable)
	}
	want := told.table(w)
	if os.Getenv("SHORTLINE_TEST_UPDATE") == "1" {
		w.check(os.WriteFile(metricsPage, []byte(head+metricsTable+want), 0o644))
		return
	}
	had := lineSet(have)
	for line := range lineSet(want) {
		if !had[line] {
			w.Errorf("the page lacks\n%s", line)
		}
		delete(had, line)
	}
	for line := range had {
		w.Errorf("no process tells\n%s", line)
	}
	if w.Failed() {
		w.Log("with SHORTLINE_TEST_UPDATE=1 this test writes the table anew")
	}
}

func lineSet(text string) map[string]bool {
	set := map[string]bool{}
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" {
			set[line] = true
		}
	}
	return set
}

// table is the page's table.
func (t told) table(tb testing.TB) string {
	var b strings.Builder
	on := alertsOn(readRules(tb))
	for _, name := range slices.Sorted(maps.Keys(t)) {
		m := t[name]
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s | %s |\n", name, m.kind, cmp.Or(strings.Join(m.labels, ", "), "–"), strings.Join(m.by, ", "), strings.ReplaceAll(m.help, "|", `\|`), alertLinks(on[name]))
	}
	return b.String()
}

// alertLinks names alerts by what is their own, with a link to the runbook.
func alertLinks(names []string) string {
	for i, name := range names {
		names[i] = fmt.Sprintf("[%s](operations/alerts.md#%s)", strings.TrimPrefix(name, "Shortline"), strings.ToLower(name))
	}
	return strings.Join(names, ", ")
}
