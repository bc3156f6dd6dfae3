// Package browser drives a real Chromium in tests: it opens pages, waits for what they show, and keeps what they complain of and whom
// they ask.
package browser

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"sync"
	"testing"
	"time"

	cdplog "github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// patience is for what takes a moment on a busy machine.
const patience = 90 * time.Second

// Need returns the browser's path. Without one the test is skipped with a line on stderr, or fails where there must be one.
func Need(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	if os.Getenv("SHORTLINE_REQUIRE_SERVERS") == "1" {
		t.Fatal("Chromium is missing; install it with: scripts/setup chromium")
	}
	fmt.Fprintf(os.Stderr, "SKIPPED %s: Chromium is missing; install it with: scripts/setup chromium\n", t.Name())
	t.Skip("no Chromium")
	return ""
}

// Tab is a page in a browser of its own, with all that went wrong in it.
type Tab struct {
	t       *testing.T
	ctx     context.Context
	browser context.Context // ctx without its deadline
	hosts   []string

	mu       sync.Mutex
	faults   []string
	requests []string
}

// Options of a Tab.
type Options struct {
	Flags []chromedp.ExecAllocatorOption
	// Hosts are those that the page may ask besides its own, with their ports.
	Hosts []string
}

// WebGL draws by software, which works without a graphics card.
var WebGL = []chromedp.ExecAllocatorOption{chromedp.Flag("disable-gpu", false), chromedp.Flag("use-gl", "angle"), chromedp.Flag("use-angle", "swiftshader"), chromedp.Flag("enable-unsafe-swiftshader", true)}

// NoWebGL has none at all.
var NoWebGL = []chromedp.ExecAllocatorOption{chromedp.Flag("disable-3d-apis", true)}

// Open starts a browser and opens a page in it; both end with the test.
func Open(t *testing.T, address string, o Options) *Tab {
	t.Helper()
	here, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(Need(t)), chromedp.NoSandbox, chromedp.UserDataDir(t.TempDir()), chromedp.WindowSize(1300, 850),
		chromedp.Flag("disable-dev-shm-usage", true), chromedp.WSURLReadTimeout(patience))
	ctx, cancel := chromedp.NewExecAllocator(context.Background(), append(options, o.Flags...)...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	p := &Tab{t: t, browser: ctx, hosts: append(slices.Clone(o.Hosts), here.Host)}
	p.ctx, cancel = context.WithTimeout(ctx, 2*patience)
	t.Cleanup(cancel)
	chromedp.ListenTarget(p.ctx, p.hear)
	p.Run(network.Enable(), cdplog.Enable(), chromedp.Navigate(address))
	return p
}

// hear notes what the page complains of and whom it asks.
func (p *Tab) hear(event any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fault := func(format string, args ...any) { p.faults = append(p.faults, fmt.Sprintf(format, args...)) }
	asks := func(raw string) {
		p.requests = append(p.requests, raw)
		u, err := url.Parse(raw)
		if err != nil || !slices.Contains(p.hosts, u.Host) && u.Scheme != "data" && u.Scheme != "blob" {
			fault("outside request: %s", raw)
		}
	}
	switch e := event.(type) {
	case *runtime.EventExceptionThrown:
		fault("%v", e.ExceptionDetails)
	case *runtime.EventConsoleAPICalled:
		if e.Type == runtime.APITypeError || e.Type == runtime.APITypeWarning {
			for _, a := range e.Args {
				fault("console %s: %s", e.Type, a.Value)
			}
		}
	case *cdplog.EventEntryAdded:
		if e.Entry.Level == cdplog.LevelError {
			fault("log: %s %s", e.Entry.Text, e.Entry.URL)
		}
	case *network.EventRequestWillBeSent:
		asks(e.Request.URL)
	case *network.EventWebSocketCreated:
		asks(e.URL)
	}
}

// Faults are all complaints of the page so far: exceptions, warnings and errors, and requests to hosts that it has no business with.
func (p *Tab) Faults() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.faults)
}

// Requests are the addresses that the page asked for, WebSockets included.
func (p *Tab) Requests() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.requests)
}

// Run carries out actions, or ends the test.
func (p *Tab) Run(actions ...chromedp.Action) {
	p.t.Helper()
	if err := chromedp.Run(p.ctx, actions...); err != nil {
		p.t.Fatalf("%v; it complained of %q; it asked for %q", err, p.Faults(), p.Requests())
	}
}

// Until waits for an expression of the page to be true.
func (p *Tab) Until(expression string) {
	p.t.Helper()
	if err := chromedp.Run(p.ctx, chromedp.Poll(expression, nil, chromedp.WithPollingTimeout(0), chromedp.WithPollingInterval(50*time.Millisecond))); err != nil {
		var shown string
		_ = chromedp.Run(p.browser, chromedp.Text("body", &shown))
		p.t.Fatalf("%s never holds (%v). It complained of %q. The page says:\n%s", expression, err, p.Faults(), shown)
	}
}

// Click clicks on the first element of a selector whose text begins with text, once there is one.
func (p *Tab) Click(selector, text string) {
	p.t.Helper()
	find := fmt.Sprintf(`[...document.querySelectorAll(%q)].find((e) => e.innerText.trim().startsWith(%q) && !e.disabled)`, selector, text)
	p.Until("Boolean(" + find + ")")
	p.Run(chromedp.Evaluate(find+".click()", nil))
}

// Type types text into the first field of a selector.
func (p *Tab) Type(selector, text string) {
	p.t.Helper()
	p.Run(chromedp.SendKeys(selector, text, chromedp.ByQuery))
}
