package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
)

// took is the part of a summary that is never the same.
var took = regexp.MustCompile(`in [0-9.]+s \([0-9]+ rows/s\)`)

func (r ran) timeless() ran {
	r.stdout = took.ReplaceAllString(r.stdout, "in T")
	return r
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func csvRows(n int) string {
	var b strings.Builder
	b.WriteString("id,name,lat,lng,brand\n")
	for i := range n {
		fmt.Fprintf(&b, "s%d,Store %d,%d.5,%d.25,\n", i, i, i%80, i%170)
	}
	return b.String()
}

func TestImportCountsAndRepeats(t *testing.T) {
	t.Chdir(t.TempDir())
	api := newFakeAPI(t)
	env := map[string]string{"SHORTLINE_SERVER": api.URL, "SHORTLINE_KEY": "sl_k"}
	rows := csvRows(2500)
	write(t, "stores.csv", rows)
	if got := shell(t, env, "", "import", "stores.csv").timeless(); got != (ran{0, "imported 2500, unchanged 0, rejected 0 in T\n", ""}) {
		t.Errorf("first: %+v", got)
	}
	if api.chunks != 3 || len(api.stores) != 2500 || api.auth[len(api.auth)-1] != "Bearer sl_k" || !strings.HasPrefix(api.agents[0], "shortline/") {
		t.Errorf("%d chunks, %d stores, auth %q", api.chunks, len(api.stores), api.auth)
	}
	if got := shell(t, env, rows, "import", "-", "--format", "csv").timeless(); got != (ran{0, "imported 0, unchanged 2500, rejected 0 in T\n", ""}) {
		t.Errorf("again from stdin: %+v", got)
	}
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, _ = io.WriteString(z, rows)
	_ = z.Close()
	write(t, "stores.csv.gz", packed.String())
	if got := shell(t, env, "", "import", "stores.csv.gz").timeless(); got != (ran{0, "imported 0, unchanged 2500, rejected 0 in T\n", ""}) {
		t.Errorf("again from gzip: %+v", got)
	}
	write(t, "empty.csv", "id,name,lat,lng\n")
	if got := shell(t, env, "", "import", "empty.csv").timeless(); got != (ran{0, "imported 0, unchanged 0, rejected 0 in T\n", ""}) {
		t.Errorf("nothing: %+v", got)
	}
}

// badRows has a row that cannot be read on line 3, one that the server refuses on line 6 (after a name on two lines).
const badRows = "id,name,lat,lng,brand\na,A,1,1,\nb,B,,1,\n\"c\",\"C\nC\",1,1,\nd,D,1,1,refused\ne,E,1,1,\n"

func TestImportNamesTheLinesOfTheFile(t *testing.T) {
	t.Chdir(t.TempDir())
	api := newFakeAPI(t)
	env := map[string]string{"SHORTLINE_SERVER": api.URL}
	write(t, "bad.csv", badRows)
	got := shell(t, env, "", "import", "bad.csv", "--rejects", "rejects.ndjson").timeless()
	want := ran{0, "imported 3, unchanged 0, rejected 2 in T\n", "line 3 (store b): lat: is required\nline 6 (store d): brand: is refused\n"}
	if got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	rejects, err := os.ReadFile("rejects.ndjson")
	if want := `{"line":3,"id":"b","errors":[{"field":"lat","detail":"is required"}]}
{"line":6,"id":"d","errors":[{"field":"brand","detail":"is refused"}]}
`; err != nil || string(rejects) != want {
		t.Errorf("rejects %s, err %v", rejects, err)
	}
}

func TestImportStrictStopsAtTheFirstBadRow(t *testing.T) {
	t.Chdir(t.TempDir())
	api := newFakeAPI(t)
	env := map[string]string{"SHORTLINE_SERVER": api.URL}
	write(t, "bad.csv", badRows)
	got := shell(t, env, "", "import", "bad.csv", "--strict")
	if got != (ran{1, "", "shortline: import bad.csv: line 3 (store b): lat: is required; stopped because of --strict, 1 other rows are in\n"}) || len(api.stores) != 1 {
		t.Errorf("a bad row: %+v, %d stores", got, len(api.stores))
	}
	write(t, "refused.csv", strings.Replace(badRows, "b,B,,1,", "b,B,1,1,", 1))
	got = shell(t, env, "", "import", "refused.csv", "--strict")
	if got.code != 1 || !strings.HasPrefix(got.stderr, "shortline: import refused.csv: line 6 (store d): brand: is refused; stopped because of --strict") {
		t.Errorf("a refused row: %+v", got)
	}
}

func TestImportShowsTwentyBadRows(t *testing.T) {
	t.Chdir(t.TempDir())
	api := newFakeAPI(t)
	var rows strings.Builder
	rows.WriteString("id,name,lat,lng\n")
	for i := range 25 {
		fmt.Fprintf(&rows, "s%d,,1,1\n", i)
	}
	write(t, "bad.csv", rows.String())
	got := shell(t, map[string]string{"SHORTLINE_SERVER": api.URL}, "", "import", "bad.csv").timeless()
	if lines := strings.Split(got.stderr, "\n"); got.code != 0 || len(lines) != 22 || !strings.HasPrefix(lines[19], "line 21 ") ||
		lines[20] != "and 5 more rejected rows; --rejects FILE writes them all" || got.stdout != "imported 0, unchanged 0, rejected 25 in T\n" {
		t.Errorf("%+v", got)
	}
}

func TestImportDryRunSendsNothing(t *testing.T) {
	t.Chdir(t.TempDir())
	api := newFakeAPI(t)
	write(t, "bad.csv", "Filiale,Name,lat,lng,colour\n1,A,1,1,red\n2,B,x,1,red\n")
	got := shell(t, map[string]string{"SHORTLINE_SERVER": api.URL}, "", "import", "bad.csv", "--dry-run", "--map", "id=Filiale")
	want := `reads csv:
  id           from Filiale
  name         from Name
  lat          from lat
  lng          from lng
  not read:    colour
1 rows are good, 1 are bad; nothing was sent
`
	if _, _, _, n := api.last(); got.code != 0 || got.stdout != want || !strings.HasPrefix(got.stderr, "line 3 (store 2): lat: ") || n != 0 {
		t.Errorf("%+v, %d requests", got, n)
	}
	if got := shell(t, nil, "", "import", "bad.csv", "--dry-run"); got.code != 1 || !strings.Contains(got.stderr, "id") {
		t.Errorf("without a column for the id: %+v", got)
	}
}

func TestImportKeepsTheOrderOfRowsOfOneStore(t *testing.T) {
	t.Chdir(t.TempDir())
	api := newFakeAPI(t)
	var together, inFlight atomic.Int32
	api.answer = func(w http.ResponseWriter, r *http.Request, body []byte) bool {
		if r.Method == http.MethodPost && bytes.Contains(body, []byte(`"id":"twice"`)) {
			together.Store(max(together.Load(), inFlight.Add(1)))
			defer inFlight.Add(-1)
			api.importRows(w, body)
			return true
		}
		return false
	}
	var rows strings.Builder
	rows.WriteString("id,name,lat,lng\n")
	for i := range 10_000 {
		id := fmt.Sprint("s", i)
		if i%1000 == 500 {
			id = "twice"
		}
		fmt.Fprintf(&rows, "%s,Name %d,1,1\n", id, i)
	}
	write(t, "stores.csv", rows.String())
	got := shell(t, map[string]string{"SHORTLINE_SERVER": api.URL}, "", "import", "stores.csv").timeless()
	if got.stdout != "imported 10000, unchanged 0, rejected 0 in T\n" || together.Load() != 1 || !strings.Contains(api.stores["twice"], "Name 9500") {
		t.Errorf("%+v, %d at a time, the last is %s", got, together.Load(), api.stores["twice"])
	}
}

func TestImportStopsWhenTheServerRefuses(t *testing.T) {
	t.Chdir(t.TempDir())
	api := newFakeAPI(t)
	env := map[string]string{"SHORTLINE_SERVER": api.URL}
	write(t, "stores.csv", csvRows(5000))
	api.answer = func(w http.ResponseWriter, r *http.Request, _ []byte) bool {
		if r.Method == http.MethodPost {
			reply(w, 401, `{"detail":"an API key is needed"}`)
		}
		return r.Method == http.MethodPost
	}
	if got := shell(t, env, "", "import", "stores.csv"); got != (ran{1, "", "shortline: import stores.csv: an API key is needed (401 Unauthorized); pass --key or set SHORTLINE_KEY\n"}) {
		t.Errorf("no key: %+v", got)
	}
	var n atomic.Int32
	api.answer = func(w http.ResponseWriter, r *http.Request, body []byte) bool {
		if r.Method == http.MethodPost && n.Add(1) == 5 {
			reply(w, 500, `{"detail":"disk full"}`)
			return true
		}
		return false
	}
	got := shell(t, env, "", "import", "stores.csv")
	if got.code != 1 || got.stdout != "" || !strings.Contains(got.stderr, "rows are in: disk full (500") || !strings.Contains(got.stderr, "running it again is safe") {
		t.Errorf("half way: %+v", got)
	}
	api.answer = func(w http.ResponseWriter, r *http.Request, body []byte) bool {
		if r.Method == http.MethodPost {
			reply(w, 200, `{"created":1}`)
		}
		return r.Method == http.MethodPost
	}
	if got := shell(t, env, "", "import", "stores.csv"); got.code != 1 || !strings.Contains(got.stderr, "answered for 1 rows of 1000") {
		t.Errorf("rows are lost: %+v", got)
	}
}

func TestImportInterrupted(t *testing.T) {
	t.Chdir(t.TempDir())
	api := newFakeAPI(t)
	env := map[string]string{"SHORTLINE_SERVER": api.URL}
	ctx, cancel := context.WithCancel(t.Context())
	var n atomic.Int32
	api.answer = func(w http.ResponseWriter, r *http.Request, _ []byte) bool {
		if r.Method == http.MethodPost && n.Add(1) > 3 {
			cancel()
			<-r.Context().Done()
			return true
		}
		return false
	}
	write(t, "stores.csv", csvRows(50_000))
	got := shellContext(t, ctx, env, "", "import", "stores.csv")
	if got.code != 1 || got.stdout != "" || !regexp.MustCompile(`^shortline: import stores.csv: interrupted near line \d+, at least \d+ rows are in; running it again is safe`).MatchString(got.stderr) {
		t.Errorf("%+v", got)
	}
}

func TestImportFromAStdinThatNeverEnds(t *testing.T) {
	api := newFakeAPI(t)
	never, pen := io.Pipe()
	defer pen.Close()
	ctx, cancel := context.WithCancel(t.Context())
	var stdout, stderr safeBuffer
	done := make(chan error)
	go func() {
		done <- run(ctx, []string{"import", "-", "--format", "csv", "--server", api.URL}, func(string) string { return "" }, never, &stdout, &stderr)
	}()
	_, _ = io.WriteString(pen, "id,name,lat,lng\na,A,1,1\n")
	cancel()
	if err := <-done; err == nil {
		t.Error("it ended well")
	}
}

func TestImportOfWhatIsNoFile(t *testing.T) {
	t.Chdir(t.TempDir())
	api := newFakeAPI(t)
	env := map[string]string{"SHORTLINE_SERVER": api.URL}
	if err := os.Mkdir("folder.csv", 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, "broken.csv.gz", "\x1f\x8bnot gzip at all")
	for name, want := range map[string]string{"folder.csv": "is a folder", "broken.csv.gz": "unpack: gzip"} {
		if got := shell(t, env, "", "import", name); got.code != 1 || !strings.Contains(got.stderr, want) {
			t.Errorf("%s: %+v", name, got)
		}
	}
	write(t, "stores.csv", csvRows(1))
	if got := shell(t, env, "", "import", "stores.csv", "--rejects", "nosuch/file"); got.code != 1 || !strings.Contains(got.stderr, "--rejects: ") {
		t.Errorf("%+v", got)
	}
}

func TestPlainProgress(t *testing.T) {
	var out bytes.Buffer
	p := &plainLines{w: &out, size: 200}
	p.update(50, 10)
	p.say("line 3: bad")
	p.close(true)
	if got := out.String(); !strings.HasPrefix(got, "10 rows so far (25% of the file read), ") || !strings.HasSuffix(got, "\nline 3: bad\n") {
		t.Errorf("%q", got)
	}
}
