package edge_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/edge"
	"github.com/shortline/shortline/geo"
	"github.com/shortline/shortline/regions"
	"github.com/shortline/shortline/replication"
	"github.com/shortline/shortline/replication/sqlite"
)

// morning is when the clock of a test node stands at first: a Monday, 09:00 in London and 04:00 in New York.
var morning = time.Date(2026, time.November, 23, 9, 0, 0, 0, time.UTC)

// clock is a clock that only moves when told to.
type clock struct {
	mu  sync.Mutex
	now time.Time // guarded by mu
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// nodeSetup is what a test may choose about its node.
type nodeSetup struct {
	operator edge.Operator
	edge     edge.Config
	batcher  replication.BatcherConfig
	// faults is armed before anything reads the store, where it is set.
	faults func(*faultyStore)
	// adminAddr is what the admin listener says its address is, where it is set.
	adminAddr net.Addr
	elsewhere edge.Elsewhere
	// tls is that of edge.Deps; from, where it is set, is where connections to the public port say they come from.
	tls   *tls.Config
	audit *slog.Logger
	from  func() netip.Addr
	// view and geoIP are those of edge.Deps.
	view  func() *regions.View
	geoIP func(netip.Addr) (geo.Point, bool)
}

// testNode is a whole node: an SQLite store in a folder of its own behind a fault injector, feed, batcher, and a Server on
// two real listeners.
type testNode struct {
	api, admin string // base URLs
	key        string // of scope admin
	clock      *clock
	store      *faultyStore
	feed       *replication.Feed
	catalog    *edge.Catalog
	batcher    *replication.Batcher
	server     *edge.Server
	region     string
	client     *http.Client // checks every exchange with the public port against the document
	plain      *http.Client // does not
	// stop begins the shutdown, and served is what Run returned; both may be used any number of times.
	stop   context.CancelFunc
	served func() error
}

// newTestNode starts a node and waits until it holds its first snapshot, unless a fault keeps it from that.
func newTestNode(t testing.TB, setups ...func(*nodeSetup)) *testNode {
	t.Helper()
	setup := nodeSetup{edge: edge.Config{DetailsBytes: 32 << 20, Version: "test"}}
	for _, s := range setups {
		s(&setup)
	}
	n := &testNode{clock: &clock{now: morning}, region: "local"}
	if setup.edge.Region != "" {
		n.region = setup.edge.Region
	}
	db, err := sqlite.Open(t.Context(), sqlite.Config{Dir: t.TempDir(), Now: n.clock.Now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Errorf("close the store: %v", err)
		}
	})
	n.store = &faultyStore{Store: db}
	n.key = n.firstKey(t, db)
	if setup.faults != nil {
		setup.faults(n.store)
	}

	catalog, registry := new(edge.Catalog), prometheus.NewRegistry()
	n.catalog = catalog
	n.feed = replication.NewFeed(n.store, catalog, replication.FeedConfig{Registerer: registry})
	setup.batcher.Registerer = registry
	setup.batcher.Committed = func(replication.Token) { n.feed.Poke() }
	n.batcher = replication.NewBatcher(n.store, setup.batcher)
	n.server, err = edge.New(setup.edge, edge.Deps{
		Catalog: catalog, Feed: n.feed, Writer: n.batcher, Details: n.store, Rollups: n.store, View: setup.view, GeoIP: setup.geoIP, Metrics: registry, Now: n.clock.Now, Elsewhere: setup.elsewhere, Operator: setup.operator, TLS: setup.tls, Audit: setup.audit})
	if err != nil {
		t.Fatal(err)
	}
	n.run(t, &setup)
	n.client, n.plain = &http.Client{Transport: &checkedTransport{t: t, node: n, next: newTransport(t)}, CheckRedirect: noRedirect}, &http.Client{Transport: newTransport(t), CheckRedirect: noRedirect}
	if setup.faults == nil {
		if err := n.feed.Latest(t.Context(), time.Minute); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

func (n *testNode) firstKey(t testing.TB, db *sqlite.Store) string {
	t.Helper()
	key, secret, err := shortline.NewKey("first admin key", []shortline.Scope{shortline.ScopeAdmin}, nil, n.clock.Now())
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := db.Commit(t.Context(), []replication.Write{{Items: []replication.Item{{Key: &key}}}}); err != nil {
		t.Fatal(err)
	}
	return secret
}

// run starts the parts and stops them at the end of the test in the order of a real node: requests, commits, memory.
func (n *testNode) run(t testing.TB, setup *nodeSetup) {
	t.Helper()
	public, admin := listenLocal(t), listenLocal(t)
	n.api, n.admin = "http://"+public.Addr().String(), "http://"+admin.Addr().String()
	if setup.tls != nil {
		n.api = "https" + strings.TrimPrefix(n.api, "http")
	}
	if setup.from != nil {
		public = distantListener{public, setup.from}
	}
	if setup.adminAddr != nil {
		admin = otherAddr{admin, setup.adminAddr}
	}
	start := func(part func(context.Context) error) (stop context.CancelFunc, wait func() error) {
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- part(ctx) }()
		wait = sync.OnceValue(func() error { return <-done })
		t.Cleanup(func() {
			cancel()
			if err := wait(); err != nil {
				t.Errorf("a part of the node ended with %v", err)
			}
		})
		return cancel, wait
	}
	start(n.feed.Run)
	start(n.batcher.Run)
	n.stop, n.served = start(func(ctx context.Context) error { return n.server.Run(ctx, public, admin) })
}

func listenLocal(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// otherAddr is a listener that says it listens elsewhere.
type otherAddr struct {
	net.Listener
	addr net.Addr
}

func (l otherAddr) Addr() net.Addr { return l.addr }

// distantListener has connections that say they come from elsewhere.
type distantListener struct {
	net.Listener
	from func() netip.Addr
}

func (l distantListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return distantConn{c, net.TCPAddrFromAddrPort(netip.AddrPortFrom(l.from(), 1234))}, nil
}

type distantConn struct {
	net.Conn
	addr net.Addr
}

func (c distantConn) RemoteAddr() net.Addr { return c.addr }

func newTransport(t testing.TB) *http.Transport {
	tr := &http.Transport{DisableCompression: true} // a test that wants gzip says so
	t.Cleanup(tr.CloseIdleConnections)
	return tr
}

func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// reply is an answer that was read to its end.
type reply struct {
	region string // of the node that was asked
	status int
	header http.Header
	body   []byte
}

// do sends a request; target is a path on the public port or a whole URL, headers are "Name: value". A body is JSON unless
// a header says otherwise.
func (n *testNode) do(t testing.TB, method, target, body string, headers ...string) reply {
	t.Helper()
	return n.with(t, n.client, method, target, body, headers...)
}

func (n *testNode) with(t testing.TB, client *http.Client, method, target, body string, headers ...string) reply {
	t.Helper()
	rep, err := n.try(client, method, target, body, headers...)
	if err != nil {
		t.Fatalf("%s %s: %v", method, target, err)
	}
	return rep
}

func (n *testNode) try(client *http.Client, method, target, body string, headers ...string) (reply, error) {
	if strings.HasPrefix(target, "/") {
		target = n.api + target
	}
	var reader io.Reader
	if body != "" {
		reader = strings.NewReader(body)
	}
	req, err := http.NewRequest(method, target, reader)
	if err != nil {
		return reply{}, err
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		switch {
		case h == lenientRequest:
			req = req.WithContext(context.WithValue(req.Context(), lenient{}, true))
		case name == "Host":
			req.Host = value
		case value == "":
			req.Header.Del(name)
		case name == "Content-Type":
			req.Header.Set(name, value)
		default:
			req.Header.Add(name, value)
		}
	}
	res, err := client.Do(req)
	if err != nil {
		return reply{}, err
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	return reply{n.region, res.StatusCode, res.Header, text}, err
}

func (n *testNode) get(t testing.TB, target string, headers ...string) reply {
	t.Helper()
	return n.do(t, http.MethodGet, target, "", headers...)
}

// write is do with the admin key.
func (n *testNode) write(t testing.TB, method, target, body string, headers ...string) reply {
	t.Helper()
	return n.do(t, method, target, body, append([]string{bearer(n.key)}, headers...)...)
}

func bearer(key string) string { return "Authorization: Bearer " + key }

// put makes or changes a store and expects that to work.
func (n *testNode) put(t testing.TB, s shortline.Store) reply {
	t.Helper()
	body, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	rep := n.write(t, http.MethodPut, "/v1/stores/"+string(s.ID), string(body))
	if rep.status != http.StatusOK && rep.status != http.StatusCreated {
		t.Fatalf("PUT %s answered %d %s", s.ID, rep.status, rep.body)
	}
	return rep
}

// load puts many stores into the database at once, past the API, and waits until memory holds them.
func (n *testNode) load(t testing.TB, stores []shortline.Store) {
	t.Helper()
	var token replication.Token
	for len(stores) > 0 {
		chunk := stores[:min(len(stores), 5000)]
		stores = stores[len(chunk):]
		var write replication.Write
		for i := range chunk {
			chunk[i].Normalize()
			if err := chunk[i].Validate(); err != nil {
				t.Fatalf("store %s: %v", chunk[i].ID, err)
			}
			write.Items = append(write.Items, replication.Item{Put: &chunk[i]})
		}
		var err error
		if _, token, err = n.store.Commit(t.Context(), []replication.Write{write}); err != nil {
			t.Fatal(err)
		}
	}
	n.caughtUp(t, token)
}

// caughtUp waits until memory holds what the token stands for.
func (n *testNode) caughtUp(t testing.TB, token replication.Token) {
	t.Helper()
	if err := n.feed.Wait(t.Context(), token); err != nil {
		t.Fatal(err)
	}
}

// newKey makes an API key through the API.
func (n *testNode) newKey(t testing.TB, scopes string, stores ...string) (id, secret string) {
	t.Helper()
	body := fmt.Sprintf(`{"name":"test","scopes":["%s"]`, strings.ReplaceAll(scopes, ",", `","`))
	if len(stores) > 0 {
		body += `,"stores":["` + strings.Join(stores, `","`) + `"]`
	}
	var key struct{ ID, Key string }
	n.write(t, http.MethodPost, "/admin/v1/keys", body+"}").want(t, http.StatusCreated).json(t, &key)
	return key.ID, key.Key
}

// want ends the test unless the answer has the status and the headers that every answer has.
func (r reply) want(t testing.TB, status int) reply {
	t.Helper()
	if r.status != status {
		t.Fatalf("answered %d, want %d; the body is %s", r.status, status, r.body)
	}
	if r.header.Get("Shortline-Region") != r.region && r.header.Get("Shortline-Relayed") != r.region {
		t.Errorf("Shortline-Region is %q, want %s", r.header.Get("Shortline-Region"), r.region)
	}
	if r.header.Get("X-Request-Id") == "" {
		t.Error("X-Request-Id is missing")
	}
	return r
}

// json reads the body into v; it must have no member that v has not.
func (r reply) json(t testing.TB, v any) {
	t.Helper()
	if got := r.header.Get("Content-Type"); got != "application/json" {
		t.Errorf("Content-Type is %q, want application/json", got)
	}
	if err := json.Unmarshal(r.body, v); err != nil {
		t.Fatalf("%v in %s", err, r.body)
	}
}

// token returns the answer's token, which must be there.
func (r reply) token(t testing.TB) replication.Token {
	t.Helper()
	token, err := replication.ParseToken(r.header.Get("Shortline-Token"))
	if err != nil {
		t.Fatalf("Shortline-Token %q: %v", r.header.Get("Shortline-Token"), err)
	}
	return token
}

// problem is the body of an error.
type problem struct {
	Type, Title, Detail string
	Status              int
	Errors              []shortline.FieldError
	Rule                regions.Rule
	Blockers            []*regions.RefusedError
}

func (p problem) fields() []string {
	var names []string
	for _, e := range p.Errors {
		names = append(names, e.Field)
	}
	return names
}

// wantProblem is want for an error of the kind.
func (r reply) wantProblem(t testing.TB, status int, kind string) problem {
	t.Helper()
	r.want(t, status)
	var p problem
	if got := r.header.Get("Content-Type"); got != "application/problem+json" {
		t.Errorf("Content-Type is %q, want application/problem+json", got)
	}
	dec := json.NewDecoder(bytes.NewReader(r.body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&p); err != nil {
		t.Fatalf("%v in %s", err, r.body)
	}
	if p.Type != "/problems/"+kind || p.Status != status || p.Title == "" || p.Detail == "" {
		t.Errorf("the problem is %s, want the kind %s, its status, a title and a detail", r.body, kind)
	}
	if status == http.StatusServiceUnavailable && r.header.Get("Retry-After") == "" {
		t.Error("Retry-After is missing")
	}
	return p
}

// faultyStore is a store that can be made to fail, to hang, or to keep an answer to itself.
type faultyStore struct {
	replication.Store
	rows, head, changes, snapshot, rollups fault
	before                                 fault // Commit, nothing is written
	after                                  fault // Commit, all is written
}

// fault is what is done instead of, or before, an operation; nothing at first.
type fault struct {
	mu sync.Mutex
	do func(context.Context) error // guarded by mu
}

func (f *fault) set(do func(context.Context) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.do = do
}

func (f *fault) strike(ctx context.Context) error {
	f.mu.Lock()
	do := f.do
	f.mu.Unlock()
	if do == nil {
		return nil
	}
	return do(ctx)
}

var errDisk = errors.New("the disk is on fire")

// broken is a fault that always fails.
func broken(context.Context) error { return errDisk }

// gate holds operations up until it is opened.
type gate struct {
	entered chan struct{} // has an element for each operation that reached the gate
	open    chan struct{}
}

func newGate() *gate { return &gate{entered: make(chan struct{}, 100), open: make(chan struct{})} }

func (g *gate) pass(context.Context) error {
	g.entered <- struct{}{}
	<-g.open
	return nil
}

func (s *faultyStore) Rows(ctx context.Context, ids []shortline.StoreID) ([]replication.Row, error) {
	if err := s.rows.strike(ctx); err != nil {
		return nil, err
	}
	return s.Store.Rows(ctx, ids)
}

func (s *faultyStore) Rollups(ctx context.Context, id shortline.StoreID, from, to time.Time) ([]shortline.Rollup, error) {
	if err := s.rollups.strike(ctx); err != nil {
		return nil, err
	}
	return s.Store.Rollups(ctx, id, from, to)
}

func (s *faultyStore) Head(ctx context.Context) (replication.Head, error) {
	if err := s.head.strike(ctx); err != nil {
		return replication.Head{}, err
	}
	return s.Store.Head(ctx)
}

func (s *faultyStore) Changes(ctx context.Context, after replication.Cursor, limit int) (replication.Page, error) {
	if err := s.changes.strike(ctx); err != nil {
		return replication.Page{}, err
	}
	return s.Store.Changes(ctx, after, limit)
}

func (s *faultyStore) Snapshot(ctx context.Context, after shortline.StoreID, limit int) ([]replication.Row, error) {
	if err := s.snapshot.strike(ctx); err != nil {
		return nil, err
	}
	return s.Store.Snapshot(ctx, after, limit)
}

func (s *faultyStore) Commit(ctx context.Context, writes []replication.Write) ([]replication.Result, replication.Token, error) {
	if err := s.before.strike(ctx); err != nil {
		return nil, replication.Token{}, err
	}
	results, token, err := s.Store.Commit(ctx, writes)
	if err == nil {
		err = s.after.strike(ctx)
	}
	return results, token, err
}

// query writes a query string of names and values in turn.
func query(pairs ...string) string {
	v := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		v.Add(pairs[i], pairs[i+1])
	}
	return "?" + v.Encode()
}
