package demo

import (
	"cmp"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/shortline/shortline"
)

const (
	// maxLength ends every line; people are put off long before.
	maxLength = 40
	// patience is the length at which half of those who come walk on.
	patience = 14
	// rush is the share of a shop's capacity that is asked for at the height of the day, where popularity is 1.
	rush = 0.80
	// stale is the age from which a state says nothing about now any more, and a new one is drawn.
	stale = time.Hour
	// stride is the longest time for which the demand is taken as constant.
	stride = time.Minute
	// moodPeriod is how long a local whim lasts: a bus tour, a shower of rain.
	moodPeriod = 20 * time.Minute
)

// opening tells whether a store is open at a local time; *shortline.Hours is one.
type opening interface{ OpenAt(local time.Time) bool }

// shop is what does not change about one store.
//
// Its line is a birth and death process: people come as a Poisson stream and walk on the more likely the longer the line
// is; each of the counters serves one person at a time, for an exponential time. serviceS is the pace of the whole line
// when all counters are busy (so a line of n takes n × serviceS, as shortline.Wait has it), hence one counter takes
// counters × serviceS for a person.
type shop struct {
	zone       *time.Location
	hours      opening // nil: always open
	popularity float64 // lognormal, median 1
	counters   int     // 1 to 3
	serviceS   float64
	hash       uint64 // of the id: what makes two stores in the same street differ
}

// state is a shop's line at a time. The zero state knows nothing yet.
type state struct {
	length int
	at     time.Time
}

func newShop(id shortline.StoreID, zone *time.Location, hours opening, serviceS float64) shop {
	if serviceS <= 0 {
		serviceS = shortline.DefaultServiceS
	}
	h := fnv.New64a()
	h.Write([]byte(id)) // never fails
	hash := h.Sum64()
	return shop{
		zone:       zone,
		hours:      hours,
		popularity: min(math.Exp(0.55*normal(hash, 0)), 4),
		counters:   1 + int(3*uniform(hash, 1)),
		serviceS:   serviceS,
		hash:       hash,
	}
}

// step moves a line from st to now. A state that is unknown, from the future or stale is replaced by a draw from the
// distribution that the line would settle in, if the demand of now lasted.
func (s *shop) step(st state, now time.Time, r *rand.Rand) state {
	age := now.Sub(st.at)
	if st.at.IsZero() || age < 0 || age > stale {
		return state{length: s.settled(s.demand(now), r), at: now}
	}
	for t := st.at; t.Before(now); {
		d := min(now.Sub(t), stride)
		st.length = s.run(st.length, d.Seconds(), s.demand(t.Add(d/2)), r)
		t = t.Add(d)
	}
	st.at = now
	return st
}

// run plays the events of some seconds of constant demand (people a second).
func (s *shop) run(length int, seconds, demand float64, r *rand.Rand) int {
	for {
		in, out := demand*joining(length), s.serving(length)
		if in+out == 0 {
			return length
		}
		if seconds -= r.ExpFloat64() / (in + out); seconds < 0 {
			return length
		}
		if r.Float64()*(in+out) < in {
			length++
		} else {
			length--
		}
	}
}

// settled draws from the stationary distribution of run.
func (s *shop) settled(demand float64, r *rand.Rand) int {
	var weight [maxLength + 1]float64
	weight[0] = 1
	sum := 1.0
	for n := 1; n <= maxLength; n++ {
		weight[n] = weight[n-1] * demand * joining(n-1) / s.serving(n)
		sum += weight[n]
	}
	left := r.Float64() * sum
	for n, w := range weight {
		if left -= w; left < 0 {
			return n
		}
	}
	return 0 // only by rounding
}

// joining is the share of arrivals that do not mind a line of length.
func joining(length int) float64 {
	if length >= maxLength {
		return 0
	}
	f := float64(length) / patience
	return 1 / (1 + f*f*f)
}

// serving is how many people a second are done.
func (s *shop) serving(length int) float64 {
	return float64(min(length, s.counters)) / (float64(s.counters) * s.serviceS)
}

// demand is how many people a second come at the time; none while the shop is closed.
func (s *shop) demand(now time.Time) float64 {
	local := now.In(s.zone)
	if s.hours != nil && !s.hours.OpenAt(local) {
		return 0
	}
	mood := math.Exp(0.35 * normal(s.hash, 2+uint64(now.Unix()/int64(moodPeriod/time.Second))))
	return rush / s.serviceS * s.popularity * mood * busyness(local)
}

// knot is a point of a curve over the hours of a day, straight lines between.
type knot struct{ hour, level float64 }

// Both curves begin and end at the same level, so that midnight is no step.
var (
	weekday = []knot{
		{0, 0.05}, {4, 0.03}, {5.5, 0.15}, {7, 0.75}, {8.25, 1.15}, {9.25, 0.95}, {10.5, 0.55}, {11.5, 0.60}, {12.75, 0.95},
		{14, 0.55}, {15.5, 0.75}, {17, 0.55}, {18.5, 0.45}, {20, 0.30}, {22, 0.14}, {24, 0.05},
	}
	weekend = []knot{
		{0, 0.05}, {4, 0.03}, {6.5, 0.12}, {8, 0.40}, {9.5, 0.85}, {10.75, 1.10}, {12, 0.90}, {13.5, 0.75}, {15.5, 0.90},
		{17, 0.60}, {19, 0.40}, {21, 0.28}, {22.5, 0.15}, {24, 0.05},
	}
)

// busyness is the demand at a local time as a share of a usual weekday morning's.
func busyness(local time.Time) float64 {
	curve := weekday
	if d := local.Weekday(); d == time.Saturday || d == time.Sunday {
		curve = weekend
	}
	hour := float64(local.Hour()) + float64(local.Minute())/60
	i, exact := slices.BinarySearchFunc(curve, hour, func(k knot, h float64) int { return cmp.Compare(k.hour, h) })
	if exact {
		return curve[i].level
	}
	a, b := curve[i-1], curve[i]
	return a.level + (b.level-a.level)*(hour-a.hour)/(b.hour-a.hour)
}

// uniform maps a hash and a purpose to [0, 1), the same every time (the finisher of SplitMix64).
func uniform(hash, purpose uint64) float64 {
	x := hash + (purpose+1)*0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return float64((x^x>>31)>>11) / (1 << 53)
}

// normal does the same with the standard normal distribution (Box and Muller).
func normal(hash, purpose uint64) float64 {
	u, v := uniform(hash, 2*purpose+1<<32), uniform(hash, 2*purpose+1<<33)
	return math.Sqrt(-2*math.Log(1-u)) * math.Cos(2*math.Pi*v)
}
