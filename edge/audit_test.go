package edge_test

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/shortline/shortline"
)

// Keys end by themselves, and have successors; all of that, and who was refused, is in the audit log, on a line each, and no secret is.
func TestKeysEndAndDeedsAreWrittenDown(t *testing.T) {
	var log bytes.Buffer
	n := newTestNode(t, func(s *nodeSetup) { s.audit = slog.New(slog.NewJSONHandler(&log, nil)) })
	n.put(t, shortline.Store{ID: "a", Name: "A"})
	n.write(t, "POST", "/admin/v1/keys", `{"name":"old","scopes":["admin"],"expires_at":"2026-11-23T08:00:00Z"}`).wantProblem(t, 422, "invalid-request")
	var first, second struct {
		shortline.Key
		Secret string `json:"key"`
	}
	n.write(t, "POST", "/admin/v1/keys", `{"name":"till\nlevel=ERROR \"","scopes":["queue:write"],"stores":["a"],"expires_at":"2026-11-24T09:00:00Z"}`).wantProblem(t, 422, "invalid-request")
	n.write(t, "POST", "/admin/v1/keys", `{"name":"till","scopes":["queue:write"],"stores":["a"],"expires_at":"2026-11-24T09:00:00Z"}`).want(t, 201).json(t, &first)
	report := func(secret string) reply {
		return n.do(t, "POST", "/v1/stores/a/queue", `{"length":1}`, bearer(secret))
	}
	report(first.Secret).want(t, 200)
	n.write(t, "POST", "/admin/v1/keys/"+string(first.ID)+"/rotate", `{"overlap_s":-1}`).wantProblem(t, 422, "invalid-request")
	n.write(t, "POST", "/admin/v1/keys/nobody/rotate", "").wantProblem(t, 404, "not-found")
	n.write(t, "POST", "/admin/v1/keys/"+string(first.ID)+"/rotate", `{"overlap_s":3600}`).want(t, 201).json(t, &second)
	if second.Name != "till" || len(second.Stores) != 1 || second.ExpiresAt == nil || !second.ExpiresAt.Equal(morning.Add(24*time.Hour)) {
		t.Errorf("the successor is %+v", second.Key)
	}
	report(first.Secret).want(t, 200)
	n.clock.advance(2 * time.Hour)
	if rep := report(first.Secret); !strings.Contains(string(rep.body), "has expired") {
		t.Errorf("a key that ended: %d %s", rep.status, rep.body)
	}
	report(first.Secret).wantProblem(t, 401, "unauthorized")
	report(second.Secret).want(t, 200)
	n.write(t, "POST", "/admin/v1/keys/"+string(first.ID)+"/rotate", "").wantProblem(t, 422, "invalid-request")
	n.do(t, "DELETE", "/admin/v1/keys/x%0alevel=ERROR", "", bearer(second.Secret)).wantProblem(t, 403, "forbidden")
	n.do(t, "POST", "/admin/v1/pause", "{}").wantProblem(t, 401, "unauthorized")

	var seen []string
	for line := range strings.Lines(log.String()) {
		var e struct {
			Msg, Who, From, Action, Path, ID string
			Status                           int
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil || e.Msg != "audit" || e.From != "127.0.0.1" || e.ID == "" {
			t.Fatalf("%q: %v", line, err)
		}
		seen = append(seen, e.Action+" "+e.Who[:strings.IndexByte(e.Who+" ", ' ')])
		for _, secret := range []string{first.Secret, second.Secret, n.key} {
			if strings.Contains(line, secret[20:]) {
				t.Errorf("a secret is in %s", line)
			}
		}
	}
	for _, want := range []string{"POST /admin/v1/keys key", "POST /admin/v1/keys/:id/rotate key", "DELETE /admin/v1/keys/:id key", "POST /admin/v1/pause nobody"} {
		if !strings.Contains(strings.Join(seen, "\n"), want) {
			t.Errorf("%s is not among\n%s", want, strings.Join(seen, "\n"))
		}
	}
}

// A body that is compressed is not unpacked, so that a small one cannot become a large one in memory.
func TestCompressedBodiesAreRefused(t *testing.T) {
	n := newTestNode(t)
	bomb := "\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff" + strings.Repeat("\x00", 1000)
	for path, kind := range map[string]string{"/v1/queues": "application/json", "/v1/stores:import": "application/x-ndjson"} {
		n.do(t, "POST", path, bomb, bearer(n.key), "Content-Encoding: gzip", "Content-Type: "+kind).wantProblem(t, 415, "unsupported-media-type")
	}
}
