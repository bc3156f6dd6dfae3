package memory

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"testing"
)

// A small heap is collected seldom, a large one as ever.
func TestCollectEvery(t *testing.T) {
	t.Setenv("GOGC", "")
	defer debug.SetGCPercent(usual)
	CollectEvery(64 << 20)
	until := func(what string, ok func(percent uint64) bool) {
		t.Helper()
		for range 10_000 {
			now := []metrics.Sample{{Name: "/gc/gogc:percent"}}
			metrics.Read(now)
			if ok(now[0].Value.Uint64()) {
				return
			}
			runtime.GC()
			runtime.Gosched()
		}
		t.Fatalf("GOGC is never %s", what)
	}
	until("more with a small heap", func(percent uint64) bool { return percent > 200 })
	large := make([]byte, 100<<20)
	until("the usual with a large one", func(percent uint64) bool { return percent == usual })
	runtime.KeepAlive(large)
	until("more once that is gone", func(percent uint64) bool { return percent > 200 })
}
