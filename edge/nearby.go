package edge

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"math"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/geo"
	"github.com/shortline/shortline/replication"
)

// found is one store of a nearby answer.
type found struct {
	record   *record
	queue    packedQueue
	distance geo.Metres
	mark     geo.Mark
}

// scratch is what one nearby request needs while it is answered; it is used again by the next.
type scratch struct {
	found   []found
	body    []byte
	details []byte
	missing []shortline.StoreID
}

var scratches = sync.Pool{New: func() any { return new(scratch) }}

var jsonHeader, noStoreHeader = []string{"application/json"}, []string{"no-store"}

// nearby answers GET /v1/nearby. It is the hot path: everything that it needs is in memory, and it writes its JSON by hand
// because an encoder would cost more than the search.
func (s *Server) nearby(c echo.Context) error {
	r := c.Request()
	q, err := parseNearby(r.URL.RawQuery)
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
	now := s.now()
	sc := scratches.Get().(*scratch)
	defer scratches.Put(sc)
	more, err := s.search(r.Context(), pos.state, &q, now, sc)
	if err != nil {
		return err
	}
	s.writeNearby(sc, &q, pos, now, more)
	if len(sc.missing) > 0 {
		s.loadMissing(r.Context(), sc.missing)
		s.writeNearby(sc, &q, pos, now, more)
	}

	w := c.Response()
	h := w.Header()
	h["Content-Type"] = jsonHeader
	h["Cache-Control"] = noStoreHeader
	h[headerToken] = []string{pos.token}
	h["Content-Length"] = []string{strconv.Itoa(len(sc.body))}
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead {
		return nil
	}
	_, err = w.Write(sc.body)
	return err
}

// search fills sc.found with up to q.limit stores in order, and tells whether there are more.
func (s *Server) search(ctx context.Context, st *state, q *nearbyQuery, now time.Time, sc *scratch) (more bool, err error) {
	sc.found = sc.found[:0]
	bounds := geo.Search{Within: q.radius}
	if q.after {
		bounds.From = q.cursor.mark
		bounds.Passed = func(ref geo.Ref) bool { return st.record(ref).id <= q.cursor.id }
	}
	var release func()
	defer func() {
		if release != nil {
			release()
		}
	}()
	filtered := q.openNow || q.maxWait >= 0 || len(q.tags) > 0 || q.brand != ""
	deadline := now.Add(s.cfg.ReadLimit)
	seen := 0
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
		rec, queue := sl.record.Load(), packedQueue(sl.queue.Load())
		if rec.attrs == nil || filtered && !q.matches(rec, queue, now) { // nil: deleted since the search began
			return true
		}
		if len(sc.found) == q.limit {
			more = true
			return false
		}
		sc.found = append(sc.found, found{rec, queue, hit.Distance, hit.Mark})
		return true
	})
	return more, err
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
func (q *nearbyQuery) matches(rec *record, queue packedQueue, now time.Time) bool {
	a := rec.attrs
	if q.brand != "" && a.brand != q.brand {
		return false
	}
	for _, t := range q.tags {
		if !slices.Contains(a.tags, t) {
			return false
		}
	}
	if q.maxWait >= 0 {
		if !queue.known() {
			return false
		}
		if wait, _ := shortline.Wait(queue.length(), a.serviceS); wait > q.maxWait {
			return false
		}
	}
	return !q.openNow || a.schedule != nil && a.schedule.open(now)
}

// loadMissing brings the details of stores into the cache. If the database cannot be read, the answer goes out without
// them: where the stores are and how long their queues is known from memory.
func (s *Server) loadMissing(ctx context.Context, ids []shortline.StoreID) {
	if err := s.details.Load(ctx, slices.Clone(ids)); err != nil && ctx.Err() == nil {
		s.metrics.degraded.Inc()
		s.log.Warn("nearby answered without names and addresses", "stores", len(ids), "err", err)
	}
}

// writeNearby writes the answer to sc.body, and to sc.missing the stores whose details were not in the cache.
func (s *Server) writeNearby(sc *scratch, q *nearbyQuery, pos position, now time.Time, more bool) {
	sc.missing = sc.missing[:0]
	b := append(sc.body[:0], `{"stores":[`...)
	for i := range sc.found {
		if i > 0 {
			b = append(b, ',')
		}
		b = s.appendFound(b, sc, &sc.found[i], q.fields, now)
	}
	b = append(b, `],"region":"`...)
	b = append(b, s.cfg.Region...)
	b = append(b, `","as_of":"`...)
	b = pos.applied.At.UTC().Truncate(time.Millisecond).AppendFormat(b, time.RFC3339Nano)
	b = append(b, `","lag_s":`...)
	b = appendMilli(b, max(0, now.Sub(pos.applied.At).Seconds()))
	b = append(b, `,"next_cursor":`...)
	if more {
		last := &sc.found[len(sc.found)-1]
		b = append(b, '"')
		b = append(b, cursor{query: q.fingerprint(), mark: last.mark, id: last.record.id}.String()...)
		b = append(b, '"')
	} else {
		b = append(b, "null"...)
	}
	sc.body = append(b, "}\n"...)
}

func (s *Server) appendFound(b []byte, sc *scratch, f *found, fields fieldMask, now time.Time) []byte {
	rec := f.record
	var d detailsView
	if fields&(fieldName|fieldAddress) != 0 {
		var ok bool
		if sc.details, ok = s.details.Get(sc.details[:0], rec.id, rec.rev); !ok {
			sc.missing = append(sc.missing, rec.id)
		}
		d = viewDetails(sc.details)
	}
	start := len(b)
	// Each member writes its comma first; the first one becomes the brace.
	if fields&fieldID != 0 {
		b = append(b, `,"id":"`...)
		b = append(b, rec.id...) // of letters that need no escape
		b = append(b, '"')
	}
	if fields&fieldName != 0 {
		b = append(b, `,"name":`...)
		b = append(b, d.name...)
	}
	if fields&fieldLat != 0 {
		b = append(b, `,"lat":`...)
		b = appendDegrees(b, d.lat, rec.lat)
	}
	if fields&fieldLng != 0 {
		b = append(b, `,"lng":`...)
		b = appendDegrees(b, d.lng, rec.lng)
	}
	if fields&fieldDistance != 0 {
		b = append(b, `,"distance_m":`...)
		b = appendMilli(b, float64(f.distance))
	}
	if fields&fieldAddress != 0 {
		b = append(b, `,"address":`...)
		b = append(b, d.address...)
	}
	if fields&fieldOpen != 0 {
		b = append(b, `,"open":`...)
		if sch := rec.attrs.schedule; sch == nil {
			b = append(b, "null"...)
		} else {
			b = strconv.AppendBool(b, sch.open(now))
		}
	}
	if fields&fieldQueue != 0 {
		b = append(b, `,"queue":`...)
		b = appendQueue(b, f.queue, rec.attrs.serviceS, now)
	}
	if len(b) == start {
		return append(b, "{}"...)
	}
	b[start] = '{'
	return append(b, '}')
}

// appendQueue writes a live queue as nearby has it; null for a store that never reported.
func appendQueue(b []byte, q packedQueue, serviceS float64, now time.Time) []byte {
	if !q.known() {
		return append(b, "null"...)
	}
	wait, high := shortline.Wait(q.length(), serviceS)
	at := q.updatedAt()
	b = append(b, `{"length":`...)
	b = strconv.AppendInt(b, int64(q.length()), 10)
	b = append(b, `,"wait_s":`...)
	b = strconv.AppendInt(b, int64(wait), 10)
	b = append(b, `,"wait_high_s":`...)
	b = strconv.AppendInt(b, int64(high), 10)
	b = append(b, `,"usual_length":null,"updated_at":"`...)
	b = at.AppendFormat(b, time.RFC3339Nano)
	b = append(b, `","age_s":`...)
	b = strconv.AppendInt(b, ageS(at, now), 10)
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

func appendDegrees(b, cached []byte, v float64) []byte {
	if len(cached) > 0 {
		return append(b, cached...)
	}
	return appendJSON(b, v)
}

// encodeDetails is the form of a store in the details cache: four JSON values (name, lat, lng, address) ready to be copied
// into answers, after the lengths of the first three in two bytes each.
func encodeDetails(dst []byte, row *replication.Row) []byte {
	start := len(dst)
	dst = append(dst, 0, 0, 0, 0, 0, 0)
	part := func(i, from int) { binary.LittleEndian.PutUint16(dst[start+2*i:], uint16(len(dst)-from)) }
	from := len(dst)
	dst = appendJSON(dst, row.Store.Name)
	part(0, from)
	from = len(dst)
	dst = appendJSON(dst, row.Store.Lat)
	part(1, from)
	from = len(dst)
	dst = appendJSON(dst, row.Store.Lng)
	part(2, from)
	if row.Store.Address == nil {
		return append(dst, "{}"...)
	}
	return appendJSON(dst, row.Store.Address)
}

func appendJSON(dst []byte, v any) []byte {
	text, err := json.Marshal(v)
	if err != nil { // strings and structs of strings only
		return append(dst, "null"...)
	}
	return append(dst, text...)
}

// detailsView points into an encoded form.
type detailsView struct{ name, lat, lng, address []byte }

var null = []byte("null")

// viewDetails takes an encoded form apart; of one that is missing or damaged it makes nulls.
func viewDetails(b []byte) detailsView {
	none := detailsView{name: null, address: null}
	if len(b) < 6 {
		return none
	}
	n0, n1, n2 := int(binary.LittleEndian.Uint16(b)), int(binary.LittleEndian.Uint16(b[2:])), int(binary.LittleEndian.Uint16(b[4:]))
	b = b[6:]
	if n0+n1+n2 > len(b) {
		return none
	}
	return detailsView{name: b[:n0], lat: b[n0 : n0+n1], lng: b[n0+n1 : n0+n1+n2], address: b[n0+n1+n2:]}
}
