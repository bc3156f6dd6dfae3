package insight

import (
	"math"
	"sync"
	"time"

	"github.com/shortline/shortline"
)

// ScoredHorizons is up to how many hours ahead forecasts are scored.
const ScoredHorizons = scored

// Score is how good forecasts of one horizon have been, in people, beside two forecasts that need no model.
type Score struct {
	// Horizon is in hours; 1 is the hour after the last one that was known.
	Horizon int
	// Count is over how many hours, decayed.
	Count float64
	// MAE is the mean absolute error of the model; LastWeek that of "as in the same hour last week"; Stays that of "stays as it
	// is". All three are over the same hours: those for which all three had something to say.
	MAE, LastWeek, Stays float64
	// Covered is the share of hours that fell into the band.
	Covered float64
}

// Scores adds up how good forecasts have been over many stores. It may be used from several goroutines.
type Scores struct {
	mu   sync.Mutex
	at   time.Time // of the weights
	sums [scored]struct{ n, model, week, stays, covered float64 }
}

// scoreHalfLife is the age at which an hour counts half in the scores.
const scoreHalfLife = 7 * 24 * time.Hour

// Judge replays one store's past: for each hour in [from, now) it holds what the model, having seen only the hours before,
// would have said against what happened, at every horizon. It returns the number of comparisons.
func (s *Scores) Judge(rollups []shortline.Rollup, loc *time.Location, from, now time.Time) int {
	m := newModel(loc, now)
	lengths := map[time.Time]float64{}
	compared := 0
	for _, r := range inOrder(rollups, now) {
		at, y := r.Hour.UTC(), float64(r.Sum)/float64(r.Samples)
		if !at.Before(from) && m.all.hours > 0 {
			compared += s.compare(m, at, y, lengths)
		}
		m.observe(at, y)
		lengths[at] = y
	}
	return compared
}

func (s *Scores) compare(m *Model, at time.Time, y float64, lengths map[time.Time]float64) (compared int) {
	week, known := lengths[at.Add(-7*24*time.Hour)]
	if !known {
		return 0
	}
	gap := int(at.Sub(m.last) / time.Hour)
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.weightLocked(at)
	for k := range scored {
		stays, known := lengths[at.Add(-time.Duration(k+1)*time.Hour)]
		if gap > scored || !known {
			continue
		}
		p := m.pending[k][gap-1]
		if !p.ok {
			continue
		}
		band := &m.bands[k]
		sum := &s.sums[k]
		sum.n += w
		sum.model += w * math.Abs(y-p.length)
		sum.week += w * math.Abs(y-week)
		sum.stays += w * math.Abs(y-stays)
		if y >= p.length+band.low*p.scale && y <= p.length+band.high*p.scale {
			sum.covered += w
		}
		compared++
	}
	return compared
}

// weightLocked is the weight of an hour at t; s.mu is held.
func (s *Scores) weightLocked(t time.Time) float64 {
	if s.at.IsZero() {
		s.at = t
	}
	if age := t.Sub(s.at); age > 10*scoreHalfLife { // rebase, before weights grow out of proportion
		f := math.Exp2(-float64(age) / float64(scoreHalfLife))
		for k := range s.sums {
			sum := &s.sums[k]
			sum.n, sum.model, sum.week, sum.stays, sum.covered = sum.n*f, sum.model*f, sum.week*f, sum.stays*f, sum.covered*f
		}
		s.at = t
	}
	return math.Exp2(float64(t.Sub(s.at)) / float64(scoreHalfLife))
}

// All returns the score of every horizon for which there is one, as of now.
func (s *Scores) All(now time.Time) []Score {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Score
	for k, sum := range s.sums {
		if sum.n == 0 {
			continue
		}
		out = append(out, Score{Horizon: k + 1, Count: sum.n / s.weightLocked(now), MAE: sum.model / sum.n,
			LastWeek: sum.week / sum.n, Stays: sum.stays / sum.n, Covered: sum.covered / sum.n})
	}
	return out
}
