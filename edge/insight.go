package edge

import (
	"context"
	"math"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/geo"
	"github.com/shortline/shortline/insight"
)

const (
	// insightPast is how much of the past profiles and forecasts are made of.
	insightPast = 12 * 7 * 24 * time.Hour
	// defaultForecastHours and busiestHours are what is answered where nothing is said.
	defaultForecastHours = 12
	busiestHours         = 10
	// insightAge is how long an answer about the past may be kept; shared caches keep those to requests without a key only.
	insightAge = "max-age=60"
	// scoreEvery is how often a node replays the past of one more store, drawn at random, to score the forecasts.
	scoreEvery = 2 * time.Second
)

// Rollups reads the hourly sums of a store's queue; a replication.Store does.
type Rollups interface {
	// Rollups returns the hours in [from, to) that have samples, in order of time.
	Rollups(ctx context.Context, id shortline.StoreID, from, to time.Time) ([]shortline.Rollup, error)
}

// noPast is that of a node without a store.
type noPast struct{}

// Rollups implements Rollups.
func (noPast) Rollups(context.Context, shortline.StoreID, time.Time, time.Time) ([]shortline.Rollup, error) {
	return nil, nil
}

// StatsAnswer is the answer to GET /v1/stores/{id}/stats.
type StatsAnswer struct {
	ID       shortline.StoreID `json:"id"`
	Timezone string            `json:"timezone" doc:"The clock that days and hours are of: the store's own, UTC where it gave none"`
	From     time.Time         `json:"from" doc:"How far back reports count; later ones count more, those of four weeks ago half"`
	ServiceS float64           `json:"service_s" doc:"Mean seconds to serve one person that waits are computed with"`
	Learned  bool              `json:"service_learned" doc:"Whether that is learned from the store's own reports; else it is given, or the default of 60 where too little is known"`
	Samples  int               `json:"samples" minimum:"0" doc:"Reports that all this is made of"`
	// All hours of the week that are known, each counting the same.
	MeanLength *float64   `json:"mean_length" nullable:"true" doc:"Over the hours of the week that are known; null where there are none"`
	MeanWaitS  *int       `json:"mean_wait_s" nullable:"true"`
	P90WaitS   *int       `json:"p90_wait_s" nullable:"true"`
	Busiest    []WeekHour `json:"busiest" doc:"Up to ten hours of the week, the longest queue first"`
	Hours      []WeekHour `json:"hours" doc:"All 168 hours of the week, Monday from 00:00 on"`
}

// WeekHour is one hour of the week.
type WeekHour struct {
	Day        string   `json:"day" enum:"Mo,Tu,We,Th,Fr,Sa,Su"`
	Hour       int      `json:"hour" minimum:"0" maximum:"23" doc:"On the store's clock"`
	Samples    int      `json:"samples" minimum:"0" doc:"Reports in this hour of the week; 0: it is not known"`
	Weeks      int      `json:"weeks" minimum:"0" doc:"How many such hours they are of"`
	MeanLength *float64 `json:"mean_length" nullable:"true"`
	MeanWaitS  *int     `json:"mean_wait_s" nullable:"true" doc:"Expected seconds until somebody who joins then is served"`
	P90WaitS   *int     `json:"p90_wait_s" nullable:"true" doc:"Nine of ten waits are shorter"`
}

var dayNames = [7]string{"Mo", "Tu", "We", "Th", "Fr", "Sa", "Su"}

func weekHour(p *insight.Profile, slot insight.Slot, serviceS float64) WeekHour {
	h := WeekHour{Day: dayNames[slot.Day()], Hour: slot.Hour()}
	if u, ok := p.At(slot); ok {
		mean, p90 := u.Wait(serviceS)
		h.Samples, h.Weeks = u.Samples, u.Hours
		h.MeanLength, h.MeanWaitS, h.P90WaitS = ptr(tenth(u.Mean)), ptr(seconds(mean)), ptr(seconds(p90))
	}
	return h
}

func tenth(v float64) float64 { return math.Round(v*10) / 10 }
func seconds(v float64) int   { return int(math.Round(v)) }

// past is what every call about a store's past begins with, after its parameters were read.
type past struct {
	id      shortline.StoreID
	pos     position
	store   *attrs
	queue   liveQueue
	from    time.Time
	rollups []shortline.Rollup
}

func (s *Server) readPast(c echo.Context, level consistency) (past, error) {
	r := c.Request()
	id, err := pathID(c)
	if err != nil {
		return past{}, err
	}
	if err := s.allowRead(r); err != nil {
		return past{}, err
	}
	pos, err := s.read(r, level)
	if err != nil {
		return past{}, err
	}
	sl, rec, ok := pos.state.find(id)
	if !ok {
		return past{}, storeNotFound(id)
	}
	p := past{id: id, pos: pos, store: rec.attrs, queue: sl.live(), from: s.now().Add(-insightPast).UTC().Truncate(time.Hour)}
	ctx, cancel := context.WithTimeout(r.Context(), s.cfg.ReadLimit)
	defer cancel()
	if p.rollups, err = s.rollups.Rollups(ctx, id, p.from, s.now().Add(time.Hour)); err != nil {
		return past{}, storeUnavailable(err)
	}
	if err := s.coverAhead(ctx, &p.pos); err != nil { // the database may be ahead of memory
		return past{}, storeUnavailable(err)
	}
	return p, nil
}

// clock is the store's own, and its name; UTC where it gave none.
func (a *attrs) clock() (*time.Location, string) {
	if a.loc == nil {
		return time.UTC, "UTC"
	}
	return a.loc, a.loc.String()
}

// waitClock is the store's own clock, UTC where it gave none.
func (a *attrs) waitClock() *time.Location {
	loc, _ := a.clock()
	return loc
}

// getStats answers GET /v1/stores/{id}/stats.
func (s *Server) getStats(c echo.Context) error {
	level, err := onlyConsistency(c.Request().URL.RawQuery)
	if err != nil {
		return err
	}
	p, err := s.readPast(c, level)
	if err != nil {
		return err
	}
	loc, zone := p.store.clock()
	service := p.queue.serviceS(p.store)
	profile := insight.NewProfile(p.rollups, loc, s.now())
	a := StatsAnswer{ID: p.id, Timezone: zone, From: p.from, ServiceS: service, Learned: p.queue.learns(p.store), Samples: profile.Samples(), Busiest: []WeekHour{}, Hours: make([]WeekHour, insight.HoursPerWeek)}
	if u, ok := profile.All(); ok {
		mean, p90 := u.Wait(service)
		a.MeanLength, a.MeanWaitS, a.P90WaitS = ptr(tenth(u.Mean)), ptr(seconds(mean)), ptr(seconds(p90))
	}
	for _, slot := range profile.Busiest(busiestHours) {
		a.Busiest = append(a.Busiest, weekHour(profile, slot, service))
	}
	for slot := range insight.Slot(insight.HoursPerWeek) {
		a.Hours[slot] = weekHour(profile, slot, service)
	}
	c.Response().Header().Set("Cache-Control", insightAge)
	return s.answer(c, http.StatusOK, p.pos.token, &a)
}

// ForecastAnswer is the answer to GET /v1/stores/{id}/forecast.
type ForecastAnswer struct {
	ID       shortline.StoreID `json:"id"`
	Timezone string            `json:"timezone" doc:"The store's own clock, UTC where it gave none"`
	Observed int               `json:"observed_hours" minimum:"0" doc:"Hours with reports that the forecast is made of; with none, hours is empty"`
	Hours    []ForecastHour    `json:"hours" doc:"The hours after the current one"`
}

// ForecastHour is what is expected of one hour.
type ForecastHour struct {
	At        time.Time `json:"at" doc:"Beginning of the hour"`
	Length    float64   `json:"length" minimum:"0" doc:"Expected mean length"`
	LengthLow float64   `json:"length_low" minimum:"0" doc:"Four of five hours fall between low and high, by how past forecasts have fared"`
	LengthHi  float64   `json:"length_high" minimum:"0"`
	WaitS     int       `json:"wait_s" minimum:"0" doc:"Expected seconds until somebody who joins then is served"`
	WaitLowS  int       `json:"wait_low_s" minimum:"0"`
	WaitHighS int       `json:"wait_high_s" minimum:"0"`
	SeenWeeks int       `json:"seen_weeks" minimum:"0" doc:"In how many weeks this hour was reported; 0: the forecast rests on other hours"`
}

// forecastParameters are those of GET /v1/stores/{id}/forecast.
var forecastParameters = []string{"hours", "consistency"}

func parseForecast(raw string) (hours int, level consistency, err error) {
	hours, seen := defaultForecastHours, false
	err = parameters(raw, func(name, value string) (err error) {
		switch name {
		case "hours":
			if seen {
				return malformed(name, "is given more than once")
			}
			seen = true
			if hours, err = strconv.Atoi(value); err != nil {
				return malformed(name, "%q is not a whole number", clip(value))
			}
			if hours < 1 || hours > insight.MaxHorizon {
				return invalid(name, "%d is not between 1 and %d", hours, insight.MaxHorizon)
			}
		case "consistency":
			if level != consistencyDefault {
				return malformed(name, "is given more than once")
			}
			level, err = parseConsistency(value)
		default:
			return unknownParameter(name, forecastParameters)
		}
		return err
	})
	return hours, level, err
}

// getForecast answers GET /v1/stores/{id}/forecast.
func (s *Server) getForecast(c echo.Context) error {
	hours, level, err := parseForecast(c.Request().URL.RawQuery)
	if err != nil {
		return err
	}
	p, err := s.readPast(c, level)
	if err != nil {
		return err
	}
	now := s.now()
	loc, zone := p.store.clock()
	model := insight.NewModel(p.rollups, loc, now)
	a := ForecastAnswer{ID: p.id, Timezone: zone, Observed: model.Observed(), Hours: []ForecastHour{}}
	var live *insight.Live
	if p.queue.known() {
		live = &insight.Live{Length: float64(p.queue.length()), At: p.queue.updatedAt()}
	}
	service := p.queue.serviceS(p.store)
	forecast, _ := model.Forecast(now, live, hours)
	for _, f := range forecast {
		a.Hours = append(a.Hours, ForecastHour{At: f.At, Length: tenth(f.Length), LengthLow: tenth(f.Low), LengthHi: tenth(f.High),
			WaitS: seconds(f.Length * service), WaitLowS: seconds(f.Low * service), WaitHighS: seconds(f.High * service), SeenWeeks: f.Hours})
	}
	c.Response().Header().Set("Cache-Control", insightAge)
	return s.answer(c, http.StatusOK, p.pos.token, &a)
}

// AccuracyAnswer is the answer to GET /v1/accuracy.
type AccuracyAnswer struct {
	Region   string          `json:"region"`
	Unit     string          `json:"unit" enum:"people"`
	Horizons []HorizonScores `json:"horizons" doc:"One for each horizon that has been scored; empty until there is a week of reports"`
}

// HorizonScores is how good forecasts of one horizon have been.
type HorizonScores struct {
	Hours         int     `json:"horizon_hours" minimum:"1" doc:"How long before the hour the forecast was made"`
	Count         float64 `json:"count" doc:"Over how many hours of the stores drawn; hours of a week ago count half"`
	MAE           float64 `json:"mean_absolute_error" doc:"Of the mean length in an hour"`
	LastWeek      float64 `json:"same_hour_last_week" doc:"The error of: as in the same hour last week"`
	Stays         float64 `json:"stays_as_it_is" doc:"The error of: as in the last hour known"`
	CoveredByBand float64 `json:"band_coverage" minimum:"0" maximum:"1" doc:"Share of hours within the band, which is to be 0.8"`
}

// getAccuracy answers GET /v1/accuracy.
func (s *Server) getAccuracy(c echo.Context) error {
	if err := noParameters(c.Request().URL.RawQuery); err != nil {
		return err
	}
	if err := s.allowRead(c.Request()); err != nil {
		return err
	}
	a := AccuracyAnswer{Region: s.cfg.Region, Unit: "people", Horizons: []HorizonScores{}}
	for _, sc := range s.scores.All(s.now()) {
		a.Horizons = append(a.Horizons, HorizonScores{sc.Horizon, tenth(sc.Count), thousandth(sc.MAE), thousandth(sc.LastWeek), thousandth(sc.Stays), thousandth(sc.Covered)})
	}
	c.Response().Header().Set("Cache-Control", insightAge)
	return s.answer(c, http.StatusOK, "", &a)
}

func thousandth(v float64) float64 { return math.Round(v*1000) / 1000 }

// scoreForecasts keeps scoring until ctx ends: one store at a time, drawn at random, so that it costs the same however many there are.
// The forecasts of a store's last day are made anew from what was known before each hour, which needs no memory of what
// was said, and is the same at every node.
func (s *Server) scoreForecasts(ctx context.Context) error {
	ticker := time.NewTicker(scoreEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			s.scoreOne(ctx)
		}
	}
}

func (s *Server) scoreOne(ctx context.Context) {
	st := s.catalog.current.Load()
	if st == nil {
		return
	}
	id, a, ok := st.draw()
	if !ok {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.ReadLimit)
	defer cancel()
	now := s.now()
	rollups, err := s.rollups.Rollups(ctx, id, now.Add(-insightPast), now)
	if err != nil {
		if ctx.Err() == nil {
			s.log.Debug("score forecasts", "store", id, "err", err)
		}
		return
	}
	loc, _ := a.clock()
	s.scores.Judge(rollups, loc, now.Add(-24*time.Hour), now)
}

// draw returns a store that has reported: the first one from a place drawn at random. ok is false where there is none within
// some thousand places.
func (s *state) draw() (id shortline.StoreID, a *attrs, ok bool) {
	pages := *s.pages.Load()
	if len(pages) == 0 {
		return "", nil, false
	}
	const most = 16 * pageSize
	for i, at := 0, rand.IntN(len(pages)*pageSize); i < most; i++ {
		sl := s.slot(geo.Ref((at + i) % (len(pages) * pageSize)))
		if rec := sl.record.Load(); rec != nil && rec.attrs != nil && sl.queue.Load() != 0 {
			return rec.id, rec.attrs, true
		}
	}
	return "", nil, false
}

// accuracyMetrics shows the scores to Prometheus.
type accuracyMetrics struct {
	scores *insight.Scores
	now    func() time.Time
}

var (
	accuracyError   = prometheus.NewDesc("shortline_forecast_error_people", "Mean absolute error of hourly forecasts, by horizon and by who forecasts: the model, the same hour last week, or as it is.", []string{"horizon_hours", "forecast"}, nil)
	accuracyCovered = prometheus.NewDesc("shortline_forecast_band_coverage_ratio", "Share of hours within the forecast's 80 % band, by horizon.", []string{"horizon_hours"}, nil)
)

// Describe implements prometheus.Collector.
func (accuracyMetrics) Describe(ch chan<- *prometheus.Desc) {
	ch <- accuracyError
	ch <- accuracyCovered
}

// Collect implements prometheus.Collector.
func (m accuracyMetrics) Collect(ch chan<- prometheus.Metric) {
	for _, sc := range m.scores.All(m.now()) {
		horizon := strconv.Itoa(sc.Horizon)
		for _, f := range []struct {
			name  string
			value float64
		}{{"model", sc.MAE}, {"last_week", sc.LastWeek}, {"stays", sc.Stays}} {
			ch <- prometheus.MustNewConstMetric(accuracyError, prometheus.GaugeValue, f.value, horizon, f.name)
		}
		ch <- prometheus.MustNewConstMetric(accuracyCovered, prometheus.GaugeValue, sc.Covered, horizon)
	}
}
