package demo

import (
	"math/rand/v2"
	"time"

	"github.com/shortline/shortline"
)

const (
	// pastWeeks is how far back the stores pretend to have been reporting.
	pastWeeks = 4
	// readings is how many reports an hour of the past has.
	readings = 4
)

// Past invents the hours before a simulation began, by the same model, so that what is made of the past (profiles, forecasts) can be
// looked at at once. Nothing of it is stored. It may be used from any goroutine.
type Past struct {
	shops map[shortline.StoreID]shop
	began time.Time
}

// NewPast is that of the stores before the hour of now.
func NewPast(stores []shortline.Store, now time.Time) (*Past, error) {
	p := &Past{shops: make(map[shortline.StoreID]shop, len(stores)), began: now.Truncate(time.Hour)}
	open := newOpener()
	for i := range stores {
		s, err := open.shop(&stores[i])
		if err != nil {
			return nil, err
		}
		p.shops[stores[i].ID] = s
	}
	return p, nil
}

// Rollups returns the hours of a store in [from, to) that lie before the simulation began, in order of time; none for a store that is
// not simulated. The same hour is the same whenever it is asked for.
func (p *Past) Rollups(id shortline.StoreID, from, to time.Time) []shortline.Rollup {
	s, ok := p.shops[id]
	if !ok {
		return nil
	}
	if earliest := p.began.Add(-pastWeeks * 7 * 24 * time.Hour); from.Before(earliest) {
		from = earliest
	}
	if to.After(p.began) {
		to = p.began
	}
	hour := from.Truncate(time.Hour)
	if hour.Before(from) {
		hour = hour.Add(time.Hour)
	}
	var out []shortline.Rollup
	for ; hour.Before(to); hour = hour.Add(time.Hour) {
		out = append(out, s.rollup(hour))
	}
	return out
}

func (s *shop) rollup(hour time.Time) shortline.Rollup {
	dice := rand.New(rand.NewPCG(s.hash, uint64(hour.Unix())))
	r := shortline.Rollup{Hour: hour, Samples: readings, Min: maxLength}
	for i := range readings {
		length := s.settled(s.demand(hour.Add(time.Duration(2*i+1)*time.Hour/(2*readings))), dice)
		r.Sum += int64(length)
		r.SumSq += int64(length) * int64(length)
		r.Min, r.Max = min(r.Min, length), max(r.Max, length)
	}
	return r
}
