package demo

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shortline/shortline"
)

// sent is one call of submit that was taken.
type sent struct {
	at      time.Time
	updates []shortline.QueueUpdate
}

// counter stands for the node: it takes batches and keeps the lengths.
type counter struct {
	mu    sync.Mutex // guards all below
	taken []sent
	last  map[shortline.StoreID]int
	calls int
	fail  func(ctx context.Context) error // if set, is asked first, without mu
}

func (c *counter) submit(ctx context.Context, updates []shortline.QueueUpdate) error {
	c.mu.Lock()
	c.calls++
	fail := c.fail
	c.mu.Unlock()
	if fail != nil {
		if err := fail(ctx); err != nil {
			return err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.last == nil {
		c.last = map[shortline.StoreID]int{}
	}
	c.taken = append(c.taken, sent{time.Now(), updates})
	for _, u := range updates {
		c.last[u.ID] = *u.Length
	}
	return nil
}

func (c *counter) setFail(fail func(ctx context.Context) error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fail = fail
}

func (c *counter) tried() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.calls
}

func (c *counter) sent() []sent {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.taken)
}

func (c *counter) lengths() map[shortline.StoreID]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.last)
}

// start runs a simulator in the bubble; stop cancels it and fails the test unless Run returns nil at that very moment.
func start(t *testing.T, s *Simulator) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	return func() {
		t.Helper()
		cancel()
		synctest.Wait()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Run returned %v after its context ended", err)
			}
		default:
			t.Error("Run goes on after its context has ended")
			<-done
		}
	}
}

// pass lets d go by, and what is due at its end happen too.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// wait stands for work that minds its context.
func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// at is a clock that shows the time when the bubble's stands at its start, and runs along with it.
func at(when time.Time) func() time.Time {
	begin := time.Now()
	return func() time.Time { return when.Add(time.Since(begin)) }
}

func mustNew(t *testing.T, cfg Config, stores []shortline.Store, submit Submit) *Simulator {
	t.Helper()
	s, err := New(cfg, stores, submit)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// openStores are always open, at noon by UTC.
func openStores(n int) []shortline.Store {
	out := make([]shortline.Store, n)
	for i := range out {
		out[i] = shortline.Store{ID: shortline.StoreID(fmt.Sprintf("s-%d", i)), Name: "S", Timezone: "Etc/UTC", ServiceS: float64(25 + i%66)}
	}
	return out
}

func TestFirstReadings(t *testing.T) {
	stores := mustStores(t)
	synctest.Test(t, func(t *testing.T) {
		var c counter
		stop := start(t, mustNew(t, Config{Now: at(wednesday.Add(12 * time.Hour))}, stores, c.submit))
		defer stop()
		pass(3*time.Second - time.Millisecond) // 12,000 at 4000/s
		lengths := c.lengths()
		if len(lengths) != len(stores) {
			t.Errorf("after 3 s %d of %d stores have a reading", len(lengths), len(stores))
		}
		total, busy := 0, 0
		for _, s := range c.sent() {
			total += len(s.updates)
		}
		if total != len(stores) {
			t.Errorf("%d first readings for %d stores", total, len(stores))
		}
		for _, n := range lengths {
			if n > 0 {
				busy++
			}
		}
		if busy < len(stores)/5 {
			t.Errorf("only %d stores have somebody in line", busy)
		}
	})
}

func TestUpdatesAreBoundedSpreadAndReal(t *testing.T) {
	for _, c := range []struct {
		rate  float64
		delay time.Duration // that submit takes
	}{{0, 0}, {200, 0}, {37.5, 0}, {0.8, 0}, {1000, 0}, {200, 400 * time.Millisecond}} {
		t.Run(fmt.Sprintf("rate %v, delay %v", c.rate, c.delay), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var n counter
				if c.delay > 0 {
					n.setFail(func(ctx context.Context) error { return wait(ctx, c.delay) })
				}
				stores := openStores(6000)
				sim := mustNew(t, Config{Rate: c.rate, FillRate: 1e5, Now: at(wednesday.Add(8 * time.Hour))}, stores, n.submit)
				stop := start(t, sim)
				pass(time.Minute)
				first := len(n.sent())
				if got := len(n.lengths()); got != len(stores) {
					t.Fatalf("%d stores have a reading after a minute", got)
				}
				pass(5 * time.Minute)
				stop()
				all := n.sent()
				for _, s := range all {
					if len(s.updates) > BatchSize {
						t.Errorf("a batch of %d", len(s.updates))
					}
				}
				checkChanges(t, all)
				rate := c.rate
				if rate == 0 {
					rate = 200
				}
				checkRate(t, all[first:], rate, c.delay == 0)
			})
		})
	}
}

// checkChanges fails where a store was told the length that it had been told last.
func checkChanges(t *testing.T, all []sent) {
	t.Helper()
	last := map[shortline.StoreID]int{}
	for _, s := range all {
		for _, u := range s.updates {
			if n, ok := last[u.ID]; ok && n == *u.Length {
				t.Fatalf("%s is told %d twice running", u.ID, n)
			}
			if u.Delta != nil || !u.ObservedAt.IsZero() {
				t.Fatalf("not an absolute length of now: %+v", u)
			}
			last[u.ID] = *u.Length
		}
	}
}

// checkRate fails where any second saw more than rate, give or take one update, or one tick's worth if submit is slow; and
// where far fewer came, although the morning has more changes than that to tell.
func checkRate(t *testing.T, got []sent, rate float64, exact bool) {
	t.Helper()
	most := rate + 1
	if !exact {
		most = rate * (1 + 2*tick.Seconds())
	}
	total := 0
	for i, s := range got {
		total += len(s.updates)
		second := 0
		for _, u := range got[i:] {
			if u.at.Sub(s.at) >= time.Second {
				break
			}
			second += len(u.updates)
		}
		if float64(second) > most {
			t.Fatalf("%d updates within a second, the rate is %v", second, rate)
		}
	}
	perSecond := float64(total) / (5 * time.Minute).Seconds()
	if perSecond > rate*1.01+0.1 || exact && perSecond < min(rate, 100)*0.9 {
		t.Errorf("%.1f updates a second, the rate is %v", perSecond, rate)
	}
	t.Logf("%.1f updates a second", perSecond)
}

func TestFewStoresAreLeftInPeace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c counter
		stores := openStores(40)
		for i := range stores {
			stores[i].ServiceS = 1 // the lines change all the time
		}
		stop := start(t, mustNew(t, Config{Now: at(wednesday.Add(8 * time.Hour))}, stores, c.submit))
		pass(10 * time.Minute)
		stop()
		times := map[shortline.StoreID]int{}
		for _, s := range c.sent() {
			for _, u := range s.updates {
				times[u.ID]++
			}
		}
		for id, n := range times {
			if n > 1+int(10*time.Minute/restless) {
				t.Errorf("%s was updated %d times in ten minutes", id, n)
			}
		}
	})
}

func TestNightAndNoon(t *testing.T) {
	stores := openStores(1500)
	for i := range stores {
		stores[i].Timezone = "Asia/Tokyo" // noon there is 3:00 UTC
	}
	mean := func(utc time.Duration) (mean float64) {
		synctest.Test(t, func(t *testing.T) {
			var c counter
			stop := start(t, mustNew(t, Config{Now: at(wednesday.Add(utc))}, stores, c.submit))
			pass(20 * time.Minute)
			stop()
			for _, n := range c.lengths() {
				mean += float64(n) / float64(len(stores))
			}
		})
		return mean
	}
	noon, night := mean(3*time.Hour+30*time.Minute), mean(18*time.Hour)
	if noon < 1.5 || night > 0.3 {
		t.Errorf("mean lengths are %.2f at noon and %.2f at night", noon, night)
	}
}

func TestClosingTime(t *testing.T) {
	stores := openStores(800)
	for i := range stores {
		stores[i].Hours = "Mo-Su 08:00-18:00"
	}
	synctest.Test(t, func(t *testing.T) {
		var c counter
		stop := start(t, mustNew(t, Config{Now: at(wednesday.Add(17*time.Hour + 50*time.Minute))}, stores, c.submit))
		defer stop()
		waiting := func() (sum int) {
			for _, n := range c.lengths() {
				sum += n
			}
			return sum
		}
		pass(5 * time.Minute)
		if waiting() < len(stores)/2 {
			t.Errorf("before closing time %d people wait at %d stores", waiting(), len(stores))
		}
		pass(65 * time.Minute)
		if waiting() != 0 {
			t.Errorf("an hour after closing time %d people wait", waiting())
		}
	})
}

func TestSubmitErrorsLoseNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c counter
		down := errors.New("no primary")
		c.setFail(func(context.Context) error { return down })
		sim := mustNew(t, Config{Now: at(wednesday.Add(8 * time.Hour))}, openStores(1000), c.submit)
		stop := start(t, sim)
		pass(time.Hour)
		if calls := c.tried(); len(c.lengths()) != 0 || calls < 20 || calls > 300 {
			t.Errorf("in an hour of errors submit was called %d times", calls)
		}
		c.setFail(nil)
		pass(time.Minute) // at most 30 s until the next try
		if got := len(c.lengths()); got != 1000 {
			t.Errorf("%d of 1000 stores have a reading a minute after the errors ended", got)
		}
		flaky := 0
		c.setFail(func(context.Context) error {
			if flaky++; flaky%3 != 0 {
				return down
			}
			return nil
		})
		pass(10 * time.Minute)
		stop()
		lengths := c.lengths()
		for _, l := range sim.lines {
			if lengths[l.id] != l.reported {
				t.Fatalf("%s: the node has %d, the simulator believes %d", l.id, lengths[l.id], l.reported)
			}
		}
	})
}

func TestStopsWhereverItIs(t *testing.T) {
	hang := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
	for name, fail := range map[string]func(context.Context) error{
		"idle":             nil,
		"backing off":      func(context.Context) error { return errors.New("down") },
		"submit hangs":     hang,
		"submit timed out": hang,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := counter{fail: fail}
				stop := start(t, mustNew(t, Config{}, openStores(50), c.submit))
				if name == "submit timed out" {
					pass(submitTimeout + time.Minute)
					if c.tried() < 2 {
						t.Error("a submit that hangs is not given up")
					}
				} else {
					pass(5*time.Second + time.Millisecond)
				}
				stop()
			})
		})
	}
}

func TestRunIsDeterministic(t *testing.T) {
	play := func(seed uint64) (out []string) {
		synctest.Test(t, func(t *testing.T) {
			var c counter
			stop := start(t, mustNew(t, Config{Seed: seed, Now: at(wednesday.Add(8 * time.Hour))}, openStores(300), c.submit))
			pass(5*time.Minute + time.Millisecond)
			stop()
			for _, s := range c.sent() {
				for _, u := range s.updates {
					out = append(out, fmt.Sprint(u.ID, *u.Length))
				}
			}
		})
		return out
	}
	a, b, c := play(5), play(5), play(6)
	if len(a) < 600 || !slices.Equal(a, b) {
		t.Errorf("the same seed gave %d and %d updates that differ", len(a), len(b))
	}
	if slices.Equal(a, c) {
		t.Error("two seeds gave the same updates")
	}
}

func TestNew(t *testing.T) {
	none := func(context.Context, []shortline.QueueUpdate) error { return nil }
	for _, c := range []Config{{Rate: -1}, {Rate: math.NaN()}, {FillRate: math.Inf(1)}} {
		if _, err := New(c, nil, none); err == nil {
			t.Errorf("%+v is taken", c)
		}
	}
	if _, err := New(Config{}, []shortline.Store{{ID: "x", Timezone: "Mars/Olympus"}}, none); err == nil {
		t.Error("an unknown time zone is taken")
	}
	sim := mustNew(t, Config{}, []shortline.Store{{ID: "bare", Lat: 35, Lng: 139}}, none)
	if got := wednesday.In(sim.lines[0].shop.zone).Hour(); got != 9 || sim.lines[0].shop.hours != nil {
		t.Errorf("a store at 139° E without zone and hours lives at %d o'clock while UTC is at midnight", got)
	}
	synctest.Test(t, func(t *testing.T) {
		var c counter
		stop := start(t, mustNew(t, Config{}, nil, c.submit))
		pass(time.Minute)
		stop()
		if calls := c.tried(); calls != 0 {
			t.Errorf("submit was called %d times for no stores", calls)
		}
	})
}
