package edge

import (
	"net/http"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/shortline/shortline/geo"
)

const (
	// defaultMapStores and maxMapStores bound the stores of a map.
	defaultMapStores = 30_000
	maxMapStores     = 100_000
	// mapLooks is how many stores are looked at for each that may be answered: those of a circle around the box.
	mapLooks = 8
)

// MapAnswer is the answer to GET /v1/map: stores in columns, which is a third of the size of objects and what maps want.
type MapAnswer struct {
	Region   string    `json:"region"`
	AsOf     time.Time `json:"as_of"`
	Complete bool      `json:"complete" doc:"false: there are more stores than limit, and none is listed. Ask for a smaller bbox, or draw /v1/heatmap"`
	IDs      []string  `json:"ids" doc:"The nth entries of all lists are those of one store; the order means nothing"`
	Lat      []float64 `json:"lat" doc:"Degrees, rounded to five decimals (a metre)"`
	Lng      []float64 `json:"lng"`
	WaitS    []*int    `json:"wait_s" doc:"Expected seconds until somebody who joins now is served; null where the store never reported"`
	Open     []*bool   `json:"open" doc:"Whether it is open now; null where hours or time zone are not known"`
}

func parseMap(raw string) (box, int, consistency, error) {
	return parseBoxQuery(raw, "limit", 1, maxMapStores, defaultMapStores)
}

// circle is around the box: its centre, and no less than the distance to the farthest point of the box.
func (b *box) circle() (geo.Point, geo.Metres) {
	width := b.east - b.west
	if width < 0 {
		width += 360
	}
	centre := geo.Point{Lat: (b.south + b.north) / 2, Lng: wrapLongitude(b.west + width/2)}
	if width > 180 {
		return centre, maxRadius
	}
	// Along a parallel the distance grows with the difference in longitude, and along a meridian at most 90 degrees away it is greatest
	// at one of the ends: the farthest point is a corner.
	east := wrapLongitude(centre.Lng + width/2)
	return centre, max(geo.Distance(centre, geo.Point{Lat: b.south, Lng: east}), geo.Distance(centre, geo.Point{Lat: b.north, Lng: east})) + 1
}

func wrapLongitude(lng float64) float64 {
	if lng > 180 {
		return lng - 360
	}
	return lng
}

// inBox returns the stores in the box; complete is false where there are more than limit, or too many around it.
func (s *state) inBox(b *box, limit int) (stores []*slot, complete bool) {
	centre, radius := b.circle()
	looks := 0
	complete = true
	s.index.Nearby(centre, geo.Search{Within: radius}, func(hit geo.Hit) bool {
		sl := s.slot(hit.Ref)
		looks++
		if rec := sl.record.Load(); rec.attrs != nil && b.contains(geo.Point{Lat: rec.lat, Lng: rec.lng}) {
			stores = append(stores, sl)
		}
		complete = len(stores) <= limit && looks <= mapLooks*limit
		return complete
	})
	return stores, complete
}

// getMap answers GET /v1/map. The JSON is written by hand: with an encoder it would take longer than to find the stores.
func (s *Server) getMap(c echo.Context) error {
	r := c.Request()
	b, limit, level, err := parseMap(r.URL.RawQuery)
	if err != nil {
		return err
	}
	if err := s.allowRead(r); err != nil {
		return err
	}
	pos, err := s.read(r, level)
	if err != nil {
		return err
	}
	release, err := s.takeLongSearch(r.Context())
	if err != nil {
		return err
	}
	stores, complete := pos.state.inBox(&b, limit)
	release()
	if !complete {
		stores = nil
	}
	body := s.writeMap(stores, complete, pos.applied.At)
	s.cover(&pos)
	h := c.Response().Header()
	h["Content-Type"], h["Cache-Control"] = jsonHeader, noStoreHeader
	h.Set(headerToken, pos.token)
	c.Response().WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead {
		return nil
	}
	_, err = c.Response().Write(body)
	return err
}

func (s *Server) writeMap(stores []*slot, complete bool, at time.Time) []byte {
	now := s.now()
	out := make([]byte, 0, 200+64*len(stores))
	out = append(out, `{"region":"`...)
	out = append(out, s.cfg.Region...) // letters, digits, '-', '_' and '.', as ids are
	out = append(out, `","as_of":"`...)
	out = at.UTC().AppendFormat(out, time.RFC3339Nano)
	out = append(out, `","complete":`...)
	out = strconv.AppendBool(out, complete)
	records := make([]*record, 0, len(stores))
	waits := make([]int, 0, len(stores))
	for _, sl := range stores {
		rec := sl.record.Load()
		if rec.attrs == nil { // deleted meanwhile
			continue
		}
		wait := -1
		if q := sl.live(); q.known() {
			wait, _ = q.wait(rec.attrs)
		}
		records, waits = append(records, rec), append(waits, wait)
	}
	column := func(name string, entry func(i int)) {
		out = append(append(append(out, `,"`...), name...), `":[`...)
		for i := range records {
			if i > 0 {
				out = append(out, ',')
			}
			entry(i)
		}
		out = append(out, ']')
	}
	column("ids", func(i int) { out = append(append(append(out, '"'), records[i].id...), '"') })
	column("lat", func(i int) { out = appendDegrees(out, records[i].lat) })
	column("lng", func(i int) { out = appendDegrees(out, records[i].lng) })
	column("wait_s", func(i int) {
		if waits[i] < 0 {
			out = append(out, "null"...)
			return
		}
		out = strconv.AppendInt(out, int64(waits[i]), 10)
	})
	column("open", func(i int) {
		schedule := records[i].attrs.schedule
		if schedule == nil {
			out = append(out, "null"...)
			return
		}
		out = strconv.AppendBool(out, schedule.open(now))
	})
	return append(out, "}\n"...)
}

// appendDegrees writes a coordinate with five decimals at most.
func appendDegrees(out []byte, v float64) []byte {
	out = strconv.AppendFloat(out, v, 'f', 5, 64)
	for out[len(out)-1] == '0' {
		out = out[:len(out)-1]
	}
	if out[len(out)-1] == '.' {
		out = out[:len(out)-1]
	}
	return out
}
