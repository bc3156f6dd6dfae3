package edge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/internal/peer"
	"github.com/shortline/shortline/replication"
	"github.com/shortline/shortline/replication/sqlite"
)

// peerList is a list of nodes that a test changes.
type peerList struct {
	v       atomic.Pointer[[]PeerNode]
	changes atomic.Pointer[chan struct{}]
}

func newPeerList(peers ...PeerNode) *peerList {
	l, c := new(peerList), make(chan struct{})
	l.v.Store(&peers)
	l.changes.Store(&c)
	return l
}

func (l *peerList) get() []PeerNode { return *l.v.Load() }

func (l *peerList) set(peers ...PeerNode) {
	l.v.Store(&peers)
	c := make(chan struct{})
	close(*l.changes.Swap(&c))
}

func (l *peerList) changed() <-chan struct{} { return *l.changes.Load() }

func startForwarder(t testing.TB, peers *peerList, setups ...func(*ForwarderConfig)) *Forwarder {
	t.Helper()
	cfg := ForwarderConfig{Peers: peers.get, Changed: peers.changed, ClusterKeys: testClusterKeys, Registerer: prometheus.NewRegistry()}
	for _, s := range setups {
		s(&cfg)
	}
	f, err := NewForwarder(cfg)
	if err != nil {
		t.Fatal(err)
	}
	runPart(t, f.Run)
	return f
}

// counted returns the sum of a counter of the forwarder.
func counted(t testing.TB, f *Forwarder, name string) (sum float64) {
	t.Helper()
	families, err := f.cfg.Registerer.(*prometheus.Registry).Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() == name {
			for _, m := range family.GetMetric() {
				sum += m.GetCounter().GetValue()
			}
		}
	}
	return sum
}

// directly is a transport that calls handlers by host name and uses no network, so that time can be faked.
type directly map[string]func(*http.Request) (*http.Response, error)

func (d directly) RoundTrip(r *http.Request) (*http.Response, error) { return d[r.URL.Host](r) }

func toHandler(h http.Handler) func(*http.Request) (*http.Response, error) {
	return func(r *http.Request) (*http.Response, error) {
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		return rec.Result(), nil
	}
}

var errRefused = &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}

func refusedConn(*http.Request) (*http.Response, error) { return nil, errRefused }

// realWriter is a Batcher on an SQLite store of its own.
func realWriter(t testing.TB) Writer {
	t.Helper()
	now := time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)
	db, err := sqlite.Open(t.Context(), sqlite.Config{Dir: t.TempDir(), Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	b := replication.NewBatcher(db, replication.BatcherConfig{})
	runPart(t, b.Run)
	return b
}

func TestForwardAnswersAsALocalWriteDoes(t *testing.T) {
	remote := realWriter(t)
	addr := servePeer(t, primaryPeer(t, remote))
	f := startForwarder(t, newPeerList(PeerNode{"n1", addr}))
	local := realWriter(t)

	five, minus := 5, -7
	key, _, err := shortline.NewKey("k", []shortline.Scope{shortline.ScopeQueueWrite}, []shortline.StoreID{"a"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	store := &shortline.Store{ID: "a", Name: "Ä <&> \u2028", Lat: 1.25, Lng: -2.5, Tags: []string{"x"}, Address: &shortline.Address{City: "Köln"}, ServiceS: 45}
	idem := func(hash byte) *replication.Idempotency {
		return &replication.Idempotency{Scope: "key POST /v1", Key: "same", BodyHash: [32]byte{hash}, TTL: time.Hour}
	}
	writes := []replication.Write{
		{Items: []replication.Item{{Put: store}}},
		{Items: []replication.Item{{Put: store}}},
		{Items: []replication.Item{{Queue: &shortline.QueueUpdate{ID: "a", Length: &five}}, {Queue: &shortline.QueueUpdate{ID: "nobody", Length: &five}}}},
		{Items: []replication.Item{{Queue: &shortline.QueueUpdate{ID: "a", Delta: &minus}}}, Idempotency: idem(1)},
		{Items: []replication.Item{{Queue: &shortline.QueueUpdate{ID: "a", Delta: &minus}}}, Idempotency: idem(1)},
		{Items: []replication.Item{{Queue: &shortline.QueueUpdate{ID: "a", Delta: &minus}}}, Idempotency: idem(2)},
		{Items: []replication.Item{{Queue: &shortline.QueueUpdate{ID: "a", Length: &five, ObservedAt: time.Date(2026, 11, 23, 8, 0, 0, 5e6, time.FixedZone("", 3600))}}}},
		{Items: []replication.Item{{Key: &key}}},
		{Items: []replication.Item{{Delete: "a"}}},
		{Items: []replication.Item{{Delete: "a"}}},
		{},
	}
	for i, w := range writes {
		want, wantToken, err := local.Submit(t.Context(), w)
		if err != nil {
			t.Fatal(err)
		}
		got, gotToken, err := f.Submit(t.Context(), w)
		if err != nil {
			t.Fatalf("write %d: %v", i, err)
		}
		if fmt.Sprint(got.Err) != fmt.Sprint(want.Err) || gotToken != wantToken || got.Replayed != want.Replayed || !got.At.Equal(want.At) {
			t.Errorf("write %d: %+v %v, locally %+v %v", i, got, gotToken, want, wantToken)
		}
		a, _ := json.Marshal(got.Items)
		b, _ := json.Marshal(want.Items)
		if string(a) != string(b) {
			t.Errorf("write %d: items %s, locally %s", i, a, b)
		}
	}
}

func got(_ replication.Result, _ replication.Token, err error) error { return err }

// cuttable is a listener whose connections can be cut.
type cuttable struct {
	net.Listener
	mu    sync.Mutex
	conns []net.Conn
}

func (c *cuttable) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	if err == nil {
		c.mu.Lock()
		c.conns = append(c.conns, conn)
		c.mu.Unlock()
	}
	return conn, err
}

func (c *cuttable) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.conns {
		_ = conn.Close()
	}
	c.conns = nil
}

func serveCuttable(t testing.TB, p *Peer) *cuttable {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cuttable{Listener: l}
	runPart(t, func(ctx context.Context) error { return p.Run(ctx, c) })
	return c
}

// cutter cuts the connection once, before or after the write of the store x is applied.
type cutter struct {
	next          *recorder
	before, after bool
	cut           func()
	once          sync.Once
}

func (c *cutter) Submit(ctx context.Context, w replication.Write) (replication.Result, replication.Token, error) {
	mine := w.Items[0].Subject() == "x"
	if mine && c.before {
		c.once.Do(c.cut)
	}
	res, token, err := c.next.Submit(context.WithoutCancel(ctx), w)
	if mine && c.after {
		c.once.Do(c.cut)
	}
	return res, token, err
}

// cutOnce forwards a batch over a connection that is cut, and returns how often each of its writes was applied.
func cutOnce(t *testing.T, before, keyless bool) map[string]int {
	w := &cutter{next: &recorder{keyless: keyless}, before: before, after: !before}
	l := serveCuttable(t, primaryPeer(t, w))
	w.cut = l.cut
	f := startForwarder(t, newPeerList(PeerNode{"n1", l.Addr().String()}))
	counts := map[string]int{}
	var wg sync.WaitGroup
	names := []string{"x", "y", "z"}
	for _, name := range names {
		wg.Go(func() {
			res, _, err := f.Submit(t.Context(), deltaWrite(shortline.StoreID(name), 1))
			if err != nil || res.Replayed || len(res.Items) != 1 {
				t.Errorf("%s: %+v %v", name, res, err)
			}
		})
	}
	wg.Wait()
	for _, name := range names {
		counts[name] = w.next.count(name)
	}
	if got := counted(t, f, "shortline_forward_retries_total"); got == 0 {
		t.Error("nothing was retried, so nothing was cut")
	}
	return counts
}

func TestForwardAppliesOnceWhenTheConnectionIsCut(t *testing.T) {
	for _, before := range []bool{true, false} {
		t.Run(fmt.Sprintf("before=%v", before), func(t *testing.T) {
			for name, n := range cutOnce(t, before, false) {
				if n != 1 {
					t.Errorf("%s was applied %d times", name, n)
				}
			}
		})
	}
	t.Run("mutant: keys are forgotten", func(t *testing.T) {
		if n := cutOnce(t, false, true)["x"]; n < 2 {
			t.Errorf("without idempotency keys x was applied %d times: the test above proves nothing", n)
		}
	})
}

// What was cut off and cannot be asked about again is unknown, also where later attempts certainly wrote nothing.
func TestForwardCallsTheUnknownUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tries atomic.Int32
		cut := func(*http.Request) (*http.Response, error) {
			if tries.Add(1) == 1 {
				return nil, io.ErrUnexpectedEOF
			}
			return nil, errRefused
		}
		f := startForwarder(t, newPeerList(PeerNode{"n1", "n1"}), func(c *ForwarderConfig) { c.Transport = directly{"n1": cut} })
		_, _, err := f.Submit(t.Context(), deltaWrite("a", 1))
		if !errors.Is(err, replication.ErrOutcomeUnknown) || tries.Load() < 2 {
			t.Errorf("%v after %d tries", err, tries.Load())
		}
	})
}

func TestForwardSaysThatThereIsNoPrimary(t *testing.T) {
	notPrimary := func(c *PeerConfig) { c.Primary = func() (bool, uint64) { return false, 4 } }
	for _, test := range []struct {
		name   string
		peers  []PeerNode
		answer func(t *testing.T) func(*http.Request) (*http.Response, error)
		detail string
	}{
		{"no peers", nil, nil, "none is known"},
		{"connection refused", []PeerNode{{"n1", "n1"}}, func(*testing.T) func(*http.Request) (*http.Response, error) { return refusedConn }, "connection refused"},
		{"not primary", []PeerNode{{"n1", "n1"}}, func(t *testing.T) func(*http.Request) (*http.Response, error) {
			return toHandler(primaryPeer(t, new(recorder), notPrimary).Handler())
		}, "not the primary in epoch 4"},
		{"another cluster key", []PeerNode{{"n1", "n1"}}, func(t *testing.T) func(*http.Request) (*http.Response, error) {
			return toHandler(primaryPeer(t, new(recorder), func(c *PeerConfig) { c.ClusterKeys = peer.Keys{"another cluster key"} }).Handler())
		}, "--cluster-key"},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := directly{}
				if test.answer != nil {
					d["n1"] = test.answer(t)
				}
				f := startForwarder(t, newPeerList(test.peers...), func(c *ForwarderConfig) { c.Transport = d })
				start := time.Now()
				_, _, err := f.Submit(t.Context(), deltaWrite("a", 1))
				if !errors.Is(err, ErrNoPrimary) || errors.Is(err, replication.ErrOutcomeUnknown) || !strings.Contains(err.Error(), test.detail) {
					t.Errorf("got %v, want ErrNoPrimary with %q", err, test.detail)
				}
				if held := time.Since(start); held != 10*time.Second {
					t.Errorf("held for %v", held)
				}
				if n := counted(t, f, "shortline_forward_failed_total"); n != 1 {
					t.Errorf("counted %v times", n)
				}
				if f.queue.items != 0 || f.queue.bytes != 0 {
					t.Errorf("%d items, %d bytes are still counted", f.queue.items, f.queue.bytes)
				}
			})
		})
	}
}

func TestForwardHoldsUntilAPeerAppears(t *testing.T) {
	w := new(recorder)
	addr := servePeer(t, primaryPeer(t, w))
	peers := newPeerList()
	f := startForwarder(t, peers)
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Go(func() {
			if _, _, err := f.Submit(t.Context(), deltaWrite(shortline.StoreID(strconv.Itoa(i)), 1)); err != nil {
				t.Error(err)
			}
		})
	}
	for held := 0; held < 100; { // all are held before there is a peer
		f.mu.Lock()
		held = f.queue.parked.Len()
		f.mu.Unlock()
	}
	peers.set(PeerNode{"n1", addr})
	wg.Wait()
	if n := w.count(""); n != 100 {
		t.Errorf("%d writes were applied", n)
	}
}

// During a failover the old primary says that it is none; what is held goes to the new one.
func TestForwardFollowsThePrimary(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old := new(recorder)
		old.before = func(context.Context, replication.Write) error {
			return fmt.Errorf("the lease lapsed: %w", ErrNotPrimary)
		}
		now := new(recorder)
		peers := newPeerList(PeerNode{"old", "old"})
		f := startForwarder(t, peers, func(c *ForwarderConfig) {
			c.Transport = directly{"old": toHandler(primaryPeer(t, old).Handler()), "new": toHandler(primaryPeer(t, now).Handler())}
		})
		done := make(chan error, 1)
		go func() { done <- got(f.Submit(t.Context(), deltaWrite("a", 1))) }()
		time.Sleep(3 * time.Second)
		peers.set(PeerNode{"new", "new"})
		start := time.Now()
		if err := <-done; err != nil || now.count("a") != 1 || old.count("") != 0 {
			t.Errorf("%v; applied %d times", err, now.count("a"))
		}
		if waited := time.Since(start); waited > 50*time.Millisecond {
			t.Errorf("it took %v to follow", waited)
		}
	})
}

func TestForwardLeavesAFailingPeerForAHealthyOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var bad atomic.Int32
		w := new(recorder)
		f := startForwarder(t, newPeerList(PeerNode{"bad", "bad"}, PeerNode{"good", "good"}), func(c *ForwarderConfig) {
			c.Transport = directly{"good": toHandler(primaryPeer(t, w).Handler()), "bad": func(r *http.Request) (*http.Response, error) {
				bad.Add(1)
				return refusedConn(r)
			}}
		})
		for i := range 1000 {
			if _, _, err := f.Submit(t.Context(), deltaWrite(shortline.StoreID(strconv.Itoa(i)), 1)); err != nil {
				t.Fatal(err)
			}
		}
		if n := bad.Load(); n == 0 || n > 5 || w.count("") != 1000 {
			t.Errorf("the bad node was asked %d times, the good one wrote %d", n, w.count(""))
		}
	})
}

// However many writes wait for it, a primary region in trouble gets few retries.
func TestForwardRetryBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked, retries atomic.Int32
		d := directly{}
		var list []PeerNode
		for i := range 20 {
			name := strconv.Itoa(i)
			list = append(list, PeerNode{name, name})
			d[name] = func(*http.Request) (*http.Response, error) {
				asked.Add(1)
				return nil, io.ErrUnexpectedEOF
			}
		}
		f := startForwarder(t, newPeerList(list...), func(c *ForwarderConfig) { c.Transport, c.AvoidMin, c.AvoidMax = d, time.Millisecond, time.Millisecond })
		var wg sync.WaitGroup
		for i := range 500 {
			wg.Go(func() {
				if err := got(f.Submit(t.Context(), deltaWrite(shortline.StoreID(strconv.Itoa(i)), 1))); !errors.Is(err, replication.ErrOutcomeUnknown) {
					t.Errorf("got %v", err)
				}
			})
		}
		wg.Wait()
		retries.Store(int32(counted(t, f, "shortline_forward_retries_total")))
		first := asked.Load() - retries.Load()
		most := 5 + 10*5 + float64(first)*0.1 + 1 // at once, in ten seconds, for the others
		if n := float64(retries.Load()); n > most || n < 10 {
			t.Errorf("%v retries of %d requests, at most %v are allowed", n, asked.Load(), most)
		}
	})
}

func TestForwardBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := startForwarder(t, newPeerList(), func(c *ForwarderConfig) { c.MaxWaiting, c.MaxWaitingBytes = 3, 2000 })
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				if err := got(f.Submit(ctx, deltaWrite("a", 1))); !errors.Is(err, context.Canceled) || errors.Is(err, replication.ErrOutcomeUnknown) {
					t.Errorf("held: %v", err)
				}
			})
		}
		synctest.Wait()
		if err := got(f.Submit(t.Context(), deltaWrite("a", 1))); !errors.Is(err, replication.ErrOverloaded) {
			t.Errorf("one too many: %v", err)
		}
		cancel()
		wg.Wait()
		big := func() error {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			return got(f.Submit(ctx, replication.Write{Items: []replication.Item{{Put: &shortline.Store{ID: "b", Name: strings.Repeat("b", 1500)}}}}))
		}
		wg.Go(func() {
			if err := big(); !errors.Is(err, ErrNoPrimary) {
				t.Errorf("held: %v", err)
			}
		})
		synctest.Wait()
		if err := big(); !errors.Is(err, replication.ErrOverloaded) {
			t.Errorf("too many bytes: %v", err)
		}
		wg.Wait()
		if f.queue.items != 0 || f.queue.bytes != 0 {
			t.Errorf("%d items, %d bytes are still counted", f.queue.items, f.queue.bytes)
		}
	})
}

// A caller that leaves gets an honest answer, and its neighbours in the request theirs.
func TestForwardCallerLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		open := make(chan struct{})
		w := new(recorder)
		w.before = func(ctx context.Context, _ replication.Write) error { <-open; return nil }
		f := startForwarder(t, newPeerList(PeerNode{"n1", "n1"}), func(c *ForwarderConfig) {
			c.Transport, c.InFlight = directly{"n1": toHandler(primaryPeer(t, w).Handler())}, 1
		})
		submit := func(ctx context.Context, store shortline.StoreID) chan error {
			done := make(chan error, 1)
			go func() { done <- got(f.Submit(ctx, deltaWrite(store, 1))) }()
			synctest.Wait()
			return done
		}
		ctx, cancel := context.WithCancel(t.Context())
		flying := submit(ctx, "flying")
		queued, stays := submit(ctx, "queued"), submit(t.Context(), "stays")
		cancel()
		if err := <-flying; !errors.Is(err, replication.ErrOutcomeUnknown) || !errors.Is(err, context.Canceled) {
			t.Errorf("under way: %v", err)
		}
		if err := <-queued; !errors.Is(err, context.Canceled) || errors.Is(err, replication.ErrOutcomeUnknown) {
			t.Errorf("not sent yet: %v", err)
		}
		close(open)
		if err := <-stays; err != nil {
			t.Errorf("the one that stays: %v", err)
		}
		if w.count("queued") != 0 || w.count("stays") != 1 || w.count("flying") != 1 {
			t.Errorf("applied: %v", w.applied)
		}
		synctest.Wait()
		if f.queue.items != 0 {
			t.Errorf("%d items are still counted", f.queue.items)
		}
	})
}

// One bad write, and one that takes long, are nothing to the others of their request.
func TestForwardNeighboursDoNotMind(t *testing.T) {
	w := new(recorder)
	release := make(chan struct{})
	w.before = func(ctx context.Context, w replication.Write) error {
		switch w.Items[0].Subject() {
		case "poison":
			return errors.New("the database cannot take this")
		case "slow":
			<-release
		}
		return nil
	}
	peers := newPeerList()
	f := startForwarder(t, peers, func(c *ForwarderConfig) { c.InFlight = 1 })
	results := map[string]chan error{}
	for i, name := range []string{"slow", "poison", "bad id", "fine"} {
		results[name] = make(chan error, 1)
		go func() { results[name] <- got(f.Submit(t.Context(), deltaWrite(shortline.StoreID(name), 1))) }()
		for held := 0; held <= i; {
			f.mu.Lock()
			held = f.queue.parked.Len()
			f.mu.Unlock()
		}
	}
	peers.set(PeerNode{"n1", servePeer(t, primaryPeer(t, w))})
	if err := <-results["fine"]; err != nil { // while slow still is under way in the same request
		t.Errorf("fine: %v", err)
	}
	if err := <-results["poison"]; err == nil || errors.Is(err, replication.ErrOutcomeUnknown) || !strings.Contains(err.Error(), "cannot take") {
		t.Errorf("poison: %v", err)
	}
	if err := <-results["bad id"]; err == nil || !strings.Contains(err.Error(), "invalid") {
		t.Errorf("bad id: %v", err)
	}
	close(release)
	if err := <-results["slow"]; err != nil {
		t.Errorf("slow: %v", err)
	}
	if n := counted(t, f, "shortline_forward_requests_total"); n != 1 {
		t.Errorf("%v requests, want 1", n)
	}
}

// A peer whose writer is, by mistake, one that forwards does not pass writes on.
func TestForwardNeverTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := directly{}
		var asked atomic.Int32
		one := func(c *ForwarderConfig) { c.Transport = d }
		a := startForwarder(t, newPeerList(PeerNode{"b", "b"}), one)
		b := startForwarder(t, newPeerList(PeerNode{"a", "a"}), one)
		d["a"] = func(*http.Request) (*http.Response, error) { asked.Add(1); return nil, errRefused }
		d["b"] = toHandler(primaryPeer(t, newTestRouter(t, RouterConfig{Region: "here", Directory: StaticDirectory{Region: "there"}, Local: new(recorder), Remote: b})).Handler())
		if err := got(a.Submit(t.Context(), deltaWrite("x", 1))); !errors.Is(err, ErrNoPrimary) || asked.Load() != 0 {
			t.Errorf("%v; passed on %d times", err, asked.Load())
		}
	})
}

func TestForwardOverloadedPrimary(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tries atomic.Int32
		w := new(recorder)
		w.before = func(context.Context, replication.Write) error { tries.Add(1); return replication.ErrOverloaded }
		f := startForwarder(t, newPeerList(PeerNode{"n1", "n1"}), func(c *ForwarderConfig) { c.Transport = directly{"n1": toHandler(primaryPeer(t, w).Handler())} })
		if err := got(f.Submit(t.Context(), deltaWrite("x", 1))); !errors.Is(err, replication.ErrOverloaded) || tries.Load() != maxOverloads {
			t.Errorf("%v after %d tries", err, tries.Load())
		}
	})
}

func TestForwardStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, err := NewForwarder(ForwarderConfig{Peers: func() []PeerNode { return nil }, ClusterKeys: testClusterKeys})
		if err != nil {
			t.Fatal(err)
		}
		stop := runPart(t, f.Run)
		done := make(chan error, 1)
		go func() { done <- got(f.Submit(t.Context(), deltaWrite("x", 1))) }()
		synctest.Wait()
		stop()
		if err := <-done; !errors.Is(err, replication.ErrClosed) {
			t.Errorf("held: %v", err)
		}
		if err := got(f.Submit(t.Context(), deltaWrite("x", 1))); !errors.Is(err, replication.ErrClosed) {
			t.Errorf("afterwards: %v", err)
		}
	})
}

func TestForwardSpreadsStores(t *testing.T) {
	q := newForwardQueue(&ForwarderConfig{})
	now := time.Now()
	names := func(peers ...PeerNode) (map[string]int, []string) {
		q.meet(peers)
		counts, of := map[string]int{}, make([]string, 3000)
		for i := range of {
			of[i] = q.pick("store-"+strconv.Itoa(i), now).peer.Name
			counts[of[i]]++
		}
		return counts, of
	}
	counts, three := names(PeerNode{"a", "1"}, PeerNode{"b", "2"}, PeerNode{"c", "3"})
	for name, n := range counts {
		if n < 800 || n > 1200 {
			t.Errorf("%s has %d of 3000 stores", name, n)
		}
	}
	_, two := names(PeerNode{"c", "3"}, PeerNode{"a", "9"})
	for i := range three {
		if three[i] != "b" && two[i] != three[i] {
			t.Fatalf("store %d moved from %s to %s although its node is still there", i, three[i], two[i])
		}
	}
}

func BenchmarkForward(b *testing.B) {
	w := &recorder{keyless: true}
	f := startForwarder(b, newPeerList(PeerNode{"n1", servePeer(b, primaryPeer(b, forgetful{w}))}))
	b.SetParallelism(max(1, 64/2))
	var n atomic.Int64
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		store := shortline.StoreID("store-" + strconv.FormatInt(n.Add(1), 10))
		for pb.Next() {
			if _, _, err := f.Submit(b.Context(), deltaWrite(store, 1)); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "writes/s")
	b.ReportMetric(float64(b.N)/counted(b, f, "shortline_forward_requests_total"), "writes/request")
}

// forgetful is a Writer in memory that keeps nothing.
type forgetful struct{ *recorder }

func (forgetful) Submit(_ context.Context, w replication.Write) (replication.Result, replication.Token, error) {
	res := replication.Result{At: time.Unix(1, 0), Items: make([]replication.ItemResult, len(w.Items))}
	for i := range res.Items {
		res.Items[i] = replication.ItemResult{Status: replication.StatusQueue, Queue: &shortline.QueueResult{Applied: true}}
	}
	return res, replication.Token{Epoch: 1, XID: 1}, nil
}

// BenchmarkPeerDecode measures what JSON costs for a request of 500 queue updates.
func BenchmarkPeerDecode(b *testing.B) {
	writes := make([]replication.Write, 500)
	for i := range writes {
		writes[i] = deltaWrite("store-1", 1)
	}
	body := requestBody(b, writes...)
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		if _, err := decodeWrites(body, false); err != nil {
			b.Fatal(err)
		}
	}
}
