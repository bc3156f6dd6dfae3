package edge_test

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/edge"
	"github.com/shortline/shortline/geo"
	"github.com/shortline/shortline/replication"
)

// patience bounds every wait of the live tests; nothing is measured by it.
const patience = 20 * time.Second

// liveEvent is any message from the server.
type liveEvent struct {
	Event    string
	ID       string
	Length   *int
	WaitS    *int   `json:"wait_s"`
	Token    string `json:"token"`
	Stores   []liveStore
	Missing  []string
	Area     *struct{ Lat, Lng, Radius float64 }
	Regions  []edge.LiveRegion
	WithinS  *int `json:"within_s"`
	Type     string
	Status   int
	Detail   string
	Errors   []shortline.FieldError
	closed   ws.StatusCode // the server said so, and why
	closedBy string
}

type liveStore struct {
	ID        string
	Length    *int
	WaitS     *int       `json:"wait_s"`
	WaitHighS *int       `json:"wait_high_s"`
	UpdatedAt *time.Time `json:"updated_at"`
	DistanceM *float64   `json:"distance_m"`
}

// socket is a WebSocket client that sees and sends every frame as it is.
type socket struct {
	net.Conn
	r *bufio.Reader
}

// dialLive opens a WebSocket; headers are "Name: value".
func dialLive(t testing.TB, base string, headers ...string) *socket {
	t.Helper()
	s, res := tryLive(t, base, headers...)
	// The hub starts beside the ports: a node that was started a moment ago may say that it is not ready.
	for end := time.Now().Add(patience); res.StatusCode == http.StatusServiceUnavailable && time.Now().Before(end); s, res = tryLive(t, base, headers...) {
		time.Sleep(time.Millisecond)
	}
	if res.StatusCode != http.StatusSwitchingProtocols {
		body, _ := io.ReadAll(res.Body)
		t.Fatalf("the handshake is answered %s: %s", res.Status, body)
	}
	return s
}

func tryLive(t testing.TB, base string, headers ...string) (*socket, *http.Response) {
	t.Helper()
	scheme, addr, _ := strings.Cut(base, "://")
	var conn net.Conn
	var err error
	if scheme == "https" {
		conn, err = tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
	} else {
		conn, err = net.Dial("tcp", addr)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	text := "GET /v1/live HTTP/1.1\r\nHost: " + addr + "\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
	for _, h := range headers {
		text += h + "\r\n"
	}
	if _, err := io.WriteString(conn, text+"\r\n"); err != nil {
		t.Fatal(err)
	}
	s := &socket{conn, bufio.NewReader(conn)}
	res, err := http.ReadResponse(s.r, nil)
	if err != nil {
		t.Fatal(err)
	}
	if res.StatusCode == 101 && res.Header.Get("Sec-Websocket-Accept") != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
		t.Errorf("Sec-WebSocket-Accept is %q", res.Header.Get("Sec-Websocket-Accept"))
	}
	return s, res
}

func (s *socket) frame(t testing.TB, f ws.Frame) {
	t.Helper()
	if err := ws.WriteFrame(s, ws.MaskFrame(f)); err != nil {
		t.Fatalf("send: %v", err)
	}
}

func (s *socket) send(t testing.TB, text string) {
	t.Helper()
	s.frame(t, ws.NewTextFrame([]byte(text)))
}

// next returns the next message, answering pings.
func (s *socket) next(t testing.TB) liveEvent {
	t.Helper()
	for {
		_ = s.SetReadDeadline(time.Now().Add(patience))
		//lint:ignore SA1019 the reader is limited
		f, err := ws.ReadFrame(io.LimitReader(s.r, 1<<20))
		if err != nil {
			t.Fatalf("nothing comes: %v", err)
		}
		switch f.Header.OpCode {
		case ws.OpPing:
			s.frame(t, ws.NewPongFrame(f.Payload))
		case ws.OpClose:
			code, why := ws.ParseCloseFrameData(f.Payload)
			return liveEvent{closed: code, closedBy: why}
		case ws.OpPong:
			return liveEvent{Event: "frame-pong", Detail: string(f.Payload)}
		default:
			var e liveEvent
			if err := json.Unmarshal(f.Payload, &e); err != nil {
				t.Fatalf("%v in %s", err, f.Payload)
			}
			return e
		}
	}
}

func (s *socket) want(t testing.TB, event string) liveEvent {
	t.Helper()
	e := s.next(t)
	if e.Event != event {
		t.Fatalf("got %+v, want the event %s", e, event)
	}
	return e
}

// until reads on until a message fits.
func (s *socket) until(t testing.TB, what string, fits func(liveEvent) bool) liveEvent {
	t.Helper()
	for {
		e := s.next(t)
		if fits(e) {
			return e
		}
		if e.closed != 0 {
			t.Fatalf("closed with %d %s while waiting for %s", e.closed, e.closedBy, what)
		}
	}
}

func isLength(id string, n int) func(liveEvent) bool {
	return func(e liveEvent) bool { return e.Event == "queue" && e.ID == id && e.Length != nil && *e.Length == n }
}

// wantEnd wants the connection to end after what was said.
func (s *socket) wantEnd(t testing.TB) {
	t.Helper()
	_ = s.SetReadDeadline(time.Now().Add(patience))
	if n, err := io.Copy(io.Discard, s.r); errors.Is(err, os.ErrDeadlineExceeded) || n > 0 {
		t.Errorf("%d bytes came after the end, and %v", n, err)
	}
}

func (e liveEvent) ids() []string {
	ids := []string{}
	for _, s := range e.Stores {
		ids = append(ids, s.ID)
	}
	return ids
}

func TestLiveFollowsStores(t *testing.T) {
	n := newTestNode(t)
	n.put(t, shortline.Store{ID: "a", Name: "A", ServiceS: 45})
	n.put(t, shortline.Store{ID: "b", Name: "B"})
	n.report(t, "a", `{"length":4}`)
	s := dialLive(t, n.api)
	s.send(t, `{"op":"subscribe","stores":["a","b","c","a"]}`)
	got := s.want(t, "subscribed")
	if !slices.Equal(got.ids(), []string{"a", "b"}) || !slices.Equal(got.Missing, []string{"c"}) || got.Token == "" {
		t.Fatalf("the snapshot is %+v", got)
	}
	if a := got.Stores[0]; *a.Length != 4 || *a.WaitS != 180 || *a.WaitHighS <= 180 || a.UpdatedAt == nil {
		t.Errorf("a is %+v", a)
	}
	if b := got.Stores[1]; b.Length != nil || b.WaitS != nil {
		t.Errorf("b, which never reported, is %+v", b)
	}
	n.report(t, "a", `{"length":7}`)
	if e := s.want(t, "queue"); e.ID != "a" || *e.Length != 7 || *e.WaitS != 315 {
		t.Errorf("the change is %+v", e)
	}
	n.put(t, shortline.Store{ID: "c", Name: "C"}) // it comes
	if e := s.want(t, "queue"); e.ID != "c" || e.Length != nil {
		t.Errorf("the store that came is %+v", e)
	}
	n.write(t, "DELETE", "/v1/stores/b", "").want(t, 204)
	if e := s.want(t, "removed"); e.ID != "b" {
		t.Errorf("the store that went is %+v", e)
	}
	s.send(t, `{"op":"unsubscribe","stores":["a"]}`)
	s.want(t, "unsubscribed")
	n.report(t, "a", `{"length":8}`)
	n.report(t, "c", `{"length":1}`)
	if e := s.want(t, "queue"); e.ID != "c" {
		t.Errorf("after unsubscribing a, %+v came", e)
	}
	s.send(t, `{"op":"ping"}`)
	s.want(t, "pong")
	s.frame(t, ws.NewPingFrame([]byte("x")))
	if e := s.want(t, "frame-pong"); e.Detail != "x" {
		t.Errorf("the pong has %q", e.Detail)
	}
	s.frame(t, ws.NewCloseFrame(ws.NewCloseFrameBody(1000, "")))
	if e := s.next(t); e.closed != 1000 {
		t.Errorf("the answer to a close is %+v", e)
	}
	s.wantEnd(t)
	text := n.metricsWith(t, "shortline_live_stores 0")
	for _, want := range []string{`shortline_live_connections{transport="websocket"} 0`, `shortline_live_disconnects_total{reason="client"} 1`, "shortline_live_stores 0", "shortline_live_stalled 0"} {
		if !strings.Contains(text, want) {
			t.Errorf("the metrics lack %s", want)
		}
	}
}

// metricsWith waits until a metric has a value, and returns all metrics.
func (n *testNode) metricsWith(t testing.TB, want string) string {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		text := string(n.get(t, n.admin+"/metrics").body)
		if strings.Contains(text, "\n"+want+"\n") {
			return text
		}
		if time.Now().After(end) {
			t.Fatalf("the metrics never say %s", want)
		}
	}
}

func TestLiveFollowsArea(t *testing.T) {
	n := newTestNode(t)
	store := func(id string, lat float64) shortline.Store {
		return shortline.Store{ID: shortline.StoreID(id), Name: id, Lat: lat}
	}
	n.put(t, store("near", 0.001))
	n.put(t, store("middle", 0.002))
	n.put(t, store("far", 0.003))
	s := dialLive(t, n.api)
	set := func(want ...string) liveEvent {
		t.Helper()
		e := s.until(t, fmt.Sprint("the area to be ", want), func(e liveEvent) bool { return e.Event == "subscribed" && e.Area != nil && slices.Equal(e.ids(), want) })
		return e
	}
	s.send(t, `{"op":"subscribe","lat":0,"lng":0,"radius":"1km","limit":2}`)
	if e := set("near", "middle"); e.Stores[0].DistanceM == nil || *e.Stores[0].DistanceM < 111 || *e.Stores[0].DistanceM > 112 || e.Area.Radius != 1000 {
		t.Errorf("the area is %+v", e)
	}
	n.report(t, "middle", `{"length":3}`)
	s.until(t, "middle", isLength("middle", 3))
	n.put(t, store("new", 0.0005)) // opens
	set("new", "near")
	n.write(t, "DELETE", "/v1/stores/near", "").want(t, 204) // closes
	set("new", "middle")
	n.put(t, store("far", 0.0001)) // moves
	set("far", "new")
	n.put(t, store("new", 0.0101)) // moves out of the radius
	set("far", "middle")
	n.report(t, "middle", `{"length":9}`)
	s.until(t, "middle", isLength("middle", 9))
	s.send(t, `{"op":"subscribe","lat":50,"lng":0}`) // another place instead
	set()
	n.report(t, "middle", `{"length":10}`)
	s.send(t, `{"op":"unsubscribe","lat":50,"lng":0}`)
	s.want(t, "unsubscribed")
	n.put(t, store("there", 50))
	s.send(t, `{"op":"ping"}`)
	s.want(t, "pong")
}

// TestLiveAreaIsNearby moves stores about at random and holds the area against what nearby answers.
func TestLiveAreaFollowsEveryMove(t *testing.T) {
	n := newTestNode(t)
	s := dialLive(t, n.api)
	s.send(t, `{"op":"subscribe","lat":0,"lng":0,"radius":5000,"limit":5}`)
	s.want(t, "subscribed")
	for i := range 60 {
		id := fmt.Sprint("s", i*7%13)
		if i%5 == 4 {
			n.write(t, "DELETE", "/v1/stores/"+id, "")
		} else {
			n.put(t, shortline.Store{ID: shortline.StoreID(id), Name: "x", Lat: float64(i*29%60) / 1000})
		}
	}
	answer := n.nearby(t, "lat", "0", "lng", "0", "limit", "5")
	want := answer.ids()
	s.until(t, fmt.Sprint(want), func(e liveEvent) bool {
		ids := []shortline.StoreID{}
		for _, id := range e.ids() {
			ids = append(ids, shortline.StoreID(id))
		}
		return e.Event == "subscribed" && fmt.Sprint(ids) == fmt.Sprint(want)
	})
}

// TestLiveAfterResync puts another state in service, as a full resync does: what changed between the two is told.
func TestLiveAfterResync(t *testing.T) {
	n := newTestNode(t)
	n.put(t, shortline.Store{ID: "a", Name: "A"})
	n.report(t, "a", `{"length":4}`)
	s, place := dialLive(t, n.api), dialLive(t, n.api)
	s.send(t, `{"op":"subscribe","stores":["a","b"]}`)
	s.want(t, "subscribed")
	place.send(t, `{"op":"subscribe","lat":0,"lng":0}`)
	place.want(t, "subscribed")

	view := n.catalog.Begin()
	view.Load([]replication.Row{
		{Store: shortline.Store{ID: "a", Name: "A"}, Rev: 1, Queue: &shortline.Queue{Length: 9, UpdatedAt: n.clock.Now(), Rev: 5}, QueueRev: 5},
		{Store: shortline.Store{ID: "b", Name: "B", Lat: 0.001}, Rev: 1},
	})
	view.Built()
	n.catalog.Install(view)
	told := map[string]bool{}
	for len(told) < 2 { // in any order
		e := s.want(t, "queue")
		told[e.ID] = true
		if e.ID == "a" && *e.Length != 9 {
			t.Errorf("a is %+v", e)
		}
	}
	if e := place.until(t, "the place with both stores", func(e liveEvent) bool { return len(e.ids()) == 2 }); e.Event != "subscribed" {
		t.Errorf("the place is %+v", e)
	}
}

// TestLiveResumesAfterToken has a node that is behind what a client has seen elsewhere: with the token it begins with that.
func TestLiveResumesAfterToken(t *testing.T) {
	n := newTestNode(t, func(s *nodeSetup) { s.edge.SessionWait = patience })
	n.put(t, shortline.Store{ID: "a", Name: "A"})
	n.report(t, "a", `{"length":4}`)
	n.store.changes.set(broken)
	nine := 9
	_, token, err := n.batcher.Submit(t.Context(), replication.Write{Items: []replication.Item{{Queue: &shortline.QueueUpdate{ID: "a", Length: &nine}}}})
	if err != nil {
		t.Fatal(err)
	}
	socket, events, other := dialLive(t, n.api), make(chan liveEvent, 1), dialLive(t, n.api)
	socket.send(t, `{"op":"subscribe","stores":["a"],"token":"`+token.String()+`"}`)
	go func() {
		defer close(events) // also where it fails
		e, _ := openStream(t, n.plain, n.api+"/v1/live/sse?store=a", "Last-Event-ID: "+token.String()).next(t)
		events <- e
	}()
	other.send(t, `{"op":"subscribe","stores":["a"]}`)
	if e := other.want(t, "subscribed"); *e.Stores[0].Length != 4 {
		t.Fatalf("this test is of no use: the node is not behind, it has %d", *e.Stores[0].Length)
	}
	n.store.changes.set(nil)
	for name, e := range map[string]liveEvent{"a WebSocket": socket.want(t, "subscribed"), "events": <-events} {
		if len(e.Stores) != 1 || *e.Stores[0].Length != 9 {
			t.Errorf("%s: with the token of 9 it begins with %+v", name, e)
		}
	}
	other.until(t, "what follows", isLength("a", 9))
}

// TestLiveSlowReader has one client that does not read, and one that does: the first hurts nobody, and gets the newest
// values when it reads again.
func TestLiveSlowReader(t *testing.T) {
	n := newTestNode(t, func(s *nodeSetup) { s.edge.Live.PingEvery = time.Hour }) // a ping would bring what was left lying
	const stores = 100
	var ids []string
	var all []shortline.Store
	for i := range stores {
		id := fmt.Sprintf("a-store-with-a-rather-long-name-that-fills-the-buffer-soon-%03d", i)
		ids = append(ids, id)
		all = append(all, shortline.Store{ID: shortline.StoreID(id), Name: id})
	}
	n.load(t, all)
	slow, quick := dialLive(t, n.api), dialLive(t, n.api)
	_ = slow.Conn.(*net.TCPConn).SetReadBuffer(4 << 10)
	subscribe := `{"op":"subscribe","stores":["` + strings.Join(ids, `","`) + `"]}`
	slow.send(t, subscribe)
	quick.send(t, subscribe)
	quick.want(t, "subscribed")
	stalled := func() bool {
		return strings.Contains(string(n.get(t, n.admin+"/metrics").body), "shortline_live_stalled 1")
	}
	round := 0
	report := func() {
		round++
		var updates []string
		for _, id := range ids {
			updates = append(updates, fmt.Sprintf(`{"id":%q,"length":%d}`, id, round))
		}
		n.write(t, "POST", "/v1/queues", `{"updates":[`+strings.Join(updates, ",")+`]}`).want(t, 200)
		quick.until(t, "the last store", isLength(ids[stores-1], round))
	}
	for !stalled() {
		if report(); round > 500 {
			t.Fatal("a client that reads nothing is never stalled")
		}
	}
	for range 5 {
		report()
	}
	seen := map[string]int{}
	slow.until(t, "the newest values", func(e liveEvent) bool {
		if e.Event == "queue" {
			if *e.Length < seen[e.ID] {
				t.Fatalf("%s goes back from %d to %d", e.ID, seen[e.ID], *e.Length)
			}
			seen[e.ID] = *e.Length
		}
		for _, id := range ids {
			if seen[id] != round {
				return false
			}
		}
		return true
	})
	text := string(n.get(t, n.admin+"/metrics").body)
	if strings.Contains(text, "shortline_live_coalesced_total 0") {
		t.Error("no change was left out, so nobody was slow")
	}
}

// TestLiveStalledIsCutOff lets a client send without ever reading.
func TestLiveStalledIsCutOff(t *testing.T) {
	n := newTestNode(t, func(s *nodeSetup) {
		s.edge.Live = edge.LiveConfig{StallAfter: 200 * time.Millisecond, Messages: -1}
	})
	s := dialLive(t, n.api)
	message := ws.MustCompileFrame(ws.MaskFrame(ws.NewTextFrame([]byte(`{"op":"` + strings.Repeat("x", 5000) + `"}`))))
	sent := 0
	for {
		_ = s.SetWriteDeadline(time.Now().Add(patience))
		if _, err := s.Write(message); err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("it is still connected after %d messages", sent)
			}
			break
		}
		sent++
	}
	n.metricsWith(t, `shortline_live_disconnects_total{reason="stalled"} 1`)
}

func TestLiveBadInput(t *testing.T) {
	n := newTestNode(t, func(s *nodeSetup) { s.edge.Live = edge.LiveConfig{Messages: 20, Stores: 250} })
	n.put(t, shortline.Store{ID: "a", Name: "A"})
	neighbour := dialLive(t, n.api)
	neighbour.send(t, `{"op":"subscribe","stores":["a"]}`)
	neighbour.want(t, "subscribed")
	frame := func(f ws.Frame) []byte { return ws.MustCompileFrame(ws.MaskFrame(f)) }
	part := func(op ws.OpCode, fin bool, text string) []byte { return frame(ws.NewFrame(op, fin, []byte(text))) }
	many := func(n int) string { return `{"op":"subscribe","stores":["` + strings.Join(manyIDs(n), `","`) + `"]}` }
	ping := part(ws.OpText, true, `{"op":"ping"}`)
	for _, c := range []struct {
		name   string
		send   [][]byte
		events []string // before the close, or problems
		code   ws.StatusCode
	}{
		{"not masked", [][]byte{ws.MustCompileFrame(ws.NewTextFrame([]byte(`{}`)))}, nil, 1002},
		{"reserved bits", [][]byte{frame(ws.Frame{Header: ws.Header{Fin: true, Rsv: 4, OpCode: ws.OpText, Length: 2}, Payload: []byte("{}")})}, nil, 1002},
		{"reserved op code", [][]byte{part(3, true, "{}")}, nil, 1002},
		{"continuation of nothing", [][]byte{part(ws.OpContinuation, true, "{}")}, nil, 1002},
		{"a second message within a first", [][]byte{part(ws.OpText, false, "{"), part(ws.OpText, true, "{}")}, nil, 1002},
		{"a ping in pieces", [][]byte{part(ws.OpPing, false, "x")}, nil, 1002},
		{"a long ping", [][]byte{part(ws.OpPing, true, strings.Repeat("x", 126))}, nil, 1002},
		{"a length that is none", [][]byte{{0x81, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4}}, nil, 1002},
		{"half a close code", [][]byte{part(ws.OpClose, true, "x")}, nil, 1002},
		{"a close code that is none", [][]byte{part(ws.OpClose, true, "\x03\xed")}, nil, 1002},
		{"a close code beyond all", [][]byte{part(ws.OpClose, true, "\x71\x00")}, nil, 1002},
		{"binary", [][]byte{part(ws.OpBinary, true, "{}")}, nil, 1003},
		{"not UTF-8", [][]byte{part(ws.OpText, true, "\xff")}, nil, 1007},
		{"not UTF-8, in pieces", [][]byte{part(ws.OpText, false, "\xe2\x82"), part(ws.OpContinuation, true, "x")}, nil, 1007},
		{"oversized", [][]byte{part(ws.OpText, true, strings.Repeat(" ", 16<<10+1))}, nil, 1009},
		{"announces more than there is", [][]byte{{0x81, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4}}, nil, 1009},
		{"oversized, in pieces", [][]byte{part(ws.OpText, false, strings.Repeat(" ", 10<<10)), part(ws.OpContinuation, true, strings.Repeat(" ", 10<<10))}, nil, 1009},
		{"in pieces", [][]byte{part(ws.OpText, false, `{"op":`), part(ws.OpPing, true, "x"), part(ws.OpContinuation, false, ""), part(ws.OpContinuation, true, `"ping"}`)}, []string{"frame-pong", "pong"}, 0},
		{"not JSON", [][]byte{part(ws.OpText, true, `{op`), ping}, []string{"malformed-request", "pong"}, 0},
		{"nothing", [][]byte{part(ws.OpText, true, ``), ping}, []string{"malformed-request", "pong"}, 0},
		{"wrong op", [][]byte{part(ws.OpText, true, `{"op":"dance"}`), ping}, []string{"malformed-request", "pong"}, 0},
		{"no op", [][]byte{part(ws.OpText, true, `{}`), ping}, []string{"malformed-request", "pong"}, 0},
		{"unknown member", [][]byte{part(ws.OpText, true, `{"op":"ping","x":1}`), ping}, []string{"malformed-request", "pong"}, 0},
		{"op of a wrong type", [][]byte{part(ws.OpText, true, `{"op":7}`), ping}, []string{"invalid-request", "pong"}, 0},
		{"no store", [][]byte{part(ws.OpText, true, `{"op":"subscribe"}`), ping}, []string{"malformed-request", "pong"}, 0},
		{"a store that cannot be", [][]byte{part(ws.OpText, true, `{"op":"subscribe","stores":["a b"]}`), ping}, []string{"invalid-request", "pong"}, 0},
		{"half a place", [][]byte{part(ws.OpText, true, `{"op":"subscribe","lat":1}`), ping}, []string{"malformed-request", "pong"}, 0},
		{"a place off the Earth", [][]byte{part(ws.OpText, true, `{"op":"subscribe","lat":91,"lng":0}`), ping}, []string{"invalid-request", "pong"}, 0},
		{"a radius that is none", [][]byte{part(ws.OpText, true, `{"op":"subscribe","lat":1,"lng":0,"radius":"far"}`), ping}, []string{"malformed-request", "pong"}, 0},
		{"a limit too great", [][]byte{part(ws.OpText, true, `{"op":"subscribe","lat":1,"lng":0,"limit":101}`), ping}, []string{"invalid-request", "pong"}, 0},
		{"a token that is none", [][]byte{part(ws.OpText, true, `{"op":"subscribe","stores":["a"],"token":"x"}`), ping}, []string{"malformed-request", "pong"}, 0},
		{"too many stores at once", [][]byte{part(ws.OpText, true, many(201)), ping}, []string{"invalid-request", "pong"}, 0},
		{"too many stores", [][]byte{part(ws.OpText, true, many(200)), part(ws.OpText, true, strings.ReplaceAll(many(100), "s", "t")), ping}, []string{"subscribed", "malformed-request", "pong"}, 0},
		{"a flood", slices.Repeat([][]byte{ping}, 250), slices.Concat(slices.Repeat([]string{"pong"}, 200), []string{"too-many-messages"}), 1008},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := dialLive(t, n.api)
			for _, b := range c.send {
				if _, err := s.Write(b); err != nil {
					t.Fatal(err)
				}
			}
			for i, want := range c.events {
				e := s.next(t)
				got := e.Event
				if got == "error" {
					got = strings.TrimPrefix(e.Type, "/problems/")
					if e.Detail == "" || e.Status < 400 {
						t.Errorf("the problem is %+v", e)
					}
				}
				if c.name == "a flood" && i >= 200 && got == "pong" { // time passes, which allows some more
					e = s.until(t, want, func(e liveEvent) bool { return e.Event == "error" })
					got = strings.TrimPrefix(e.Type, "/problems/")
				}
				if got != want {
					if c.name == "too many stores" && got == "invalid-request" && i == 1 {
						continue
					}
					t.Fatalf("answer %d is %+v, want %s", i, e, want)
				}
			}
			if c.code != 0 {
				if e := s.next(t); e.closed != c.code {
					t.Fatalf("got %+v, want the close code %d", e, c.code)
				}
				s.wantEnd(t)
			}
		})
	}
	n.report(t, "a", `{"length":5}`)
	if e := neighbour.want(t, "queue"); *e.Length != 5 {
		t.Errorf("the neighbour gets %+v", e)
	}
}

func manyIDs(n int) []string {
	ids := make([]string, n)
	for i := range ids {
		ids[i] = fmt.Sprint("s", i)
	}
	return ids
}

// TestLiveHalfOpen has clients that are there no more without having said so: one that answers no ping, and one that
// stopped in the midst of a frame.
func TestLiveHalfOpen(t *testing.T) {
	n := newTestNode(t, func(s *nodeSetup) { s.edge.Live.PingEvery = 100 * time.Millisecond })
	alive := dialLive(t, n.api)
	mute, torn := dialLive(t, n.api), dialLive(t, n.api)
	if _, err := torn.Write([]byte{0x81, 0x85, 1}); err != nil {
		t.Fatal(err)
	}
	for _, s := range []*socket{mute, torn} {
		ended := make(chan error, 1)
		go func() {
			_ = s.SetReadDeadline(time.Now().Add(patience))
			_, err := io.Copy(io.Discard, s.r)
			ended <- err
		}()
		alive.SetDeadline(time.Time{})
		for done := false; !done; {
			alive.send(t, `{"op":"ping"}`)
			alive.until(t, "pong", func(e liveEvent) bool { return e.Event == "pong" })
			select {
			case err := <-ended:
				if done = true; errors.Is(err, os.ErrDeadlineExceeded) {
					t.Error("it is still connected")
				}
			case <-time.After(150 * time.Millisecond):
			}
		}
	}
}

func TestLiveHandshake(t *testing.T) {
	n := newTestNode(t, func(s *nodeSetup) { s.edge.Live.Origins = []string{"https://good.example"} })
	good := []string{"Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="}
	without := func(i int, instead ...string) []string {
		return append(slices.Delete(slices.Clone(good), i, i+1), instead...)
	}
	if rep := n.with(t, n.plain, "GET", "/v1/live", ""); rep.header.Get("Upgrade") != "websocket" {
		t.Error("an answer that asks for an upgrade does not say to what")
	}
	n.get(t, "/v1/live").wantProblem(t, 426, "upgrade-required")
	n.with(t, n.plain, "GET", "/v1/live", "", without(0)...).wantProblem(t, 426, "upgrade-required")
	n.with(t, n.plain, "GET", "/v1/live", "", without(2, "Sec-WebSocket-Version: 8")...).wantProblem(t, 426, "upgrade-required")
	n.with(t, n.plain, "GET", "/v1/live", "", without(3, "Sec-WebSocket-Key: abc")...).wantProblem(t, 400, "malformed-request")
	n.with(t, n.plain, "GET", "/v1/live?x=1", "", good...).wantProblem(t, 400, "malformed-request")
	n.with(t, n.plain, "GET", "/v1/live", "", append(good, "Origin: https://bad.example")...).wantProblem(t, 403, "forbidden")
	n.with(t, n.plain, "GET", "/v1/live/sse?store=a", "", "Origin: https://bad.example").wantProblem(t, 403, "forbidden")
	n.with(t, n.plain, "GET", "/v1/live", "", append(good, "Authorization: Bearer x")...).wantProblem(t, 401, "unauthorized")
	dialLive(t, n.api, "Origin: https://good.example")
	if _, res := tryLive(t, n.api, "Sec-WebSocket-Protocol: shortline"); res.Header.Get("Sec-Websocket-Protocol") != "shortline" {
		t.Error("the subprotocol that was offered is not taken")
	}
}

func TestLiveKeys(t *testing.T) {
	n := newTestNode(t, func(s *nodeSetup) {
		s.edge.RequireKeyForReads = true
		s.edge.Live = edge.LiveConfig{PerKey: 1, PingEvery: 50 * time.Millisecond}
	})
	id, key := n.newKey(t, "read")
	_, other := n.newKey(t, "queue:write")
	if _, res := tryLive(t, n.api); res.StatusCode != 401 {
		t.Errorf("without a key: %s", res.Status)
	}
	if _, res := tryLive(t, n.api, bearer(other)); res.StatusCode != 403 {
		t.Errorf("with a key for something else: %s", res.Status)
	}
	n.get(t, "/v1/live/sse?store=a").wantProblem(t, 401, "unauthorized")
	s := dialLive(t, n.api, "Sec-WebSocket-Protocol: shortline, key."+key) // as a browser has to
	s.send(t, `{"op":"ping"}`)
	s.until(t, "pong", func(e liveEvent) bool { return e.Event == "pong" })
	if _, res := tryLive(t, n.api, bearer(key)); res.StatusCode != 429 || res.Header.Get("Retry-After") == "" {
		t.Errorf("a second one with the key: %s", res.Status)
	}
	n.write(t, "DELETE", "/admin/v1/keys/"+id, "").want(t, 200)
	e := s.until(t, "the end", func(e liveEvent) bool { return e.closed != 0 })
	if e.closed != 1008 {
		t.Errorf("after the key was revoked it is closed with %d", e.closed)
	}
}

func TestLiveLimits(t *testing.T) {
	n := newTestNode(t, func(s *nodeSetup) { s.edge.Live = edge.LiveConfig{PerAddress: 2, Connections: 3} })
	first := dialLive(t, n.api)
	dialLive(t, n.api)
	n.get(t, "/v1/live/sse?store=a").wantProblem(t, 429, "too-many-connections")
	_ = first.Close()
	for {
		s, res := tryLive(t, n.api)
		if res.StatusCode == 101 {
			break
		}
		_ = s.Close()
	}
	all := newTestNode(t, func(s *nodeSetup) { s.edge.Live.Connections = 1 })
	dialLive(t, all.api)
	all.get(t, "/v1/live/sse?store=a").wantProblem(t, 503, "not-ready")
}

// stream reads server-sent events.
type stream struct {
	res *http.Response
	r   *bufio.Reader
}

func openStream(t testing.TB, client *http.Client, url string, headers ...string) *stream {
	t.Helper()
	req, err := http.NewRequest("GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Set(name, value)
	}
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	stop := time.AfterFunc(patience, func() { _ = res.Body.Close() })
	t.Cleanup(func() { stop.Stop(); _ = res.Body.Close() })
	if res.StatusCode != 200 || res.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("answered %s %s", res.Status, res.Header.Get("Content-Type"))
	}
	return &stream{res, bufio.NewReader(res.Body)}
}

// next returns the next event, and its id.
func (s *stream) next(t testing.TB) (liveEvent, string) {
	t.Helper()
	var name, id string
	var e liveEvent
	for {
		line, err := s.r.ReadString('\n')
		if err != nil {
			t.Fatalf("nothing comes: %v", err)
		}
		field, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		switch field {
		case "event":
			name = value
		case "id":
			id = value
		case "data":
			if err := json.Unmarshal([]byte(value), &e); err != nil {
				t.Fatalf("%v in %s", err, value)
			}
		case "":
			if name != "" {
				if name != e.Event {
					t.Errorf("the event %s carries %s", name, e.Event)
				}
				return e, id
			}
		}
	}
}

func TestLiveEvents(t *testing.T) {
	n := newTestNode(t)
	n.put(t, shortline.Store{ID: "a", Name: "A"})
	n.put(t, shortline.Store{ID: "b", Name: "B", Lat: 1})
	secure := httptest.NewUnstartedServer(n.server.Handler())
	secure.EnableHTTP2 = true
	secure.StartTLS()
	t.Cleanup(secure.Close)
	length := 0
	for name, open := range map[string]func(query string, headers ...string) *stream{
		"HTTP/1.1": func(query string, headers ...string) *stream { return openStream(t, n.plain, n.api+query, headers...) },
		"HTTP/2": func(query string, headers ...string) *stream {
			return openStream(t, secure.Client(), secure.URL+query, headers...)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := open("/v1/live/sse?store=a&store=none&lat=1&lng=0", "Accept-Encoding: gzip")
			if s.res.Proto[:6] != name[:6] || s.res.Header.Get("Shortline-Region") != "local" || s.res.Header.Get("Access-Control-Allow-Origin") == "" && name == "x" {
				t.Errorf("%s with %v", s.res.Proto, s.res.Header)
			}
			got := map[string]liveEvent{}
			var id string
			for range 2 {
				var e liveEvent
				e, id = s.next(t)
				got[fmt.Sprint(e.ids())] = e
			}
			if _, ok := got["[a]"]; !ok || got["[b]"].Area == nil || id == "" {
				t.Errorf("the snapshots are %v", got)
			}
			length++
			n.report(t, "a", fmt.Sprintf(`{"length":%d}`, length))
			e, id := s.next(t)
			if e.Event != "queue" || *e.Length != length {
				t.Errorf("the change is %+v", e)
			}
			length++
			_, rep := n.report(t, "a", fmt.Sprintf(`{"length":%d}`, length))
			for _, last := range []string{id, rep.token(t).String(), "anything"} { // the last is of no use, and does no harm
				again := open("/v1/live/sse?store=a", "Last-Event-ID: "+last)
				if e, _ := again.next(t); *e.Stores[0].Length != length {
					t.Errorf("resumed after %s it begins with %d, want %d", last, *e.Stores[0].Length, length)
				}
			}
		})
	}
	n.do(t, "HEAD", "/v1/live/sse?store=a", "").want(t, 200)
	for _, bad := range []string{"", "?x=1", "?lat=1", "?lat=1&lng=2&lat=1", "?radius=5", "?store=a&radius=5", "?store=%FF", "?lat=x&lng=2"} {
		n.get(t, "/v1/live/sse"+bad).wantProblem(t, 400, "malformed-request")
	}
	for _, bad := range []string{"?store=a+b", "?lat=1&lng=200", "?lat=1&lng=2&limit=0", "?store=" + strings.Join(manyIDs(201), "&store=")} {
		n.get(t, "/v1/live/sse"+bad, lenientRequest).wantProblem(t, 422, "invalid-request")
	}
}

// TestLiveOverTLS is for a node that ends TLS itself: what is written must not pass the encryption by.
func TestLiveOverTLS(t *testing.T) {
	n := newTestNode(t)
	n.put(t, shortline.Store{ID: "a", Name: "A"})
	secure := httptest.NewTLSServer(n.server.Handler())
	t.Cleanup(secure.Close)
	s := dialLive(t, secure.URL)
	s.send(t, `{"op":"subscribe","stores":["a"]}`)
	s.want(t, "subscribed")
	for i := range 20 {
		n.report(t, "a", fmt.Sprintf(`{"length":%d}`, i))
		s.until(t, "the change", isLength("a", i))
	}
	s.frame(t, ws.NewBinaryFrame(nil))
	if e := s.next(t); e.closed != 1003 {
		t.Errorf("a binary message gets %+v", e)
	}
	s.wantEnd(t)
}

// elsewhere sends everybody to one region.
type elsewhere struct{}

func (elsewhere) Elsewhere(near *geo.Point) []edge.LiveRegion {
	if near != nil {
		return []edge.LiveRegion{{Name: "near", URL: "http://near.example"}}
	}
	return []edge.LiveRegion{{Name: "other", URL: "http://other.example"}}
}

func TestLiveDrain(t *testing.T) {
	n := newTestNode(t, func(s *nodeSetup) { s.elsewhere = elsewhere{} })
	n.put(t, shortline.Store{ID: "a", Name: "A"})
	obedient, stubborn, events := dialLive(t, n.api), dialLive(t, n.api), openStream(t, n.plain, n.api+"/v1/live/sse?store=a")
	stubborn.send(t, `{"op":"subscribe","lat":0,"lng":0}`)
	stubborn.want(t, "subscribed")
	obedient.send(t, `{"op":"ping"}`) // the handshake is answered before the connection is in the hub
	obedient.want(t, "pong")
	events.next(t)
	if err := n.server.MoveLive(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	if e := obedient.want(t, "reconnect"); len(e.Regions) != 1 || e.Regions[0].Name != "other" || e.WithinS == nil {
		t.Errorf("the message is %+v", e)
	}
	if e := stubborn.want(t, "reconnect"); len(e.Regions) != 1 || e.Regions[0].Name != "near" {
		t.Errorf("the message of one with a place is %+v", e)
	}
	if e, _ := events.next(t); e.Event != "reconnect" {
		t.Errorf("the event is %+v", e)
	}
	n.report(t, "a", `{"length":2}`) // they are served on
	stubborn.until(t, "a", isLength("a", 2))

	n.stop()
	stubborn.want(t, "reconnect")
	obedient.want(t, "reconnect")
	_ = obedient.Close()
	if e := stubborn.until(t, "the end", func(e liveEvent) bool { return e.closed != 0 }); e.closed != 1001 || e.closedBy == "" {
		t.Errorf("the one that stays is closed with %d %q", e.closed, e.closedBy)
	}
	if err := n.served(); err != nil {
		t.Error(err)
	}
}
