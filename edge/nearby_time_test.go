package edge

import (
	"math/rand/v2"
	"testing"
	"time"
)

func TestAppendTime(t *testing.T) {
	check := func(ms int64) {
		t.Helper()
		want := time.UnixMilli(ms).UTC().Format(time.RFC3339Nano)
		if got := string(appendTime([]byte(`"`), ms)); got != `"`+want {
			t.Fatalf("%d ms: %s, want %s", ms, got, want)
		}
	}
	const day = 24 * 60 * 60 * 1000
	for d := int64(-1000); d < 3_000_000; d += 1 { // every day until after the year 9999
		check(d*day + d%1000*86_399)
	}
	for _, ms := range []int64{-1, 0, 1, 10, 100, 999, 1000, 1<<queueTimeBits - 1, 253402300799999, 253402300800000} {
		check(ms)
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range 100_000 {
		check(r.Int64N(253402300800000))
	}
}
