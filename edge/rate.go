package edge

import (
	"context"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/shortline/shortline/replication"
)

// burstSeconds is for how many seconds' worth of a rate a client may spend at once.
const burstSeconds = 10

// rate is a limit by the generic cell rate algorithm: a client has one number, the time at which it would have used up nothing.
type rate struct {
	name  string
	every int64 // nanoseconds a request
	burst int64 // requests
}

func newRate(name string, perSecond float64) *rate {
	if perSecond < 0 {
		return nil
	}
	return &rate{name, max(int64(1e9/perSecond), 1), max(int64(perSecond*burstSeconds), 1)}
}

// meter is what one client has used.
type meter struct {
	at   atomic.Int64 // nanoseconds by the limiter's clock
	used atomic.Int64 // requests that the other nodes have not been told of
	told atomic.Bool  // it is among those to be told of
}

// take counts a request, unless that would pass the limit: then wait is after what time it would not. left is how many more may come now.
func (m *meter) take(r *rate, now int64) (left, wait int64) {
	for {
		at := m.at.Load()
		next := max(at, now) + r.every
		if ahead := next - now; ahead > r.every*r.burst {
			return 0, ahead - r.every*r.burst
		}
		if m.at.CompareAndSwap(at, next) {
			return r.burst - (next-now)/r.every, 0
		}
	}
}

const (
	rateShards = 32
	// shardMeters is how many clients a shard knows; past it those that used nothing lately are forgotten, which changes nothing for them, and if
	// all have, newcomers share one meter.
	shardMeters = 2048
)

// sweepEvery is how often a full shard is looked through at most, in nanoseconds.
const sweepEvery = 50e6

// meters are those of all clients of a kind. It is bounded: about 8 MiB where all are in use.
type meters[K comparable] struct {
	pick   func(K) uint8 // a shard, evenly
	shards [rateShards]struct {
		mu       sync.RWMutex
		known    map[K]*meter // guarded by mu
		swept    int64        // guarded by mu; when it was last looked through, which takes some 20 µs
		overflow meter
	}
}

func newMeters[K comparable](pick func(K) uint8) *meters[K] {
	m := &meters[K]{pick: pick}
	for i := range m.shards {
		m.shards[i].known = map[K]*meter{}
	}
	return m
}

func (m *meters[K]) of(k K, now int64) *meter {
	s := &m.shards[m.pick(k)%rateShards]
	s.mu.RLock()
	one := s.known[k]
	s.mu.RUnlock()
	if one != nil {
		return one
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if one = s.known[k]; one != nil {
		return one
	}
	if len(s.known) >= shardMeters {
		if s.swept != 0 && now-s.swept < sweepEvery {
			return &s.overflow
		}
		s.swept = max(now, 1)
		for old, o := range s.known {
			if o.at.Load() <= now && !o.told.Load() {
				delete(s.known, old)
			}
		}
		if len(s.known) >= shardMeters {
			return &s.overflow
		}
	}
	one = new(meter)
	s.known[k] = one
	return one
}

func (m *meters[K]) count() (n int) {
	for i := range m.shards {
		m.shards[i].mu.RLock()
		n += len(m.shards[i].known)
		m.shards[i].mu.RUnlock()
	}
	return n
}

// Sharer counts what clients use at all nodes of the region. An error means that this node counts alone for a while.
type Sharer interface {
	Spend(ctx context.Context, used []replication.Spending) (ahead []time.Duration, err error)
}

// limiter bounds the requests of each client: by its API key, else by its address.
//
// A request is judged by this node's memory alone. Where a Sharer is set, this node tells it of those who used a good part of their burst
// since they were last told of, ten times a second, and takes over by how much they are ahead in the whole region. So what a client gets
// from n nodes is its limit, and at most a sixteenth of its burst and a tenth of a second for each of them more.
type limiter struct {
	byAddress, byKey *rate // nil: no limit
	addresses        *meters[subnet]
	keys             *meters[string]
	share            Sharer // nil: none
	now              func() time.Time
	began            time.Time
	queue            chan told // those to be told of; who finds it full comes next time
	limited          *prometheus.CounterVec
	failed           prometheus.Counter
}

// told is a client that others are to be told of.
type told struct {
	subject string
	rate    *rate
	meter   *meter
}

func newLimiter(cfg *Config, share Sharer, now func() time.Time, r prometheus.Registerer) *limiter {
	l := &limiter{byAddress: newRate("address", cfg.RateAddress), byKey: newRate("key", cfg.RateKey), addresses: newMeters(subnet.pick), keys: newMeters(func(id string) (p uint8) { return id[len(id)-1] }),
		share: share, now: now, began: now(), queue: make(chan told, 1024),
		limited: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "shortline_rate_limited_total", Help: "Requests refused because their sender came too often, by what it was known by: address, key."}, []string{"by"}),
		failed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "shortline_rate_share_failures_total", Help: "Times that Redis could not be asked what clients use at other nodes; this node then counts alone."})}
	l.limited.WithLabelValues("address")
	l.limited.WithLabelValues("key")
	r.MustRegister(l.limited, l.failed, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "shortline_rate_clients", Help: "Addresses and keys whose rate this node keeps in memory."}, func() float64 { return float64(l.addresses.count() + l.keys.count()) }))
	return l
}

// subnet is by what an address counts: an IPv6 client has a whole /64.
type subnet [16]byte

func subnetOf(a netip.Addr) subnet {
	n := a.As16()
	if !a.Is4() {
		clear(n[8:])
	}
	return n
}

func (n subnet) pick() uint8 { return n[15] ^ n[14] ^ n[13]>>3 ^ n[7] ^ n[6] ^ n[5]>>3 ^ n[4] }

// ask counts a request; key is "" where it came without one. r is nil where nothing limits it.
func (l *limiter) ask(addr netip.Addr, key string) (r *rate, left, wait int64) {
	now := int64(l.now().Sub(l.began))
	var m *meter
	if key != "" {
		if r = l.byKey; r == nil {
			return nil, 0, 0
		}
		m = l.keys.of(key, now)
	} else {
		if r = l.byAddress; r == nil {
			return nil, 0, 0
		}
		m = l.addresses.of(subnetOf(addr), now)
	}
	left, wait = m.take(r, now)
	if wait > 0 {
		l.limited.WithLabelValues(r.name).Inc()
		return r, 0, wait
	}
	if l.share != nil && m.used.Add(1) >= max(r.burst/16, 1) && m.told.CompareAndSwap(false, true) {
		subject := "k:" + key
		if key == "" {
			subject = "a:" + netip.AddrFrom16(subnetOf(addr)).Unmap().String()
		}
		select {
		case l.queue <- told{subject, r, m}:
		default:
			m.told.Store(false)
		}
	}
	return r, left, 0
}

// shareEvery is how often other nodes are told.
const shareEvery = 100 * time.Millisecond

// run tells the Sharer until ctx ends.
func (l *limiter) run(ctx context.Context) error {
	if l.share == nil {
		return nil
	}
	ticker := time.NewTicker(shareEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			l.tell(ctx)
		}
	}
}

// tell tells of those who wait for it, and takes over what comes back.
func (l *limiter) tell(ctx context.Context) {
	var who []told
	var used []replication.Spending
	for len(l.queue) > 0 && len(who) < 256 {
		t := <-l.queue
		n := t.meter.used.Swap(0)
		t.meter.told.Store(false)
		who = append(who, t)
		used = append(used, replication.Spending{Subject: t.subject, N: int(n), Every: time.Duration(t.rate.every), Burst: int(t.rate.burst)})
	}
	if len(who) == 0 {
		return
	}
	ahead, err := l.share.Spend(ctx, used)
	if err != nil {
		if ctx.Err() == nil {
			l.failed.Inc()
		}
		return
	}
	now := int64(l.now().Sub(l.began))
	for i, t := range who {
		for at := now + int64(ahead[i]); ; {
			old := t.meter.at.Load()
			if old >= at || t.meter.at.CompareAndSwap(old, at) {
				break
			}
		}
	}
}
