package main

import (
	"context"
	"strings"
	"testing"
	"time"
)

// awaitText waits until text is there.
func awaitText(t *testing.T, b *safeBuffer, text string) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !strings.Contains(b.String(), text); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%q never comes; there is %q", text, b.String())
		}
	}
}

// watching runs a watch until the test has seen enough.
func watching(t *testing.T, p *process, args ...string) (out, errs *safeBuffer, end func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var stdout, stderr safeBuffer
	done := make(chan error, 1)
	go func() {
		done <- run(ctx, args, func(k string) string { return map[string]string{"SHORTLINE_SERVER": p.api}[k] }, strings.NewReader(""), &stdout, &stderr)
	}()
	return &stdout, &stderr, func() {
		t.Helper()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("%v ended with %v", args, err)
		}
	}
}

func TestWatchLive(t *testing.T) {
	t.Chdir(t.TempDir())
	p := start(t, t.TempDir())
	put := func(id, body string) {
		t.Helper()
		if status, text := p.do("PUT", "/v1/stores/"+id, "application/json", body); status >= 300 {
			t.Fatalf("PUT %s: %d %s", id, status, text)
		}
	}
	report := func(id, length string) {
		t.Helper()
		if status, text := p.do("POST", "/v1/stores/"+id+"/queue", "application/json", `{"length":`+length+`}`); status != 200 {
			t.Fatalf("%d %s", status, text)
		}
	}
	put("a", `{"name":"Corner","lat":1,"lng":1}`)
	put("b", `{"name":"Square","lat":1.01,"lng":1}`)
	text, _, end := watching(t, p, "queue", "watch", "a", "b")
	awaitText(t, text, "b: has not reported yet")
	report("a", "3")
	awaitText(t, text, "a: 3 in line")
	lines, _, endLines := watching(t, p, "queue", "watch", "a", "--json")
	awaitText(t, lines, `{"id":"a","length":3,"wait_s":180`)
	near, _, endNear := watching(t, p, "nearby", "1,1", "--watch")
	awaitText(t, near, "Square")
	report("b", "7")
	awaitText(t, near, "Square, b: 7 in line")
	awaitText(t, text, "b: 7 in line")
	put("c", `{"name":"Newcomer","lat":1.001,"lng":1}`)
	awaitText(t, near, "Newcomer")
	end()
	endLines()
	endNear()
	env := map[string]string{"SHORTLINE_SERVER": p.api}
	if got := shell(t, env, "", "queue", "watch", "a", "none"); got.code != 1 || !strings.Contains(got.stderr, "none: there is no such store") {
		t.Errorf("a store that does not exist: %+v", got)
	}
	if got := shell(t, env, "", "nearby", "1,1", "--watch", "--open-now"); got.code != 2 || !strings.Contains(got.stderr, "--open-now") {
		t.Errorf("with a filter: %+v", got)
	}
	p.stop()
	if got := shell(t, env, "", "queue", "watch", "a"); got.code != 1 || !strings.Contains(got.stderr, "cannot reach") {
		t.Errorf("without a service: %+v", got)
	}
}
