package edge_test

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/input"
	cdplog "github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"github.com/shortline/shortline"
)

// tab is the console in a browser, with all that went wrong in it.
type tab struct {
	ctx     context.Context
	browser context.Context // ctx without its deadline

	mu       sync.Mutex
	faults   []string
	requests []string
}

// openTab starts a browser for the test. What the page asks of anybody but the node is a fault, and so is whatever it complains of.
func openTab(t *testing.T, n *testNode, flags ...chromedp.ExecAllocatorOption) *tab {
	t.Helper()
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(chromium(t)), chromedp.NoSandbox, chromedp.UserDataDir(t.TempDir()), chromedp.WindowSize(1300, 850),
		chromedp.Flag("disable-dev-shm-usage", true), chromedp.WSURLReadTimeout(3*patience))
	ctx, cancel := chromedp.NewExecAllocator(context.Background(), append(options, flags...)...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	p := &tab{browser: ctx}
	ctx, cancel = context.WithTimeout(ctx, 6*patience) // a browser takes its time on a busy machine
	t.Cleanup(cancel)
	p.ctx = ctx
	here, err := url.Parse(n.api)
	if err != nil {
		t.Fatal(err)
	}
	chromedp.ListenTarget(ctx, func(event any) {
		p.mu.Lock()
		defer p.mu.Unlock()
		switch e := event.(type) {
		case *runtime.EventExceptionThrown:
			p.faults = append(p.faults, e.ExceptionDetails.Error())
		case *runtime.EventConsoleAPICalled:
			if e.Type == runtime.APITypeError || e.Type == runtime.APITypeWarning {
				for _, a := range e.Args {
					p.faults = append(p.faults, fmt.Sprintf("console %s: %s", e.Type, a.Value))
				}
			}
		case *cdplog.EventEntryAdded:
			if e.Entry.Level == cdplog.LevelError {
				p.faults = append(p.faults, fmt.Sprintf("log: %s %s", e.Entry.Text, e.Entry.URL))
			}
		case *network.EventRequestWillBeSent:
			u, err := url.Parse(e.Request.URL)
			p.requests = append(p.requests, e.Request.URL)
			if err != nil || u.Host != here.Host && u.Scheme != "data" && u.Scheme != "blob" {
				p.faults = append(p.faults, "outside request: "+e.Request.URL)
			}
		case *network.EventWebSocketCreated:
			p.requests = append(p.requests, e.URL)
			if u, err := url.Parse(e.URL); err != nil || u.Host != here.Host {
				p.faults = append(p.faults, "outside connection: "+e.URL)
			}
		}
	})
	p.run(t, network.Enable(), cdplog.Enable(), chromedp.Navigate(n.api+"/"))
	return p
}

func (p *tab) run(t *testing.T, actions ...chromedp.Action) {
	t.Helper()
	if err := chromedp.Run(p.ctx, actions...); err != nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		t.Fatalf("%v; it complained of %q; it asked for %q", err, p.faults, p.requests)
	}
}

// until waits for an expression of the page to be true.
func (p *tab) until(t *testing.T, expression string) {
	t.Helper()
	if err := chromedp.Run(p.ctx, chromedp.Poll(expression, nil, chromedp.WithPollingTimeout(0), chromedp.WithPollingInterval(50*time.Millisecond))); err != nil {
		var shown string
		_ = chromedp.Run(p.browser, chromedp.Text("body", &shown))
		p.mu.Lock()
		defer p.mu.Unlock()
		t.Fatalf("%s never holds (%v). It complained of %q. The page says:\n%s", expression, err, p.faults, shown)
	}
}

// clickMap clicks on the map's middle.
func (p *tab) clickMap(t *testing.T) {
	t.Helper()
	var at []float64
	p.run(t, chromedp.Evaluate(`(() => { const b = document.querySelector(".map canvas").getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]; })()`, &at))
	p.run(t, chromedp.MouseClickXY(at[0], at[1], chromedp.ButtonType(input.Left)))
}

// TestConsoleInBrowser looks for the nearest stores by a click and sees one of them change, with WebGL and without.
func TestConsoleInBrowser(t *testing.T) {
	software := []chromedp.ExecAllocatorOption{chromedp.Flag("disable-gpu", false), chromedp.Flag("use-gl", "angle"), chromedp.Flag("use-angle", "swiftshader"), chromedp.Flag("enable-unsafe-swiftshader", true)}
	for name, flags := range map[string][]chromedp.ExecAllocatorOption{"webgl": software, "plain": {chromedp.Flag("disable-3d-apis", true)}} {
		t.Run(name, func(t *testing.T) {
			n := newTestNode(t)
			for i := range 8 {
				n.put(t, shortline.Store{ID: shortline.StoreID(fmt.Sprint("s", i)), Name: fmt.Sprintf("Store %d", i), Lat: float64(i), Lng: float64(2 * i)})
				n.report(t, fmt.Sprint("s", i), `{"length":3}`)
			}
			p := openTab(t, n, flags...)
			p.until(t, `document.querySelector(".figures")?.innerText.includes("24")`) // eight times three are waiting
			p.until(t, fmt.Sprintf(`Boolean(document.querySelector(".map .maplibregl-ctrl-zoom-in")) === %v && Boolean(document.querySelector(".plain-map")) === %v`, name == "webgl", name == "plain"))
			p.clickMap(t)
			p.until(t, `document.querySelectorAll(".row").length === 5 && document.querySelectorAll(".map .pin").length === 5`)
			var first string
			p.run(t, chromedp.Evaluate(`document.querySelector(".row").dataset.store`, &first))
			p.until(t, `document.querySelector(".row .row-wait").innerText.includes("3 in line")`)
			n.report(t, first, `{"length":47}`)
			p.until(t, `document.querySelector(".row .row-wait").innerText.includes("47 in line") && document.querySelector(".map .pin b").textContent === "47 min"`)

			p.run(t, chromedp.Click(".row .row-head", chromedp.ByQuery))
			p.until(t, `document.querySelector(".store h1")?.innerText.startsWith("Store ") && document.querySelector(".store-wait").innerText.includes("47 in line") && document.querySelectorAll(".store section").length === 2 && !document.querySelector(".store .spinner")`)
			p.mu.Lock()
			defer p.mu.Unlock()
			if len(p.faults) > 0 {
				t.Errorf("the page complained of %q", p.faults)
			}
			if !slices.ContainsFunc(p.requests, func(r string) bool { return strings.HasPrefix(r, "ws://") && strings.HasSuffix(r, "/v1/live") }) {
				t.Errorf("no live connection among %q", p.requests)
			}
		})
	}
}
