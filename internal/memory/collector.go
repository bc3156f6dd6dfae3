package memory

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

// usual is Go's own GOGC: a collection once as much was allocated as was left by the last one.
const usual = 100

// CollectEvery has garbage collected only when at least so many bytes were allocated since the last time. What Go does by itself makes a
// program with a small heap and many requests collect several times a second; one with a larger heap is left as it is. GOGC in the
// environment overrides it, and GOMEMLIMIT holds all the same.
func CollectEvery(least uint64) {
	if os.Getenv("GOGC") == "" {
		(&collector{least: least, percent: usual}).watch()
	}
}

// collector keeps GOGC in step with the heap.
type collector struct {
	least   uint64
	percent int
}

// watch has adjust called after each collection, which is when what nobody holds is found to be gone.
func (c *collector) watch() {
	c.adjust()
	gone := &struct{ self *collector }{c} // a pointer keeps it from sharing a block with others
	runtime.AddCleanup(gone, func(c *collector) { c.watch() }, c)
}

func (c *collector) adjust() {
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(live)
	percent := usual
	if live[0].Value.Kind() == metrics.KindUint64 {
		percent = max(usual, int(100*c.least/max(1<<20, live[0].Value.Uint64())))
	}
	// Setting it stops the world for a moment, so small differences are let be.
	if diff := percent - c.percent; diff > c.percent/8 || -diff > c.percent/8 || percent == usual && diff != 0 {
		c.percent = percent
		debug.SetGCPercent(percent)
	}
}
