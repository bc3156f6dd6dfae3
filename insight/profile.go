package insight

import (
	"math"
	"slices"
	"time"

	"github.com/shortline/shortline"
)

// HalfLife is the age at which an hour counts half as much as one of now.
const HalfLife = 28 * 24 * time.Hour

// Usual is what a queue was in one hour of the week. All figures are over the hours in which the store reported; later ones count
// more (HalfLife).
type Usual struct {
	// Samples is the number of reports; Hours of how many hours they are. In a slot that an hour in UTC covers in part, both are
	// counted in full.
	Samples, Hours int
	// Mean is the mean length, and Var the variance of lengths around it.
	Mean, Var float64
}

// Wait is the expected seconds until somebody who joins the queue in such an hour is served, and the time that nine of ten
// waits are shorter than. serviceS is the mean seconds to serve one person (0: the default).
//
// With L people waiting, the wait is a sum of L exponential service times S: E = E[L]·s and Var = E[L]·s² + Var[L]·s². The quantile is
// that of the gamma distribution with this mean and variance, by Wilson and Hilferty as in shortline.Wait.
func (u Usual) Wait(serviceS float64) (mean, p90 float64) {
	if serviceS <= 0 {
		serviceS = shortline.DefaultServiceS
	}
	if u.Mean <= 0 {
		return 0, 0
	}
	mean = u.Mean * serviceS
	shape := u.Mean * u.Mean / (u.Mean + u.Var)
	root := 1 - 1/(9*shape) + z90/(3*math.Sqrt(shape))
	return mean, mean * max(0, root*root*root)
}

// z90 is the standard normal quantile of 0.9.
const z90 = 1.2815515655446004

// Profile is what a store's queue usually is, by hour of the week.
type Profile struct {
	slots   [HoursPerWeek]sums
	samples int
}

// sums are weighted; a slot's weight is that of its hours.
type sums struct {
	hours, samples        int
	weight                float64
	mean                  float64 // sum of weight × mean length of an hour
	lengths, lengthsSq, n float64 // of single reports, weighted
}

// NewProfile makes the profile at now of a store whose clock shows loc, from its rollups in any order. Rollups from now on, and
// such as no store can have, do not count.
func NewProfile(rollups []shortline.Rollup, loc *time.Location, now time.Time) *Profile {
	p := new(Profile)
	for _, r := range rollups {
		if !sound(r) || !r.Hour.Before(now) {
			continue
		}
		p.samples += r.Samples
		age := math.Exp2(-float64(now.Sub(r.Hour)) / float64(HalfLife))
		n := float64(r.Samples)
		for c, i := spanOf(r.Hour, loc), 0; i < c.n; i++ {
			a, w := &p.slots[c.slots[i]], age*c.shares[i]
			a.hours++
			a.samples += r.Samples
			a.weight += w
			a.mean += w * float64(r.Sum) / n
			a.lengths += w * float64(r.Sum)
			a.lengthsSq += w * float64(r.SumSq)
			a.n += w * n
		}
	}
	return p
}

// sound tells whether a rollup can be one: data is checked at every boundary.
func sound(r shortline.Rollup) bool {
	return r.Samples > 0 && r.Sum >= 0 && r.Sum <= int64(r.Samples)*shortline.MaxQueueLength && r.SumSq >= 0 && !r.Hour.IsZero()
}

// Samples is how many reports the profile knows of.
func (p *Profile) Samples() int { return p.samples }

// At is what the queue usually is in an hour of the week; ok is false where it never was reported.
func (p *Profile) At(s Slot) (u Usual, ok bool) {
	a := &p.slots[s]
	if a.weight == 0 {
		return Usual{}, false
	}
	u = Usual{Samples: a.samples, Hours: a.hours, Mean: a.mean / a.weight}
	byReport := a.lengths / a.n
	u.Var = max(0, a.lengthsSq/a.n-byReport*byReport)
	return u, true
}

// All is the whole week as one: the mean over the hours of the week that are known, each counting the same.
func (p *Profile) All() (u Usual, ok bool) {
	var known, mean, second float64
	for s := range Slot(HoursPerWeek) {
		v, ok := p.At(s)
		if !ok {
			continue
		}
		known++
		u.Samples += v.Samples
		u.Hours += v.Hours
		mean += v.Mean
		second += v.Var + v.Mean*v.Mean
	}
	if known == 0 {
		return Usual{}, false
	}
	u.Mean = mean / known
	u.Var = max(0, second/known-u.Mean*u.Mean)
	return u, true
}

// Busiest are up to n hours of the week, the longest mean queue first, ties by the hour of the week.
func (p *Profile) Busiest(n int) []Slot {
	var known []Slot
	for s := range Slot(HoursPerWeek) {
		if u, ok := p.At(s); ok && u.Mean > 0 {
			known = append(known, s)
		}
	}
	slices.SortStableFunc(known, func(a, b Slot) int {
		ua, _ := p.At(a)
		ub, _ := p.At(b)
		switch {
		case ua.Mean > ub.Mean:
			return -1
		case ua.Mean < ub.Mean:
			return 1
		}
		return 0
	})
	return known[:min(n, len(known))]
}
