package edge

import (
	"cmp"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/labstack/echo/v4"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/geo"
	"github.com/shortline/shortline/replication"
)

const (
	// sumLife is for how long sums over all stores are answered again: a pass over a million takes some 50 ms, and is made once in this
	// time however many ask.
	sumLife = time.Second
	// maxHeatRes is the finest resolution of a heatmap, cells of some five square kilometres; maxHeatCells bounds an answer.
	maxHeatRes   = 7
	maxHeatCells = 10_000
	// overviewRes is that of the cells in an overview, and overviewTop how many stores and cells it names.
	overviewRes = 5
	overviewTop = 10
)

// load sums up the queues of some stores.
type load struct {
	stores, reporting int
	people            int64
	waitS             float64 // of all that reported, summed
}

func (l *load) add(queue liveQueue, a *attrs) {
	l.stores++
	if !queue.known() {
		return
	}
	wait, _ := queue.wait(a)
	l.reporting++
	l.people += int64(queue.length())
	l.waitS += float64(wait)
}

// means are null where no store reported.
func (l *load) means() (length *float64, waitS *int) {
	if l.reporting == 0 {
		return nil, nil
	}
	n := float64(l.reporting)
	return ptr(tenth(float64(l.people) / n)), ptr(seconds(l.waitS / n))
}

// each calls yield with every store that exists, in no order that means anything.
func (s *state) each(yield func(rec *record, queue liveQueue)) {
	for _, p := range *s.pages.Load() {
		for i := range p {
			if rec := p[i].record.Load(); rec != nil && rec.attrs != nil {
				yield(rec, p[i].live())
			}
		}
	}
}

// shared is a value that takes a pass over all stores to make. One is made at a time, and answered again for sumLife to those who
// do not ask for anything newer.
type shared[T any] struct {
	mu      sync.Mutex
	of      *state
	applied *replication.Applied // before it was made
	made    time.Time
	kept    T
}

func (v *shared[T]) get(pos *position, level consistency, now time.Time, make func() T) T {
	v.mu.Lock()
	defer v.mu.Unlock()
	stale := v.of != pos.state || now.Sub(v.made).Abs() >= sumLife
	behind := level == consistencyStrong || level != consistencyEventual && pos.have && v.applied != nil && !v.applied.Satisfies(pos.sent)
	if stale || behind {
		v.kept, v.of, v.applied, v.made = make(), pos.state, pos.applied, now
	}
	return v.kept
}

// sums are the values over all stores that a node keeps.
type sums struct {
	heat     [maxHeatRes + 1]shared[map[geo.Cell]*load]
	overview shared[*OverviewAnswer]
}

// heat sums up the queues by cell.
func (s *state) heat(res int) map[geo.Cell]*load {
	cells := map[geo.Cell]*load{}
	var last geo.Cell
	var at *load
	s.each(func(rec *record, queue liveQueue) {
		if rec.cell == 0 {
			return
		}
		if c := rec.cell.Parent(res); at == nil || c != last { // neighbours come one after the other
			if at = cells[c]; at == nil {
				at = new(load)
				cells[c] = at
			}
			last = c
		}
		at.add(queue, rec.attrs)
	})
	return cells
}

// box is a part of the Earth between two meridians and two parallels; west may be greater than east, across the antimeridian.
type box struct{ west, south, east, north float64 }

func (b *box) contains(p geo.Point) bool {
	if p.Lat < b.south || p.Lat > b.north {
		return false
	}
	if b.west <= b.east {
		return p.Lng >= b.west && p.Lng <= b.east
	}
	return p.Lng >= b.west || p.Lng <= b.east
}

// res is a resolution that gives a picture of the box some hundred cells across.
func (b *box) res() int {
	width := b.east - b.west
	if width < 0 {
		width += 360
	}
	span := max(width, b.north-b.south)
	for res, least := range []float64{360, 180, 60, 24, 9, 3.5, 1.3} {
		if span >= least {
			return res
		}
	}
	return maxHeatRes
}

func parseBox(value string) (b box, err error) {
	parts := strings.Split(value, ",")
	if len(parts) != 4 {
		return b, malformed("bbox", "%q is not four numbers west,south,east,north, such as -74.1,40.6,-73.8,40.9", clip(value))
	}
	for i, to := range []*float64{&b.west, &b.south, &b.east, &b.north} {
		if *to, err = parseNumber("bbox", strings.TrimSpace(parts[i])); err != nil {
			return b, err
		}
	}
	if b.south > b.north || b.south < -90 || b.north > 90 || math.Abs(b.west) > 180 || math.Abs(b.east) > 180 {
		return b, invalid("bbox", "%s is not west,south,east,north in degrees: south at most north, longitudes -180 to 180", clip(value))
	}
	return b, nil
}

// Heatmap is the answer to GET /v1/heatmap, a GeoJSON FeatureCollection (RFC 7946).
type Heatmap struct {
	Type     string        `json:"type" enum:"FeatureCollection"`
	Res      int           `json:"res" minimum:"0" maximum:"7" doc:"The H3 resolution of the cells"`
	AsOf     time.Time     `json:"as_of"`
	Features []HeatFeature `json:"features" doc:"A cell each, those with the most people first"`
}

// HeatFeature is one cell.
type HeatFeature struct {
	Type       string       `json:"type" enum:"Feature"`
	ID         string       `json:"id" doc:"The H3 cell"`
	Geometry   HeatGeometry `json:"geometry"`
	Properties HeatLoad     `json:"properties"`
}

// HeatGeometry is a cell's outline.
type HeatGeometry struct {
	Type        string           `json:"type" enum:"Polygon"`
	Coordinates [][][2]longitude `json:"coordinates" doc:"Longitude and latitude. Across the antimeridian longitudes go on past 180, so that the outline is whole"`
}

// longitude is a coordinate with six decimals, a tenth of a metre.
type longitude float64

// MarshalJSON writes it.
func (l longitude) MarshalJSON() ([]byte, error) {
	return strconv.AppendFloat(nil, math.Round(float64(l)*1e6)/1e6, 'f', -1, 64), nil
}

// Schema tells huma that it is a number.
func (longitude) Schema(huma.Registry) *huma.Schema { return &huma.Schema{Type: huma.TypeNumber} }

// HeatLoad is the load of a cell.
type HeatLoad struct {
	Stores     int      `json:"stores" minimum:"1"`
	Reporting  int      `json:"reporting" minimum:"0" doc:"Stores that ever reported"`
	People     int64    `json:"people" minimum:"0" doc:"Waiting in all of them"`
	MeanLength *float64 `json:"mean_length" nullable:"true" doc:"Over those that reported"`
	MeanWaitS  *int     `json:"mean_wait_s" nullable:"true"`
}

func heatLoad(l *load) HeatLoad {
	length, wait := l.means()
	return HeatLoad{l.stores, l.reporting, l.people, length, wait}
}

func outline(c geo.Cell) [][][2]longitude {
	corners := c.Boundary()
	ring := make([][2]longitude, 0, len(corners)+1)
	first := c.Centre().Lng
	for _, p := range corners {
		lng := p.Lng
		switch { // beside the centre, past 180 degrees if need be
		case lng-first > 180:
			lng -= 360
		case first-lng > 180:
			lng += 360
		}
		ring = append(ring, [2]longitude{longitude(lng), longitude(p.Lat)})
	}
	return [][][2]longitude{append(ring, ring[0])}
}

func parseHeatmap(raw string) (box, int, consistency, error) {
	b, res, level, err := parseBoxQuery(raw, "res", 0, maxHeatRes, -1)
	if res < 0 {
		res = b.res()
	}
	return b, res, level, err
}

// parseBoxQuery reads what is asked of a box: bbox, the whole Earth where it is absent; a whole number between low and high; consistency.
func parseBoxQuery(raw, number string, low, high, absent int) (b box, n int, level consistency, err error) {
	b, n = box{-180, -90, 180, 90}, absent
	seen := map[string]bool{}
	err = parameters(raw, func(name, value string) (err error) {
		if seen[name] {
			return malformed(clip(name), "is given more than once")
		}
		seen[name] = true
		switch name {
		case "bbox":
			b, err = parseBox(value)
		case number:
			if n, err = strconv.Atoi(value); err != nil {
				return malformed(name, "%q is not a whole number", clip(value))
			}
			if n < low || n > high {
				return invalid(name, "%d is not between %d and %d", n, low, high)
			}
		case "consistency":
			level, err = parseConsistency(value)
		default:
			return unknownParameter(name, []string{"bbox", number, "consistency"})
		}
		return err
	})
	return b, n, level, err
}

// heat is the shared sum by cell.
func (s *Server) heat(pos *position, level consistency, res int) map[geo.Cell]*load {
	return s.sums.heat[res].get(pos, level, s.now(), func() map[geo.Cell]*load { return pos.state.heat(res) })
}

// getHeatmap answers GET /v1/heatmap.
func (s *Server) getHeatmap(c echo.Context) error {
	r := c.Request()
	b, res, level, err := parseHeatmap(r.URL.RawQuery)
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
	cells := s.heat(&pos, level, res)
	s.cover(&pos)
	a := Heatmap{Type: "FeatureCollection", Res: res, AsOf: pos.applied.At.UTC(), Features: []HeatFeature{}}
	for cell, l := range cells {
		if !b.contains(cell.Centre()) {
			continue
		}
		if len(a.Features) == maxHeatCells {
			return invalid("res", "%d gives more than %d cells in this bbox; ask for a smaller one or a coarser resolution", res, maxHeatCells)
		}
		a.Features = append(a.Features, HeatFeature{"Feature", cell.String(), HeatGeometry{"Polygon", outline(cell)}, heatLoad(l)})
	}
	slices.SortFunc(a.Features, func(x, y HeatFeature) int {
		return cmp.Or(cmp.Compare(y.Properties.People, x.Properties.People), cmp.Compare(x.ID, y.ID))
	})
	return s.answer(c, http.StatusOK, pos.token, &a)
}

// OverviewAnswer is the answer to GET /v1/analytics/overview.
type OverviewAnswer struct {
	Region     string      `json:"region"`
	AsOf       time.Time   `json:"as_of"`
	Stores     int         `json:"stores" minimum:"0"`
	Reporting  int         `json:"reporting" minimum:"0" doc:"Stores that ever reported"`
	People     int64       `json:"people" minimum:"0" doc:"Waiting in all of them"`
	MeanLength *float64    `json:"mean_length" nullable:"true"`
	MeanWaitS  *int        `json:"mean_wait_s" nullable:"true"`
	Busiest    []BusyStore `json:"busiest" doc:"The ten stores with the longest wait"`
	Cells      []BusyCell  `json:"cells" doc:"The ten H3 cells of resolution 5 with the most people"`
}

// BusyStore is one of the stores with the longest wait.
type BusyStore struct {
	ID     shortline.StoreID `json:"id"`
	Lat    float64           `json:"lat"`
	Lng    float64           `json:"lng"`
	Length int               `json:"length"`
	WaitS  int               `json:"wait_s"`
}

// BusyCell is one of the cells with the most people.
type BusyCell struct {
	Cell string  `json:"cell"`
	Lat  float64 `json:"lat" doc:"Of its middle"`
	Lng  float64 `json:"lng"`
	HeatLoad
}

// overview sums up everything in one pass, with bounded memory for the busiest.
func (s *state) overview(cells map[geo.Cell]*load) *OverviewAnswer {
	var total load
	var top []BusyStore
	longer := func(a, b BusyStore) int {
		return cmp.Or(cmp.Compare(b.WaitS, a.WaitS), cmp.Compare(b.Length, a.Length), cmp.Compare(a.ID, b.ID))
	}
	s.each(func(rec *record, queue liveQueue) {
		total.add(queue, rec.attrs)
		if queue.length() == 0 {
			return
		}
		wait, _ := queue.wait(rec.attrs)
		b := BusyStore{rec.id, rec.lat, rec.lng, queue.length(), wait}
		if len(top) == overviewTop && longer(b, top[overviewTop-1]) > 0 {
			return
		}
		i, _ := slices.BinarySearchFunc(top, b, longer)
		top = slices.Insert(top, i, b)[:min(len(top)+1, overviewTop)]
	})
	a := &OverviewAnswer{Stores: total.stores, Reporting: total.reporting, People: total.people, Busiest: top, Cells: []BusyCell{}}
	a.MeanLength, a.MeanWaitS = total.means()
	if top == nil {
		a.Busiest = []BusyStore{}
	}
	for cell, l := range cells {
		if l.people > 0 {
			p := cell.Centre()
			a.Cells = append(a.Cells, BusyCell{cell.String(), thousandth(p.Lat), thousandth(p.Lng), heatLoad(l)})
		}
	}
	slices.SortFunc(a.Cells, func(x, y BusyCell) int { return cmp.Or(cmp.Compare(y.People, x.People), cmp.Compare(x.Cell, y.Cell)) })
	a.Cells = slices.Clip(a.Cells[:min(len(a.Cells), overviewTop)])
	return a
}

// getOverview answers GET /v1/analytics/overview.
func (s *Server) getOverview(c echo.Context) error {
	r := c.Request()
	level, err := onlyConsistency(r.URL.RawQuery)
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
	a := *s.sums.overview.get(&pos, level, s.now(), func() *OverviewAnswer { return pos.state.overview(s.heat(&pos, level, overviewRes)) })
	s.cover(&pos)
	a.Region, a.AsOf = s.cfg.Region, pos.applied.At.UTC()
	return s.answer(c, http.StatusOK, pos.token, &a)
}
