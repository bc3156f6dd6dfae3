package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shortline/shortline/internal/plan"
)

func TestPlan(t *testing.T) {
	got := shell(t, nil, "", "plan", "--preset", "small")
	if got.code != 0 {
		t.Fatal(got.stderr)
	}
	for _, want := range []string{"Edge nodes: m7i.large", "267.3 Mbit/s", "in all", "Prices of 2025-11-30"} {
		if !strings.Contains(got.stdout, want) {
			t.Errorf("no %q in\n%s", want, got.stdout)
		}
	}
	got = shell(t, nil, "", "plan", "--preset", "large", "--explain")
	if got.code != 0 || !strings.Contains(got.stdout, "reads_peak * (read_bytes + header_bytes)") || !strings.Contains(got.stdout, "docs/performance.md") {
		t.Errorf("%s; explained as\n%s", got.stderr, got.stdout)
	}
	// The variable of a flag counts, the command line more.
	got = shell(t, map[string]string{"SHORTLINE_EVENTS_PER_DAY": "864000", "SHORTLINE_PEAK": "9"}, "", "plan", "--peak", "4", "-o", "json")
	var p plan.Plan
	if err := json.Unmarshal([]byte(got.stdout), &p); err != nil {
		t.Fatal(err)
	}
	if l, _ := p.Line("updates_peak"); l.Value != 40 || l.Unit != "1/s" || l.With != "(10 1/s) * 4" {
		t.Errorf("10 a second at a peak of 4 are %+v", l)
	}
}

func TestPlanPrices(t *testing.T) {
	got := shell(t, nil, "", "plan", "--print-prices")
	file := filepath.Join(t.TempDir(), "prices.yaml")
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(got.stdout, "nat_usd_hour: 0.045", "nat_usd_hour: 1")), 0o600); err != nil {
		t.Fatal(err)
	}
	got = shell(t, nil, "", "plan", "--prices", file, "--regions", "1")
	if got.code != 0 || !strings.Contains(got.stdout, "2,190 USD  NAT gateways") {
		t.Errorf("%s; three gateways at 1 USD an hour:\n%s", got.stderr, got.stdout)
	}
}

func TestPlanRefuses(t *testing.T) {
	for want, args := range map[string][]string{
		`no preset "tiny"`:                       {"--preset", "tiny"},
		"--stores 0":                             {"--stores", "0"},
		"not both":                               {"--update-every", "5", "--events-per-day", "5"},
		"--regions-lost 3 of 3: one region":      {"--regions-lost", "3"},
		`no figure "cpu"`:                        {"--figure", "cpu=1"},
		"-o must be":                             {"-o", "xml"},
		"--region-availability 100":              {"--region-availability", "100"},
		`invalid argument "many" for "--stores"`: {"--stores", "many"},
	} {
		got := shell(t, nil, "", append([]string{"plan"}, args...)...)
		if got.code != 2 || !strings.Contains(got.stderr, want) || strings.Count(got.stderr, "\n") != 1 {
			t.Errorf("%v: want %q and exit code 2, got %d and %q", args, want, got.code, got.stderr)
		}
	}
}
