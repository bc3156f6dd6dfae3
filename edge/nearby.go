package edge

import (
	"context"
	"math"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"
	"unsafe"

	"github.com/labstack/echo/v4"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/geo"
	"github.com/shortline/shortline/internal/memory"
)

// found is one store of a nearby answer.
type found struct {
	ref      geo.Ref
	slot     *slot
	record   *record
	details  string // encoded; empty: not in memory
	queue    liveQueue
	distance geo.Metres
	mark     geo.Mark
	usual    usual
	key      float64 // of the ranking
	expected float64 // length at the time asked for; negative: not known
}

// scratch is what one nearby request needs while it is answered; it is used again by the next.
type scratch struct {
	found   []found
	body    []byte
	missing []shortline.StoreID
}

var scratches = sync.Pool{New: func() any { return new(scratch) }}

var jsonHeader, noStoreHeader = []string{"application/json"}, []string{"no-store"}

// nearby answers GET /v1/nearby. It is the hot path: everything that it needs is in memory, and it writes its JSON by hand
// because an encoder would cost more than the search.
func (s *Server) nearby(c echo.Context) error {
	r := c.Request()
	now := s.now()
	q, err := parseNearby(r.URL.RawQuery, now)
	if err != nil {
		return err
	}
	if err := s.allowRead(r); err != nil {
		return err
	}
	pos, err := s.read(r, q.level)
	if err != nil {
		return err
	}
	now = s.now() // reading may have waited
	sc := scratches.Get().(*scratch)
	defer scratches.Put(sc)
	more, err := s.search(r.Context(), pos.state, &q, now, sc)
	if err != nil {
		return err
	}
	s.cover(&pos)
	if q.fields&(fieldName|fieldAddress) != 0 {
		s.fetchDetails(r.Context(), pos.state, sc)
		s.coverDetails(r.Context(), &pos, sc)
	}
	if q.fields&fieldQueue != 0 {
		for i := range sc.found {
			if f := &sc.found[i]; f.queue.known() {
				f.usual = s.outlooks.usual(f.slot, f.record, now)
			}
		}
	}
	s.writeNearby(sc, &q, pos, now, more)

	w := c.Response()
	h := w.Header()
	h["Content-Type"] = jsonHeader
	h["Cache-Control"] = noStoreHeader
	values := [2]string{pos.token, strconv.Itoa(len(sc.body))} // one allocation for both
	h[headerToken], h["Content-Length"] = values[:1:1], values[1:]
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead {
		return nil
	}
	_, err = w.Write(sc.body)
	return err
}

// search fills sc.found with up to q.limit stores in order, and tells whether there are more.
func (s *Server) search(ctx context.Context, st *state, q *nearbyQuery, now time.Time, sc *scratch) (more bool, err error) {
	if q.ranked() {
		return s.searchRanked(ctx, st, q, now, sc)
	}
	bounds := geo.Search{Within: q.radius}
	if q.after {
		bounds = q.afterMark(st)
	}
	if q.openNow || q.maxWait >= 0 || len(q.tags) > 0 || q.brand != "" {
		return s.searchFiltered(ctx, st, q, bounds, now, sc)
	}
	sc.found = sc.found[:0]
	st.index.Nearby(q.at, bounds, func(hit geo.Hit) bool {
		if len(sc.found) == q.limit {
			more = true
			return false
		}
		sl := st.slot(hit.Ref)
		memory.PrefetchBlock(unsafe.Pointer(sl))
		sc.found = append(sc.found, found{ref: hit.Ref, slot: sl, distance: hit.Distance, mark: hit.Mark})
		return true
	})
	// The stores lie anywhere in memory. They are not looked at in the midst of the search but one right after the other when
	// it is over, and what comes next of each is asked for, so that the processor fetches all of it at the same time.
	for i := range sc.found {
		f := &sc.found[i]
		f.record, f.queue = f.slot.record.Load(), f.slot.live()
		memory.PrefetchBlock(unsafe.Pointer(f.record))
		st.details.prefetch(f.slot)
	}
	for i := range sc.found {
		a := sc.found[i].record.attrs
		if a == nil { // deleted since the search began: find another one in its place
			return s.searchFiltered(ctx, st, q, bounds, now, sc)
		}
		memory.Prefetch(unsafe.Pointer(a))
	}
	return more, nil
}

// afterMark bounds a search to what comes after the page before.
func (q *nearbyQuery) afterMark(st *state) geo.Search {
	return geo.Search{Within: q.radius, From: q.cursor.mark, Passed: func(ref geo.Ref) bool { return st.record(ref).id <= q.cursor.id }}
}

// searchFiltered is search for stores that pass the filters, which it may have to look for all over the Earth.
func (s *Server) searchFiltered(ctx context.Context, st *state, q *nearbyQuery, bounds geo.Search, now time.Time, sc *scratch) (more bool, err error) {
	sc.found = sc.found[:0]
	err = s.walk(ctx, st, q, bounds, now, func(f found) bool {
		if len(sc.found) == q.limit {
			more = true
			return false
		}
		sc.found = append(sc.found, f)
		return true
	})
	return more, err
}

// walk calls yield with the stores that pass the filters, in order of distance, until it returns false or the time for a search
// is over.
func (s *Server) walk(ctx context.Context, st *state, q *nearbyQuery, bounds geo.Search, now time.Time, yield func(found) bool) (err error) {
	deadline := now.Add(s.cfg.ReadLimit)
	seen := 0
	var release func()
	defer func() {
		if release != nil {
			release()
		}
	}()
	st.index.Nearby(q.at, bounds, func(hit geo.Hit) bool {
		if seen++; seen%longSearch == 0 {
			if err = ctx.Err(); err == nil && s.now().After(deadline) {
				err = context.DeadlineExceeded
			}
			if err == nil && release == nil {
				release, err = s.takeLongSearch(ctx)
			}
			if err != nil {
				return false
			}
		}
		sl := st.slot(hit.Ref)
		rec, queue := sl.record.Load(), sl.live()
		if rec.attrs == nil || !q.matches(rec, queue, now) { // nil: deleted since the search began
			return true
		}
		return yield(found{ref: hit.Ref, slot: sl, record: rec, queue: queue, distance: hit.Distance, mark: hit.Mark})
	})
	return err
}

// longSearch is how many stores a search may look at before it counts as long.
const longSearch = 4096

// takeLongSearch waits for one of the few places for long searches: filters that hardly any store passes make a search look
// at the whole Earth, and those who ask so shall not take the processors from those who ask what is near.
func (s *Server) takeLongSearch(ctx context.Context) (release func(), err error) {
	bounded, cancel := context.WithTimeout(ctx, s.cfg.ReadLimit)
	defer cancel()
	select {
	case s.longSearches <- struct{}{}:
		return func() { <-s.longSearches }, nil
	case <-bounded.Done():
		return nil, bounded.Err()
	}
}

// matches tells whether a store passes the filters. A wait or hours that are not known do not pass: absent is not quiet.
func (q *nearbyQuery) matches(rec *record, queue liveQueue, now time.Time) bool {
	a := rec.attrs
	if q.brand != "" && a.brand != q.brand {
		return false
	}
	for _, t := range q.tags {
		if !slices.Contains(a.tags, t) {
			return false
		}
	}
	if q.maxWait >= 0 && q.future.IsZero() {
		if !queue.known() {
			return false
		}
		if wait, _ := queue.wait(a); wait > q.maxWait {
			return false
		}
	}
	return !q.openNow || a.schedule != nil && q.open(a.schedule, now)
}

// open tells whether a store of the schedule is open at the time that the answer is about.
func (q *nearbyQuery) open(sc *schedule, now time.Time) bool {
	if q.future.IsZero() {
		return sc.open(now)
	}
	return sc.hours.OpenAt(q.future.In(sc.loc))
}

// fetchDetails brings the details of the winners into memory where they are not yet. If the database cannot be
// read, the answer goes out without them: where the stores are and how long their queues is known.
func (s *Server) fetchDetails(ctx context.Context, st *state, sc *scratch) {
	sc.missing = sc.missing[:0]
	for i := range sc.found {
		f := &sc.found[i]
		memory.Prefetch(unsafe.Pointer(f.record.attrs.schedule))
		if f.details = st.detailsFor(f.slot, f.record); f.details == "" {
			sc.missing = append(sc.missing, f.record.id)
		}
		if f.slot.asked.Load() == 0 { // writing every time would take the line from the other processors
			f.slot.asked.Store(1)
		}
	}
	s.details.hits.Add(float64(len(sc.found) - len(sc.missing)))
	if len(sc.missing) == 0 {
		return
	}
	s.details.misses.Add(float64(len(sc.missing)))
	if err := s.details.load(ctx, sc.missing); err != nil && ctx.Err() == nil {
		s.details.degraded.Inc()
		s.log.Warn("nearby answered without names and addresses", "stores", len(sc.missing), "err", err)
	}
	for i := range sc.found {
		f := &sc.found[i]
		f.details = st.detailsFor(f.slot, f.record)
	}
}

// coverDetails makes the token stand for the names and addresses that are newer than memory, or goes without them.
func (s *Server) coverDetails(ctx context.Context, pos *position, sc *scratch) {
	var err error
	covered := false
	for i := range sc.found {
		f := &sc.found[i]
		if f.details == "" || detailsRevOf(f.details) == f.record.rev {
			continue
		}
		if !covered {
			ctx, cancel := context.WithTimeout(ctx, s.cfg.ReadLimit)
			err, covered = s.coverAhead(ctx, pos), true
			cancel()
		}
		if err != nil {
			f.details = ""
		}
	}
}

// writeNearby writes the answer to sc.body.
func (s *Server) writeNearby(sc *scratch, q *nearbyQuery, pos position, now time.Time, more bool) {
	b := append(sc.body[:0], `{"stores":[`...)
	for i := range sc.found {
		if i > 0 {
			b = append(b, ',')
		}
		b = s.appendFound(b, &sc.found[i], q, now)
	}
	b = append(b, `],"region":"`...)
	b = append(b, s.cfg.Region...)
	b = append(b, `","as_of":"`...)
	b = appendTime(b, pos.applied.At.UnixMilli())
	b = append(b, `","lag_s":`...)
	b = appendMilli(b, max(0, now.Sub(pos.applied.At).Seconds()))
	b = append(b, `,"next_cursor":`...)
	if more {
		last := &sc.found[len(sc.found)-1]
		b = append(b, '"')
		b = cursor{query: q.fingerprint(), key: last.key, mark: last.mark, id: last.record.id}.appendTo(b)
		b = append(b, '"')
	} else {
		b = append(b, "null"...)
	}
	sc.body = append(b, "}\n"...)
}

func (s *Server) appendFound(b []byte, f *found, q *nearbyQuery, now time.Time) []byte {
	d := f.details
	if q.fields != allFields || d == "" || !q.future.IsZero() {
		return appendFields(b, f, q, now)
	}
	end := detailsEnd(d, partFirst)
	b = append(b, d[detailsHead:end]...)
	b = appendMilli(b, float64(f.distance))
	b = append(b, d[end:]...)
	b = appendOpen(b, f.record.attrs.schedule, now)
	b = append(b, `,"queue":`...)
	b = appendQueue(b, f, now)
	return append(b, '}')
}

// appendFields is appendFound for some of the fields, or for a store whose details are not in memory.
func appendFields(b []byte, f *found, q *nearbyQuery, now time.Time) []byte {
	rec, fields, start := f.record, q.fields, len(b)
	var d detailsView
	if fields&(fieldName|fieldLat|fieldLng|fieldAddress) != 0 {
		d = viewDetails(rec, f.details)
	}
	// Each member writes its comma first; the first one becomes the brace.
	if fields&fieldID != 0 {
		b = append(append(b, `,"id":"`...), rec.id...) // of letters that need no escape
		b = append(b, '"')
	}
	if fields&fieldName != 0 {
		b = append(append(b, `,"name":`...), d.name...)
	}
	if fields&fieldLat != 0 {
		b = append(append(b, textLat...), d.lat...)
	}
	if fields&fieldLng != 0 {
		b = append(append(b, textLng...), d.lng...)
	}
	if fields&fieldDistance != 0 {
		b = appendMilli(append(b, textMiddle...), float64(f.distance))
	}
	if fields&fieldAddress != 0 {
		b = append(append(b, textAddress...), d.address...)
	}
	if fields&fieldOpen != 0 {
		b = append(b, textOpen...)
		if sc := rec.attrs.schedule; sc == nil {
			b = append(b, "null"...)
		} else {
			b = strconv.AppendBool(b, q.open(sc, now))
		}
	}
	if fields&fieldQueue != 0 {
		b = appendQueue(append(b, `,"queue":`...), f, now)
		if !q.future.IsZero() {
			b = appendExpected(b, f)
		}
	}
	b[start] = '{' // parseFields lets no empty mask pass
	return append(b, '}')
}

// appendOpen writes whether a store is open, null where it is not known.
func appendOpen(b []byte, s *schedule, now time.Time) []byte {
	if s == nil {
		return append(b, "null"...)
	}
	return strconv.AppendBool(b, s.open(now))
}

// appendQueue writes a live queue as nearby has it; null for a store that never reported.
func appendQueue(b []byte, f *found, now time.Time) []byte {
	q := f.queue
	if !q.known() {
		return append(b, "null"...)
	}
	wait, high := q.wait(f.record.attrs)
	b = append(b, `{"length":`...)
	b = strconv.AppendInt(b, int64(q.length()), 10)
	b = append(b, `,"wait_s":`...)
	b = strconv.AppendInt(b, int64(wait), 10)
	b = append(b, `,"wait_high_s":`...)
	b = strconv.AppendInt(b, int64(high), 10)
	b = appendUsual(append(b, `,"usual_length":`...), f.usual)
	b = append(b, `,"updated_at":"`...)
	b = appendTime(b, q.unixMilli())
	b = append(b, `","age_s":`...)
	b = strconv.AppendInt(b, max(0, (now.UnixMilli()-q.unixMilli())/1000), 10)
	return append(b, '}')
}

// ageS is how old an observation is in whole seconds; one from a clock that is a little fast is 0 seconds old.
func ageS(at, now time.Time) int64 { return max(0, int64(now.Sub(at)/time.Second)) }

// appendMilli writes a number that is not negative with up to three decimals.
func appendMilli(b []byte, v float64) []byte {
	milli := int64(math.Round(v * 1000))
	b = strconv.AppendInt(b, milli/1000, 10)
	rest := milli % 1000
	if rest == 0 {
		return b
	}
	b = append(b, '.', byte('0'+rest/100), byte('0'+rest/10%10), byte('0'+rest%10))
	for b[len(b)-1] == '0' {
		b = b[:len(b)-1]
	}
	return b
}

// appendTime writes milliseconds since 1970 as RFC 3339 in UTC, without zeros at the end, as time.RFC3339Nano has it. Years
// end at 9999. It is for the hot path, where six times an answer cost more than the distances.
func appendTime(b []byte, ms int64) []byte {
	const day = 24 * 60 * 60 * 1000
	if ms < 0 || ms >= 253402300800000 { // the year 10000
		return time.UnixMilli(ms).UTC().AppendFormat(b, time.RFC3339Nano)
	}
	days, rest := ms/day, uint32(ms%day)
	// The civil date in a calendar whose years begin in March, so that the leap day is the last one.
	z := uint32(days) + 719468
	era := z / 146097
	doe := z % 146097
	yoe := (doe - doe/1460 + doe/36524 - doe/146096) / 365
	doy := doe - (365*yoe + yoe/4 - yoe/100)
	shifted := (5*doy + 2) / 153
	month, year := shifted+3, yoe+era*400
	if month > 12 {
		month, year = month-12, year+1
	}
	seconds, milli := rest/1000, rest%1000
	b = append(b, "0000-00-00T00:00:00.000Z"...)
	t := b[len(b)-len("0000-00-00T00:00:00.000Z"):]
	putTwo(t, 0, year/100)
	putTwo(t, 2, year%100)
	putTwo(t, 5, month)
	putTwo(t, 8, doy-(153*shifted+2)/5+1)
	putTwo(t, 11, seconds/3600)
	putTwo(t, 14, seconds/60%60)
	putTwo(t, 17, seconds%60)
	t[20] = '0' + byte(milli/100)
	putTwo(t, 21, milli%100)
	switch {
	case milli == 0:
		t[19] = 'Z'
		return b[:len(b)-4]
	case milli%100 == 0:
		t[21] = 'Z'
		return b[:len(b)-2]
	case milli%10 == 0:
		t[22] = 'Z'
		return b[:len(b)-1]
	}
	return b
}

// putTwo writes a number below 100 as two digits.
func putTwo(b []byte, at int, v uint32) { b[at], b[at+1] = '0'+byte(v/10), '0'+byte(v%10) }
