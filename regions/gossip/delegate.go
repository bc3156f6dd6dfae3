package gossip

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/hashicorp/serf/coordinate"

	"github.com/shortline/shortline/regions"
)

// The callbacks of memberlist. Those of events hold its lock: nothing here may call memberlist, or block.

// meta goes with every word that a node lives; it is what decides whether the node belongs here.
type meta struct {
	Cluster string     `json:"c"`
	Region  regions.ID `json:"r"`
}

// NodeMeta is part of memberlist.Delegate.
func (g *Gossip) NodeMeta(limit int) []byte {
	b, err := json.Marshal(meta{g.cfg.Cluster, g.cfg.Region})
	if err != nil || len(b) > limit {
		return nil // cannot be: both are bounded
	}
	return b
}

// admit tells why a node does not belong here.
func (g *Gossip) admit(n *memberlist.Node) error {
	var m meta
	if err := json.Unmarshal(n.Meta, &m); err != nil {
		return fmt.Errorf("node %s does not say which deployment it belongs to", clip(n.Name, 40))
	}
	if m.Cluster != g.cfg.Cluster {
		return fmt.Errorf("node %s belongs to the deployment %q, this one is %q", clip(n.Name, 40), clip(m.Cluster, 40), g.cfg.Cluster)
	}
	if _, err := regions.ParseID(string(m.Region)); err != nil {
		return fmt.Errorf("node %s: %w", clip(n.Name, 40), err)
	}
	if n.Name == "" || len(n.Name) > maxName || !printable(n.Name) {
		return fmt.Errorf("a node is called %q", clip(n.Name, 40))
	}
	return nil
}

// NotifyAlive is part of memberlist.AliveDelegate.
func (g *Gossip) NotifyAlive(n *memberlist.Node) error {
	err := g.admit(n)
	if err != nil {
		g.metrics.refused.WithLabelValues("deployment").Inc()
	}
	return err
}

// NotifyMerge is part of memberlist.MergeDelegate.
func (g *Gossip) NotifyMerge(nodes []*memberlist.Node) error {
	for _, n := range nodes {
		if err := g.NotifyAlive(n); err != nil {
			return err
		}
	}
	return nil
}

// NotifyJoin is part of memberlist.EventDelegate.
func (g *Gossip) NotifyJoin(n *memberlist.Node) {
	now := time.Now()
	g.mu.Lock()
	defer g.mu.Unlock()
	k := g.nodes[n.Name]
	if k == nil {
		if len(g.nodes) >= maxNodes {
			g.metrics.refused.WithLabelValues("too-many").Inc()
			return
		}
		k = &node{heard: now}
		g.nodes[n.Name] = k
	}
	if !k.member {
		g.log.Info("node joined", "node", n.Name, "addr", n.Address())
	}
	k.member, k.left, k.since, k.addr, k.heard = true, false, now, n.Address(), now
	g.alive.Add(1) // corrected with the next view
	poke(g.wake)
}

// NotifyUpdate is part of memberlist.EventDelegate.
func (g *Gossip) NotifyUpdate(n *memberlist.Node) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if k := g.nodes[n.Name]; k != nil {
		k.addr = n.Address()
	}
	poke(g.wake)
}

// NotifyLeave is part of memberlist.EventDelegate: the node died, or left.
func (g *Gossip) NotifyLeave(n *memberlist.Node) {
	now := time.Now()
	g.mu.Lock()
	defer g.mu.Unlock()
	k := g.nodes[n.Name]
	if k == nil || n.Name == g.name {
		return
	}
	k.member, k.since = false, now
	k.left = k.msg != nil && k.msg.Health == regions.Stopping
	if k.left {
		g.log.Info("node left", "node", n.Name)
	} else {
		k.damp.died(now)
		g.log.Warn("node is not reached any more", "node", n.Name, "addr", n.Address())
	}
	poke(g.wake)
}

// NotifyConflict is part of memberlist.ConflictDelegate.
func (g *Gossip) NotifyConflict(existing, other *memberlist.Node) {
	g.metrics.refused.WithLabelValues("name").Inc()
	g.metrics.warn(g.log, "two nodes have one name; give each its own", "node", existing.Name, "addr", existing.Address(), "other", other.Address())
}

// NotifyMsg is part of memberlist.Delegate: another node's status came by.
func (g *Gossip) NotifyMsg(b []byte) {
	m, err := decodeMessage(b)
	if err != nil {
		g.metrics.refused.WithLabelValues("malformed").Inc()
		g.metrics.warn(g.log, "ignored what another node sent", "err", err)
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.mergeLocked(m, b) {
		g.queue.QueueBroadcast(broadcast{m.Name, g.nodes[m.Name].raw})
	}
}

// mergeLocked takes a status over if it is news.
func (g *Gossip) mergeLocked(m *message, raw []byte) bool {
	if m.Name == g.name {
		if m.newer(g.own) && m.Born <= time.Now().Add(24*time.Hour).UnixNano() { // of a life before this one, when the clock was ahead
			g.own.Born, g.again = m.Born+1, true
			poke(g.urge)
		}
		return false
	}
	now := time.Now()
	k := g.nodes[m.Name]
	if k == nil {
		if len(g.nodes) >= maxNodes {
			g.metrics.refused.WithLabelValues("too-many").Inc()
			return false
		}
		k = &node{since: now}
		g.nodes[m.Name] = k
	}
	if k.msg != nil {
		if !m.newer(k.msg) {
			return false
		}
		if restarted := m.Born - k.msg.Born; restarted > int64(100*time.Millisecond) && k.member && k.msg.Health != regions.Stopping {
			k.damp.died(now) // it came back before anybody missed it
		}
	}
	if m.Health == regions.Stopping && !k.member && !k.left && now.Sub(k.since) < publishEvery*5 {
		k.left = true // its goodbye was overtaken by the news that it is gone
		k.damp.forgive()
	}
	k.msg, k.raw, k.heard = m, append([]byte(nil), raw...), now
	poke(g.wake)
	return true
}

// GetBroadcasts is part of memberlist.Delegate.
func (g *Gossip) GetBroadcasts(overhead, limit int) [][]byte {
	return g.queue.GetBroadcasts(overhead, limit)
}

// LocalState is part of memberlist.Delegate: everything known, for a whole exchange.
func (g *Gossip) LocalState(bool) []byte {
	g.mu.Lock()
	all := make([]json.RawMessage, 0, len(g.nodes))
	for _, n := range g.nodes {
		if n.raw != nil && (n.member || time.Since(n.since) < g.cfg.Forget) {
			all = append(all, n.raw)
		}
	}
	g.mu.Unlock()
	b, err := json.Marshal(all)
	if err != nil {
		return nil // cannot be: each was encoded or decoded before
	}
	return b
}

// MergeRemoteState is part of memberlist.Delegate.
func (g *Gossip) MergeRemoteState(b []byte, _ bool) {
	var all []json.RawMessage
	if len(b) > maxSync || json.Unmarshal(b, &all) != nil || len(all) > maxNodes {
		g.metrics.refused.WithLabelValues("malformed").Inc()
		return
	}
	for _, raw := range all {
		m, err := decodeMessage(raw)
		if err != nil {
			g.metrics.refused.WithLabelValues("malformed").Inc()
			continue
		}
		g.mu.Lock()
		g.mergeLocked(m, raw)
		g.mu.Unlock()
	}
}

// pongVersion is the first byte of what goes with the answer to a probe.
const pongVersion = 1

// AckPayload is part of memberlist.PingDelegate: the answer to a probe carries the time and the coordinate of this node.
func (g *Gossip) AckPayload() []byte {
	c := g.coords.GetCoordinate()
	b := make([]byte, 0, 9+8*(3+len(c.Vec)))
	b = append(b, pongVersion)
	b = binary.LittleEndian.AppendUint64(b, uint64(time.Now().UnixNano()))
	for _, x := range append([]float64{c.Error, c.Adjustment, c.Height}, c.Vec...) {
		b = binary.LittleEndian.AppendUint64(b, math.Float64bits(x))
	}
	return b
}

// NotifyPingComplete is part of memberlist.PingDelegate.
func (g *Gossip) NotifyPingComplete(other *memberlist.Node, rtt time.Duration, b []byte) {
	now := time.Now()
	if len(b) < 9+8*3 || len(b) > 9+8*32 || len(b)%8 != 1 || b[0] != pongVersion || rtt <= 0 {
		return
	}
	clock := time.Unix(0, int64(binary.LittleEndian.Uint64(b[1:])))
	var xs []float64
	for rest := b[9:]; len(rest) > 0; rest = rest[8:] {
		xs = append(xs, math.Float64frombits(binary.LittleEndian.Uint64(rest)))
	}
	c := &coordinate.Coordinate{Error: xs[0], Adjustment: xs[1], Height: xs[2], Vec: xs[3:]}
	if _, err := g.coords.Update(other.Name, c, rtt); err != nil {
		g.metrics.refused.WithLabelValues("coordinate").Inc()
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	k := g.nodes[other.Name]
	if k == nil {
		return
	}
	if k.rtt == 0 {
		k.rtt = rtt
	}
	k.rtt += (rtt - k.rtt) / 8
	before := k.skew.bad()
	k.skew.add(clock.Add(rtt/2).Sub(now), rtt)
	if bad := k.skew.bad(); bad && !before {
		g.log.Warn("the clocks of two nodes are apart; set both by NTP", "node", other.Name, "ahead", k.skew.value().Round(time.Millisecond))
	} else if before && !bad {
		g.log.Info("the clocks of two nodes agree again", "node", other.Name)
	}
}

// maxSkew is how far clocks may be apart, beside what a round trip leaves open, before it is told.
const maxSkew = 500 * time.Millisecond

// skewMeter keeps the last few differences of clocks, of which the one that was measured in the shortest round trip is best.
type skewMeter struct {
	skew, rtt [5]time.Duration
	n         int
}

func (s *skewMeter) add(skew, rtt time.Duration) {
	s.skew[s.n%len(s.skew)], s.rtt[s.n%len(s.rtt)] = skew, rtt
	s.n++
}

func (s *skewMeter) best() int {
	best := 0
	for i := range min(s.n, len(s.rtt)) {
		if s.rtt[i] < s.rtt[best] {
			best = i
		}
	}
	return best
}

func (s *skewMeter) value() time.Duration { return s.skew[s.best()] }

func (s *skewMeter) bad() bool {
	i := s.best()
	return s.n > 0 && s.skew[i].Abs() > maxSkew+s.rtt[i]/2
}

// broadcast is one status on its way to others; a newer one of the same node takes its place.
type broadcast struct {
	name string
	raw  []byte
}

// Invalidates is part of memberlist.Broadcast.
func (b broadcast) Invalidates(other memberlist.Broadcast) bool {
	o, ok := other.(broadcast)
	return ok && o.name == b.name
}

// Name is part of memberlist.NamedBroadcast.
func (b broadcast) Name() string { return b.name }

// Message is part of memberlist.Broadcast.
func (b broadcast) Message() []byte { return b.raw }

// Finished is part of memberlist.Broadcast.
func (broadcast) Finished() {}
