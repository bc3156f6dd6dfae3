package regions

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"github.com/shortline/shortline/geo"
)

// Health is what a node says of itself.
type Health string

// The kinds of health. Only Healthy nodes are given to clients while there is one.
const (
	Healthy   Health = "healthy"
	Starting  Health = "starting" // it has no snapshot yet
	Unhealthy Health = "unhealthy"
	Stopping  Health = "stopping"
)

// NodeStatus is what a node tells the others of itself.
type NodeStatus struct {
	Name   string // unique in the deployment
	Region ID
	Point  geo.Point // of the region
	Health Health
	Reason string // why it is not healthy, for people

	API     string       // base URL for clients
	Cluster string       // host:port for other nodes; empty: it does not listen for them
	Admin   string       // base URL of the admin port
	Addrs   []netip.Addr // for DNS
	Version string

	Load     float64 // requests a second
	Capacity float64 // the same that it is meant to bear; 0: not set
	Spill    float64 // share of the clients nearest to its region that should go elsewhere, see Spill

	Writes   bool          // its region takes writes, as far as it knows
	Lag      time.Duration // how far its memory may be behind the primary
	Epoch    uint64        // that its memory has come to
	Position LSN           // that its memory has come to
}

// Node is one node as it is known here.
type Node struct {
	NodeStatus
	Alive    bool          // as far as gossip knows
	Flapping bool          // it came and went so often lately that it is not trusted yet
	Silent   bool          // it is alive but has not told of itself for long
	Heard    time.Time     // when it last told of itself
	RTT      time.Duration // estimated round trip from this node; 0: not known
	Skew     time.Duration // how far its clock is ahead of this node's
}

// Ready tells whether clients may be sent to the node.
func (n *Node) Ready() bool { return n.Alive && !n.Flapping && !n.Silent && n.Health == Healthy }

// Place is one region as its nodes and the control plane make it.
type Place struct {
	ID      ID
	Point   geo.Point
	State   RegionState // what the control plane says of it; zero where there is none
	Primary bool
	Nodes   []Node // by name
	Ready   int    // how many of them clients may be sent to
	// Load is the part of the capacity of the nodes alive that is in use; 0 where no capacity is set.
	Load     float64
	Capacity float64 // requests a second, of the nodes alive
	Spill    float64
	RTT      time.Duration // the median of its nodes' that is known; 0: not known
	Lag      time.Duration // the least of its ready nodes'
}

// View is what one node knows of all regions at one moment: a hint, never the authority on who writes. It is not changed
// once it is made and may be read by anybody.
type View struct {
	Self   string // the node whose view it is
	Region ID     // and its region
	At     time.Time
	Epoch  uint64  // of the control plane; 0: not known
	Places []Place // by ID
}

// NewView puts together what is known. state is what the control plane agreed on, nil where there is none, or nothing is known of it
// yet. It takes over nodes.
func NewView(self string, region ID, nodes []Node, state *State, now time.Time) *View {
	slices.SortFunc(nodes, func(a, b Node) int {
		return cmp.Or(cmp.Compare(a.Region, b.Region), cmp.Compare(a.Name, b.Name))
	})
	v := &View{Self: self, Region: region, At: now}
	if state == nil {
		state = new(State)
	}
	v.Epoch = state.PrimaryEpoch
	for len(nodes) > 0 {
		n := 1
		for n < len(nodes) && nodes[n].Region == nodes[0].Region {
			n++
		}
		v.Places = append(v.Places, newPlace(nodes[:n:n], state))
		nodes = nodes[n:]
	}
	for id, r := range state.Regions {
		if i := slices.IndexFunc(v.Places, func(p Place) bool { return p.ID == id }); i >= 0 {
			v.Places[i].Point = r.Point // one authority on where it is
			continue
		}
		v.Places = append(v.Places, Place{ID: id, Point: r.Point, State: r, Primary: state.Primary == id})
	}
	slices.SortFunc(v.Places, func(a, b Place) int { return cmp.Compare(a.ID, b.ID) })
	return v
}

// Alone is the view of a node that knows of no other.
func Alone(s NodeStatus, now time.Time) *View {
	s.Writes = true
	return NewView(s.Name, s.Region, []Node{{NodeStatus: s, Alive: true, Heard: now}}, nil, now)
}

// newPlace sums up the nodes of one region.
func newPlace(nodes []Node, state *State) Place {
	id := nodes[0].Region
	out := Place{ID: id, Point: nodes[0].Point, State: state.Regions[id], Primary: state.Primary == id, Nodes: nodes}
	var load, spill float64
	var alive int
	var rtts []time.Duration
	for i := range nodes {
		n := &nodes[i]
		if !n.Alive {
			continue
		}
		if alive++; alive == 1 {
			out.Point = n.Point
		}
		if state.Primary == "" && n.Writes {
			out.Primary = true
		}
		if n.RTT > 0 {
			rtts = append(rtts, n.RTT)
		}
		if n.Ready() {
			if out.Ready++; out.Ready == 1 || n.Lag < out.Lag {
				out.Lag = n.Lag
			}
			load, spill, out.Capacity = load+n.Load, spill+n.Spill, out.Capacity+n.Capacity
		}
	}
	if out.Ready > 0 {
		out.Spill = spill / float64(out.Ready)
	}
	if out.Capacity > 0 {
		out.Load = load / out.Capacity
	}
	if len(rtts) > 0 {
		slices.Sort(rtts)
		out.RTT = rtts[len(rtts)/2]
	}
	return out
}

// Place returns the region, nil where it is not known.
func (v *View) Place(id ID) *Place {
	i, ok := slices.BinarySearchFunc(v.Places, id, func(p Place, id ID) int { return cmp.Compare(p.ID, id) })
	if !ok {
		return nil
	}
	return &v.Places[i]
}

// Primary tells which region takes writes, by what the control plane agreed on or else by what nodes say. ok is false while there is none.
// It is a hint: who acknowledges a write is decided under the lease.
func (v *View) Primary() (id ID, ok bool) {
	for i := range v.Places {
		if v.Places[i].Primary {
			return v.Places[i].ID, true
		}
	}
	return "", false
}

// Listeners returns the nodes of a region that are alive and listen for other nodes, those that are ready first.
func (v *View) Listeners(id ID) []Node {
	p := v.Place(id)
	if p == nil {
		return nil
	}
	var ready, rest []Node
	for _, n := range p.Nodes {
		switch {
		case !n.Alive || n.Cluster == "":
		case n.Ready():
			ready = append(ready, n)
		default:
			rest = append(rest, n)
		}
	}
	return append(ready, rest...)
}

// Headroom is how many requests a second the other regions could take before they are at limit of their capacity.
func (v *View) Headroom(id ID, limit float64) float64 {
	var sum float64
	for i := range v.Places {
		if p := &v.Places[i]; p.ID != id && p.fault() == Fit {
			sum += max(0, limit-p.Load) * p.Capacity
		}
	}
	return sum
}
