package edge

import (
	"cmp"
	"container/heap"
	"context"
	"math"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/shortline/shortline/geo"
	"github.com/shortline/shortline/insight"
)

// ranking is the order that nearby answers in.
type ranking uint8

const (
	byDistance ranking = iota
	byWait             // expected wait
	byFastest          // travel time plus expected wait
)

var rankingNames = map[string]ranking{"distance": byDistance, "wait": byWait, "fastest": byFastest}

const (
	// defaultSpeed is that of somebody who walks, in metres a second.
	defaultSpeed = 1.4
	minSpeed     = 0.1
	maxSpeed     = 100
	// farthestAt is how far ahead nearby can be asked for.
	farthestAt = 14 * 24 * time.Hour
	// maxForecastRanked is how many stores are ranked or filtered by a wait at a future time: the nearest that pass the other filters.
	maxForecastRanked = 100
)

// ranked tells whether the answer is in another order than the index gives, or about another time than now.
func (q *nearbyQuery) ranked() bool { return q.rank != byDistance || !q.future.IsZero() }

// rankKey is what a store is ordered by, before distance and id: seconds, +Inf where the wait is not known, since absent is not
// quiet. wait is in seconds, negative where it is not known.
func (q *nearbyQuery) rankKey(wait float64, distance geo.Metres) float64 {
	switch {
	case q.rank == byDistance:
		return 0
	case wait < 0:
		return math.Inf(1)
	case q.rank == byFastest:
		return wait + float64(distance)/q.speed
	}
	return wait
}

// compareFound orders stores by key, distance and id.
func compareFound(a, b *found) int {
	return cmp.Or(cmp.Compare(a.key, b.key), cmp.Compare(a.mark, b.mark), cmp.Compare(a.record.id, b.record.id))
}

// afterCursor tells whether a store comes after the page before.
func (q *nearbyQuery) afterCursor(f *found) bool {
	return !q.after || cmp.Or(cmp.Compare(f.key, q.cursor.key), cmp.Compare(f.mark, q.cursor.mark), cmp.Compare(f.record.id, q.cursor.id)) > 0
}

// worstFirst is a heap of the best stores found so far, the last of them on top.
type worstFirst []found

func (h worstFirst) Len() int           { return len(h) }
func (h worstFirst) Less(i, j int) bool { return compareFound(&h[i], &h[j]) > 0 }
func (h worstFirst) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *worstFirst) Push(x any)        { *h = append(*h, x.(found)) }
func (h *worstFirst) Pop() any          { panic("unused") }

// searchRanked is search in another order than distance: of all stores within the radius that pass the filters the best are
// kept. It ends early where no store farther away can be better.
func (s *Server) searchRanked(ctx context.Context, st *state, q *nearbyQuery, now time.Time, sc *scratch) (more bool, err error) {
	if !q.future.IsZero() {
		return s.searchFuture(ctx, st, q, now, sc)
	}
	best := worstFirst(sc.found[:0])
	err = s.walk(ctx, st, q, geo.Search{Within: q.radius}, now, func(f found) bool {
		full := len(best) > q.limit
		if full && best[0].key <= q.rankKey(0, f.distance) {
			return false // neither this one nor any that is farther away gets in: none waits less than not at all
		}
		wait := -1.0
		if f.queue.known() {
			w, _ := f.queue.wait(f.record.attrs)
			wait = float64(w)
		}
		f.key = q.rankKey(wait, f.distance)
		switch {
		case !q.afterCursor(&f):
		case !full:
			heap.Push(&best, f)
		case compareFound(&f, &best[0]) < 0:
			best[0] = f
			heap.Fix(&best, 0)
		}
		return true
	})
	return s.cutRanked(q, sc, best), err
}

// cutRanked puts what was found in order and leaves a page of it.
func (s *Server) cutRanked(q *nearbyQuery, sc *scratch, all []found) (more bool) {
	slices.SortFunc(all, func(a, b found) int { return compareFound(&a, &b) })
	more = len(all) > q.limit
	sc.found = all[:min(len(all), q.limit)]
	return more
}

// searchFuture is search for a future time: stores that are open then, with the wait that is expected. Where the wait decides, the nearest
// maxForecastRanked stores that pass the other filters are looked at.
func (s *Server) searchFuture(ctx context.Context, st *state, q *nearbyQuery, now time.Time, sc *scratch) (more bool, err error) {
	waitDecides := q.rank != byDistance || q.maxWait >= 0
	most, bounds := q.limit+1, geo.Search{Within: q.radius}
	if waitDecides {
		most = maxForecastRanked
	} else if q.after {
		bounds = q.afterMark(st)
	}
	all := sc.found[:0]
	err = s.walk(ctx, st, q, bounds, now, func(f found) bool {
		all = append(all, f)
		return len(all) < most
	})
	if err != nil {
		return false, err
	}
	if !waitDecides && len(all) > q.limit {
		more, all = true, all[:q.limit]
	}
	if err := s.expect(ctx, q, now, all); err != nil {
		return false, err
	}
	sc.found = all
	if !waitDecides {
		return more, nil
	}
	all = slices.DeleteFunc(all, func(f found) bool {
		return q.maxWait >= 0 && !(f.expected >= 0 && f.expected*f.queue.serviceS(f.record.attrs) <= float64(q.maxWait)) || !q.afterCursor(&f)
	})
	return s.cutRanked(q, sc, all), nil
}

// expect fills in the lengths that are expected at the time asked for, -1 where a store has no past. A database that cannot be
// read leaves those that are not remembered unknown.
func (s *Server) expect(ctx context.Context, q *nearbyQuery, now time.Time, all []found) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.ReadLimit)
	defer cancel()
	var group errgroup.Group
	group.SetLimit(outlookLoaders)
	for i := range all {
		group.Go(func() error {
			f := &all[i]
			f.expected = -1
			outlook, err := s.outlooks.load(ctx, wantedOutlook{id: f.record.id, loc: f.record.attrs.waitClock()})
			if err != nil {
				return err
			}
			var live *insight.Live
			if f.queue.known() {
				live = &insight.Live{Length: float64(f.queue.length()), At: f.queue.updatedAt()}
			}
			if length, ok := outlook.At(q.future, now, live); ok {
				f.expected = length
			}
			f.key = q.rankKey(f.expected*f.queue.serviceS(f.record.attrs), f.distance)
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return storeUnavailable(err)
	}
	return nil
}

// appendExpected writes what is expected of a queue at the time asked for; null for a store without a past.
func appendExpected(b []byte, f *found) []byte {
	b = append(b, `,"expected":`...)
	if f.expected < 0 {
		return append(b, "null"...)
	}
	service := f.queue.serviceS(f.record.attrs)
	wait := f.expected * service
	_, high := insight.Usual{Mean: f.expected, Var: f.expected}.Wait(service)
	b = appendTenth(append(b, `{"length":`...), f.expected)
	b = strconv.AppendInt(append(b, `,"wait_s":`...), int64(seconds(wait)), 10)
	b = strconv.AppendInt(append(b, `,"wait_high_s":`...), int64(seconds(max(wait, high))), 10)
	return append(b, '}')
}

// appendTenth writes a number that is not negative with up to one decimal.
func appendTenth(b []byte, v float64) []byte { return appendMilli(b, tenth(v)) }

// appendUsual writes what is usual at this hour; null until it is known.
func appendUsual(b []byte, u usual) []byte {
	length, known := u.length()
	if !known {
		return append(b, "null"...)
	}
	return appendMilli(b, length)
}

// parseFuture reads the parameter at.
func parseFuture(value string, now time.Time) (time.Time, error) {
	at, err := time.Parse(time.RFC3339, value)
	if err != nil {
		return at, malformed("at", "%q is not a time in RFC 3339, such as 2026-11-23T09:00:00Z", clip(value))
	}
	if at.Before(now.Add(-time.Minute)) || at.After(now.Add(farthestAt)) {
		return at, invalid("at", "%s is not within the next %d days; leave it out to ask for now", at.UTC().Format(time.RFC3339), int(farthestAt.Hours()/24))
	}
	return at.UTC(), nil
}

// parseSpeed reads the parameter speed.
func parseSpeed(value string) (float64, error) {
	v, err := strconv.ParseFloat(value, 64)
	if err != nil || math.IsNaN(v) {
		return 0, malformed("speed", "%q is not a number of metres a second, such as 1.4", clip(value))
	}
	if v < minSpeed || v > maxSpeed {
		return 0, invalid("speed", "%s is not between %v and %v metres a second", clip(value), minSpeed, float64(maxSpeed))
	}
	return v, nil
}
