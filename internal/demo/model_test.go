package demo

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/shortline/shortline"
)

// wednesday and saturday are midnights in UTC.
var (
	wednesday = time.Date(2026, 3, 4, 0, 0, 0, 0, time.UTC)
	saturday  = time.Date(2026, 3, 7, 0, 0, 0, 0, time.UTC)
)

// daytime is open from 8 to 18.
type daytime struct{}

func (daytime) OpenAt(local time.Time) bool { return local.Hour() >= 8 && local.Hour() < 18 }

func dice() *rand.Rand { return rand.New(rand.NewPCG(1, 2)) }

func someShops(n int, hours opening) []shop {
	out := make([]shop, n)
	for i := range out {
		out[i] = newShop(shortline.StoreID(fmt.Sprintf("s-%d", i)), time.UTC, hours, float64(25+i%66))
	}
	return out
}

func TestShopsDiffer(t *testing.T) {
	var counters [4]int
	var sum, sumSq float64
	shops := someShops(3000, nil)
	for _, s := range shops {
		counters[s.counters]++
		l := math.Log(s.popularity)
		sum, sumSq = sum+l, sumSq+l*l
	}
	n := float64(len(shops))
	mean, sd := sum/n, math.Sqrt(sumSq/n-sum/n*sum/n)
	if math.Abs(mean) > 0.05 || math.Abs(sd-0.55) > 0.05 {
		t.Errorf("the logarithm of popularity has mean %.3f and deviation %.3f, want 0 and 0.55", mean, sd)
	}
	for c := 1; c <= 3; c++ {
		if counters[c] < 800 {
			t.Errorf("%d of %d shops have %d counters, want a third", counters[c], len(shops), c)
		}
	}
}

func TestAClosedShopDrains(t *testing.T) {
	r := dice()
	for _, s := range someShops(200, daytime{}) {
		closing := wednesday.Add(18 * time.Hour)
		st := state{length: 20, at: closing}
		for now := closing; now.Before(closing.Add(50 * time.Minute)); now = now.Add(10 * time.Second) {
			next := s.step(st, now, r)
			if next.length > st.length {
				t.Fatalf("the line of a closed shop grew from %d to %d", st.length, next.length)
			}
			st = next
		}
		st = s.step(st, closing.Add(time.Hour), r) // 20 people at up to 90 s each need half an hour
		if st.length != 0 {
			t.Errorf("an hour after closing %d people are in line", st.length)
		}
		if got := s.step(state{}, wednesday.Add(3*time.Hour), r).length; got != 0 {
			t.Errorf("the first reading of a closed shop is %d", got)
		}
	}
}

func TestRhythmOfTheDay(t *testing.T) {
	shops := someShops(2000, nil)
	mean := func(at time.Time) float64 {
		r, sum := dice(), 0
		for _, s := range shops {
			st := s.step(state{}, at.Add(-50*time.Minute), r)
			sum += s.step(st, at, r).length
		}
		return float64(sum) / float64(len(shops))
	}
	hour := func(day time.Time, h float64) float64 { return mean(day.Add(time.Duration(h * float64(time.Hour)))) }
	night, morning, lull, noon, afternoon := hour(wednesday, 3), hour(wednesday, 8.5), hour(wednesday, 11), hour(wednesday, 13), hour(wednesday, 15.75)
	t.Logf("means: night %.2f, morning %.2f, eleven %.2f, noon %.2f, afternoon %.2f", night, morning, lull, noon, afternoon)
	if night > 0.3 || morning < 3 || morning > 9 || noon < 1.5*lull || noon > morning || afternoon < lull {
		t.Error("a weekday has not the shape that it should have")
	}
	if early, late := hour(saturday, 8), hour(saturday, 11); late < 1.5*early || early > morning {
		t.Errorf("a Saturday has %.2f at 8 and %.2f at 11, want a late peak", early, late)
	}
}

func TestLengthsArePlausible(t *testing.T) {
	r := dice()
	var short, peak, all int
	for _, s := range someShops(500, daytime{}) {
		st := state{}
		for m := range 24 * 60 {
			st = s.step(st, wednesday.Add(time.Duration(m)*time.Minute), r)
			if st.length < 0 || st.length > maxLength {
				t.Fatalf("a length of %d", st.length)
			}
			all++
			if st.length <= 12 {
				short++
			}
			peak = max(peak, st.length)
		}
	}
	if float64(short) < 0.93*float64(all) || peak < 20 {
		t.Errorf("%d of %d lengths are at most 12, the longest is %d", short, all, peak)
	}
}

// The first reading has to look like any later one, or the world would visibly settle after a start.
func TestFirstReadingIsStationary(t *testing.T) {
	r := dice()
	for _, s := range someShops(6, nil) {
		for _, load := range []float64{0.1, 0.7, 1.5} {
			demand := load / s.serviceS
			const n = 4000
			var drawn, played int
			length := 0
			for range n {
				drawn += s.settled(demand, r)
				length = s.run(length, 20*s.serviceS, demand, r)
				played += length
			}
			a, b := float64(drawn)/n, float64(played)/n
			if math.Abs(a-b) > 0.1+0.1*a {
				t.Errorf("%d counters, load %.1f: drawn lengths have mean %.2f, played ones %.2f", s.counters, load, a, b)
			}
		}
	}
}

func TestStepIsDeterministic(t *testing.T) {
	play := func(seed uint64) (out []int) {
		r := rand.New(rand.NewPCG(seed, 0))
		for _, s := range someShops(20, nil) {
			st := state{}
			for m := range 300 {
				st = s.step(st, wednesday.Add(8*time.Hour+time.Duration(m)*time.Minute), r)
				out = append(out, st.length)
			}
		}
		return out
	}
	a, b, c := fmt.Sprint(play(1)), fmt.Sprint(play(1)), fmt.Sprint(play(2))
	if a != b {
		t.Error("the same seed gave two histories")
	}
	if a == c {
		t.Error("two seeds gave one history")
	}
}

func TestStepWithOddTimes(t *testing.T) {
	r := dice()
	s := newShop("odd", time.UTC, daytime{}, 60)
	noon := wednesday.Add(12 * time.Hour)
	if got := s.step(state{length: 7, at: noon}, noon, r); got != (state{7, noon}) {
		t.Errorf("no time passed, and the state is %+v", got)
	}
	for name, now := range map[string]time.Time{
		"a sleep of ten hours":                  noon.Add(14 * time.Hour),
		"a clock set back":                      noon.Add(-10 * time.Hour),
		"250 years, which nobody should replay": noon.Add(250*365*24*time.Hour + 14*time.Hour),
	} {
		if got := s.step(state{length: 30, at: noon}, now, r); got != (state{0, now}) {
			t.Errorf("after %s into the night the state is %+v", name, got)
		}
	}
}

func TestBusynessHasNoSteps(t *testing.T) {
	last := busyness(wednesday.Add(-time.Minute))
	for m := range 7 * 24 * 60 {
		at := wednesday.Add(time.Duration(m) * time.Minute)
		b := busyness(at)
		if b <= 0 || math.Abs(b-last) > 0.011 {
			t.Fatalf("%v: busyness goes from %.4f to %.4f within a minute", at, last, b)
		}
		last = b
	}
}
