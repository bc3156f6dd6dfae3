package edge_test

import (
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/chromedp"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/internal/browser"
)

// TestConsoleFrames pans and zooms over 25,000 stores and tells how long frames and the page's tasks took. It asserts no times; the
// map is drawn by software, so most of a frame is what a graphics card would do.
func TestConsoleFrames(t *testing.T) {
	if os.Getenv("SHORTLINE_TEST_LONG") != "1" {
		t.Skip("measures, which needs a quiet machine: SHORTLINE_TEST_LONG=1")
	}
	n := newTestNode(t)
	const count = 25_000
	all := make([]shortline.Store, count)
	for i := range all { // towns of a hundred stores each
		town, at := i/100, i%100
		all[i] = shortline.Store{ID: shortline.StoreID(fmt.Sprint("s", i)), Name: fmt.Sprint("Store ", i),
			Lat: float64(town%16)*7 - 50 + float64(at/10)*0.01, Lng: float64(town/16)*21 - 165 + float64(at%10)*0.01}
	}
	n.load(t, all)
	p := browser.Open(t, n.api+"/", browser.Options{Flags: browser.WebGL})
	p.Until(`document.querySelector(".figures")?.innerText.includes("25,000") && document.querySelector(".map .maplibregl-ctrl-zoom-in")`)
	var at []float64
	p.Run(chromedp.Evaluate(`(() => { const b = document.querySelector(".map canvas").getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]; })()`, &at))
	p.Run(chromedp.Sleep(3*time.Second), chromedp.Evaluate(`window.seen = { frames: [], tasks: [] };
		new PerformanceObserver((l) => l.getEntries().forEach((e) => seen.tasks.push(e.duration))).observe({ type: "longtask" });
		(function watch(before) { requestAnimationFrame((now) => { if (before) seen.frames.push(now - before); watch(now); }); })();`, nil))
	wheel := func(by float64) {
		for range 8 {
			p.Run(chromedp.MouseEvent(input.MouseWheel, at[0], at[1], func(m *input.DispatchMouseEventParams) *input.DispatchMouseEventParams {
				return m.WithDeltaX(0).WithDeltaY(by)
			}), chromedp.Sleep(150*time.Millisecond))
		}
	}
	drag := func(dx, dy float64) {
		p.Run(chromedp.MouseEvent(input.MousePressed, at[0], at[1], chromedp.ButtonLeft, chromedp.ClickCount(1)))
		for i := range 30 {
			f := float64(i+1) / 30
			p.Run(chromedp.MouseEvent(input.MouseMoved, at[0]+f*dx, at[1]+f*dy, chromedp.ButtonLeft), chromedp.Sleep(20*time.Millisecond))
		}
		p.Run(chromedp.MouseEvent(input.MouseReleased, at[0]+dx, at[1]+dy, chromedp.ButtonLeft, chromedp.ClickCount(1)), chromedp.Sleep(time.Second))
	}
	for range 3 {
		drag(250, 100)
		wheel(-250)
		drag(-250, 50)
		drag(200, -150)
		wheel(250)
	}
	var seen struct{ Frames, Tasks []float64 }
	p.Run(chromedp.Evaluate(`seen`, &seen))
	if len(seen.Frames) == 0 {
		t.Fatal("the page drew nothing")
	}
	slices.Sort(seen.Frames)
	slices.Sort(seen.Tasks)
	quantile := func(q float64) float64 { return seen.Frames[int(q*float64(len(seen.Frames)-1))] }
	longest := 0.0
	if len(seen.Tasks) > 0 {
		longest = seen.Tasks[len(seen.Tasks)-1]
	}
	t.Logf("%d stores, %d frames: p50 %.0f ms, p95 %.0f ms, p99 %.0f ms, longest %.0f ms; %d tasks of 50 ms or more, the longest %.0f ms",
		count, len(seen.Frames), quantile(0.5), quantile(0.95), quantile(0.99), quantile(1), len(seen.Tasks), longest)
	if faults := p.Faults(); len(faults) > 0 {
		t.Errorf("the page complained of %q", faults)
	}
}
