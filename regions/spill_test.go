package regions

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

// spillWorld is three regions of 1,000 requests a second, whose clients follow a new share only when their answer from DNS
// has run out, and whose load is told with the delay of a moving average and of gossip.
type spillWorld struct {
	demand [3]float64 // of the clients nearest to each
	decide func(region int, load, share, room float64) float64

	share, told, load [3]float64
	clients           [3][]spillClient
	now               int
}

type spillClient struct {
	draw  float64 // it leaves while the share is greater
	away  bool
	until int // second at which it asks again
}

func newSpillWorld(decide func(int, float64, float64, float64) float64) *spillWorld {
	w := &spillWorld{decide: decide}
	rng := rand.New(rand.NewPCG(3, 4))
	for r := range w.clients {
		for range 2000 {
			w.clients[r] = append(w.clients[r], spillClient{draw: rng.Float64(), until: rng.IntN(30)})
		}
	}
	return w
}

// second lets one second pass: clients ask again, loads follow, and every second second the regions decide.
func (w *spillWorld) second() {
	w.now++
	now := w.now
	var got [3]float64
	for r := range w.clients {
		next := (r + 1) % 3
		for i := range w.clients[r] {
			c := &w.clients[r][i]
			if now >= c.until {
				c.away, c.until = c.draw < w.share[r], now+30
			}
			if c.away {
				got[next] += w.demand[r] / 2000
			} else {
				got[r] += w.demand[r] / 2000
			}
		}
	}
	for r := range w.load {
		w.load[r] = got[r] / 1000
		w.told[r] += (w.load[r] - w.told[r]) / 10
	}
	if now%2 == 0 {
		old := w.share
		for r := range w.share {
			room := 0.0
			for o := range w.told {
				if o != r {
					room += max(0, SpillLimit-w.told[o])
				}
			}
			w.share[r] = w.decide(r, w.told[r], old[r], room)
		}
	}
}

// settle runs for some minutes and returns the load of the first region at the end, the greatest and least of its last ten minutes, and
// how often it turned from rising to falling by more than a hundredth.
func (w *spillWorld) settle(minutes int) (end, high, low float64, turns int) {
	low = math.Inf(1)
	mark, rising := w.load[0], true
	for now := range minutes * 60 {
		w.second()
		l := w.load[0]
		if now > (minutes-10)*60 {
			high, low = max(high, l), min(low, l)
		}
		if rising && l > mark || !rising && l < mark {
			mark = l
		} else if math.Abs(l-mark) > 0.02 {
			mark, rising = l, !rising
			turns++
		}
	}
	return w.load[0], high, low, turns
}

func stepper() func(int, float64, float64, float64) float64 {
	var s [3]Spill
	return func(r int, load, share, room float64) float64 { return s[r].Step(load, share, room, 2*time.Second) }
}

// TestSpillDoesNotOscillate: a region with 160 % of its capacity comes to the limit within minutes, once, and stays.
func TestSpillDoesNotOscillate(t *testing.T) {
	w := newSpillWorld(stepper())
	w.demand = [3]float64{1600, 400, 300}
	end, high, low, turns := w.settle(20)
	t.Logf("load at the end %.3f, %.3f to %.3f in the last ten minutes, %d turns, share %.3f, the next at %.3f", end, low, high, turns, w.share[0], w.load[1])
	if math.Abs(end-SpillLimit) > 0.04 || high-low > 0.05 || turns > 3 {
		t.Errorf("it does not settle at %v: end %v, %v to %v, %d turns", SpillLimit, end, low, high, turns)
	}
	w.demand[0] = 500 // the rush is over
	end, _, _, _ = w.settle(20)
	if w.share[0] != 0 || math.Abs(end-0.5) > 0.01 {
		t.Errorf("after the rush the share is %v and the load %v", w.share[0], end)
	}
}

// TestSpillMutant: without patience the same world swings for ever, which the measure notices.
func TestSpillMutant(t *testing.T) {
	w := newSpillWorld(func(_ int, load, share, _ float64) float64 {
		if wish := load / (1 - min(share, 0.95)); wish > SpillLimit {
			return 1 - SpillLimit/wish
		}
		return 0
	})
	w.demand = [3]float64{1600, 400, 300}
	if end, high, low, turns := w.settle(20); high-low < 0.05 && turns <= 3 {
		t.Errorf("the impatient rule passes: end %v, %v to %v, %d turns", end, low, high, turns)
	} else {
		t.Logf("the impatient rule: %.3f to %.3f in the last ten minutes, %d turns", low, high, turns)
	}
}

// TestSpillIntoFullRegions: what nobody can take stays where it is.
func TestSpillIntoFullRegions(t *testing.T) {
	w := newSpillWorld(stepper())
	w.demand = [3]float64{1600, 900, 900}
	_, _, _, turns := w.settle(30)
	t.Logf("loads %.3f, shares %.3f, %d turns", w.load, w.share, turns)
	if w.share[0] > 0.1 || turns > 3 {
		t.Errorf("shares %v with loads %v: there was no room for them", w.share, w.load)
	}
}

// TestSpillAgrees: a node that starts late takes over what the others publish.
func TestSpillAgrees(t *testing.T) {
	var late Spill
	if got := late.Step(0.8, 0.5, 10, 2*time.Second); math.Abs(got-0.5) > 0.02 {
		t.Errorf("a late node goes from 0.5 to %v", got)
	}
	var idle Spill
	if got := idle.Step(0, 0, 0, time.Second); got != 0 {
		t.Errorf("an idle one begins with %v", got)
	}
}
