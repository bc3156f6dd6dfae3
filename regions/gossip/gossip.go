package gossip

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/hashicorp/serf/coordinate"
	"golang.org/x/sync/errgroup"

	"github.com/shortline/shortline/regions"
)

const (
	publishEvery = time.Second
	// refreshEvery is how often a node tells of itself when nothing has changed; longer among many nodes.
	refreshEvery = 5 * time.Second
	// settle is how long changes gather before they make a view.
	settle = 20 * time.Millisecond
	// forgetLeft is how long a node that left is still shown.
	forgetLeft = time.Minute
)

// Gossip is this node's part in the gossip of a deployment.
type Gossip struct {
	cfg     Config
	name    string
	log     *slog.Logger
	keyring *memberlist.Keyring // nil: nothing is encrypted
	queue   *memberlist.TransmitLimitedQueue
	coords  *coordinate.Client
	metrics *metrics
	born    time.Time

	view  atomic.Pointer[regions.View]
	addr  atomic.Pointer[string]
	wake  chan struct{} // holds one: a view is to be made
	urge  chan struct{} // holds one: the own status is to be told again
	alive atomic.Int64  // nodes, this one included

	mu      sync.Mutex
	nodes   map[string]*node // guarded by mu; by name, this one included
	own     *message         // guarded by mu; as last told
	again   bool             // guarded by mu: tell it again even if nothing is new
	changed chan struct{}    // guarded by mu; closed and replaced when the view changes in what matters

	spill     regions.Spill // of the publisher alone
	published time.Time     // of the publisher alone
	stepped   time.Time     // of the publisher alone
}

// node is what is known of one node.
type node struct {
	msg    *message // nil until it told of itself
	raw    []byte   // of msg
	heard  time.Time
	member bool // memberlist has it as alive
	left   bool // it said that it was leaving
	since  time.Time
	addr   string // of its gossip
	damp   damper
	rtt    time.Duration // measured, smoothed
	skew   skewMeter
}

// New makes a Gossip. It starts nothing; see Run. Its View is of this node alone until then.
func New(cfg Config) (*Gossip, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg.defaults()
	coords, err := coordinate.NewClient(coordinate.DefaultConfig())
	if err != nil {
		return nil, fmt.Errorf("network coordinates: %w", err)
	}
	g := &Gossip{cfg: cfg, name: cfg.Name, log: cfg.Log, coords: coords, born: time.Now(), nodes: map[string]*node{}, changed: make(chan struct{}),
		wake: make(chan struct{}, 1), urge: make(chan struct{}, 1)}
	if g.name == "" {
		g.name = defaultName(&cfg)
	}
	g.queue = &memberlist.TransmitLimitedQueue{RetransmitMult: 3, NumNodes: func() int { return int(max(g.alive.Load(), 1)) }}
	if len(cfg.Keys) > 0 {
		if g.keyring, err = memberlist.NewKeyring(nil, deriveKey(cfg.Cluster, cfg.Keys[0])); err != nil {
			return nil, fmt.Errorf("gossip keys: %w", err)
		}
		if err := g.SetKeys(cfg.Keys); err != nil {
			return nil, err
		}
	}
	g.metrics = newMetrics(cfg.Registerer, g)
	m := newMessage(g.status(), nil)
	m.Born, m.Seq = g.born.UnixNano(), 1
	if err := m.check(); err != nil {
		return nil, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if err := g.setOwnLocked(m); err != nil {
		return nil, err
	}
	g.makeViewLocked(time.Now())
	return g, nil
}

// defaultName is the address at which the node is reached, or random where that is not known before it listens.
func defaultName(c *Config) string {
	addr := c.Advertise
	if addr == "" {
		addr = c.Listen
	}
	if host, port, err := splitAddr(addr); err != nil || port == 0 || host == "" || strings.Trim(host, "0.:") == "" {
		var b [4]byte
		_, _ = rand.Read(b[:]) // never returns an error
		host, _ := os.Hostname()
		addr = clip(host, 60) + "-" + hex.EncodeToString(b[:])
	}
	return clip(string(c.Region)+"/"+addr, maxName)
}

// Name is the node's own.
func (g *Gossip) Name() string { return g.name }

// View is what is known just now. It is never nil and costs nothing to ask for.
func (g *Gossip) View() *regions.View { return g.view.Load() }

// Changed returns a channel that is closed once the view has changed, since the call, in what matters for where to send
// something: who is ready, who takes writes, where.
func (g *Gossip) Changed() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.changed
}

// Refresh makes the node tell of itself, and look at what the control plane agreed on, at once instead of within a second.
func (g *Gossip) Refresh() { poke(g.urge) }

// Addr is the address that it listens on, empty before it does.
func (g *Gossip) Addr() string {
	if a := g.addr.Load(); a != nil {
		return *a
	}
	return ""
}

// SetKeys replaces the keys while it runs, by the rule of Config.Keys. To change a key, give every node the new one in second
// place, then in first place, then alone. A node that began without keys stays so, and the other way round.
func (g *Gossip) SetKeys(keys []string) error {
	if g.keyring == nil || len(keys) == 0 {
		if g.keyring == nil && len(keys) == 0 {
			return nil
		}
		return errors.New("gossip cannot change between keys and none while it runs; restart the node")
	}
	want := map[string]bool{}
	for i, k := range keys {
		if len(k) < 16 {
			return fmt.Errorf("gossip key %d is shorter than 16 bytes", i+1)
		}
		d := deriveKey(g.cfg.Cluster, k)
		want[string(d)] = true
		if err := g.keyring.AddKey(d); err != nil {
			return fmt.Errorf("gossip key %d: %w", i+1, err)
		}
	}
	if err := g.keyring.UseKey(deriveKey(g.cfg.Cluster, keys[0])); err != nil {
		return fmt.Errorf("gossip key 1: %w", err)
	}
	for _, k := range g.keyring.GetKeys() {
		if !want[string(k)] {
			if err := g.keyring.RemoveKey(k); err != nil {
				return fmt.Errorf("remove a gossip key: %w", err)
			}
		}
	}
	return nil
}

// Run takes part until ctx ends, then says goodbye and returns nil.
func (g *Gossip) Run(ctx context.Context) error {
	mc, err := g.memberlistConfig()
	if err != nil {
		return err
	}
	ml, err := memberlist.Create(mc)
	if err != nil {
		return fmt.Errorf("listen for gossip on %s: %w", g.cfg.Listen, err)
	}
	addr := ml.LocalNode().Address()
	g.addr.Store(&addr)
	if g.keyring == nil {
		g.log.Warn("gossip is not encrypted and anybody who reaches its port can take part; set --cluster-key, or keep it in a private network")
	}
	g.log.Info("gossip listens", "addr", addr, "node", g.name, "cluster", g.cfg.Cluster)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return g.publish(ctx) })
	group.Go(func() error { return g.watch(ctx) })
	group.Go(func() error { return g.rejoin(ctx, ml) })
	err = group.Wait()
	return errors.Join(err, g.leave(ml))
}

// leave tells the others that this node goes on purpose, so that nobody takes it for a failure.
func (g *Gossip) leave(ml *memberlist.Memberlist) error {
	status := g.status()
	status.Health, status.Reason = regions.Stopping, "it was stopped"
	g.mu.Lock()
	m := g.nextLocked(status)
	err := g.setOwnLocked(m)
	raw := g.nodes[g.name].raw
	g.mu.Unlock()
	if err == nil {
		for _, n := range ml.Members() { // by name: the queue may be long
			if n.Name != g.name {
				_ = ml.SendBestEffort(n, raw) // they learn by probing otherwise
			}
		}
	}
	if err := ml.Leave(time.Second); err != nil {
		g.log.Info("left without a word: nobody took it in time", "err", err)
	}
	return ml.Shutdown()
}

// status asks for this node's own and fills in what is ours.
func (g *Gossip) status() regions.NodeStatus {
	s := g.cfg.Status()
	s.Name, s.Region = g.name, g.cfg.Region
	s.API, s.Cluster, s.Admin = clip(s.API, maxText), clip(s.Cluster, maxText), clip(s.Admin, maxText)
	s.Addrs = s.Addrs[:min(len(s.Addrs), maxAddrs)]
	return s
}

// publish tells the others of this node: at once what matters, the rest every few seconds.
func (g *Gossip) publish(ctx context.Context) error {
	tick := time.NewTicker(publishEvery)
	defer tick.Stop()
	for {
		g.tell(time.Now())
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-g.urge:
		}
	}
}

func (g *Gossip) tell(now time.Time) {
	status := g.status()
	status.Spill = g.stepSpill(now)
	g.mu.Lock()
	defer g.mu.Unlock()
	m := g.nextLocked(status)
	every := max(refreshEvery, time.Duration(g.alive.Load())*50*time.Millisecond)
	spread := g.again || g.own.Seq == 1 || !m.sameNews(g.own) || now.Sub(g.published) >= every
	if !spread {
		m.Seq = g.own.Seq // others have that one; what they are told next is newer
		g.nodes[g.name].msg, g.nodes[g.name].heard = m, now
		poke(g.wake)
		return
	}
	if err := g.setOwnLocked(m); err != nil {
		g.log.Error("cannot tell the other nodes of this one", "err", err)
		return
	}
	g.published, g.again = now, false
	g.queue.QueueBroadcast(broadcast{g.name, g.nodes[g.name].raw})
	poke(g.wake)
}

// stepSpill finds the share of clients to send elsewhere.
func (g *Gossip) stepSpill(now time.Time) float64 {
	passed := now.Sub(g.stepped)
	first := g.stepped.IsZero()
	g.stepped = now
	place := g.View().Place(g.cfg.Region)
	if place == nil || place.Capacity == 0 || first {
		return 0
	}
	room := g.View().Headroom(g.cfg.Region, regions.SpillLimit) / place.Capacity
	return g.spill.Step(place.Load, place.Spill, room, passed)
}

// nextLocked makes the message that follows the own one.
func (g *Gossip) nextLocked(s regions.NodeStatus) *message {
	m := newMessage(s, g.coords.GetCoordinate())
	m.Born, m.Seq = g.own.Born, g.own.Seq+1
	return m
}

func (g *Gossip) setOwnLocked(m *message) error {
	raw, err := m.encode()
	if err != nil {
		return err
	}
	n := g.nodes[g.name]
	if n == nil {
		n = &node{member: true, since: time.Now()}
		g.nodes[g.name] = n
	}
	n.msg, n.raw, n.heard = m, raw, time.Now()
	g.own = m
	return nil
}

// watch makes views: soon after something changed, and every second, because time alone changes some of it.
func (g *Gossip) watch(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-g.wake:
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(settle):
			}
		}
		now := time.Now()
		g.mu.Lock()
		g.forgetLocked(now)
		g.makeViewLocked(now)
		g.mu.Unlock()
	}
}

// forgetLocked drops nodes that are gone for long, and what was told of nodes that never were members.
func (g *Gossip) forgetLocked(now time.Time) {
	for name, n := range g.nodes {
		gone := now.Sub(n.since)
		if !n.member && (gone > g.cfg.Forget || gone > forgetLeft && (n.left || n.addr == "")) {
			delete(g.nodes, name)
			g.coords.ForgetNode(name)
		}
	}
}

func (g *Gossip) makeViewLocked(now time.Time) {
	nodes := make([]regions.Node, 0, len(g.nodes))
	alive := int64(0)
	trusted := g.coords.GetCoordinate().Error < 0.8
	for name, n := range g.nodes {
		if n.member {
			alive++
		}
		if n.msg == nil {
			continue
		}
		out := regions.Node{NodeStatus: n.msg.status(), Alive: n.member, Heard: n.heard, RTT: n.rtt, Skew: n.skew.value()}
		if name != g.name {
			out.Flapping = n.damp.suppressed(now)
			out.Silent = n.member && now.Sub(n.heard) > g.cfg.Silence
			if c := n.msg.coordinate(); trusted && c != nil && c.Error < 0.8 && g.coords.GetCoordinate().IsCompatibleWith(c) {
				out.RTT = g.coords.DistanceTo(c)
			}
		}
		nodes = append(nodes, out)
	}
	g.alive.Store(alive)
	next := regions.NewView(g.name, g.cfg.Region, nodes, g.cfg.State(), now)
	last := g.view.Swap(next)
	if last != nil && matters(last, next) {
		close(g.changed)
		g.changed = make(chan struct{})
	}
}

// matters tells whether two views differ in where something is to be sent.
func matters(a, b *regions.View) bool {
	if len(a.Places) != len(b.Places) || a.Epoch != b.Epoch {
		return true
	}
	for i := range a.Places {
		p, q := &a.Places[i], &b.Places[i]
		if p.ID != q.ID || p.State.Duty != q.State.Duty || p.Primary != q.Primary || p.Ready != q.Ready || len(p.Nodes) != len(q.Nodes) {
			return true
		}
		for j := range p.Nodes {
			n, m := &p.Nodes[j], &q.Nodes[j]
			if n.Name != m.Name || n.Ready() != m.Ready() || n.API != m.API || n.Cluster != m.Cluster || n.Writes != m.Writes {
				return true
			}
		}
	}
	return false
}

func poke(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}
