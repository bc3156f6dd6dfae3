package dnsserver

import (
	"hash/maphash"
	"math"
	"net/netip"
	"sync/atomic"
	"time"
)

// verdict is what a query gets.
type verdict uint8

const (
	pass verdict = iota
	slip         // an empty answer that asks to come by TCP: who did ask can, and who is only pretended to cannot be flooded
	drop
)

// limiter bounds the answers to each network, so that nobody can use this server to flood another. It has a fixed number of
// buckets; networks that share one share its rate. It takes no lock.
type limiter struct {
	rate    float64
	seed    maphash.Seed
	buckets [1 << 15]atomic.Uint64 // milliseconds since the epoch of the limiter (upper 40 bits), level in 1/64 (lower 24)
	slips   atomic.Uint32
	born    time.Time
}

func newLimiter(rate float64) *limiter {
	return &limiter{rate: rate, seed: maphash.MakeSeed(), born: time.Now()}
}

// netPrefix is the network that is counted together.
func netPrefix(a netip.Addr) netip.Prefix {
	bits := 24
	if a.Is6() {
		bits = 56
	}
	p, _ := a.WithZone("").Prefix(bits)
	return p
}

// take counts one query.
func (l *limiter) take(from netip.Addr, now time.Time) verdict {
	if l.rate < 0 {
		return pass
	}
	b := &l.buckets[maphash.Comparable(l.seed, netPrefix(from))%uint64(len(l.buckets))]
	ms := uint64(max(now.Sub(l.born).Milliseconds(), 0)) & (1<<40 - 1)
	for {
		old := b.Load()
		then, level := old>>24, float64(old&(1<<24-1))/64
		if ms > then {
			level = max(0, level-float64(ms-then)*l.rate/1000)
		}
		over := level+1 > l.rate // a second's worth at once
		next := min(level+1, l.rate+1, float64(1<<24-1)/64)
		if b.CompareAndSwap(old, max(ms, then)<<24|uint64(math.Round(next*64))&(1<<24-1)) {
			switch {
			case !over:
				return pass
			case l.slips.Add(1)%2 == 0:
				return slip
			}
			return drop
		}
	}
}
