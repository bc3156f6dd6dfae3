package regions

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"math"
	"time"

	"github.com/shortline/shortline/geo"
)

// MaxLag is how far the memory of a region may be behind before clients are sent to one that is nearer the present.
const MaxLag = time.Minute

// sameDistance is how close two distances must be for the regions to count as equally near.
const sameDistance geo.Metres = 1

// Fault is why clients should not use a region.
type Fault uint8

// The faults, of which a region has the first that applies.
const (
	Fit     Fault = iota // there is none
	Down                 // no node is ready
	Off                  // it is draining or drained
	Behind               // its memory is too old
	Spilled              // it has too much to do, and this client is one of those that should go elsewhere
)

// fault tells what bars every client from the place.
func (p *Place) fault() Fault {
	switch {
	case p.Ready == 0:
		return Down
	case p.State.Duty != Active && p.State.Duty != "":
		return Off
	case p.Lag > MaxLag:
		return Behind
	}
	return Fit
}

// Client is who is to be sent to a region.
type Client struct {
	Point geo.Point
	// Key tells clients apart, so that the same ones leave a region that has too much to do as long as it has; see ClientKey.
	Key uint64
}

// ClientKey makes a Client's Key of what names it, such as its network.
func ClientKey(name string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(name))
	return h.Sum64()
}

// Choice is one region for a client.
type Choice struct {
	Place    *Place
	Distance geo.Metres
	Fault    Fault
}

// Route is every region in the order in which a client should try them.
type Route struct {
	Choices []Choice
	// Desperate says that no region is fit, and that the order is as if all were.
	Desperate bool
}

// Route is where a client should go: the nearest region by great circle among those that are fit, ties by round trip from
// this node, then by name; the ones that are not fit come last, in the same order. Of the clients of a region that has too
// much to do, its share Spill is sent to the next. When no region is fit, it is as if all were. It appends to buf, which
// may be nil.
func (v *View) Route(c Client, buf []Choice) Route {
	r := Route{Choices: buf[:0]}
	fit := 0
	for i := range v.Places {
		p := &v.Places[i]
		if p.State.Witness && len(p.Nodes) == 0 {
			continue
		}
		f := p.fault()
		if f == Fit {
			fit++
		}
		r.Choices = append(r.Choices, Choice{Place: p, Distance: geo.Distance(c.Point, p.Point), Fault: f})
	}
	r.Desperate = fit == 0
	for i := 1; i < len(r.Choices); i++ { // few, and nearly always in order of ID: insertion is the quickest
		for j := i; j > 0 && v.before(&r.Choices[j], &r.Choices[j-1], r.Desperate); j-- {
			r.Choices[j], r.Choices[j-1] = r.Choices[j-1], r.Choices[j]
		}
	}
	spill(c.Key, r.Choices[:fit])
	return r
}

// before is the order of a route, spill aside.
func (v *View) before(a, b *Choice, desperate bool) bool {
	if fitA, fitB := a.Fault == Fit, b.Fault == Fit; fitA != fitB && !desperate {
		return fitA
	}
	if d := a.Distance - b.Distance; d < -sameDistance || d > sameDistance {
		return d < 0
	}
	return cmp.Or(cmp.Compare(v.rtt(a.Place), v.rtt(b.Place)), cmp.Compare(a.Place.ID, b.Place.ID)) < 0
}

// rtt orders places by round trip: this node's own first, those that were not measured last.
func (v *View) rtt(p *Place) time.Duration {
	switch {
	case p.ID == v.Region:
		return 0
	case p.RTT == 0:
		return math.MaxInt64
	}
	return p.RTT
}

// spill moves the first region that keeps the client to the front. Which clients a region keeps depends on the client and
// the region alone: as its share grows, more of them leave and no other moves.
func spill(key uint64, fit []Choice) {
	for i := range fit {
		if kept(key, fit[i].Place) {
			keeper := fit[i]
			for j := range fit[:i] {
				fit[j].Fault = Spilled
			}
			copy(fit[1:i+1], fit[:i])
			fit[0] = keeper
			return
		}
	}
}

// kept tells whether the client is one of those that may stay.
func kept(key uint64, p *Place) bool {
	if p.Spill <= 0 {
		return true
	}
	h := fnv.New64a()
	var b [8]byte
	for i := range b {
		b[i] = byte(key >> (8 * i))
	}
	_, _ = h.Write(b[:])
	_, _ = h.Write([]byte(p.ID))
	x := h.Sum64() // FNV leaves the upper bits poorly mixed for short inputs
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	return float64(x>>11)/(1<<53) >= p.Spill
}

// Why says in words why the region has its place in the route.
func (c *Choice) Why() string {
	p := c.Place
	switch c.Fault {
	case Down:
		return fmt.Sprintf("none of its %d nodes is ready", len(p.Nodes))
	case Off:
		return "it is " + string(p.State.Duty)
	case Behind:
		return fmt.Sprintf("its memory is %v behind", p.Lag.Round(time.Second))
	case Spilled:
		return fmt.Sprintf("it is at %.0f %% of its capacity, and %.0f %% of its clients, this one too, go to the next", p.Load*100, p.Spill*100)
	}
	return "it is fit"
}

// Explain says in one sentence why the first region is the first.
func (r *Route) Explain() string {
	if len(r.Choices) == 0 {
		return "no region is known"
	}
	first := &r.Choices[0]
	if r.Desperate {
		return fmt.Sprintf("no region is fit, so all count as if they were: %s is the nearest, at %.0f km", first.Place.ID, float64(first.Distance)/1000)
	}
	nearer := ""
	for i := range r.Choices[1:] {
		if c := &r.Choices[1+i]; c.Distance < first.Distance-sameDistance {
			nearer += fmt.Sprintf("; %s, at %.0f km, is nearer, but %s", c.Place.ID, float64(c.Distance)/1000, c.Why())
		}
	}
	return fmt.Sprintf("%s is the nearest region that is fit, at %.0f km%s", first.Place.ID, float64(first.Distance)/1000, nearer)
}
