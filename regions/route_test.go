package regions

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shortline/shortline/geo"
)

// ready is a node that clients may be sent to.
func ready(region ID, p geo.Point, change ...func(*Node)) Node {
	n := Node{NodeStatus: NodeStatus{Name: string(region) + "/1", Region: region, Point: p, Health: Healthy, API: "http://" + string(region)}, Alive: true}
	for _, c := range change {
		c(&n)
	}
	return n
}

var (
	usEast = geo.Point{Lat: 38.9, Lng: -77.4}
	euWest = geo.Point{Lat: 53.3, Lng: -6.3}
	apNE   = geo.Point{Lat: 35.7, Lng: 139.7}
	london = geo.Point{Lat: 51.5, Lng: -0.1}

	places = map[ID]geo.Point{"us-east": usEast, "eu-west": euWest, "ap-northeast": apNE}
)

func order(r Route) string {
	var names []string
	for _, c := range r.Choices {
		names = append(names, string(c.Place.ID))
	}
	return strings.Join(names, " ")
}

func TestRoute(t *testing.T) {
	dead := func(n *Node) { n.Alive = false }
	tests := []struct {
		name   string
		change map[ID]func(*Node)
		state  *State
		want   string
		why    string // in the explanation
	}{
		{name: "nearest first", want: "eu-west us-east ap-northeast", why: "eu-west is the nearest region that is fit, at 466 km"},
		{name: "nearest is dead", change: map[ID]func(*Node){"eu-west": dead}, want: "us-east ap-northeast eu-west", why: "eu-west, at 466 km, is nearer, but none of its 1 nodes is ready"},
		{name: "nearest is starting", change: map[ID]func(*Node){"eu-west": func(n *Node) { n.Health = Starting }}, want: "us-east ap-northeast eu-west"},
		{name: "nearest flaps", change: map[ID]func(*Node){"eu-west": func(n *Node) { n.Flapping = true }}, want: "us-east ap-northeast eu-west"},
		{name: "nearest is silent", change: map[ID]func(*Node){"eu-west": func(n *Node) { n.Silent = true }}, want: "us-east ap-northeast eu-west"},
		{name: "nearest is far behind", change: map[ID]func(*Node){"eu-west": func(n *Node) { n.Lag = MaxLag + 1 }}, want: "us-east ap-northeast eu-west", why: "1m0s behind"},
		{name: "nearest is draining", state: &State{Regions: map[ID]RegionState{"eu-west": {Point: places["eu-west"], Duty: Draining}}}, want: "us-east ap-northeast eu-west", why: "it is draining"},
		{name: "nearest is drained", state: &State{Regions: map[ID]RegionState{"eu-west": {Point: places["eu-west"], Duty: Drained}}}, want: "us-east ap-northeast eu-west", why: "it is drained"},
		{name: "all dead", change: map[ID]func(*Node){"eu-west": dead, "us-east": dead, "ap-northeast": dead}, want: "eu-west us-east ap-northeast", why: "no region is fit"},
		{name: "all drained or dead", change: map[ID]func(*Node){"eu-west": dead, "us-east": dead}, state: &State{Regions: map[ID]RegionState{"ap-northeast": {Point: places["ap-northeast"], Duty: Drained}}}, want: "eu-west us-east ap-northeast"},
		{name: "overloaded", change: map[ID]func(*Node){"eu-west": func(n *Node) { n.Spill, n.Load, n.Capacity = 1, 300, 100 }}, want: "us-east eu-west ap-northeast", why: "it is at 300 % of its capacity"},
		{name: "two overloaded", change: map[ID]func(*Node){"eu-west": func(n *Node) { n.Spill = 1 }, "us-east": func(n *Node) { n.Spill = 1 }}, want: "ap-northeast eu-west us-east"},
		{name: "all overloaded", change: map[ID]func(*Node){"eu-west": func(n *Node) { n.Spill = 1 }, "us-east": func(n *Node) { n.Spill = 1 }, "ap-northeast": func(n *Node) { n.Spill = 1 }},
			want: "eu-west us-east ap-northeast"},
		{name: "known but never heard of", state: &State{Regions: map[ID]RegionState{"uk": {Point: london}, "w": {Point: london, Witness: true}}}, want: "eu-west us-east ap-northeast uk"},
		{name: "control knows better where it is", state: &State{Regions: map[ID]RegionState{"us-east": {Point: london}}}, want: "us-east eu-west ap-northeast"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var nodes []Node
			for id, p := range places {
				n := ready(id, p)
				if c := tt.change[id]; c != nil {
					c(&n)
				}
				nodes = append(nodes, n)
			}
			r := NewView("x", "us-east", nodes, tt.state, time.Time{}).Route(Client{Point: london}, nil)
			if got := order(r); got != tt.want {
				t.Errorf("the order is %s, want %s", got, tt.want)
			}
			if got := r.Explain(); !strings.Contains(got, tt.why) {
				t.Errorf("the explanation is %q, want %q in it", got, tt.why)
			}
		})
	}
	if r := NewView("x", "us-east", nil, nil, time.Time{}).Route(Client{}, nil); len(r.Choices) != 0 || r.Explain() == "" {
		t.Errorf("no region: %v", r)
	}
}

// TestRouteTies: regions at one place are told apart by round trip, then by name.
func TestRouteTies(t *testing.T) {
	rtt := func(d time.Duration) func(*Node) { return func(n *Node) { n.RTT = d } }
	view := func(self ID, nodes ...Node) *View { return NewView("x", self, nodes, nil, time.Time{}) }
	for want, v := range map[string]*View{
		"a b c":  view("z", ready("c", london), ready("b", london), ready("a", london)),
		"c a b":  view("z", ready("a", london), ready("b", london), ready("c", london, rtt(9))),
		"b c a":  view("z", ready("a", london, rtt(30)), ready("b", london, rtt(10)), ready("c", london, rtt(20))),
		"e2 e1 ": view("e2", ready("e1", london, rtt(1)), ready("e2", london, rtt(2))), // its own is nearest
	} {
		if got := order(v.Route(Client{Point: apNE}, nil)); got != strings.TrimSpace(want) {
			t.Errorf("the order is %s, want %s", got, want)
		}
	}
}

// haversine is the textbook's formula, not ours.
func haversine(a, b geo.Point) float64 {
	rad := func(d float64) float64 { return d * math.Pi / 180 }
	s := math.Pow(math.Sin(rad(b.Lat-a.Lat)/2), 2) + math.Cos(rad(a.Lat))*math.Cos(rad(b.Lat))*math.Pow(math.Sin(rad(b.Lng-a.Lng)/2), 2)
	return 2 * 6_371_008.8 * math.Asin(math.Min(1, math.Sqrt(s)))
}

// world is a view of n regions at random places, some of them unfit.
func world(rng *rand.Rand, n int) *View {
	var nodes []Node
	for i := range n {
		id := ID(fmt.Sprintf("r%02d", i))
		nodes = append(nodes, ready(id, randomPoint(rng), func(n *Node) {
			n.Alive = i == 0 || rng.IntN(4) > 0
		}))
	}
	return NewView("x", "r00", nodes, nil, time.Time{})
}

func randomPoint(rng *rand.Rand) geo.Point {
	return geo.Point{Lat: math.Asin(2*rng.Float64()-1) * 180 / math.Pi, Lng: rng.Float64()*360 - 180}
}

// TestRouteAgainstBruteForce compares with a full sort by another formula at 10,000 places.
func TestRouteAgainstBruteForce(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var v *View
	var buf []Choice
	for i := range 10_000 {
		if i%100 == 0 {
			v = world(rng, 1+rng.IntN(12))
		}
		c := Client{Point: randomPoint(rng), Key: rng.Uint64()}
		want := slices.Clone(v.Places)
		slices.SortFunc(want, func(a, b Place) int {
			return cmp.Or(cmp.Compare(b.Ready, a.Ready), cmp.Compare(haversine(c.Point, a.Point), haversine(c.Point, b.Point)))
		})
		r := v.Route(c, buf)
		buf = r.Choices
		for j, choice := range r.Choices {
			if choice.Place.ID != want[j].ID {
				t.Fatalf("at %v, place %d: %s, brute force says %s", c.Point, j, choice.Place.ID, want[j].ID)
			}
			if d := haversine(c.Point, want[j].Point); math.Abs(d-float64(choice.Distance)) > 1 {
				t.Fatalf("%s is at %v m, want %v", choice.Place.ID, choice.Distance, d)
			}
		}
	}
}

func BenchmarkRoute(b *testing.B) {
	for _, n := range []int{3, 12, 30} {
		b.Run(fmt.Sprintf("regions=%d", n), func(b *testing.B) {
			rng := rand.New(rand.NewPCG(1, 2))
			v := world(rng, n)
			points := make([]geo.Point, 1024)
			for i := range points {
				points[i] = randomPoint(rng)
			}
			var buf []Choice
			took := make([]time.Duration, 0, 1<<20)
			i := 0
			for b.Loop() {
				start := time.Now()
				buf = v.Route(Client{Point: points[i%1024], Key: uint64(i)}, buf).Choices
				if i++; len(took) < cap(took) {
					took = append(took, time.Since(start))
				}
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)*99/100].Nanoseconds()), "p99-ns")
		})
	}
}

// TestSpillKeepsClients: as the share grows, clients only leave, and about as many as it says.
func TestSpillKeepsClients(t *testing.T) {
	const clients = 20_000
	gone := make([]bool, clients)
	for _, share := range []float64{0, 0.1, 0.25, 0.5, 0.9, 1} {
		v := NewView("x", "us-east", []Node{ready("eu-west", euWest, func(n *Node) { n.Spill = share }), ready("us-east", usEast)}, nil, time.Time{})
		left := 0
		for i := range clients {
			first := v.Route(Client{Point: london, Key: ClientKey(fmt.Sprintf("10.%d.%d.0/24", i/256, i%256))}, nil).Choices[0].Place.ID
			if first == "eu-west" && gone[i] {
				t.Fatalf("client %d came back as the share grew to %v", i, share)
			}
			gone[i] = first != "eu-west"
			if gone[i] {
				left++
			}
		}
		if got := float64(left) / clients; math.Abs(got-share) > 0.02 {
			t.Errorf("a share of %v sends %v of the clients away", share, got)
		}
	}
}

func TestView(t *testing.T) {
	nodes := []Node{
		ready("b", london, func(n *Node) { n.Name, n.RTT, n.Lag, n.Load, n.Capacity, n.Spill = "2", 30, 5, 50, 100, 0.1 }),
		ready("b", london, func(n *Node) { n.Name, n.RTT, n.Lag, n.Load, n.Capacity, n.Spill = "1", 10, 9, 100, 100, 0.3 }),
		ready("b", london, func(n *Node) { n.Name, n.RTT, n.Alive = "3", 20, false }),
		ready("a", euWest, func(n *Node) { n.Writes = true }),
	}
	v := NewView("1", "b", nodes, &State{Regions: map[ID]RegionState{"b": {Point: london, Duty: Draining}}, PrimaryEpoch: 7}, time.Time{})
	b := v.Place("b")
	if b == nil || b.Ready != 2 || b.RTT != 30 || b.Lag != 5 || b.Load != 0.75 || b.Capacity != 200 || b.Spill != 0.2 || b.State.Duty != Draining || len(b.Nodes) != 3 || b.Nodes[0].Name != "1" || v.Epoch != 7 {
		t.Errorf("b is %+v", b)
	}
	if v.Place("c") != nil {
		t.Error("there is a c")
	}
	if id, ok := v.Primary(); id != "a" || !ok {
		t.Errorf("the primary is %q, %v", id, ok)
	}
	v = NewView("1", "b", nodes, &State{Primary: "b"}, time.Time{})
	if id, ok := v.Primary(); id != "b" || !ok {
		t.Errorf("the control plane's word does not count: %q, %v", id, ok)
	}
	alone := Alone(NodeStatus{Name: "n", Region: "local", Health: Healthy}, time.Time{})
	if id, ok := alone.Primary(); id != "local" || !ok || alone.Place("local").Ready != 1 {
		t.Errorf("alone: %+v", alone)
	}
}
