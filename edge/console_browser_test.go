package edge_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/chromedp"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/internal/browser"
)

// clickMap clicks on the map's middle.
func clickMap(p *browser.Tab) {
	var at []float64
	p.Run(chromedp.Evaluate(`(() => { const b = document.querySelector(".map canvas").getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]; })()`, &at))
	p.Run(chromedp.MouseClickXY(at[0], at[1], chromedp.ButtonType(input.Left)))
}

// TestConsoleInBrowser looks for the nearest stores by a click and sees one of them change, with WebGL and without.
func TestConsoleInBrowser(t *testing.T) {
	for name, flags := range map[string][]chromedp.ExecAllocatorOption{"webgl": browser.WebGL, "plain": browser.NoWebGL} {
		t.Run(name, func(t *testing.T) {
			n := newTestNode(t)
			for i := range 8 {
				n.put(t, shortline.Store{ID: shortline.StoreID(fmt.Sprint("s", i)), Name: fmt.Sprintf("Store %d", i), Lat: float64(i), Lng: float64(2 * i)})
				n.report(t, fmt.Sprint("s", i), `{"length":3}`)
			}
			p := browser.Open(t, n.api+"/", browser.Options{Flags: flags})
			p.Until(`document.querySelector(".figures")?.innerText.includes("24")`) // eight times three are waiting
			p.Until(fmt.Sprintf(`Boolean(document.querySelector(".map .maplibregl-ctrl-zoom-in")) === %v && Boolean(document.querySelector(".plain-map")) === %v`, name == "webgl", name == "plain"))
			clickMap(p)
			p.Until(`document.querySelectorAll(".row").length === 5 && document.querySelectorAll(".map .pin").length === 5`)
			var first string
			p.Run(chromedp.Evaluate(`document.querySelector(".row").dataset.store`, &first))
			p.Until(`document.querySelector(".row .row-wait").innerText.includes("3 in line")`)
			n.report(t, first, `{"length":47}`)
			p.Until(`document.querySelector(".row .row-wait").innerText.includes("47 in line") && document.querySelector(".map .pin b").textContent === "47 min"`)

			p.Run(chromedp.Click(".row .row-head", chromedp.ByQuery))
			p.Until(`document.querySelector(".store h1")?.innerText.startsWith("Store ") && document.querySelector(".store-wait").innerText.includes("47 in line") && document.querySelectorAll(".store section").length === 2 && !document.querySelector(".store .spinner")`)
			if faults := p.Faults(); len(faults) > 0 {
				t.Errorf("the page complained of %q", faults)
			}
			if !slices.ContainsFunc(p.Requests(), func(r string) bool { return strings.HasPrefix(r, "ws://") && strings.HasSuffix(r, "/v1/live") }) {
				t.Errorf("no live connection among %q", p.Requests())
			}
		})
	}
}

// TestConsoleIsAccessible runs axe over both views, light and dark, on a phone and on a wide screen.
func TestConsoleIsAccessible(t *testing.T) {
	n := newTestNode(t)
	for i := range 8 {
		n.put(t, shortline.Store{ID: shortline.StoreID(fmt.Sprint("s", i)), Name: fmt.Sprintf("Store %d", i), Lat: float64(i), Lng: float64(2 * i), Hours: "Mo-Su 08:00-20:00", Timezone: "Europe/Berlin"})
		n.report(t, fmt.Sprint("s", i), `{"length":3}`)
	}
	p := browser.Open(t, n.api+"/", browser.Options{Flags: browser.NoWebGL})
	to := func(address, until string) {
		p.Run(chromedp.Evaluate(fmt.Sprintf("location.hash = %q", address), nil))
		p.Until(until)
	}
	look := func(what string) {
		for _, size := range [][2]int64{{390, 844}, {1600, 1000}} {
			for _, scheme := range []string{"light", "dark"} {
				p.Look(size[0], size[1], scheme)
				p.Until(fmt.Sprintf(`innerWidth === %d && document.documentElement.dataset.theme === %q`, size[0], scheme))
				for _, barrier := range p.Barriers() {
					t.Errorf("%s, %d wide, %s: %s", what, size[0], scheme, barrier)
				}
			}
		}
	}
	p.Until(`document.querySelector(".figures")?.innerText.includes("24") && document.querySelector(".plain-map")`)
	look("nobody asked yet")
	to("people/0,0", `document.querySelectorAll(".row").length === 5`)
	look("the nearest")
	p.Run(chromedp.Evaluate(`document.querySelector(".row .row-head").click()`, nil))
	p.Until(`document.querySelectorAll(".store section").length === 2 && !document.querySelector(".store .spinner")`)
	look("a store")
	to("regions", `document.querySelectorAll(".region").length === 1 && document.querySelector(".signin")`)
	look("regions")
	p.Type(".signin input", n.key)
	p.Click(".signin button", "Continue")
	p.Until(`document.querySelector(".history, .region-verbs, .notice")`)
	look("regions for an operator")
}
