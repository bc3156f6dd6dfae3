package gossip

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/shortline/shortline/geo"
	"github.com/shortline/shortline/regions"
)

// network is loopback with delays between regions and with links that can be cut.
type network struct {
	mu    sync.Mutex
	at    map[string]string // guarded by mu; which side an address is on
	apart bool              // guarded by mu: sides do not reach each other
	delay time.Duration     // one way, between sides
}

func (n *network) path(from, to string) (delay time.Duration, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.at[from] == n.at[to] {
		return 0, nil
	}
	if n.apart {
		return 0, errors.New("cut")
	}
	return n.delay, nil
}

func (n *network) cut(apart bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.apart = apart
}

// wire is one node's end of it.
type wire struct {
	*memberlist.NetTransport
	net  *network
	addr string
}

func (n *network) join(t *testing.T, side string) *wire {
	t.Helper()
	nt, err := memberlist.NewNetTransport(&memberlist.NetTransportConfig{BindAddrs: []string{"127.0.0.1"}, Logger: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)})
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{NetTransport: nt, net: n, addr: fmt.Sprintf("127.0.0.1:%d", nt.GetAutoBindPort())}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.at == nil {
		n.at = map[string]string{}
	}
	n.at[w.addr] = side
	return w
}

func (w *wire) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return w.NetTransport.FinalAdvertiseAddr("127.0.0.1", w.GetAutoBindPort())
}

func (w *wire) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	delay, err := w.net.path(w.addr, a.Addr)
	if err != nil {
		return time.Now(), nil // lost
	}
	if delay > 0 {
		b = slices.Clone(b)
		time.AfterFunc(delay, func() { _, _ = w.NetTransport.WriteToAddress(b, a) })
		return time.Now(), nil
	}
	return w.NetTransport.WriteToAddress(b, a)
}

func (w *wire) WriteTo(b []byte, addr string) (time.Time, error) {
	return w.WriteToAddress(b, memberlist.Address{Addr: addr})
}

func (w *wire) DialAddressTimeout(a memberlist.Address, d time.Duration) (net.Conn, error) {
	if _, err := w.net.path(w.addr, a.Addr); err != nil {
		return nil, err
	}
	return w.NetTransport.DialAddressTimeout(a, d)
}

func (w *wire) DialTimeout(addr string, d time.Duration) (net.Conn, error) {
	return w.DialAddressTimeout(memberlist.Address{Addr: addr}, d)
}

// member is a running node.
type member struct {
	*Gossip
	registry *prometheus.Registry
	mu       sync.Mutex
	status   regions.NodeStatus // guarded by mu
	stop     func()             // cleanly
}

func (m *member) set(change func(*regions.NodeStatus)) {
	m.mu.Lock()
	change(&m.status)
	m.mu.Unlock()
	m.Refresh()
}

// start runs a node until the test ends, or it is stopped.
func start(t *testing.T, region regions.ID, change func(*Config)) *member {
	t.Helper()
	m := &member{registry: prometheus.NewRegistry(), status: regions.NodeStatus{
		Point: geo.Point{Lat: 1, Lng: 2}, Health: regions.Healthy, API: "http://" + string(region) + ".example", Cluster: "10.0.0.1:7", Version: "test"}}
	cfg := Config{Cluster: "test", Listen: "127.0.0.1:0", Region: region, Rejoin: 500 * time.Millisecond, Registerer: m.registry, quick: true,
		Status: func() regions.NodeStatus {
			m.mu.Lock()
			defer m.mu.Unlock()
			return m.status
		}}
	if change != nil {
		change(&cfg)
	}
	var err error
	if m.Gossip, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	m.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("%s ended with %v", region, err)
		}
	})
	t.Cleanup(m.stop)
	eventually(t, "it listens", func() bool { return m.Addr() != "" })
	return m
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("in vain: %s", what)
		}
	}
}

// ready lists the regions to which the node would send clients.
func (m *member) ready() string {
	var ids []string
	for _, p := range m.View().Places {
		if p.Ready > 0 {
			ids = append(ids, fmt.Sprintf("%s:%d", p.ID, p.Ready))
		}
	}
	return strings.Join(ids, " ")
}

func seed(m *member) func(*Config) { return func(c *Config) { c.Seeds = []string{m.Addr()} } }

// TestNodesLearnOfEachOther: three regions, then a change of one that all see, then one that leaves.
func TestNodesLearnOfEachOther(t *testing.T) {
	a := start(t, "a", func(c *Config) { c.Keys = []string{"a key of sixteen bytes"} })
	with := func(c *Config) { c.Keys, c.Seeds = []string{"a key of sixteen bytes"}, []string{a.Addr()} }
	b, c := start(t, "b", with), start(t, "c", with)
	b2 := start(t, "b", with)
	for _, m := range []*member{a, b, c, b2} {
		eventually(t, string(m.View().Region)+" sees all", func() bool { return m.ready() == "a:1 b:2 c:1" })
	}
	changed := a.Changed()
	b.set(func(s *regions.NodeStatus) {
		s.Health, s.Reason, s.Writes, s.Epoch, s.Position, s.Lag = regions.Unhealthy, "its disk", true, 7, 99, 3*time.Second
	})
	for _, m := range []*member{a, b, c, b2} {
		eventually(t, string(m.View().Region)+" sees b change", func() bool {
			p := m.View().Place("b")
			i := slices.IndexFunc(p.Nodes, func(n regions.Node) bool { return n.Name == b.Name() })
			n := p.Nodes[i]
			return p.Ready == 1 && p.Primary && n.Reason == "its disk" && n.Epoch == 7 && n.Position == 99 && n.Lag == 3*time.Second && n.API == "http://b.example" && n.Version == "test"
		})
	}
	<-changed
	c.stop()
	eventually(t, "a sees that c left", func() bool { return a.ready() == "a:1 b:1" })
	eventually(t, "leaving is no death", func() bool {
		a.Gossip.mu.Lock()
		defer a.Gossip.mu.Unlock()
		n := a.nodes[c.Name()]
		return n.left && n.damp.count < 0.01
	})
	families, err := a.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == "shortline_gossip_refused_total" && m.GetCounter().GetValue() > 0 {
				t.Errorf("something was refused: %v", m.GetLabel())
			}
		}
	}
	if n, err := testutil.GatherAndCount(a.registry, "shortline_gossip_nodes", "shortline_region_rtt_seconds", "shortline_clock_skew_seconds"); err != nil || n < 10 {
		t.Errorf("metrics: %d, %v", n, err)
	}
}

// refused counts what the node did not believe, for a reason.
func (m *member) refused(reason string) float64 {
	return testutil.ToFloat64(m.metrics.refused.WithLabelValues(reason))
}

// TestStrangersGetNowhere: another name, another key, or none, and the others do not notice them.
func TestStrangersGetNowhere(t *testing.T) {
	const key = "a key of sixteen bytes"
	a := start(t, "a", func(c *Config) { c.Keys = []string{key} })
	b := start(t, "b", func(c *Config) { c.Keys, c.Seeds = []string{key}, []string{a.Addr()} })
	eventually(t, "they meet", func() bool { return a.ready() == "a:1 b:1" && b.ready() == "a:1 b:1" })
	otherName := start(t, "x", func(c *Config) { c.Cluster, c.Keys, c.Seeds = "other", []string{key}, []string{a.Addr()} })
	otherKey := start(t, "y", func(c *Config) { c.Keys, c.Seeds = []string{"another key, just as long"}, []string{a.Addr()} })
	noKey := start(t, "z", seed(a))
	eventually(t, "the stranger's name is noticed", func() bool { return a.refused("deployment") > 0 })
	eventually(t, "the strangers' keys are noticed", func() bool { return a.refused("key") >= 2 })
	for want, m := range map[string]*member{"a:1 b:1": b, "x:1": otherName, "y:1": otherKey, "z:1": noKey} {
		if got := m.ready(); got != want {
			t.Errorf("%s sees %s, want %s", m.View().Region, got, want)
		}
	}
	// The mutant: with the right name and key the very same node is let in.
	if m := start(t, "x", func(c *Config) { c.Keys, c.Seeds = []string{key}, []string{a.Addr()} }); true {
		eventually(t, "a friend gets in", func() bool { return m.ready() == "a:1 b:1 x:1" && a.ready() == "a:1 b:1 x:1" })
	}
}

// TestKeysRotate goes through the three steps of a change of keys, and never do two nodes lose each other.
func TestKeysRotate(t *testing.T) {
	const first, second = "the first key, of old", "the second key, of now"
	a := start(t, "a", func(c *Config) { c.Keys = []string{first} })
	b := start(t, "b", func(c *Config) { c.Keys, c.Seeds = []string{first}, []string{a.Addr()} })
	met := func() bool { return a.ready() == "a:1 b:1" && b.ready() == "a:1 b:1" }
	eventually(t, "they meet", met)
	for i, keys := range [][]string{{first, second}, {second, first}, {second}} {
		for _, m := range []*member{a, b} {
			if err := m.SetKeys(keys); err != nil {
				t.Fatal(err)
			}
			epoch := uint64(i + 1)
			m.set(func(s *regions.NodeStatus) { s.Epoch = epoch })
			for _, o := range []*member{a, b} {
				eventually(t, "news pass", func() bool { return o.View().Place(m.View().Region).Nodes[0].Epoch == epoch })
			}
		}
	}
	if a.refused("key") > 0 || b.refused("key") > 0 {
		t.Error("a packet was refused on the way")
	}
	old := start(t, "c", func(c *Config) { c.Keys, c.Seeds = []string{first}, []string{a.Addr()} })
	eventually(t, "the old key is refused", func() bool { return a.refused("key") > 0 })
	if old.ready() != "c:1" {
		t.Errorf("with the old key: %s", old.ready())
	}
	for _, bad := range [][]string{nil, {"short"}} {
		if a.SetKeys(bad) == nil {
			t.Errorf("the keys %q were accepted", bad)
		}
	}
}

// TestPartitionHeals cuts three regions in two until each side has given the other up, and mends it.
func TestPartitionHeals(t *testing.T) {
	var lan network
	on := func(side string, seeds ...*member) func(*Config) {
		return func(c *Config) {
			c.transport = lan.join(t, side)
			for _, s := range seeds {
				c.Seeds = append(c.Seeds, s.Addr())
			}
		}
	}
	a := start(t, "a", on("left"))
	b := start(t, "b", on("left", a))
	c := start(t, "c", on("right", a))
	all := []*member{a, b, c}
	for _, m := range all {
		eventually(t, "all meet", func() bool { return m.ready() == "a:1 b:1 c:1" })
	}
	lan.cut(true)
	eventually(t, "the sides lose each other", func() bool { return a.ready() == "a:1 b:1" && b.ready() == "a:1 b:1" && c.ready() == "c:1" })
	c.set(func(s *regions.NodeStatus) { s.Epoch = 5 })
	lan.cut(false)
	for _, m := range all {
		eventually(t, "all meet again", func() bool { return m.ready() == "a:1 b:1 c:1" && m.View().Place("c").Nodes[0].Epoch == 5 })
	}
}

// TestRoundTripsAndClocks: coordinates find the delay between two sides; a node with a wrong clock is told.
func TestRoundTripsAndClocks(t *testing.T) {
	lan := network{delay: 15 * time.Millisecond}
	a := start(t, "a", func(c *Config) { c.transport = lan.join(t, "left") })
	b := start(t, "b", func(c *Config) { c.transport, c.Seeds = lan.join(t, "left"), []string{a.Addr()} })
	start(t, "c", func(c *Config) { c.transport, c.Seeds = lan.join(t, "right"), []string{a.Addr()} })
	eventually(t, "c is found to be far and b near", func() bool {
		near, far := a.View().Place("b"), a.View().Place("c")
		return near != nil && far != nil && near.RTT > 0 && far.RTT > 20*time.Millisecond && far.RTT < 60*time.Millisecond && near.RTT < far.RTT/2
	})
	_ = b
}

func TestSkewMeter(t *testing.T) {
	var s skewMeter
	if s.bad() {
		t.Error("no sample is bad")
	}
	s.add(10*time.Millisecond, time.Millisecond)
	s.add(9*time.Second, 20*time.Second) // a delayed packet tells nothing
	if s.bad() || s.value() != 10*time.Millisecond {
		t.Errorf("%v", s.value())
	}
	for range 5 {
		s.add(-2*time.Second, 100*time.Millisecond)
	}
	if !s.bad() || s.value() != -2*time.Second {
		t.Errorf("%v is not bad", s.value())
	}
}

func TestDamper(t *testing.T) {
	var d damper
	now := time.Unix(1e9, 0)
	for i := range 3 {
		if d.suppressed(now) {
			t.Errorf("suppressed after %d deaths", i)
		}
		d.died(now)
		now = now.Add(5 * time.Second)
	}
	if !d.suppressed(now) {
		t.Error("three deaths in 15 s are no flapping")
	}
	at := now
	for d.suppressed(now) {
		now = now.Add(time.Second)
	}
	if took := now.Sub(at); took < time.Minute || took > 3*time.Minute {
		t.Errorf("trusted again after %v", took)
	}
	for range 100 {
		d.died(now)
	}
	at = now
	for d.suppressed(now) {
		now = now.Add(time.Second)
	}
	if took := now.Sub(at); took > 4*time.Minute {
		t.Errorf("after a hundred deaths it takes %v", took)
	}
	for range 10 { // now and then is no flapping
		d.died(now)
		now = now.Add(3 * time.Minute)
	}
	if d.suppressed(now) {
		t.Error("a death every three minutes counts as flapping")
	}
}

// TestFlappingNodeIsNotUsed kills and revives a node until it is not trusted, as seen by another.
func TestFlappingNodeIsNotUsed(t *testing.T) {
	var lan network
	a := start(t, "a", func(c *Config) { c.transport = lan.join(t, "left") })
	b := start(t, "b", func(c *Config) { c.transport, c.Seeds = lan.join(t, "right"), []string{a.Addr()} })
	eventually(t, "they meet", func() bool { return a.ready() == "a:1 b:1" })
	for range 3 {
		lan.cut(true)
		eventually(t, "b is lost", func() bool { p := a.View().Place("b"); return !p.Nodes[0].Alive })
		lan.cut(false)
		eventually(t, "b is back", func() bool { p := a.View().Place("b"); return p.Nodes[0].Alive })
	}
	eventually(t, "b is not trusted", func() bool { n := a.View().Place("b").Nodes[0]; return n.Alive && n.Flapping && !n.Ready() })
	if b.ready() == "" {
		t.Error("b does not trust itself")
	}
}

// TestClockThatWentBack: a node that starts with a clock behind that of its former life is heard all the same.
func TestClockThatWentBack(t *testing.T) {
	a := start(t, "a", nil)
	first := start(t, "b", func(c *Config) { c.Name, c.Seeds = "b/1", []string{a.Addr()} })
	eventually(t, "they meet", func() bool { return a.ready() == "a:1 b:1" })
	first.Gossip.mu.Lock()
	first.own.Born += int64(time.Hour)
	first.again = true
	first.Gossip.mu.Unlock()
	first.set(func(s *regions.NodeStatus) { s.Epoch = 1 })
	eventually(t, "the later life is heard", func() bool { return a.View().Place("b").Nodes[0].Epoch == 1 })
	first.stop()
	second := start(t, "b", func(c *Config) { c.Name, c.Seeds = "b/1", []string{a.Addr()} })
	second.set(func(s *regions.NodeStatus) { s.Epoch = 2 })
	eventually(t, "the earlier life is heard", func() bool { n := a.View().Place("b").Nodes[0]; return n.Epoch == 2 && n.Ready() })
}

func TestConfigFaults(t *testing.T) {
	status := func() regions.NodeStatus { return regions.NodeStatus{} }
	good := Config{Cluster: "c", Listen: "127.0.0.1:0", Region: "r", Status: status}
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
	bad := Config{Cluster: "", Listen: "x", Advertise: "y", Region: "R", Seeds: []string{"z", "h:0"}, Keys: []string{"k"}, Name: strings.Repeat("n", 200)}
	err := bad.Validate()
	for _, want := range []string{"deployment", "listen", "advertise", "region", `seed "z"`, `seed "h:0"`, "key 1", "Status", "name has more"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the faults %v do not name %s", err, want)
		}
	}
	if _, err := New(bad); err == nil {
		t.Error("New takes it")
	}
	long := good
	long.Status = func() regions.NodeStatus { return regions.NodeStatus{Point: geo.Point{Lat: 91}} }
	if _, err := New(long); err == nil {
		t.Error("a point that is none is accepted")
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	inUse := good
	inUse.Listen, inUse.Log = taken.Addr().String(), slog.New(slog.NewTextHandler(io.Discard, nil))
	g, err := New(inUse)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "listen for gossip on "+inUse.Listen) {
		t.Errorf("a port in use: %v", err)
	}
}

// TestStatusFitsIntoAPacket: the longest status that is sent fits, and comes out as it went in.
func TestStatusFitsIntoAPacket(t *testing.T) {
	s := regions.NodeStatus{Name: strings.Repeat("n", maxName), Region: "a234567890123456789012345678901b", Point: geo.Point{Lat: -89.123456789, Lng: -179.123456789}, Health: regions.Unhealthy,
		Reason: strings.Repeat("r", 500), API: "https://" + strings.Repeat("a", 100), Cluster: strings.Repeat("c", 60), Admin: strings.Repeat("d", 60), Version: strings.Repeat("v", 80),
		Load: 123456.7, Capacity: 1234567.8, Spill: 0.1234, Writes: true, Lag: time.Hour, Epoch: 1 << 60, Position: 1 << 63}
	g, err := New(Config{Cluster: "c", Listen: "127.0.0.1:0", Region: "r", Status: func() regions.NodeStatus { return regions.NodeStatus{} }})
	if err != nil {
		t.Fatal(err)
	}
	m := newMessage(s, g.coords.GetCoordinate())
	m.Born, m.Seq = time.Now().UnixNano(), 1<<40
	b, err := m.encode()
	if err != nil {
		t.Fatal(err)
	}
	back, err := decodeMessage(b)
	if err != nil {
		t.Fatal(err)
	}
	s.Reason, s.Version = s.Reason[:maxReason], s.Version[:40]
	if got := back.status(); fmt.Sprint(got) != fmt.Sprint(s) {
		t.Errorf("sent %+v\n got %+v", s, got)
	}
	m.API = strings.Repeat("a", 900)
	if _, err := m.encode(); err == nil {
		t.Error("a status that does not fit is sent")
	}
}

func FuzzDecodeMessage(f *testing.F) {
	f.Add([]byte(`{"v":1,"b":1,"q":1,"n":"a","r":"b","la":1,"lo":2,"h":"healthy","c":[1,2,3,4,5,6,7,8]}`))
	f.Add([]byte(`{"v":1,"b":1,"n":"a","r":"b","la":1e99}`))
	f.Add([]byte(`[]`))
	g, err := New(Config{Cluster: "c", Listen: "127.0.0.1:0", Region: "r", Status: func() regions.NodeStatus { return regions.NodeStatus{} }})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		g.NotifyMsg(b)
		g.MergeRemoteState(b, false)
		g.NotifyPingComplete(&memberlist.Node{Name: "a"}, time.Millisecond, b)
		_ = g.admit(&memberlist.Node{Name: "a", Meta: b})
		g.mu.Lock()
		g.makeViewLocked(time.Now())
		g.mu.Unlock()
		g.View().Route(regions.Client{}, nil)
		if m, err := decodeMessage(b); err == nil {
			if _, err := m.encode(); err != nil && len(b) < maxStatus/4 {
				t.Errorf("%s is accepted but cannot be sent on: %v", b, err)
			}
		}
	})
}
