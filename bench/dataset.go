package main

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/geo"
	"github.com/shortline/shortline/internal/demo"
	"github.com/shortline/shortline/replication"
)

// dataset is invented stores, as many as one likes, the same in every process and every run. A store is a pure function
// of its number, so that nobody has to hold the details of a million.
//
// They lie as real ones do: scattered around the demo stores, which stand in and around some 4,700 real cities by
// population, most of them within a few kilometres; two in a hundred stand exactly where another one does, as in a mall.
// They belong to 24 chains, each with four patterns of hours, tags and service time.
type dataset struct {
	towns  []shortline.Store
	points []geo.Point
}

const (
	datasetSeed = 0x5407
	chains      = 24
	patterns    = 4
)

func newDataset(n int) (*dataset, error) {
	towns, err := demo.Stores()
	if err != nil {
		return nil, err
	}
	d := &dataset{towns: towns, points: make([]geo.Point, n)}
	for i := range d.points {
		d.points[i] = d.place(i)
	}
	return d, nil
}

// dice are those of a store, for one purpose.
func dice(i int, purpose uint64) *rand.Rand {
	x := uint64(i) + (purpose+1)<<40 // the finisher of SplitMix64, so that neighbours have nothing in common
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return rand.New(rand.NewPCG(datasetSeed, x^x>>31))
}

const (
	forPlace = iota
	forDetails
	forQueue
	forQuestions
	forMoves
)

// town is the demo store around which the store lies.
func (d *dataset) town(i int) (*shortline.Store, *rand.Rand) {
	r := dice(i, forPlace)
	return &d.towns[r.IntN(len(d.towns))], r
}

func (d *dataset) place(i int) geo.Point {
	if i%50 == 49 { // shares its place
		return d.place(i - 1)
	}
	town, r := d.town(i)
	spread := 700 * math.Exp(1.2*r.Float64()*2) // metres: 700 in the middle of town, 7,700 in its outskirts
	return rounded(offset(geo.Point{Lat: town.Lat, Lng: town.Lng}, r.NormFloat64()*spread, r.NormFloat64()*spread))
}

// rounded has the six decimals that people write, a tenth of a metre.
func rounded(p geo.Point) geo.Point {
	return geo.Point{Lat: math.Round(p.Lat*1e6) / 1e6, Lng: math.Round(p.Lng*1e6) / 1e6}
}

// offset is the point some metres to the north and east.
func offset(p geo.Point, north, east float64) geo.Point {
	const metresPerDegree = float64(geo.MaxDistance) / 180
	lat := min(85, max(-85, p.Lat+north/metresPerDegree)) // Redis ends there
	lng := p.Lng + east/metresPerDegree/math.Cos(lat*math.Pi/180)
	return geo.Point{Lat: lat, Lng: math.Mod(lng+540, 360) - 180}
}

// Ids are in another order than the numbers, so that ties are decided by ids and nothing else.
const (
	scramble   uint32 = 2654435761
	unscramble uint32 = 244002641 // its inverse modulo 2^32
)

func storeID(i int) shortline.StoreID {
	return shortline.StoreID(fmt.Sprintf("s-%08x", uint32(i)*scramble))
}

// storeNumber is the inverse of storeID.
func storeNumber(id shortline.StoreID) (int, bool) {
	if len(id) != 10 {
		return 0, false
	}
	v, err := strconv.ParseUint(string(id[2:]), 16, 32)
	return int(uint32(v) * unscramble), err == nil
}

// byID is the order of the ids of refs that are numbers of stores.
func byID(a, b geo.Ref) bool { return uint32(a)*scramble < uint32(b)*scramble }

var (
	chainNames = [chains]string{"Kettlecrumb", "Corner Pantry", "Blue Heron Books", "Dailygreen", "Fig & Barley", "Nordlicht Apotheke", "Paper Lantern",
		"Quickstitch", "Rosso Pizza", "Tidewater Market", "Umber Coffee", "Vale Hardware", "Westbound Fuel", "Yellow Door Bakery", "Zephyr Mobile",
		"Acorn Toys", "Bright Optics", "Copper Kettle", "Driftwood Deli", "Evergreen Garden", "Fourth Street Gym", "Golden Wok", "Harbour Fish", "Iron Horse Cycles"}
	streets = [...]string{"King Street", "Station Road", "Market Street", "Harbour Avenue", "Church Lane", "Victoria Road", "Mill Street", "Park Avenue",
		"High Street", "Queen Street", "Bridge Street", "Garden Boulevard", "Railway Parade", "University Avenue", "Castle Road", "North Ring Road"}
)

// store is the store in full. It passes Normalize and Validate.
func (d *dataset) store(i int) shortline.Store {
	town, _ := d.town(i)
	r := dice(i, forDetails)
	chain := r.IntN(chains)
	kind := &d.towns[(chain*patterns+r.IntN(patterns))*97%len(d.towns)]
	street := streets[r.IntN(len(streets))]
	p := d.points[i]
	return shortline.Store{
		ID:    storeID(i),
		Name:  chainNames[chain] + " " + town.Address.City + " " + street,
		Brand: chainNames[chain],
		Lat:   p.Lat, Lng: p.Lng,
		Address: &shortline.Address{
			Street: strconv.Itoa(1+r.IntN(400)) + " " + street, City: town.Address.City, State: town.Address.State,
			Postcode: strconv.Itoa(10000 + r.IntN(89999)), Country: town.Address.Country,
		},
		Timezone: town.Timezone, Hours: kind.Hours, Tags: kind.Tags, ServiceS: kind.ServiceS,
		Phone: "+1 555 " + strconv.Itoa(1000000+r.IntN(8999999)),
	}
}

// queue is the store's queue as reported shortly before the time; nil for the tenth store that never reported.
func (d *dataset) queue(i int, now time.Time) *shortline.Queue {
	r := dice(i, forQueue)
	if r.IntN(10) == 0 {
		return nil
	}
	length := min(int(r.ExpFloat64()*4), 40)
	return &shortline.Queue{Length: length, UpdatedAt: now.Add(-time.Duration(r.IntN(120_000)) * time.Millisecond).UTC().Truncate(time.Millisecond), Rev: 1}
}

// fill loads all stores into a view as a feed does.
func (d *dataset) fill(view replication.View, now time.Time) {
	const chunk = 1000
	rows := make([]replication.Row, 0, chunk)
	for i := range d.points {
		rows = append(rows, replication.Row{Store: d.store(i), Rev: 1, Queue: d.queue(i, now)})
		if len(rows) == chunk || i == len(d.points)-1 {
			view.Load(rows)
			rows = rows[:0]
		}
	}
	view.Built()
}

// question asks for the nearest k stores within a distance; 0 is no bound.
type question struct {
	at     geo.Point
	k      int
	within geo.Metres
}

// near makes questions of people who are close to stores: the nearest five within 5 km.
func (d *dataset) near(n int) []question {
	qs := make([]question, n)
	for i := range qs {
		r := dice(i, forQuestions)
		p := d.points[r.IntN(len(d.points))]
		qs[i] = question{at: rounded(offset(p, r.NormFloat64()*1000, r.NormFloat64()*1000)), k: 5, within: 5000}
	}
	return qs
}

// anywhere makes questions all over the globe, oceans too: the nearest five within 2,000 km.
func anywhere(n int) []question {
	qs := make([]question, n)
	for i := range qs {
		r := dice(i, forQuestions)
		p := geo.Point{Lat: math.Asin(2*r.Float64()-1) * 180 / math.Pi, Lng: r.Float64()*360 - 180}
		qs[i] = question{at: rounded(p), k: 5, within: 2_000_000}
	}
	return qs
}

// asked are the same places with another k and bound.
func asked(qs []question, k int, within geo.Metres) []question {
	out := make([]question, len(qs))
	for i, q := range qs {
		out[i] = question{q.at, k, within}
	}
	return out
}
