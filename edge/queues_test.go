package edge_test

import (
	"bytes"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shortline/shortline"
)

type queueAnswer struct {
	ID        string
	Length    *int
	WaitS     *int       `json:"wait_s"`
	WaitHighS *int       `json:"wait_high_s"`
	UpdatedAt *time.Time `json:"updated_at"`
	AgeS      *int       `json:"age_s"`
	Applied   bool
	Reason    string
	Clamped   bool
	Error     *problem
}

func (n *testNode) report(t testing.TB, id, body string, headers ...string) (queueAnswer, reply) {
	t.Helper()
	rep := n.write(t, http.MethodPost, "/v1/stores/"+id+"/queue", body, headers...).want(t, 200)
	var a queueAnswer
	rep.json(t, &a)
	rep.token(t)
	return a, rep
}

func TestQueue(t *testing.T) {
	n := newTestNode(t)
	n.put(t, shortline.Store{ID: "a", Name: "A", ServiceS: 45})
	var a queueAnswer
	rep := n.get(t, "/v1/stores/a/queue").want(t, 200)
	if rep.json(t, &a); a.ID != "a" || a.Length != nil || a.WaitS != nil || a.UpdatedAt != nil || a.AgeS != nil {
		t.Errorf("never reported: %+v", a)
	}
	rep.token(t)
	if got := string(rep.body); !strings.Contains(got, `"length":null`) {
		t.Errorf("absent is not null: %s", got)
	}
	at := func(d time.Duration) string { return n.clock.Now().Add(d).Format(time.RFC3339Nano) }
	for _, step := range []struct {
		name, body       string
		applied, clamped bool
		reason           string
		length           int
	}{
		{"length", `{"length":7}`, true, false, "", 7},
		{"minus one", `{"delta":-1}`, true, false, "", 6},
		{"plus three", `{"delta":3}`, true, false, "", 9},
		{"below nothing", `{"delta":-10}`, true, true, "", 0},
		{"the most", `{"length":1000000}`, true, false, "", 1_000_000},
		{"more than the most", `{"delta":1}`, true, true, "", 1_000_000},
		{"zero", `{"length":0}`, true, false, "", 0},
		{"observed at last", `{"length":5,"observed_at":"` + at(0) + `"}`, true, false, "", 5},
		{"observed earlier", `{"length":99,"observed_at":"` + at(-time.Minute) + `"}`, false, false, shortline.ReasonOlder, 5},
		{"a delta observed earlier still counts", `{"delta":2,"observed_at":"` + at(-time.Minute) + `"}`, true, false, "", 7},
		{"a clock that is a little fast", `{"length":6,"observed_at":"` + at(4*time.Second) + `"}`, true, false, "", 6},
		{"observed in the future", `{"length":99,"observed_at":"` + at(time.Minute) + `"}`, false, false, shortline.ReasonFuture, 6},
		{"another time zone", `{"length":8,"observed_at":"` + n.clock.Now().Add(4*time.Second).In(time.FixedZone("", 19800)).Format(time.RFC3339) + `"}`, true, false, "", 8},
	} {
		t.Run(step.name, func(t *testing.T) {
			a, _ := n.report(t, "a", step.body)
			wait, high := shortline.Wait(step.length, 45)
			if a.ID != "a" || a.Applied != step.applied || a.Clamped != step.clamped || a.Reason != step.reason || *a.Length != step.length || *a.WaitS != wait || *a.WaitHighS != high {
				t.Errorf("answers %+v", a)
			}
			var read queueAnswer
			n.get(t, "/v1/stores/a/queue").want(t, 200).json(t, &read)
			if *read.Length != step.length || *read.WaitS != wait || !read.UpdatedAt.Equal(*a.UpdatedAt) || *read.AgeS != *a.AgeS {
				t.Errorf("then it is %+v, want as in %+v", read, a)
			}
		})
	}
	t.Run("no such store", func(t *testing.T) {
		n.get(t, "/v1/stores/none/queue").wantProblem(t, 404, "not-found")
		n.write(t, "POST", "/v1/stores/none/queue", `{"length":1}`).wantProblem(t, 404, "not-found")
	})
	t.Run("the first report is from the future", func(t *testing.T) {
		n.put(t, shortline.Store{ID: "b", Name: "B"})
		if a, _ := n.report(t, "b", `{"length":1,"observed_at":"`+at(time.Hour)+`"}`); a.Applied || a.Length != nil {
			t.Errorf("answers %+v", a)
		}
	})
}

func TestIdempotencyKey(t *testing.T) {
	n := newTestNode(t)
	n.put(t, shortline.Store{ID: "a", Name: "A"})
	n.put(t, shortline.Store{ID: "b", Name: "B"})
	const key = "Idempotency-Key: once"
	_, first := n.report(t, "a", `{"delta":1}`, key)
	if got := first.header.Get("Idempotent-Replayed"); got != "" {
		t.Errorf("the first answer says Idempotent-Replayed: %s", got)
	}
	n.report(t, "a", `{"length":50}`)
	n.clock.advance(23 * time.Hour)
	_, again := n.report(t, "a", `{"delta":1}`, key)
	if !bytes.Equal(first.body, again.body) || again.header.Get("Idempotent-Replayed") != "true" {
		t.Errorf("first %s, again (replayed: %q) %s", first.body, again.header.Get("Idempotent-Replayed"), again.body)
	}
	if again.token(t).Less(first.token(t)) {
		t.Error("the replay's token is older than the first one")
	}
	var a queueAnswer
	if n.get(t, "/v1/stores/a/queue").json(t, &a); *a.Length != 50 {
		t.Errorf("the length is %d after a replay, want 50", *a.Length)
	}
	n.write(t, "POST", "/v1/stores/a/queue", `{"delta":2}`, key).wantProblem(t, 422, "idempotency-mismatch")
	t.Run("another store, call and API key are something else", func(t *testing.T) {
		if b, _ := n.report(t, "b", `{"delta":1}`, key); *b.Length != 1 || !b.Applied {
			t.Errorf("store b: %+v", b)
		}
		rep := n.write(t, "POST", "/v1/queues", `{"updates":[{"id":"b","delta":1}]}`, key).want(t, 200)
		_, other := n.newKey(t, "queue:write")
		n.do(t, "POST", "/v1/stores/b/queue", `{"delta":1}`, key, bearer(other)).want(t, 200)
		if n.get(t, "/v1/stores/b/queue").json(t, &a); *a.Length != 3 {
			t.Errorf("the length is %d, want 3", *a.Length)
		}
		if again := n.write(t, "POST", "/v1/queues", `{"updates":[{"id":"b","delta":1}]}`, key).want(t, 200); !bytes.Equal(rep.body, again.body) || again.header.Get("Idempotent-Replayed") != "true" {
			t.Errorf("many at once: first %s, again %s", rep.body, again.body)
		}
	})
	t.Run("what was refused is not kept", func(t *testing.T) {
		const fresh = "Idempotency-Key: fresh"
		n.write(t, "POST", "/v1/stores/a/queue", `{"length":-1}`, fresh).wantProblem(t, 422, "invalid-request")
		n.report(t, "a", `{"length":1}`, fresh)
	})
	t.Run("bad keys", func(t *testing.T) {
		for _, bad := range []string{strings.Repeat("x", 256), "with blank", "ümlaut"} {
			p := n.write(t, "POST", "/v1/stores/a/queue", `{"length":1}`, "Idempotency-Key: "+bad).wantProblem(t, 400, "malformed-request")
			if !slices.Equal(p.fields(), []string{"Idempotency-Key"}) {
				t.Errorf("%q: the fields at fault are %v", bad, p.fields())
			}
		}
		n.write(t, "POST", "/v1/stores/a/queue", `{"length":1}`, "Idempotency-Key: a", "Idempotency-Key: b").wantProblem(t, 400, "malformed-request")
	})
}

func TestManyQueues(t *testing.T) {
	n := newTestNode(t)
	n.put(t, shortline.Store{ID: "a", Name: "A"})
	n.put(t, shortline.Store{ID: "b", Name: "B"})
	var got struct{ Results []queueAnswer }
	n.write(t, "POST", "/v1/queues", `{"updates":[{"id":"a","length":4},{"id":"none","length":1},{"id":"a","delta":-5},{"id":"b"},{"id":"b","length":1,"delta":1},
		{"id":"b!","length":1},{"id":"b","length":-1},{"id":"b","length":1,"observed_at":"today"},{"id":"b","length":2,"observed_at":"2020-01-01T00:00:00Z"},{"length":1}]}`, lenientRequest).want(t, 200).json(t, &got)
	for i, want := range []struct {
		id     string
		status int
		field  string
		length int
	}{
		{"a", 0, "", 4}, {"none", 404, "", 0}, {"a", 0, "", 0}, {"b", 422, "length", 0}, {"b", 422, "length", 0}, {"b!", 422, "id", 0}, {"b", 422, "length", 0},
		{"b", 422, "observed_at", 0}, {"b", 0, "", 2}, {"", 422, "id", 0},
	} {
		r := got.Results[i]
		switch {
		case r.ID != want.id:
			t.Errorf("result %d is of %q, want %q", i, r.ID, want.id)
		case want.status == 0 && (r.Error != nil || *r.Length != want.length || !r.Applied):
			t.Errorf("result %d is %+v, want the length %d", i, r, want.length)
		case want.status != 0 && (r.Error == nil || r.Error.Status != want.status || want.field != "" && !slices.Equal(r.Error.fields(), []string{want.field})):
			t.Errorf("result %d is %+v %+v, want status %d for %q", i, r, r.Error, want.status, want.field)
		}
	}
	if !got.Results[2].Clamped {
		t.Error("4 - 5 is not said to be clamped")
	}
	t.Run("only bad ones", func(t *testing.T) {
		rep := n.write(t, "POST", "/v1/queues", `{"updates":[{"id":"none"},{"id":"?"}]}`, lenientRequest).want(t, 200)
		rep.token(t)
	})
	t.Run("as many as may be", func(t *testing.T) {
		many := func(count int) string {
			return `{"updates":[` + strings.TrimSuffix(strings.Repeat(`{"id":"a","delta":1},`, count), ",") + `]}`
		}
		n.write(t, "POST", "/v1/queues", many(1000)).want(t, 200).json(t, &got)
		if last := got.Results[999]; *last.Length != 1000 {
			t.Errorf("after a thousand: %d", *last.Length)
		}
		for _, body := range []string{many(1001), many(0), `{}`} {
			if p := n.write(t, "POST", "/v1/queues", body).wantProblem(t, 422, "invalid-request"); !slices.Equal(p.fields(), []string{"updates"}) {
				t.Errorf("%.20s: the fields at fault are %v", body, p.fields())
			}
		}
	})
	t.Run("a key for some stores", func(t *testing.T) {
		_, key := n.newKey(t, "queue:write", "a")
		var got struct{ Results []queueAnswer }
		n.do(t, "POST", "/v1/queues", `{"updates":[{"id":"b","length":9},{"id":"a","length":9}]}`, bearer(key)).want(t, 200).json(t, &got)
		if r := got.Results; r[0].Error == nil || r[0].Error.Status != 403 || r[1].Error != nil || *r[1].Length != 9 {
			t.Errorf("the results are %+v", r)
		}
	})
}
