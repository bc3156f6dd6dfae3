package insight

import (
	"compress/gzip"
	"encoding/csv"
	"math"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/shortline/shortline"
)

// simulated is a store's past of some weeks: a daily rhythm that differs by day, closed nights, level shifts from day to day,
// holidays on which hardly anybody comes, and counts that scatter as counts do.
func simulated(r *rand.Rand, loc *time.Location, start time.Time, weeks int) []shortline.Rollup {
	var out []shortline.Rollup
	level, day := 1.0, -1
	for h := range weeks * HoursPerWeek {
		at := start.Add(time.Duration(h) * time.Hour)
		wall := at.In(loc)
		if wall.YearDay() != day {
			day = wall.YearDay()
			level = math.Exp(r.NormFloat64() * 0.25)
			if r.IntN(20) == 0 {
				level *= 0.3
			}
		}
		if wall.Hour() < 7 || wall.Hour() > 21 {
			continue
		}
		x := float64(wall.Hour())
		mean := 3 + 8*math.Exp(-(x-8.5)*(x-8.5)/3) + 11*math.Exp(-(x-18)*(x-18)/5)
		if wall.Weekday() == time.Saturday || wall.Weekday() == time.Sunday {
			mean = 2 + 9*math.Exp(-(x-13)*(x-13)/10)
		}
		ru := shortline.Rollup{Hour: at}
		for range 6 {
			n := poisson(r, mean*level)
			ru.Samples++
			ru.Sum += int64(n)
			ru.SumSq += int64(n * n)
			ru.Max = max(ru.Max, n)
		}
		out = append(out, ru)
	}
	return out
}

func poisson(r *rand.Rand, mean float64) int {
	n, p := 0, math.Exp(-mean)
	for u := r.Float64(); u > p; n++ {
		u -= p
		p *= mean / float64(n+1)
	}
	return n
}

// judged fails the test where a score is not what the service promises: better than last week from 1 to 6 hours ahead, and bands
// that hold four hours of five.
func judged(t *testing.T, name string, s *Scores, now time.Time) {
	t.Helper()
	all := s.All(now)
	if len(all) != ScoredHorizons {
		t.Fatalf("%s: scores of %d horizons", name, len(all))
	}
	for _, sc := range all {
		t.Logf("%s, %2d h: error %.3f, last week %.3f, stays %.3f, band holds %.1f %%", name, sc.Horizon, sc.MAE, sc.LastWeek, sc.Stays, 100*sc.Covered)
		if sc.Horizon <= 6 && sc.MAE >= sc.LastWeek {
			t.Errorf("%s, %d h: error %.3f, last week's hour %.3f", name, sc.Horizon, sc.MAE, sc.LastWeek)
		}
		if sc.Covered < 0.75 || sc.Covered > 0.85 {
			t.Errorf("%s, %d h: the band holds %.1f %% of the hours, not 75 to 85", name, sc.Horizon, 100*sc.Covered)
		}
	}
}

func TestForecastsOfSimulatedWeeks(t *testing.T) {
	start := time.Date(2026, 1, 5, 0, 0, 0, 0, time.UTC)
	const weeks = 16
	end := start.Add(weeks * 7 * 24 * time.Hour)
	for _, zone := range []string{"America/New_York", "Asia/Kolkata"} {
		var s Scores
		loc, r := load(t, zone), rand.New(rand.NewPCG(1, 2))
		for range 20 {
			s.Judge(simulated(r, loc, start, weeks), loc, start.Add(4*7*24*time.Hour), end)
		}
		judged(t, zone, &s, end)
	}
}

// A quarter and more of a real count with the rhythm of a week: departures by hour at five airports (testdata/README.md).
func TestForecastsOfRealCounts(t *testing.T) {
	f, err := os.Open("testdata/departures.csv.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(z).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	for column, airport := range rows[0][1:] {
		var series []shortline.Rollup
		for _, row := range rows[1:] {
			at, err := time.Parse("2006-01-02T15", row[0])
			if err != nil {
				t.Fatal(err)
			}
			n, err := strconv.ParseInt(row[column+1], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			if h := at.Hour(); h >= 6 && h < 22 { // the hours in which there are departures
				series = append(series, shortline.Rollup{Hour: at, Samples: 1, Sum: n, SumSq: n * n})
			}
		}
		var s Scores
		end := series[len(series)-1].Hour.Add(time.Hour)
		s.Judge(series, time.UTC, series[0].Hour.Add(4*7*24*time.Hour), end)
		judged(t, airport, &s, end)
	}
}

// From the first hour there is a forecast, and it says that it does not know this hour of the week.
func TestFirstDay(t *testing.T) {
	now := time.Date(2026, 3, 2, 10, 30, 0, 0, time.UTC)
	if _, ok := NewModel(nil, time.UTC, now).Forecast(now, nil, 12); ok {
		t.Error("a forecast without anything known")
	}
	one := []shortline.Rollup{{Hour: now.Truncate(time.Hour).Add(-time.Hour), Samples: 2, Sum: 10, SumSq: 50}}
	f, ok := NewModel(one, time.UTC, now).Forecast(now, nil, 12)
	if !ok || len(f) != 12 || f[0].At != now.Truncate(time.Hour).Add(time.Hour) {
		t.Fatalf("%v %+v", ok, f)
	}
	for _, h := range f {
		if h.Hours != 0 || math.Abs(h.Length-5) > 0.5 || h.Low >= h.Length || h.High <= h.Length {
			t.Errorf("%+v, want about 5 with a band, from no hour of its kind", h)
		}
	}
}

// What the queue is now moves the next hours most, and not the day after.
func TestTodayDiffersFromTheUsual(t *testing.T) {
	start := time.Date(2026, 1, 5, 0, 0, 0, 0, time.UTC)
	past := simulated(rand.New(rand.NewPCG(3, 4)), time.UTC, start, 8)
	now := start.Add(8*7*24*time.Hour - 12*time.Hour + 20*time.Minute) // a Sunday, 12:20
	m := NewModel(past, time.UTC, now)
	without, _ := m.Forecast(now, nil, MaxHorizon)
	with, _ := m.Forecast(now, &Live{Length: 40, At: now}, MaxHorizon)
	stale, _ := m.Forecast(now, &Live{Length: 40, At: now.Add(-2 * time.Hour)}, MaxHorizon)
	before := math.Inf(1)
	for i := range with {
		gain := with[i].Length - without[i].Length
		if gain < 0 || gain > before+1e-9 {
			t.Errorf("%d h ahead: %+.2f people, after %+.2f an hour before", i+1, gain, before)
		}
		before = gain
		if stale[i] != without[i] {
			t.Error("a report of two hours ago counts as the newest")
		}
	}
	if first := with[0].Length - without[0].Length; first < 5 || before > 1 {
		t.Errorf("%+.2f at first, %+.2f at last", first, before)
	}
}

// Rubbish in the rows changes nothing, and neither does their order.
func TestUnsoundRollupsDoNotCount(t *testing.T) {
	start := time.Date(2026, 1, 5, 0, 0, 0, 0, time.UTC)
	past := simulated(rand.New(rand.NewPCG(5, 6)), time.UTC, start, 3)
	now := start.Add(3 * 7 * 24 * time.Hour)
	want, _ := NewModel(past, time.UTC, now).Forecast(now, nil, 24)
	bad := append([]shortline.Rollup{{Hour: now.Add(-time.Hour)}, {Hour: start, Samples: -1, Sum: 5}, {Hour: now.Add(-2 * time.Hour), Samples: 2, Sum: 2*shortline.MaxQueueLength + 1}, {Hour: now.Add(time.Hour), Samples: 1, Sum: 999}, {Samples: 1}}, past...)
	rand.New(rand.NewPCG(7, 8)).Shuffle(len(bad), func(i, j int) { bad[i], bad[j] = bad[j], bad[i] })
	got, _ := NewModel(bad, time.UTC, now).Forecast(now, nil, 24)
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("%+v, want %+v", got[i], want[i])
		}
	}
	a, b := NewProfile(past, time.UTC, now), NewProfile(bad, time.UTC, now)
	for s := range Slot(HoursPerWeek) {
		ua, _ := a.At(s)
		ub, _ := b.At(s)
		if math.Abs(ua.Mean-ub.Mean) > 1e-9 || ua.Samples != ub.Samples {
			t.Fatalf("slot %d: %+v, want %+v", s, ub, ua)
		}
	}
}

// An Outlook says what its model says.
func TestOutlookAgreesWithItsModel(t *testing.T) {
	start := time.Date(2026, 1, 5, 0, 0, 0, 0, time.UTC)
	loc := load(t, "America/New_York")
	past := simulated(rand.New(rand.NewPCG(3, 4)), loc, start, 8)
	now := start.Add(8*7*24*time.Hour - 30*time.Hour)
	m := NewModel(past, loc, now)
	o := m.Outlook()
	for _, live := range []*Live{nil, {Length: 30, At: now}} {
		forecast, _ := m.Forecast(now, live, 24)
		for _, f := range forecast {
			got, ok := o.At(f.At, now, live)
			if live == nil {
				got, ok = o.At(f.At.Add(time.Hour/2), now, live) // the middle of the hour
			}
			if !ok || math.Abs(got-f.Length) > 0.02*(1+f.Length) {
				t.Errorf("%v: %v, the model says %v", f.At, got, f.Length)
			}
		}
	}
	usual, ok := o.Usual(now)
	if seen := m.slots[SlotAt(now, loc)].hours > 0; ok != seen || usual < 0 {
		t.Errorf("usual %v, %v", usual, ok)
	}
	if _, ok := (*Outlook)(nil).Usual(now); ok {
		t.Error("no outlook knows what is usual")
	}
	if _, ok := (*Outlook)(nil).At(now, now, nil); ok || NewModel(nil, loc, now).Outlook() != nil {
		t.Error("an outlook without a past")
	}
}

func BenchmarkForecast(b *testing.B) {
	start := time.Date(2026, 1, 5, 0, 0, 0, 0, time.UTC)
	loc := load(b, "America/New_York")
	past := simulated(rand.New(rand.NewPCG(3, 4)), loc, start, 8)
	now := start.Add(8 * 7 * 24 * time.Hour)
	for b.Loop() {
		NewModel(past, loc, now).Forecast(now, nil, 12)
	}
}
