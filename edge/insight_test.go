package edge_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/shortline/shortline"
)

type weekHour struct {
	Day        string
	Hour       int
	Samples    int
	Weeks      int
	MeanLength *float64 `json:"mean_length"`
	MeanWaitS  *int     `json:"mean_wait_s"`
	P90WaitS   *int     `json:"p90_wait_s"`
}

type statsAnswer struct {
	Timezone   string
	Samples    int
	ServiceS   float64  `json:"service_s"`
	Learned    bool     `json:"service_learned"`
	MeanLength *float64 `json:"mean_length"`
	Busiest    []weekHour
	Hours      []weekHour
}

// weeks reports the queue of store "a" for some weeks, twice an hour from 7 to 12 on its own clock: 8 people at nine o'clock, 2
// else. The node's clock moves along and ends at the same hour of the week.
func (n *testNode) weeks(t *testing.T, weeks int) {
	t.Helper()
	loc, err := time.LoadLocation("America/New_York")
	if err != nil {
		t.Fatal(err)
	}
	for range weeks * 7 * 24 {
		n.clock.advance(time.Hour)
		hour := n.clock.Now().In(loc).Hour()
		if hour < 7 || hour > 12 {
			continue
		}
		length := 2
		if hour == 9 {
			length = 8
		}
		n.report(t, "a", fmt.Sprintf(`{"length":%d}`, length))
		n.report(t, "a", fmt.Sprintf(`{"length":%d}`, length))
	}
}

func TestStats(t *testing.T) {
	n := newTestNode(t)
	n.put(t, shortline.Store{ID: "a", Name: "A", ServiceS: 45, Timezone: "America/New_York"})
	n.put(t, shortline.Store{ID: "b", Name: "B"})
	var none statsAnswer
	n.get(t, "/v1/stores/b/stats").want(t, 200).json(t, &none)
	if none.Timezone != "UTC" || none.Samples != 0 || none.MeanLength != nil || len(none.Busiest) != 0 || len(none.Hours) != 168 || none.ServiceS != 60 {
		t.Errorf("a store that never reported: %+v", none)
	}
	n.weeks(t, 2)
	var a statsAnswer
	rep := n.get(t, "/v1/stores/a/stats").want(t, 200)
	rep.json(t, &a)
	rep.token(t)
	if a.Timezone != "America/New_York" || a.Samples != 2*7*6*2 || a.ServiceS != 45 || a.MeanLength == nil || *a.MeanLength != 3 {
		t.Errorf("%+v", a)
	}
	if len(a.Busiest) != 10 || a.Busiest[0].Hour != 9 || a.Busiest[6].Hour != 9 || a.Busiest[7].Hour == 9 {
		t.Errorf("busiest: %+v", a.Busiest)
	}
	nine := a.Hours[24+9] // Tuesday
	if nine.Day != "Tu" || nine.Hour != 9 || nine.Samples != 4 || nine.Weeks != 2 || *nine.MeanLength != 8 || *nine.MeanWaitS != 360 || *nine.P90WaitS != 529 {
		t.Errorf("Tuesday at nine: %+v, %v, %v, %v", nine, *nine.MeanLength, *nine.MeanWaitS, *nine.P90WaitS)
	}
	if night := a.Hours[3]; night.Samples != 0 || night.MeanLength != nil || night.MeanWaitS != nil {
		t.Errorf("an hour that was never reported: %+v", night)
	}
}

type forecastAnswer struct {
	Timezone string
	Observed int `json:"observed_hours"`
	Hours    []struct {
		At        time.Time
		Length    float64
		Low       float64 `json:"length_low"`
		High      float64 `json:"length_high"`
		WaitS     int     `json:"wait_s"`
		WaitHighS int     `json:"wait_high_s"`
		SeenWeeks int     `json:"seen_weeks"`
	}
}

func TestForecastAndAccuracy(t *testing.T) {
	n := newTestNode(t)
	n.put(t, shortline.Store{ID: "a", Name: "A", ServiceS: 60, Timezone: "America/New_York"})
	var first forecastAnswer
	n.get(t, "/v1/stores/a/forecast").want(t, 200).json(t, &first)
	if first.Observed != 0 || len(first.Hours) != 0 {
		t.Errorf("before the first report: %+v", first)
	}
	n.weeks(t, 3) // it is Monday, 4 o'clock in New York
	var a forecastAnswer
	n.get(t, "/v1/stores/a/forecast?hours=7").want(t, 200).json(t, &a)
	if a.Observed != 3*7*6 || len(a.Hours) != 7 || !a.Hours[0].At.Equal(n.clock.Now().Truncate(time.Hour).Add(time.Hour)) {
		t.Fatalf("%+v", a)
	}
	for i, h := range a.Hours {
		want := 2.0
		if i == 4 { // nine o'clock
			want = 8
		}
		if i >= 2 && (h.SeenWeeks != 3 || h.Length < want-1 || h.Length > want+1) || h.Low > h.Length || h.High <= h.Length || h.WaitHighS < h.WaitS {
			t.Errorf("%d hours ahead: %+v, want about %v", i+1, h, want)
		}
	}
	// The service scores itself without being asked: the test waits until it has.
	var acc struct {
		Horizons []struct {
			Hours    int     `json:"horizon_hours"`
			Count    float64 `json:"count"`
			MAE      float64 `json:"mean_absolute_error"`
			LastWeek float64 `json:"same_hour_last_week"`
			Stays    float64 `json:"stays_as_it_is"`
			Covered  float64 `json:"band_coverage"`
		}
	}
	for deadline := time.Now().Add(time.Minute); len(acc.Horizons) == 0; time.Sleep(50 * time.Millisecond) {
		if n.get(t, "/v1/accuracy").want(t, 200).json(t, &acc); time.Now().After(deadline) {
			t.Fatal("nothing was scored in a minute")
		}
	}
	if h := acc.Horizons[0]; h.Hours != 1 || h.Count <= 0 || h.LastWeek != 0 || h.Stays == 0 || h.Covered < 0.5 {
		t.Errorf("%+v", h) // every week was like the last one, and no hour like the one before
	}
	text := string(n.with(t, n.plain, http.MethodGet, n.admin+"/metrics", "").want(t, 200).body)
	for _, want := range []string{`shortline_forecast_error_people{forecast="last_week",horizon_hours="1"} 0`, `shortline_forecast_band_coverage_ratio{horizon_hours="1"}`} {
		if !strings.Contains(text, want) {
			t.Errorf("/metrics has no %s", want)
		}
	}
}

func TestInsightBadInput(t *testing.T) {
	n := newTestNode(t)
	n.put(t, shortline.Store{ID: "a", Name: "A"})
	for path, status := range map[string]int{
		"/v1/stores/nobody/stats": 404, "/v1/stores/nobody/forecast": 404, "/v1/stores/a%20b/stats": 422,
		"/v1/stores/a/stats?hours=3": 400, "/v1/stores/a/forecast?hours=0": 422, "/v1/stores/a/forecast?hours=49": 422,
		"/v1/stores/a/forecast?hours=x": 400, "/v1/stores/a/forecast?hours=1&hours=2": 400, "/v1/stores/a/forecast?day=1": 400,
		"/v1/stores/a/forecast?consistency=weak": 400, "/v1/accuracy?horizon=1": 400,
	} {
		n.get(t, path).want(t, status)
	}
	n.store.rollups.set(broken)
	n.get(t, "/v1/stores/a/stats").want(t, 503)
	n.get(t, "/v1/stores/a/forecast").want(t, 503)
	n.get(t, "/v1/accuracy").want(t, 200)
}
