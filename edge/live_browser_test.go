package edge_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/internal/browser"
)

// The page uses the module of one node, from another origin, and tells the test what it sees.
const browserPage = `<!doctype html><meta charset="utf-8"><title>test</title><script type="module">
let last = Promise.resolve();
const tell = (kind, data) => { last = last.then(() => fetch("/told", { method: "POST", body: JSON.stringify({ kind, data }) })); };
window.onerror = (m) => tell("fault", String(m));
window.onunhandledrejection = (e) => tell("fault", String(e.reason));
const { Shortline, ShortlineProblem } = await import("HERE/shortline.js");
const s = new Shortline({ key: "KEY" });
tell("server", s.server);
const near = await s.nearby({ lat: 0, lng: 0, radius: "1km", tag: ["x", "y"] });
tell("nearby", near.stores.map((x) => x.id));
tell("queue", (await s.queue("a")).length);
try { await s.queue("none"); } catch (e) { tell("problem", [e instanceof ShortlineProblem, e.status, e.type, e.passing]); }
try { await s.nearby({ lat: 91, lng: 0 }); } catch (e) { tell("problem", [e instanceof ShortlineProblem, e.status, e.errors[0].field, e.passing]); }
tell("set", (await s.setQueue("a", { delta: 1 })).length);
const feed = new Shortline().live({ // the other node of this test has keys of its own
  stores: ["a", "none"], area: { lat: 0, lng: 0, radius: 1000, limit: 3 },
  onSnapshot: (x) => { tell(x.area ? "area" : "snapshot", [x.server, x.region, x.stores.map((y) => y.id), x.missing]); tell("shows", x.stores.map((y) => y.length)); },
  onChange: (q) => tell("change", [q.id, q.length, q.wait_s]),
  onRemoved: (id) => tell("removed", id),
  onLost: (e) => tell("lost", e.message),
  onEnd: (e) => tell("end", e.message),
});
const bad = new Shortline({ server: "HERE", key: "sl_aaaaaaaaaaaaaaaa_nonsense" }).live({ stores: ["a"], onEnd: (e) => tell("refused", [e.status, bad === undefined]) });
</script>`

func TestBrowserModule(t *testing.T) {
	chromium := browser.Need(t)
	there := newTestNode(t)
	here := newTestNode(t, func(s *nodeSetup) { s.elsewhere = &to{there.api} })
	for i, n := range []*testNode{here, there} {
		n.put(t, shortline.Store{ID: "a", Name: "A", Tags: []string{"x", "y"}})
		n.report(t, "a", fmt.Sprintf(`{"length":%d}`, 10*(i+1)))
	}
	type told struct {
		Kind string
		Data json.RawMessage
	}
	all := make(chan told, 1000)
	pages := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/told":
			var x told
			text, _ := io.ReadAll(r.Body)
			if err := json.Unmarshal(text, &x); err != nil {
				t.Errorf("%v in %s", err, text)
			}
			all <- x
		case "/":
			w.Header().Set("Content-Type", "text/html")
			_, _ = io.WriteString(w, strings.NewReplacer("HERE", here.api, "KEY", here.key).Replace(browserPage))
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(pages.Close)
	runBrowser(t, chromium, pages.URL)

	var seen []string
	want := func(kind, data string) {
		t.Helper()
		if kind == "refused" && slices.Contains(seen, kind+" "+data) { // it comes when it likes
			return
		}
		end := time.After(3 * patience) // a browser takes its time to start
		for {
			select {
			case x := <-all:
				seen = append(seen, x.Kind+" "+string(x.Data))
				if x.Kind == "fault" {
					t.Fatalf("the page fails with %s", x.Data)
				}
				if x.Kind == kind && string(x.Data) == data {
					return
				}
			case <-end:
				t.Fatalf("%s %s never comes, but %v", kind, data, seen)
			}
		}
	}
	want("server", `"`+here.api+`"`)
	want("nearby", `["a"]`)
	want("queue", "10")
	want("problem", `[true,404,"/problems/not-found",false]`)
	want("problem", `[true,422,"lat",false]`)
	want("set", "11")
	want("area", fmt.Sprintf(`[%q,"local",["a"],[]]`, here.api))
	want("snapshot", fmt.Sprintf(`[%q,"local",["a"],["none"]]`, here.api))
	here.report(t, "a", `{"length":12,"observed_at":"2026-11-23T09:00:01Z"}`) // the test's clock stands
	want("change", `["a",12,720]`)
	want("refused", "[401,false]")
	here.put(t, shortline.Store{ID: "none", Name: "N", Lat: 1})
	want("change", `["none",null,null]`)
	here.write(t, "DELETE", "/v1/stores/none", "").want(t, 204)
	want("removed", `"none"`)
	here.stop()
	want("snapshot", fmt.Sprintf(`[%q,"local",["a"],["none"]]`, there.api))
	want("shows", "[12]") // what that node has was reported before
	there.report(t, "a", `{"length":21,"observed_at":"2026-11-23T09:00:02Z"}`)
	want("change", `["a",21,1260]`)
	if slices.ContainsFunc(seen, func(s string) bool { return strings.HasPrefix(s, "lost") || strings.HasPrefix(s, "end") }) {
		t.Errorf("it had no connection in between: %v", seen)
	}
	if err := here.served(); err != nil {
		t.Error(err)
	}
}

// runBrowser shows a page until the test ends.
func runBrowser(t *testing.T, program, url string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
		"--disable-background-networking", "--disable-component-update", "--disable-extensions", "--user-data-dir="+t.TempDir(), "--remote-debugging-port=0", url)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // it has many processes
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	var output strings.Builder
	cmd.Stderr = &output
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		cancel()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("the browser says:\n%.3000s", output.String())
		}
	})
}
