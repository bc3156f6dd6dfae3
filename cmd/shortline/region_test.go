package main

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/mattn/go-runewidth"

	"github.com/shortline/shortline/regions"
)

// controlPlane answers the calls of region commands: a is primary, and what is accepted is done at once.
func controlPlane(t *testing.T, blockers ...*regions.RefusedError) *fakeAPI {
	t.Helper()
	f := newFakeAPI(t)
	lag := int64(1 << 20)
	begun := false
	f.answer = func(w http.ResponseWriter, r *http.Request, body []byte) bool {
		send := func(v any) bool {
			text, err := json.Marshal(v)
			if err != nil {
				t.Error(err)
			}
			reply(w, 200, string(text))
			return true
		}
		var v struct {
			To     regions.ID `json:"to"`
			DryRun bool       `json:"dry_run"`
		}
		_ = json.Unmarshal(body, &v)
		switch {
		case r.URL.Path == "/admin/v1/cluster":
			c := regions.Cluster{Cluster: "x", Primary: "a", PrimaryEpoch: 1, Complete: true, Durability: regions.Durability{Mode: regions.Quorum}, Risk: &regions.Risk{To: "b", PauseS: 3},
				Regions: []regions.ClusterRegion{{Name: "a", Role: "primary", State: regions.Active}, {Name: "b", Role: "standby", State: regions.Drained, Sync: true, LagBytes: &lag}}}
			if begun {
				c.PrimaryEpoch = 2
			}
			return send(c)
		case r.URL.Path == "/admin/v1/history":
			return send(map[string]any{"history": []regions.Entry{{N: 1, At: time.Unix(0, 0), Event: "switchover", From: "a", To: "b", Epoch: 2, PauseMS: 420, By: "me", Why: "evil\x1b[2J",
				Steps: []regions.Mark{{Step: regions.StepLease, TookMS: 100}}}}})
		case strings.HasSuffix(r.URL.Path, "/explain"):
			return send(regions.Explanation{Region: "b", Summary: "b cannot", Switchover: []regions.Check{{Rule: regions.RuleHeld, Detail: "it is back", Forceable: true}}})
		case r.Method == http.MethodPost:
			begun = begun || !v.DryRun && len(blockers) == 0
			return send(regions.Outcome{Verb: "switchover", Region: v.To, DryRun: v.DryRun, Accepted: len(blockers) == 0, Epoch: 2, Blockers: blockers,
				Plan: regions.Plan{PauseS: 0.5, BehindBytes: 10, Steps: []string{"one", "two"}}})
		}
		return false
	}
	return f
}

func TestRegionCommands(t *testing.T) {
	t.Chdir(t.TempDir())
	api := controlPlane(t)
	held := controlPlane(t, &regions.RefusedError{Rule: regions.RuleHeld, Detail: "it is back"})
	for _, tc := range []struct {
		args   string
		api    *fakeAPI
		code   int
		out    string // in stdout or stderr
		posted string // the last body that was posted, "" for none
	}{
		{"region list", api, 0, "1.0 MiB", ""},
		{"region list -o json", api, 0, `"primary":"a"`, ""},
		{"region list -o yaml", api, 2, "table or json", ""},
		{"region explain b", api, 0, "[--force held]", ""},
		{"region explain B!", api, 2, "lower-case", ""},
		{"region history", api, 0, "0.42 s", ""},
		{"region switchover", api, 2, "--to is missing", ""},
		{"region switchover --to b", api, 1, "say --yes", `{"dry_run":true,"to":"b"}`},
		{"region switchover --to b --dry-run", api, 0, "about 0.5 s", `{"dry_run":true,"to":"b"}`},
		{"region switchover --to b --dry-run -o json", api, 0, `"pause_s":0.5`, `{"dry_run":true,"to":"b"}`},
		{"region switchover --to b --yes --reason r", api, 0, "writes waited for 0.42 s", `{"reason":"r","to":"b"}`},
		{"region switchover --to b --yes -o json", api, 0, `"pause_ms":420`, `{"to":"b"}`},
		{"region switchover --to c --yes", api, 1, "b is primary in epoch 2, not c", `{"to":"c"}`},
		{"region switchover --to b --yes --wait=false", api, 0, "is under way", `{"to":"b"}`},
		{"region switchover --to b --yes", held, 1, "it is back (rule held), which --force held overrides", `{"dry_run":true,"to":"b"}`},
		{"region switchover --to b --force held", api, 2, "needs a --reason", ""},
		{"region switchover --to b --force degraded --reason r", api, 2, "cannot be overridden", ""},
		{"region switchover --to b --force held --reason r --yes", api, 1, "give it as --confirm", `{"dry_run":true,"force":["held"],"reason":"r","to":"b"}`},
		{"region switchover --to b --force held --reason r --yes --confirm c", api, 1, `says "c"`, `{"confirm":"c","dry_run":true,"force":["held"],"reason":"r","to":"b"}`},
		{"region switchover --to b --force held --reason r --yes --confirm b", api, 0, "writes waited", `{"confirm":"b","force":["held"],"reason":"r","to":"b"}`},
		{"region failover --to b --allow-data-loss --yes", api, 1, "give it as --confirm", `{"allow_data_loss":true,"dry_run":true,"to":"b"}`},
		{"region failover --to b --allow-data-loss --yes --confirm b", api, 0, "writes waited", `{"allow_data_loss":true,"confirm":"b","to":"b"}`},
		{"region switchover --to b --allow-data-loss", api, 2, "unknown flag", ""},
		{"region drain b --yes", api, 0, "drain b: done", `{}`},
		{"region drain", api, 2, "accepts 1 arg", ""},
		{"region pause --yes --reason r", api, 0, "pause: done", `{"reason":"r"}`},
		{"region ack --yes --timeout 0s", api, 2, "--timeout", ""},
	} {
		t.Run(tc.args, func(t *testing.T) {
			tc.api.mu.Lock()
			tc.api.bodies, tc.api.requests = nil, nil
			tc.api.mu.Unlock()
			got := shell(t, map[string]string{"SHORTLINE_ADMIN_SERVER": tc.api.URL}, "", strings.Fields(tc.args)...)
			if got.code != tc.code || !strings.Contains(got.stdout+got.stderr, tc.out) {
				t.Errorf("exit code %d, stdout %q, stderr %q; want %d with %q", got.code, got.stdout, got.stderr, tc.code, tc.out)
			}
			if strings.Contains(got.stdout, "\x1b") && !strings.Contains(tc.args, "json") {
				t.Errorf("the terminal was told: %q", got.stdout)
			}
			tc.api.mu.Lock()
			defer tc.api.mu.Unlock()
			posted := ""
			for i, r := range tc.api.requests {
				if strings.HasPrefix(r, "POST") {
					posted = tc.api.bodies[i]
				}
			}
			if posted != tc.posted {
				t.Errorf("posted %s, want %s", posted, tc.posted)
			}
		})
	}
}

func TestRegionFrame(t *testing.T) {
	s := seen{cluster: regions.Cluster{Cluster: "x", Primary: "a", Durability: regions.Durability{Mode: regions.Degraded, Why: strings.Repeat("because ", 30)}, Complete: true,
		Operation: &regions.Operation{Kind: regions.Switchover, Marks: []regions.Mark{{Step: regions.StepLease}}},
		Regions:   []regions.ClusterRegion{{Name: "a", Role: "primary"}, {Name: "b", Role: "standby", Silent: 3}}}}
	for range 50 {
		s.history = append(s.history, regions.Entry{Why: "evil\x1b[2J", Event: "switchover", From: "a", To: "b"})
	}
	for _, size := range [][2]int{{80, 24}, {40, 10}, {200, 60}, {10, 3}} {
		picture := string(frame(s, size[0], size[1], func(text string) string { return text }, time.Unix(0, 0)))
		body := strings.TrimSuffix(strings.TrimPrefix(picture, "\x1b[H"), "\x1b[J")
		lines := strings.Split(body, "\r\n")
		if len(lines) > size[1] {
			t.Errorf("%v: %d lines", size, len(lines))
		}
		for _, line := range lines {
			text := strings.TrimSuffix(line, "\x1b[K")
			if runewidth.StringWidth(text) > size[0] || strings.Contains(text, "\x1b") {
				t.Errorf("%v: %q", size, text)
			}
		}
	}
	if summary(s) == "" || strings.Contains(summary(seen{err: errOutput}), "primary") {
		t.Error(summary(s))
	}
}
