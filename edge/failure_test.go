package edge_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/edge"
	"github.com/shortline/shortline/replication"
)

// TestReadsWithoutDatabase lets the database fail for reads: what is in memory is still served.
func TestReadsWithoutDatabase(t *testing.T) {
	n := newTestNode(t)
	n.put(t, shortline.Store{ID: "a", Name: "A", Lat: 1.25, Lng: 2, Address: &shortline.Address{City: "Town"}})
	n.put(t, shortline.Store{ID: "b", Name: "B", Lat: 1.25, Lng: 2.001})
	n.report(t, "a", `{"length":4}`)
	n.nearby(t, "lat", "1.25", "lng", "2", "limit", "1") // a is in the cache now
	n.store.rows.set(broken)

	got := n.nearby(t, "lat", "1.25", "lng", "2")
	if len(got.Stores) != 2 {
		t.Fatalf("the stores are %v", got.ids())
	}
	if a := got.Stores[0]; a.Name == nil || *a.Name != "A" || a.Address.City != "Town" || a.Queue.Length != 4 {
		t.Errorf("what was known before is %+v", a)
	}
	if b := got.Stores[1]; b.ID != "b" || b.Name != nil || b.Address != nil || b.Lat != 1.25 || b.Lng != 2.001 || b.DistanceM < 100 {
		t.Errorf("what was not is %+v", b)
	}
	if text := string(n.get(t, n.admin+"/metrics").body); !strings.Contains(text, "shortline_nearby_degraded_total 1") {
		t.Error("the metric of degraded answers does not tell of it")
	}
	n.get(t, "/v1/nearby?lat=1.25&lng=2&fields=id,queue").want(t, 200)
	n.get(t, "/v1/stores/a/queue").want(t, 200)
	n.get(t, "/v1/stores/none").wantProblem(t, 404, "not-found")
	n.get(t, "/healthz").want(t, 200)
	p := n.get(t, "/v1/stores/a").wantProblem(t, 503, "store-unavailable")
	if strings.Contains(p.Detail, errDisk.Error()) {
		t.Errorf("the detail shows what is inside: %s", p.Detail)
	}
	rep := n.get(t, n.admin+"/readyz").want(t, 503)
	if !strings.Contains(string(rep.body), `"store":"`+errDisk.Error()) || !strings.Contains(string(rep.body), `"feed":"ok"`) {
		t.Errorf("readyz says %s", rep.body)
	}

	n.store.rows.set(nil)
	if got := n.nearby(t, "lat", "1.25", "lng", "2"); *got.Stores[1].Name != "B" {
		t.Errorf("afterwards it is %+v", got.Stores[1])
	}
	n.get(t, "/v1/stores/a").want(t, 200)
	n.get(t, n.admin+"/readyz").want(t, 200)
}

// writes are one of each call that writes.
var writes = []struct{ method, path, body, contentType string }{
	{"PUT", "/v1/stores/new", `{"name":"x","lat":1,"lng":1}`, "application/json"},
	{"DELETE", "/v1/stores/a", "", "application/json"},
	{"POST", "/v1/stores/a/queue", `{"length":9}`, "application/json"},
	{"POST", "/v1/queues", `{"updates":[{"id":"a","length":9}]}`, "application/json"},
	{"POST", "/v1/stores:import", "id,name,lat,lng\nnew,x,1,1\n", "text/csv"},
	{"POST", "/admin/v1/keys", `{"name":"x","scopes":["read"]}`, "application/json"},
}

func TestWritesWithoutDatabase(t *testing.T) {
	n := newTestNode(t)
	n.put(t, shortline.Store{ID: "a", Name: "A"})
	n.store.before.set(broken)
	for _, w := range writes {
		p := n.write(t, w.method, w.path, w.body, "Content-Type: "+w.contentType).wantProblem(t, 503, "store-unavailable")
		if strings.Contains(p.Detail, errDisk.Error()) {
			t.Errorf("the detail shows what is inside: %s", p.Detail)
		}
	}
	n.store.before.set(nil)
	n.get(t, "/v1/stores/a?consistency=strong").want(t, 200)
	n.get(t, "/v1/stores/new").wantProblem(t, 404, "not-found")
	var q queueAnswer
	if n.get(t, "/v1/stores/a/queue").json(t, &q); q.Length != nil {
		t.Errorf("the queue is %+v", q)
	}
}

func TestOutcomeUnknown(t *testing.T) {
	n := newTestNode(t)
	n.put(t, shortline.Store{ID: "a", Name: "A"})
	n.put(t, shortline.Store{ID: "b", Name: "B"})
	lost := func(context.Context) error { return fmt.Errorf("%w: %w", replication.ErrOutcomeUnknown, errDisk) }
	const key = "Idempotency-Key: retry"
	n.store.after.set(lost)
	for _, w := range writes {
		if w.method != "DELETE" {
			n.write(t, w.method, w.path, w.body, "Content-Type: "+w.contentType).wantProblem(t, 504, "outcome-unknown")
		}
	}
	n.write(t, "POST", "/v1/stores/b/queue", `{"delta":2}`, key).wantProblem(t, 504, "outcome-unknown")
	n.store.after.set(nil)
	a, rep := n.report(t, "b", `{"delta":2}`, key)
	if *a.Length != 2 || !a.Applied || rep.header.Get("Idempotent-Replayed") != "true" {
		t.Errorf("the retry answers %+v, replayed %q", a, rep.header.Get("Idempotent-Replayed"))
	}
	t.Run("and nothing was written", func(t *testing.T) {
		const key = "Idempotency-Key: again"
		n.store.before.set(lost)
		n.write(t, "POST", "/v1/stores/b/queue", `{"delta":2}`, key).wantProblem(t, 504, "outcome-unknown")
		n.store.before.set(nil)
		if a, rep := n.report(t, "b", `{"delta":2}`, key); *a.Length != 4 || rep.header.Get("Idempotent-Replayed") != "" {
			t.Errorf("the retry answers %+v, replayed %q", a, rep.header.Get("Idempotent-Replayed"))
		}
	})
}

// TestWriteHold holds a commit up for longer than writes may wait.
func TestWriteHold(t *testing.T) {
	n := newTestNode(t, func(s *nodeSetup) { s.edge.WriteHold = 30 * time.Millisecond })
	n.clock.advance(time.Hour)
	gate := newGate()
	if _, _, err := n.store.Commit(t.Context(), []replication.Write{{Items: []replication.Item{{Put: &shortline.Store{ID: "a", Name: "A"}}}}}); err != nil {
		t.Fatal(err)
	}
	n.store.before.set(gate.pass)
	const key = "Idempotency-Key: k"
	n.write(t, "POST", "/v1/stores/a/queue", `{"delta":1}`, key).wantProblem(t, 504, "outcome-unknown")
	for range 3 { // these wait behind it, and are withdrawn
		n.write(t, "POST", "/v1/stores/a/queue", `{"delta":10}`).wantProblem(t, 503, "overloaded")
	}
	n.store.before.set(nil)
	close(gate.open)
	for { // the node's own patience is short here, so the first tries may be too early
		rep := n.write(t, "POST", "/v1/stores/a/queue", `{"delta":1}`, key)
		if rep.status != http.StatusOK {
			continue
		}
		var a queueAnswer
		if rep.json(t, &a); *a.Length != 1 || rep.header.Get("Idempotent-Replayed") != "true" {
			t.Errorf("the retry answers %s", rep.body)
		}
		break
	}
}

func TestOverload(t *testing.T) {
	n := newTestNode(t, func(s *nodeSetup) { s.batcher.MaxWaiting = 1 })
	n.put(t, shortline.Store{ID: "a", Name: "A"})
	gate := newGate()
	n.store.before.set(gate.pass)
	statuses := make(chan int, 2)
	send := func() {
		rep, err := n.try(n.plain, "POST", "/v1/stores/a/queue", `{"delta":1}`, bearer(n.key))
		if err != nil {
			t.Error(err)
		}
		statuses <- rep.status
	}
	go send()
	<-gate.entered
	go send()
	for !strings.Contains(string(n.get(t, n.admin+"/metrics").body), "shortline_writes_waiting 1\n") {
	}
	n.write(t, "POST", "/v1/stores/a/queue", `{"delta":1}`).wantProblem(t, 503, "overloaded")
	n.get(t, "/v1/nearby?lat=0&lng=0").want(t, 200)
	close(gate.open)
	if a, b := <-statuses, <-statuses; a != 200 || b != 200 {
		t.Errorf("the writes that waited answered %d and %d", a, b)
	}
	n.store.before.set(nil)
	if a, _ := n.report(t, "a", `{"delta":0}`); *a.Length != 2 {
		t.Errorf("the length is %d, want 2", *a.Length)
	}
}

func TestNotReady(t *testing.T) {
	n := newTestNode(t, func(s *nodeSetup) { s.faults = func(f *faultyStore) { f.snapshot.set(broken) } })
	for _, path := range append([]string{"/healthz"}, reads...) {
		n.get(t, path).wantProblem(t, 503, "not-ready")
	}
	n.get(t, reads[0]+"&consistency=strong").wantProblem(t, 503, "not-ready")
	for _, w := range writes {
		n.write(t, w.method, w.path, w.body, "Content-Type: "+w.contentType).wantProblem(t, 503, "not-ready")
	}
	n.get(t, n.admin+"/livez").want(t, 200)
	rep := n.get(t, n.admin+"/readyz").want(t, 503)
	if !strings.Contains(string(rep.body), `"snapshot":"the first snapshot is still loading"`) {
		t.Errorf("readyz says %s", rep.body)
	}
	n.get(t, n.admin+"/metrics").want(t, 200)
	n.get(t, "/docs").want(t, 200)
	n.get(t, "/v1/nearby?lat=91&lng=0").wantProblem(t, 422, "invalid-request")

	n.store.snapshot.set(nil)
	if err := n.feed.Latest(t.Context(), time.Minute); err != nil {
		t.Fatal(err)
	}
	n.get(t, "/healthz").want(t, 200)
	n.get(t, n.admin+"/readyz").want(t, 200)
}

// TestShutdown ends a node while a write is under way: that one is answered, nobody new gets in, and Run returns nil.
func TestShutdown(t *testing.T) {
	n := newTestNode(t)
	gate := newGate()
	n.store.before.set(gate.pass)
	answered := make(chan reply, 1)
	go func() {
		rep, err := n.try(n.plain, "PUT", "/v1/stores/a", `{"name":"A","lat":1,"lng":1}`, bearer(n.key))
		if err != nil {
			t.Errorf("the request under way: %v", err)
		}
		answered <- rep
	}()
	<-gate.entered
	n.stop()
	refused(n.api)
	close(gate.open)
	if rep := <-answered; rep.status != http.StatusCreated {
		t.Errorf("the request under way answered %d %s", rep.status, rep.body)
	}
	if err := n.served(); err != nil {
		t.Errorf("Run returned %v", err)
	}
	refused(n.admin)
}

// refused returns once nobody listens at the address any more.
func refused(base string) {
	for {
		conn, err := net.Dial("tcp", strings.TrimPrefix(base, "http://"))
		if err != nil {
			return
		}
		_ = conn.Close()
	}
}

// TestShutdownTimeout has a request that does not finish: it is cut off, and Run returns nil all the same.
func TestShutdownTimeout(t *testing.T) {
	n := newTestNode(t, func(s *nodeSetup) { s.edge.ShutdownTimeout = 10 * time.Millisecond })
	gate := newGate()
	n.store.before.set(gate.pass)
	failed := make(chan error, 1)
	go func() {
		_, err := n.try(n.plain, "PUT", "/v1/stores/a", `{"name":"A","lat":1,"lng":1}`, bearer(n.key))
		failed <- err
	}()
	<-gate.entered
	n.stop()
	if err := n.served(); err != nil {
		t.Errorf("Run returned %v", err)
	}
	if err := <-failed; err == nil {
		t.Error("the request was answered")
	}
	close(gate.open)
}

func TestListenerFails(t *testing.T) {
	n := newTestNode(t)
	server, err := edge.New(edge.Config{DetailsBytes: 32 << 20}, edge.Deps{Catalog: new(edge.Catalog), Feed: n.feed, Writer: n.batcher, Details: n.store})
	if err != nil {
		t.Fatal(err)
	}
	l := listenLocal(t)
	_ = l.Close()
	if err := server.Run(t.Context(), l, listenLocal(t)); err == nil || !strings.Contains(err.Error(), l.Addr().String()) {
		t.Errorf("with a listener that is closed Run returned %v", err)
	}
}

// TestPanic lets the store panic: the client learns nothing of it, and the node goes on.
func TestPanic(t *testing.T) {
	n := newTestNode(t)
	n.put(t, shortline.Store{ID: "a", Name: "A"})
	n.store.rows.set(func(context.Context) error { panic("secret") })
	rep := n.get(t, "/v1/stores/a")
	rep.wantProblem(t, 500, "internal")
	if strings.Contains(string(rep.body), "secret") || strings.Contains(string(rep.body), "goroutine") {
		t.Errorf("the body tells %s", rep.body)
	}
	n.store.rows.set(nil)
	n.get(t, "/v1/stores/a").want(t, 200)
	if text := string(n.get(t, n.admin+"/metrics").body); !strings.Contains(text, `shortline_http_requests_total{code="500",method="GET",route="/v1/stores/:id"} 1`) {
		t.Error("the metrics do not tell of it")
	}
}

// TestSlowImport sends rows one by one and waits in between until those before are served.
func TestSlowImport(t *testing.T) {
	for _, accept := range []string{"identity", "gzip"} {
		t.Run(accept, func(t *testing.T) {
			n := newTestNode(t)
			body, send := io.Pipe()
			req, err := http.NewRequest("POST", n.api+"/v1/stores:import", body)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Authorization", "Bearer "+n.key)
			req.Header.Set("Content-Type", "application/x-ndjson")
			req.Header.Set("Accept-Encoding", accept)
			answered := make(chan string, 1)
			go func() {
				res, err := n.plain.Do(req)
				if err != nil {
					answered <- err.Error()
					return
				}
				text, _ := io.ReadAll(res.Body)
				_ = res.Body.Close()
				answered <- fmt.Sprintf("%d %s", res.StatusCode, text)
			}()
			for i := range 501 {
				_, _ = fmt.Fprintf(send, `{"id":"s%d","name":"S","lat":1,"lng":1}`+"\n", i)
			}
			for n.get(t, "/v1/stores/s499").status != http.StatusOK {
				select {
				case early := <-answered:
					t.Fatalf("answered before the end: %s", early)
				default:
				}
			}
			n.get(t, "/v1/stores/s500").wantProblem(t, 404, "not-found")
			_ = send.Close()
			if got := <-answered; !strings.HasPrefix(got, `200 {"imported":501,`) {
				t.Error(got)
			}
			n.get(t, "/v1/stores/s500").want(t, 200)
		})
	}
	t.Run("cut off in the middle", func(t *testing.T) {
		n := newTestNode(t)
		var rows strings.Builder
		for i := range 700 {
			fmt.Fprintf(&rows, `{"id":"s%d","name":"S","lat":1,"lng":1}`+"\n", i)
		}
		answer := n.raw(t, fmt.Sprintf("POST /v1/stores:import HTTP/1.1\r\nHost: x\r\n%s\r\nContent-Type: application/x-ndjson\r\nContent-Length: 1000000\r\n\r\n%s", bearer(n.key), rows.String()))
		if answer != "" && (!strings.HasPrefix(answer, "HTTP/1.1 400 ") || !strings.Contains(answer, "500 rows before were taken")) {
			t.Error(answer)
		}
	})
}

// deadlines counts how often the time of a request is moved on.
type deadlines struct {
	*httptest.ResponseRecorder
	read, write int
}

func (d *deadlines) SetReadDeadline(time.Time) error  { d.read++; return nil }
func (d *deadlines) SetWriteDeadline(time.Time) error { d.write++; return nil }

// TestImportMovesDeadlines has few rows arrive one by one: each of them shows that the sender is alive.
func TestImportMovesDeadlines(t *testing.T) {
	n := newTestNode(t)
	var rows []io.Reader
	for i := range 20 {
		rows = append(rows, strings.NewReader(fmt.Sprintf(`{"id":"s%d","name":"S","lat":1,"lng":1}`+"\n", i)))
	}
	for _, accept := range []string{"", "gzip"} {
		req := httptest.NewRequest("POST", "/v1/stores:import", io.MultiReader(rows...))
		req.Header.Set("Authorization", "Bearer "+n.key)
		req.Header.Set("Content-Type", "application/x-ndjson")
		if accept != "" {
			req.Header.Set("Accept-Encoding", accept)
		}
		w := &deadlines{ResponseRecorder: httptest.NewRecorder()}
		n.server.Handler().ServeHTTP(w, req)
		if w.Code != 200 || accept == "" && (w.read < 20 || w.write < 20) || w.read == 0 {
			t.Errorf("%d %s; the deadlines were moved %d and %d times", w.Code, w.Body, w.read, w.write)
		}
	}
}
