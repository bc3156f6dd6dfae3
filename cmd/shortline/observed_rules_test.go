package main

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

const deployFolder, runbookPage, runbookURL = "../../deploy", "../../docs/operations/alerts.md", "https://github.com/shortline/shortline/blob/main/docs/operations/alerts.md#"

// ruleFile is a file of rules of Prometheus.
type ruleFile struct {
	Groups []struct {
		Rules []rule
	}
}

type rule struct {
	Record, Alert, Expr string
	Labels, Annotations map[string]string
}

func readRules(t testing.TB) (records, alerts []rule) {
	t.Helper()
	for _, name := range []string{"rules.yml", "alerts.yml"} {
		text, err := os.ReadFile(filepath.Join(deployFolder, "prometheus", name))
		if err != nil {
			t.Fatal(err)
		}
		var f ruleFile
		if err := yaml.Unmarshal(text, &f); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for _, g := range f.Groups {
			for _, r := range g.Rules {
				if r.Record != "" {
					records = append(records, r)
				} else {
					alerts = append(alerts, r)
				}
			}
		}
	}
	return records, alerts
}

var (
	quoted   = regexp.MustCompile(`"(?:[^"\\]|\\.)*"`)
	metric   = regexp.MustCompile(`\b(?:region:shortline|shortline|go|process)_[a-z0-9_:]+|\bup\b`)
	selector = regexp.MustCompile(`\b([a-z][a-z0-9_:]+)\{([^}]*)\}`)
	matcher  = regexp.MustCompile(`([a-z_]+)\s*(=~|!~|!=|=)\s*("(?:[^"\\]|\\.)*")`)
)

// metricsIn are the names of metrics and of recorded ones that an expression reads; histograms by their own name.
func metricsIn(expr string) []string {
	var names []string
	for _, name := range metric.FindAllString(quoted.ReplaceAllString(expr, `""`), -1) {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// targetLabels are those that a scrape adds, and le.
var targetLabels = []string{"region", "instance", "job", "le", "quantile", "code", "route"}

// faults says what an expression reads that no process tells: metrics, labels, values.
func (t told) faults(expr string, records map[string]bool, other map[string]bool) (faults []string) {
	for _, name := range metricsIn(expr) {
		if t.find(name) == nil && !records[name] && !other[name] && name != "up" {
			faults = append(faults, "no process tells "+name)
		}
	}
	for _, s := range selector.FindAllStringSubmatch(expr, -1) {
		m := t.find(s[1])
		if m == nil {
			continue
		}
		for _, c := range matcher.FindAllStringSubmatch(s[2], -1) {
			label, op, value := c[1], c[2], strings.Trim(c[3], `"`)
			switch {
			case slices.Contains(targetLabels, label) || strings.Contains(value, "$"):
			case !slices.Contains(m.labels, label):
				faults = append(faults, s[1]+" has no label "+label)
			case op == "=" && m.values != nil && !m.values[label+"="+value]:
				faults = append(faults, s[1]+" is never told with "+label+"="+value)
			}
		}
	}
	return faults
}

// find returns what is told under a name, or of the histogram whose series has the name.
func (t told) find(name string) *toldMetric {
	for _, suffix := range []string{"", "_bucket", "_sum", "_count"} {
		if base, ok := strings.CutSuffix(name, suffix); ok && t[base] != nil && (suffix == "" || t[base].kind == "histogram") {
			return t[base]
		}
	}
	return nil
}

// alertsOn are the alerts that read each metric, also through recorded ones.
func alertsOn(records, alerts []rule) map[string][]string {
	through := map[string][]string{}
	for _, r := range records {
		through[r.Record] = metricsIn(r.Expr)
	}
	on := map[string][]string{}
	for _, a := range alerts {
		for _, name := range metricsIn(a.Expr) {
			for _, n := range append(through[name], name) {
				for _, suffix := range []string{"_bucket", "_count", "_sum"} {
					n = strings.TrimSuffix(n, suffix)
				}
				if !slices.Contains(on[n], a.Alert) {
					on[n] = append(on[n], a.Alert)
				}
			}
		}
	}
	return on
}

// testRules holds that every rule reads what is told, and that every dashboard does.
func (w *world) testRules(told told) {
	records, alerts := readRules(w)
	recorded := map[string]bool{}
	for _, r := range records {
		recorded[r.Record] = true
	}
	other := map[string]bool{} // of Go and of the process
	for name := range w.scrape(w.Nodes()[0].Admin()) {
		other[name] = true
	}
	if faults := told.faults(`shortline_nosuch + up{job="x"} + shortline_db_role{role="king"} + shortline_db_role{crown="x"}`, recorded, other); len(faults) != 3 {
		w.Errorf("the test finds no faults: %q", faults)
	}
	for _, r := range append(records, alerts...) {
		for _, fault := range told.faults(r.Expr, recorded, other) {
			w.Errorf("%s%s: %s", r.Record, r.Alert, fault)
		}
	}
	boards, err := filepath.Glob(filepath.Join(deployFolder, "grafana", "*.json"))
	w.check(err)
	if len(boards) < 4 {
		w.Errorf("only the dashboards %v", boards)
	}
	for _, path := range boards {
		text, err := os.ReadFile(path)
		w.check(err)
		var board any
		if err := json.Unmarshal(text, &board); err != nil {
			w.Errorf("%s: %v", path, err)
			continue
		}
		exprs := expressions(board)
		if len(exprs) < 5 {
			w.Errorf("%s has %d expressions", path, len(exprs))
		}
		for _, expr := range exprs {
			for _, fault := range told.faults(expr, recorded, other) {
				w.Errorf("%s: %s: %s", filepath.Base(path), expr, fault)
			}
		}
	}
}

// expressions are the texts under "expr" and "query", wherever they stand in a dashboard.
func expressions(node any) (exprs []string) {
	switch n := node.(type) {
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(n)) {
			if text, ok := n[key].(string); ok && (key == "expr" || key == "query") {
				exprs = append(exprs, text)
			} else {
				exprs = append(exprs, expressions(n[key])...)
			}
		}
	case []any:
		for _, one := range n {
			exprs = append(exprs, expressions(one)...)
		}
	}
	return exprs
}

// Every alert has a runbook, and every runbook an alert.
func TestRunbooks(t *testing.T) {
	page, err := os.ReadFile(runbookPage)
	if err != nil {
		t.Fatal(err)
	}
	anchors := map[string]bool{}
	for line := range strings.Lines(string(page)) {
		if title, ok := strings.CutPrefix(line, "### "); ok {
			anchors[strings.ToLower(strings.TrimSpace(title))] = true
		}
	}
	_, alerts := readRules(t)
	for _, a := range alerts {
		anchor, ok := strings.CutPrefix(a.Annotations["runbook_url"], runbookURL)
		if !ok || anchor != strings.ToLower(a.Alert) || !anchors[anchor] {
			t.Errorf("%s has the runbook %q, which is not on the page", a.Alert, a.Annotations["runbook_url"])
		}
		if a.Annotations["summary"] == "" || a.Labels["severity"] != "page" && a.Labels["severity"] != "ticket" {
			t.Errorf("%s: severity %q, summary %q", a.Alert, a.Labels["severity"], a.Annotations["summary"])
		}
		delete(anchors, anchor)
	}
	for anchor := range anchors {
		t.Errorf("there is no alert %s, but a runbook", anchor)
	}
}

// What the pages for operators point to is there.
func TestOperationsLinks(t *testing.T) {
	pages, err := filepath.Glob("../../docs/operations/*.md")
	if err != nil || len(pages) < 5 {
		t.Fatalf("%v, %v", pages, err)
	}
	link := regexp.MustCompile(`\]\(([^)#:]+)[^)]*\)`)
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, to := range link.FindAllStringSubmatch(string(text), -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(page), to[1])); err != nil {
				t.Errorf("%s points to %s, which is not there", filepath.Base(page), to[1])
			}
		}
	}
}
