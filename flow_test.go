package shortline

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// report is the length of a line at a time, in seconds.
type report struct {
	at     float64
	length int
}

// lineOf plays a line day by day, twelve hours each: who comes waits for one of the counters, which need work() × pace × counters
// seconds for a person. load is how many come for each that could be served, by the hour of the day. It returns every event.
func lineOf(r *rand.Rand, days int, pace float64, counters int, work func() float64, load func(hour float64) float64) (events []report) {
	const most = 2.0 // of load
	for day := range days {
		start := float64(day) * 86400
		at, length, ends := start, 0, []float64(nil) // ends: when each busy counter has done
		comes := at + r.ExpFloat64()*pace/most
		for at < start+12*3600 || length > 0 {
			next, counter := comes, -1
			for i, t := range ends {
				if t < next {
					next, counter = t, i
				}
			}
			at = next
			switch {
			case counter >= 0:
				ends = slices.Delete(ends, counter, counter+1)
				length--
			case at > start+12*3600: // closed to those who come
				comes = math.Inf(1)
				continue
			default:
				comes = at + r.ExpFloat64()*pace/most
				if r.Float64()*most > load((at-start)/3600) {
					continue
				}
				length++
			}
			if len(ends) < min(length, counters) {
				ends = append(ends, at+work()*pace*float64(counters))
			}
			events = append(events, report{at, length})
		}
	}
	return events
}

// everySoOften looks at a line from time to time.
func everySoOften(events []report, seconds float64, onlyChanges bool) (seen []report) {
	i := 0
	for at := events[0].at; i < len(events)-1; at += seconds {
		for i+1 < len(events) && events[i+1].at <= at {
			i++
		}
		if onlyChanges && len(seen) > 0 && seen[len(seen)-1].length == events[i].length {
			continue
		}
		seen = append(seen, report{at, events[i].length})
	}
	return seen
}

// learn feeds reports to the rules that a store applies.
func learn(reports []report, deltas bool) Flow {
	var f Flow
	var q Queue
	for i, p := range reports {
		u := QueueUpdate{Length: &p.length, ObservedAt: time.UnixMilli(int64(p.at * 1000))}
		if d := p.length - q.Length; deltas && i > 0 {
			u.Length, u.Delta = nil, &d
		}
		after := u.Apply(u.ObservedAt, &q).Queue
		f = f.Seen(&u, &q, &after)
		q = after
	}
	return f
}

// The error of what is learned, by how a line is and how it is reported. -v prints the table.
func TestFlow(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 12))
	regular := func() float64 { // Erlang, coefficient of variation 0.5
		return (r.ExpFloat64() + r.ExpFloat64() + r.ExpFloat64() + r.ExpFloat64()) / 4
	}
	uneven := func() float64 { // lognormal, coefficient of variation 1
		return math.Exp(r.NormFloat64()*math.Sqrt(math.Ln2) - math.Ln2/2)
	}
	rushes := func(hour float64) float64 { return 0.75 + 0.55*math.Sin(2*math.Pi*hour/4) }
	quiet := func(float64) float64 { return 0.35 }
	reports := []struct {
		name                  string
		of                    func([]report) Flow
		least, rushed, calmed float64 // of what was learned over what is; the most in a shop with rushes, and in a quiet one
	}{
		{"each event as a delta", func(e []report) Flow { return learn(e, true) }, 0.7, 1.15, 1.45},
		{"each event as a length", func(e []report) Flow { return learn(e, false) }, 0.65, 1.15, 1.45},
		{"changes, looked for every 20 s", func(e []report) Flow { return learn(everySoOften(e, 20, true), false) }, 0.65, 1.45, 1.45},
		{"10 s", func(e []report) Flow { return learn(everySoOften(e, 10, false), false) }, 0.7, 1.3, 1.4},
		{"30 s", func(e []report) Flow { return learn(everySoOften(e, 30, false), false) }, 0.75, 1.4, 1.5},
		{"60 s", func(e []report) Flow { return learn(everySoOften(e, 60, false), false) }, 0.75, 1.45, 1.8},
		{"120 s", func(e []report) Flow { return learn(everySoOften(e, 120, false), false) }, 0.75, 1.45, 2.7},
		{"300 s", func(e []report) Flow { return learn(everySoOften(e, 300, false), false) }, 0.75, 1.5, 6.5},
	}
	for _, line := range []struct {
		name     string
		counters int
		work     func() float64
		quiet    bool
	}{
		{"rushes, exponential", 1, r.ExpFloat64, false},
		{"rushes, uneven", 1, uneven, false},
		{"rushes, regular", 1, regular, false},
		{"rushes, regular, three counters", 3, regular, false},
		{"quiet, exponential", 1, r.ExpFloat64, true},
		{"quiet, regular", 1, regular, true},
		{"quiet, regular, three counters", 3, regular, true},
	} {
		for _, pace := range []float64{20, 45, 120, 300} {
			load := rushes
			if line.quiet {
				load = quiet
			}
			events := lineOf(r, 20, pace, line.counters, line.work, load)
			var row []float64
			for _, how := range reports {
				got, most := how.of(events).ServiceS()/pace, how.rushed
				if line.quiet {
					most = how.calmed
				}
				row = append(row, got)
				if got < how.least || got > most {
					t.Errorf("%s, %.0f s a person, reported by %s: %.2f of that is learned, want %.2f to %.2f", line.name, pace, how.name, got, how.least, most)
				}
			}
			t.Logf("%-34s %3.0f s: %.2f", line.name, pace, row)
		}
	}
}

// Two hundred people are enough for a pace within a quarter, nine times of ten.
func TestFlowLearnsInADay(t *testing.T) {
	r := rand.New(rand.NewPCG(13, 14))
	for _, every := range []float64{0, 30} {
		far := 0
		for range 100 {
			events := lineOf(r, 1, 120, 1, r.ExpFloat64, func(float64) float64 { return 0.8 })
			if every > 0 {
				events = everySoOften(events, every, false)
			}
			if got := learn(events, false).ServiceS(); math.Abs(got/120-1) > 0.25 {
				far++
			}
		}
		if far > 10 {
			t.Errorf("reported every %.0f s: in %d days of 100 what is learned is off by more than a quarter", every, far)
		}
	}
}

// The pace follows when it changes.
func TestFlowForgets(t *testing.T) {
	r := rand.New(rand.NewPCG(15, 16))
	busy := func(float64) float64 { return 0.9 }
	before, after := lineOf(r, 10, 120, 1, r.ExpFloat64, busy), lineOf(r, 10, 40, 1, r.ExpFloat64, busy)
	for i := range after {
		after[i].at += 10 * 86400
	}
	if got := learn(append(before, after...), false).ServiceS(); math.Abs(got/40-1) > 0.2 {
		t.Errorf("%.1f s are learned, want 40", got)
	}
}

func TestFlowSeen(t *testing.T) {
	at := time.Date(2026, 11, 30, 9, 0, 0, 0, time.UTC)
	known := Flow{Served: 100, BusyMS: 4_000_000}
	for _, c := range []struct {
		name          string
		before, after int
		delta         bool
		gap           time.Duration
		want          Flow
	}{
		{"one less", 5, 4, false, 30 * time.Second, Flow{101, 4_030_000}},
		{"one more", 5, 6, false, 30 * time.Second, Flow{100, 4_030_000}},
		{"the same again", 5, 5, false, 30 * time.Second, Flow{100, 4_030_000}},
		{"three less", 5, 2, false, 30 * time.Second, Flow{106, 4_030_000}},
		{"three more hide three", 5, 8, false, 30 * time.Second, Flow{103, 4_030_000}},
		{"three counted out", 5, 2, true, 30 * time.Second, Flow{103, 4_030_000}},
		{"three counted in", 5, 8, true, 30 * time.Second, Flow{100, 4_030_000}},
		{"hardly anybody there", 1, 0, false, 30 * time.Second, known},
		{"a recount", 20, 5, false, 30 * time.Second, known},
		{"a long time ago", 5, 4, false, time.Hour, known},
		{"no event for long", 5, 4, true, time.Hour, Flow{100, 4_480_000}},
		{"a clock that went back", 5, 4, false, -time.Second, known},
	} {
		u, before, after := QueueUpdate{Length: &c.after}, Queue{Length: c.before, UpdatedAt: at}, Queue{Length: c.after, UpdatedAt: at.Add(c.gap)}
		if c.delta {
			d := c.after - c.before
			u = QueueUpdate{Delta: &d}
		}
		if got := known.Seen(&u, &before, &after); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
	for _, c := range []struct {
		flow Flow
		want float64
	}{{Flow{}, 0}, {Flow{19, 19_000}, 0}, {Flow{20, 400_000}, 40}, {Flow{980, 0}, 1.2}, {Flow{500, 1 << 50}, 3600}} {
		if got := c.flow.ServiceS(); got != c.want {
			t.Errorf("%+v makes %v s, want %v", c.flow, got, c.want)
		}
	}
}
