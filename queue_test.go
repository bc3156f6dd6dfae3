package shortline

import (
	"math"
	"testing"
	"time"
)

func TestQueueUpdateApply(t *testing.T) {
	now := time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	stored := &Queue{Length: 4, UpdatedAt: ago(time.Minute), Rev: 7}
	ahead := &Queue{Length: 4, UpdatedAt: now.Add(3 * time.Second), Rev: 7}
	for _, c := range []struct {
		name   string
		update QueueUpdate
		stored *Queue
		want   QueueResult
	}{
		{"first length", QueueUpdate{Length: new(3)}, nil, QueueResult{Queue: Queue{Length: 3, UpdatedAt: now, Rev: 1}, Applied: true}},
		{"first length, observed long ago", QueueUpdate{Length: new(3), ObservedAt: ago(time.Hour)}, nil,
			QueueResult{Queue: Queue{Length: 3, UpdatedAt: ago(time.Hour), Rev: 1}, Applied: true}},
		{"first delta counts from none", QueueUpdate{Delta: new(2)}, nil, QueueResult{Queue: Queue{Length: 2, UpdatedAt: now, Rev: 1}, Applied: true}},
		{"first delta below zero", QueueUpdate{Delta: new(-1)}, nil, QueueResult{Queue: Queue{Length: 0, UpdatedAt: now, Rev: 1}, Applied: true, Clamped: true}},
		{"length", QueueUpdate{Length: new(9)}, stored, QueueResult{Queue: Queue{Length: 9, UpdatedAt: now, Rev: 8}, Applied: true}},
		{"same length is a new observation", QueueUpdate{Length: new(4)}, stored, QueueResult{Queue: Queue{Length: 4, UpdatedAt: now, Rev: 8}, Applied: true}},
		{"length zero", QueueUpdate{Length: new(0)}, stored, QueueResult{Queue: Queue{Length: 0, UpdatedAt: now, Rev: 8}, Applied: true}},
		{"newer length", QueueUpdate{Length: new(9), ObservedAt: ago(time.Second)}, stored, QueueResult{Queue: Queue{Length: 9, UpdatedAt: ago(time.Second), Rev: 8}, Applied: true}},
		{"equally old length", QueueUpdate{Length: new(9), ObservedAt: ago(time.Minute)}, stored,
			QueueResult{Queue: Queue{Length: 9, UpdatedAt: ago(time.Minute), Rev: 8}, Applied: true}},
		{"older within the millisecond", QueueUpdate{Length: new(9), ObservedAt: ago(time.Minute - time.Microsecond)}, stored,
			QueueResult{Queue: Queue{Length: 9, UpdatedAt: ago(time.Minute), Rev: 8}, Applied: true}},
		{"older length", QueueUpdate{Length: new(9), ObservedAt: ago(time.Minute + time.Millisecond)}, stored, QueueResult{Queue: *stored, Reason: ReasonOlder}},
		{"length in the future", QueueUpdate{Length: new(9), ObservedAt: now.Add(MaxClockSkew + time.Millisecond)}, stored,
			QueueResult{Queue: *stored, Reason: ReasonFuture}},
		{"delta in the future", QueueUpdate{Delta: new(1), ObservedAt: now.Add(time.Hour)}, stored, QueueResult{Queue: *stored, Reason: ReasonFuture}},
		{"first length in the future", QueueUpdate{Length: new(9), ObservedAt: now.Add(time.Hour)}, nil, QueueResult{Reason: ReasonFuture}},
		{"as far in the future as allowed", QueueUpdate{Length: new(9), ObservedAt: now.Add(MaxClockSkew)}, stored,
			QueueResult{Queue: Queue{Length: 9, UpdatedAt: now.Add(MaxClockSkew), Rev: 8}, Applied: true}},
		{"delta", QueueUpdate{Delta: new(-1)}, stored, QueueResult{Queue: Queue{Length: 3, UpdatedAt: now, Rev: 8}, Applied: true}},
		{"delta zero", QueueUpdate{Delta: new(0)}, stored, QueueResult{Queue: Queue{Length: 4, UpdatedAt: now, Rev: 8}, Applied: true}},
		{"newer delta", QueueUpdate{Delta: new(1), ObservedAt: ago(time.Second)}, stored, QueueResult{Queue: Queue{Length: 5, UpdatedAt: ago(time.Second), Rev: 8}, Applied: true}},
		{"older delta keeps the time", QueueUpdate{Delta: new(1), ObservedAt: ago(time.Hour)}, stored,
			QueueResult{Queue: Queue{Length: 5, UpdatedAt: ago(time.Minute), Rev: 8}, Applied: true}},
		{"delta now over a stored time ahead", QueueUpdate{Delta: new(1)}, ahead, QueueResult{Queue: Queue{Length: 5, UpdatedAt: ahead.UpdatedAt, Rev: 8}, Applied: true}},
		{"length now over a stored time ahead", QueueUpdate{Length: new(9)}, ahead, QueueResult{Queue: Queue{Length: 9, UpdatedAt: now, Rev: 8}, Applied: true}},
		{"delta below zero", QueueUpdate{Delta: new(-5)}, stored, QueueResult{Queue: Queue{Length: 0, UpdatedAt: now, Rev: 8}, Applied: true, Clamped: true}},
		{"delta to zero", QueueUpdate{Delta: new(-4)}, stored, QueueResult{Queue: Queue{Length: 0, UpdatedAt: now, Rev: 8}, Applied: true}},
		{"delta above the most", QueueUpdate{Delta: new(MaxQueueLength)}, stored,
			QueueResult{Queue: Queue{Length: MaxQueueLength, UpdatedAt: now, Rev: 8}, Applied: true, Clamped: true}},
		{"delta to the most", QueueUpdate{Delta: new(MaxQueueLength - 4)}, stored, QueueResult{Queue: Queue{Length: MaxQueueLength, UpdatedAt: now, Rev: 8}, Applied: true}},
		{"length above the most", QueueUpdate{Length: new(MaxQueueLength + 1)}, stored,
			QueueResult{Queue: Queue{Length: MaxQueueLength, UpdatedAt: now, Rev: 8}, Applied: true, Clamped: true}},
		{"length below zero", QueueUpdate{Length: new(-1)}, stored, QueueResult{Queue: Queue{Length: 0, UpdatedAt: now, Rev: 8}, Applied: true, Clamped: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var before Queue
			if c.stored != nil {
				before = *c.stored
			}
			if got := c.update.Apply(now, c.stored); got != c.want {
				t.Errorf("got  %+v\nwant %+v", got, c.want)
			}
			if c.stored != nil && *c.stored != before {
				t.Error("Apply changed what is stored")
			}
		})
	}
}

// Times are kept in whole milliseconds UTC, whatever zone and precision they came with.
func TestQueueUpdateApplyTruncates(t *testing.T) {
	berlin := time.FixedZone("CET", 3600)
	now := time.Date(2026, 11, 23, 10, 0, 0, 1_999_999, berlin)
	want := time.Date(2026, 11, 23, 9, 0, 0, 1_000_000, time.UTC)
	for _, observed := range []time.Time{{}, now} {
		got := QueueUpdate{Length: new(1), ObservedAt: observed}.Apply(now, nil)
		if got.Queue.UpdatedAt != want {
			t.Errorf("observed %v: %v, want %v", observed, got.Queue.UpdatedAt, want)
		}
	}
}

func TestQueueUpdateValidate(t *testing.T) {
	for _, c := range []struct {
		name   string
		update QueueUpdate
		fields []string
		detail string
	}{
		{"length", QueueUpdate{ID: "a", Length: new(0)}, nil, ""},
		{"greatest length", QueueUpdate{ID: "a", Length: new(MaxQueueLength)}, nil, ""},
		{"delta", QueueUpdate{ID: "a", Delta: new(-MaxQueueLength)}, nil, ""},
		{"neither", QueueUpdate{ID: "a"}, []string{"length"}, "neither is there"},
		{"both", QueueUpdate{ID: "a", Length: new(1), Delta: new(1)}, []string{"length"}, "both are there"},
		{"negative length", QueueUpdate{ID: "a", Length: new(-1)}, []string{"length"}, "-1 is not between 0 and 1000000"},
		{"great length", QueueUpdate{ID: "a", Length: new(MaxQueueLength + 1)}, []string{"length"}, ""},
		{"great delta", QueueUpdate{ID: "a", Delta: new(MaxQueueLength + 1)}, []string{"delta"}, "is not between -1000000 and 1000000"},
		{"small delta", QueueUpdate{ID: "a", Delta: new(math.MinInt)}, []string{"delta"}, ""},
		{"observed at the epoch", QueueUpdate{ID: "a", Delta: new(1), ObservedAt: time.Unix(0, 0).UTC()}, nil, ""},
		{"observed before", QueueUpdate{ID: "a", Delta: new(1), ObservedAt: time.Unix(-1, 0).UTC()}, []string{"observed_at"}, "the year 1969"},
		{"observed far off", QueueUpdate{ID: "a", Delta: new(1), ObservedAt: time.Date(2201, 1, 1, 0, 0, 0, 0, time.UTC)}, []string{"observed_at"}, ""},
		{"all at once", QueueUpdate{ID: "/", ObservedAt: time.Unix(-1, 0).UTC()}, []string{"id", "length", "observed_at"}, ""},
	} {
		t.Run(c.name, func(t *testing.T) { checkFaults(t, c.update.Validate(), c.fields, c.detail) })
	}
}

func TestWait(t *testing.T) {
	for _, c := range []struct {
		length         int
		serviceS       float64
		expected, high int
	}{
		{0, 45, 0, 0},
		{-1, 45, 0, 0},
		{4, 45, 180, 300}, // the contract's example
		{7, 45, 315, 474},
		{1, 45, 45, 103},
		{2, 0, 120, 232}, // DefaultServiceS
		{2, -1, 120, 232},
		{3, 0.1, 0, 1},
		{MaxQueueLength, MaxServiceS, 86_400_000_000, 86_510_760_000},
	} {
		expected, high := Wait(c.length, c.serviceS)
		if near := math.Abs(float64(high-c.high)) <= 1e-6*float64(c.high); expected != c.expected || !near {
			t.Errorf("Wait(%d, %v) = %d, %d, want %d, %d", c.length, c.serviceS, expected, high, c.expected, c.high)
		}
	}
}

// erlangCDF is the probability that n exponential services of mean 1 take at most x: one minus the chance that a Poisson
// variable of mean x is less than n.
func erlangCDF(n int, x float64) float64 {
	term := math.Exp(-x)
	less := 0.0
	for k := range n {
		less += term
		term *= x / float64(k+1)
	}
	return 1 - less
}

func TestWaitAgainstErlang(t *testing.T) {
	const mean = 10_000 // so that rounding to whole seconds does not matter
	for n := 1; n <= 500; n++ {
		lo, hi := 0.0, 4*float64(n)+10
		for range 100 {
			if mid := (lo + hi) / 2; erlangCDF(n, mid) < 0.9 {
				lo = mid
			} else {
				hi = mid
			}
		}
		exact := lo * mean
		allowed := 0.005
		if n == 1 {
			allowed = 0.0105
		}
		expected, high := Wait(n, mean)
		if expected != n*mean {
			t.Errorf("%d people: expected %d", n, expected)
		}
		if off := math.Abs(float64(high)-exact) / exact; off > allowed {
			t.Errorf("%d people: high estimate %d, exact %.0f, off by %.2f %%", n, high, exact, 100*off)
		}
	}
}

// A longer queue never waits shorter, nor does a slower store.
func TestWaitGrows(t *testing.T) {
	var lastExpected, lastHigh int
	for n := range 2000 {
		expected, high := Wait(n, 45)
		if expected < lastExpected || high < lastHigh || high < expected {
			t.Fatalf("Wait(%d) = %d, %d after %d, %d", n, expected, high, lastExpected, lastHigh)
		}
		lastExpected, lastHigh = expected, high
		slowExpected, slowHigh := Wait(n, 46)
		if slowExpected < expected || slowHigh < high {
			t.Fatalf("%d people: the slower store waits %d, %d", n, slowExpected, slowHigh)
		}
	}
}
