package edge

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/shortline/shortline/replication"
)

// A client may spend its burst at once, then one request each time that is due, and its burst again when it has waited long enough.
func TestRate(t *testing.T) {
	r := newRate("x", 100)
	var m meter
	spend := func(now time.Duration) (n int) {
		for {
			if _, wait := m.take(r, int64(now)); wait > 0 {
				if wait > r.every {
					t.Fatalf("it is told to wait %v", time.Duration(wait))
				}
				return n
			}
			n++
		}
	}
	for _, step := range []struct {
		at   time.Duration
		want int
	}{{0, 1000}, {0, 0}, {9 * time.Millisecond, 0}, {10 * time.Millisecond, 1}, {1010 * time.Millisecond, 100}, {time.Hour, 1000}} {
		if got := spend(step.at); got != step.want {
			t.Errorf("at %v it may send %d, want %d", step.at, got, step.want)
		}
	}
	if newRate("x", -1) != nil || newRate("x", 0.01).burst != 1 {
		t.Error("odd rates")
	}
}

func TestRateIsCountedOnceByMany(t *testing.T) {
	r := newRate("x", 100)
	var m meter
	var all sync.WaitGroup
	var mu sync.Mutex
	total := 0
	for range 8 {
		all.Go(func() {
			n := 0
			for range 1000 {
				if _, wait := m.take(r, 5); wait == 0 {
					n++
				}
			}
			mu.Lock()
			defer mu.Unlock()
			total += n
		})
	}
	all.Wait()
	if total != 1000 {
		t.Errorf("%d of 8000 were let in, want 1000", total)
	}
}

func TestRateMemoryIsBounded(t *testing.T) {
	m := newMeters(func(i int) uint8 { return uint8(i) })
	r := newRate("x", 1)
	for i := range 3 * rateShards * shardMeters {
		m.of(i, 0).take(r, 0)
	}
	if n := m.count(); n > rateShards*shardMeters {
		t.Fatalf("%d clients are kept", n)
	}
	refused := 0
	for i := range 1000 { // newcomers share what is left, and come in again once the others have been quiet
		if _, wait := m.of(1e9+i, 0).take(r, 0); wait > 0 {
			refused++
		}
	}
	if refused == 0 {
		t.Error("newcomers are not limited while everything is in use")
	}
	if _, wait := m.of(2e9, int64(time.Hour)).take(r, int64(time.Hour)); wait > 0 || m.count() > rateShards*shardMeters {
		t.Error("who was quiet is not forgotten")
	}
	a, b, c := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::ffff:1"), netip.MustParseAddr("2001:db8:0:1::1")
	if subnetOf(a) != subnetOf(b) || subnetOf(a) == subnetOf(c) {
		t.Error("an IPv6 client is not its /64")
	}
}

// sharedCounts counts as Redis does.
type sharedCounts struct {
	mu   sync.Mutex
	at   map[string]time.Time
	down bool
}

func (s *sharedCounts) Spend(_ context.Context, used []replication.Spending) ([]time.Duration, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down {
		return nil, errors.New("it is down")
	}
	now := time.Now()
	var out []time.Duration
	for _, u := range used {
		at := s.at[u.Subject]
		if at.Before(now) {
			at = now
		}
		if at = at.Add(time.Duration(u.N) * u.Every); at.After(now.Add(u.Every * time.Duration(u.Burst))) {
			at = now.Add(u.Every * time.Duration(u.Burst))
		}
		s.at[u.Subject] = at
		out = append(out, at.Sub(now))
	}
	return out, nil
}

func TestRateIsSharedInARegion(t *testing.T) {
	s := &sharedCounts{at: map[string]time.Time{}}
	node := func() *limiter {
		return newLimiter(&Config{RateAddress: 100, RateKey: 100}, s, time.Now, prometheus.NewRegistry())
	}
	spend := func(l *limiter, n int) (taken int) {
		for range n {
			if _, _, wait := l.ask(netip.MustParseAddr("203.0.113.7"), ""); wait == 0 {
				taken++
			}
		}
		return taken
	}
	one, two := node(), node()
	if n := spend(one, 2000); n < 1000 || n > 1100 { // some come due while the test runs
		t.Fatalf("one node let %d in", n)
	}
	one.tell(t.Context())
	first := spend(two, 63) // before it was told of
	two.tell(t.Context())
	if n := spend(two, 2000); first != 63 || n > 100 {
		t.Errorf("another node let %d in, and then %d", first, n)
	}
	if _, _, wait := two.ask(netip.MustParseAddr("203.0.113.8"), ""); wait > 0 {
		t.Error("somebody else pays for it")
	}
	if _, _, wait := two.ask(netip.MustParseAddr("203.0.113.7"), "key"); wait > 0 {
		t.Error("a key pays for its address")
	}
	s.down = true
	alone := node()
	spend(alone, 500)
	alone.tell(t.Context())
	if n := spend(alone, 2000); n < 500 || n > 600 {
		t.Errorf("without the others a node let %d more in, want some 500", n)
	}
}

// BenchmarkLimiter is what the limit costs a request that is under it, beside reading the client's address.
func BenchmarkLimiter(b *testing.B) {
	for _, name := range []string{"alone", "shared"} {
		b.Run(name, func(b *testing.B) {
			var share Sharer
			if name == "shared" {
				share = &sharedCounts{at: map[string]time.Time{}}
			}
			l := newLimiter(&Config{RateAddress: 1e8, RateKey: 1e8}, share, time.Now, prometheus.NewRegistry())
			addrs := make([]netip.Addr, 10_000)
			for i := range addrs {
				addrs[i] = netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if _, _, wait := l.ask(addrs[i%len(addrs)], ""); wait > 0 {
					b.Fatal(wait)
				}
			}
		})
	}
}
