package insight

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/shortline/shortline"
)

func TestProfile(t *testing.T) {
	monday := time.Date(2026, 3, 2, 8, 0, 0, 0, time.UTC)
	now := monday.Add(14*24*time.Hour - time.Nanosecond)
	p := NewProfile([]shortline.Rollup{
		{Hour: monday, Samples: 2, Sum: 6, SumSq: 20},                         // 2 and 4 people
		{Hour: monday.Add(7 * 24 * time.Hour), Samples: 1, Sum: 9, SumSq: 81}, // a week later
		{Hour: monday.Add(time.Hour), Samples: 4, Sum: 4, SumSq: 4},
		{Hour: monday.Add(14 * 24 * time.Hour), Samples: 1, Sum: 1000, SumSq: 1e6}, // not over yet
	}, time.UTC, now)
	u, ok := p.At(8)
	w1, w2 := math.Exp2(-0.5), math.Exp2(-0.25)
	if want := (w1*3 + w2*9) / (w1 + w2); !ok || u.Hours != 2 || u.Samples != 3 || math.Abs(u.Mean-want) > 1e-9 {
		t.Errorf("%v %+v, want a mean of %v", ok, u, want)
	}
	if u, ok := p.At(9); !ok || u.Mean != 1 || u.Var != 0 {
		t.Errorf("%v %+v", ok, u)
	}
	if _, ok := p.At(10); ok {
		t.Error("an hour without reports is known")
	}
	if got := p.Busiest(5); !slices.Equal(got, []Slot{8, 9}) {
		t.Errorf("busiest are %v", got)
	}
	if all, ok := p.All(); !ok || math.Abs(all.Mean-(u.Mean+1)/2) > 1e-9 || all.Samples != 7 || p.Samples() != 7 {
		t.Errorf("%v %+v", ok, all)
	}
	if _, ok := NewProfile(nil, time.UTC, now).All(); ok {
		t.Error("an empty profile knows a week")
	}
}

// An hour that covers two slots counts in both.
func TestProfileOfAHalfHourZone(t *testing.T) {
	at := time.Date(2026, 3, 2, 2, 0, 0, 0, time.UTC) // Monday 7:30 to 8:30 in Kolkata
	p := NewProfile([]shortline.Rollup{{Hour: at, Samples: 2, Sum: 6, SumSq: 18}}, load(t, "Asia/Kolkata"), at.Add(time.Hour))
	for _, s := range []Slot{7, 8} {
		if u, ok := p.At(s); !ok || math.Abs(u.Mean-3) > 1e-9 || u.Samples != 2 {
			t.Errorf("slot %d: %v %+v", s, ok, u)
		}
	}
	if p.Samples() != 2 {
		t.Errorf("%d samples", p.Samples())
	}
}

// The 90 % quantile holds nine of ten waits, drawn from queues whose length varies.
func TestWaitQuantile(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 10))
	var u Usual
	lengths := make([]int, 100_000)
	for i := range lengths {
		lengths[i] = poisson(r, 3+float64(r.IntN(10)))
		u.Mean += float64(lengths[i]) / float64(len(lengths))
	}
	for _, l := range lengths {
		d := float64(l) - u.Mean
		u.Var += d * d / float64(len(lengths))
	}
	mean, p90 := u.Wait(45)
	below, total := 0, 0.0
	for _, l := range lengths {
		wait := 0.0
		for range l {
			wait += r.ExpFloat64() * 45
		}
		total += wait
		if wait <= p90 {
			below++
		}
	}
	if share := float64(below) / float64(len(lengths)); share < 0.89 || share > 0.91 {
		t.Errorf("%.1f %% of the waits are below the 90 %% quantile of %.0f s", 100*share, p90)
	}
	if got := total / float64(len(lengths)); math.Abs(got-mean) > mean/100 {
		t.Errorf("mean wait %.0f s, said %.0f", got, mean)
	}
	if mean, p90 := (Usual{}).Wait(45); mean != 0 || p90 != 0 {
		t.Error("an empty queue has a wait")
	}
}
