package demo

import (
	"reflect"
	"testing"
	"time"

	"github.com/shortline/shortline"
)

func TestPastFollowsTheModel(t *testing.T) {
	now := time.Date(2026, 11, 30, 10, 41, 0, 0, time.UTC)
	past, err := NewPast([]shortline.Store{{ID: "a", Timezone: "UTC", Hours: "Mo-Su 08:00-18:00", ServiceS: 60}}, now)
	if err != nil {
		t.Fatal(err)
	}
	all := past.Rollups("a", now.Add(-12*7*24*time.Hour), now.Add(time.Hour))
	if want := pastWeeks * 7 * 24; len(all) != want || !all[want-1].Hour.Equal(now.Truncate(time.Hour).Add(-time.Hour)) {
		t.Fatalf("%d hours up to %v, want %d", len(all), all[len(all)-1].Hour, want)
	}
	var open, closed int64
	for i, r := range all {
		if i > 0 && r.Hour.Sub(all[i-1].Hour) != time.Hour {
			t.Fatalf("after %v comes %v", all[i-1].Hour, r.Hour)
		}
		if r.Samples != readings || int64(r.Min*readings) > r.Sum || int64(r.Max*readings) < r.Sum || r.SumSq*readings < r.Sum*r.Sum {
			t.Fatalf("%+v", r)
		}
		if h := r.Hour.Hour(); h >= 8 && h < 18 {
			open += r.Sum
		} else {
			closed += r.Sum
		}
	}
	if closed != 0 || open == 0 {
		t.Errorf("%d people while it was closed, %d while it was open", closed, open)
	}
	from := now.Add(-3*time.Hour - time.Minute)
	if part := past.Rollups("a", from, now.Add(-time.Hour)); !reflect.DeepEqual(part, all[len(all)-2:]) {
		t.Errorf("a part of it is %+v, want %+v", part, all[len(all)-2:])
	}
	if past.Rollups("b", from, now) != nil {
		t.Error("a store that is not simulated has a past")
	}
}
