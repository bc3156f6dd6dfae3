package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/shortline/shortline/internal/browser"
	"github.com/shortline/shortline/internal/planet"
)

// TestPlanetConsole drives the map console of a region over three real ones: a queue reported in another region is seen to change, the
// primary is switched over from the page, its region is killed, and at last the region that the page came from: the page goes on.
func TestPlanetConsole(t *testing.T) {
	if testing.Short() {
		t.Skip("starts three regions and a browser")
	}
	browser.Need(t)
	w := startWorld(t, 8, planet.Options{Nodes: 1})
	var hosts []string
	for _, n := range w.Nodes() {
		hosts = append(hosts, strings.TrimPrefix(n.API(), "http://"), strings.TrimPrefix(n.Admin(), "http://"))
	}
	us, eu, ap := w.Region("us-east"), w.Region("eu-west"), w.Region("ap-southeast")

	// Without WebGL, which takes a core where there is no graphics card; the console of one node is tested with it.
	page := browser.Open(t, ap.Nodes[0].API()+"/", browser.Options{Flags: browser.NoWebGL, Hosts: hosts})
	first := w.stores[0]
	s := w.store(0, "")
	w.setQueue(us.Nodes[0], nil, first, 3)
	page.Run(chromedp.Evaluate(fmt.Sprintf(`location.hash = "people/%v,%v"`, s.Lat, s.Lng), nil))
	row := fmt.Sprintf(`document.querySelector('.row[data-store="%s"] .row-wait')?.innerText`, first)
	page.Until(row + `?.includes("3 in line")`)
	w.setQueue(eu.Nodes[0], nil, first, 41)
	page.Until(row + `?.includes("41 in line")`)

	page.Run(chromedp.Evaluate(`location.hash = "regions"`, nil))
	page.Until(`document.querySelectorAll(".region").length === 3 && document.querySelectorAll(".region-pin").length === 3`)
	page.Until(`!document.querySelector(".region-verbs")`) // not for everybody
	page.Type(".signin input", w.AdminKey())
	page.Click(".signin button", "Continue")
	w.eventually("a standby confirms writes", w.durable)
	page.Click("#region-eu-west button", "Make primary")
	page.Until(`document.querySelector("dialog .expected")?.innerText.includes("writes wait")`)
	if barriers := page.Barriers(); len(barriers) > 0 {
		t.Errorf("the dialog shuts people out: %q", barriers)
	}
	page.Type("dialog input[type=text]", "from the page")
	page.Click("dialog [type=submit]", "Switch over")
	page.Until(`document.querySelector("#region-eu-west .chip.primary")`)
	page.Until(`document.querySelector(".history .switchover")?.innerText.includes("from the page") && document.querySelector(".history .switchover .shares")`)
	if barriers := page.Barriers(); len(barriers) > 0 {
		t.Errorf("the regions after a switchover shut people out: %q", barriers)
	}
	if faults := page.Faults(); len(faults) > 0 {
		t.Errorf("the page complained of %q", faults)
	}

	w.eventually("a standby confirms writes, so that a failover may lose nothing", w.durable)
	eu.Nodes[0].Kill()
	eu.Postgres.Kill()
	page.Until(`document.querySelector("#region-eu-west .chip.bad") && [...document.querySelectorAll(".region .chip.primary")].some((c) => !c.closest("#region-eu-west"))`)
	page.Until(`document.querySelector(".history .failover")?.innerText.includes("by itself")`)

	// The page's own region goes away; it has seen where else to go.
	w.eventually("the rest is steady", func() bool { return w.Primary() != "" && w.Primary() != "eu-west" })
	ap.Nodes[0].Kill()
	page.Run(chromedp.Evaluate(fmt.Sprintf(`location.hash = "people/%v,%v"`, s.Lat, s.Lng), nil))
	page.Until(`document.querySelector(".connection.elsewhere")?.innerText.includes("us-east")`)
	page.Until(row + `?.includes("41 in line")`)
}
