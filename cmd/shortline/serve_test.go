package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/shortline/shortline"
)

// TestMain lets the test binary stand in for the program, so that tests run real processes of what is being tested.
func TestMain(m *testing.M) {
	if os.Getenv("SHORTLINE_TEST_MAIN") == "1" {
		_ = os.Unsetenv("SHORTLINE_TEST_MAIN")
		version = os.Getenv("SHORTLINE_TEST_VERSION")
		bentMain(os.Getenv("SHORTLINE_TEST_MUTANT"), os.Getenv("SHORTLINE_TEST_DETAILS"))
		main()
	}
	os.Exit(m.Run())
}

// command is a command line of the program as a process of its own.
func command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), "SHORTLINE_TEST_MAIN=1")
	cmd.Dir = t.TempDir()
	return cmd
}

// process is a node that runs as a process of its own.
type process struct {
	t      *testing.T
	cmd    *exec.Cmd
	api    string
	key    string
	stderr *safeBuffer
	exited chan error
}

// start runs serve on the data folder and waits for its ready line.
func start(t *testing.T, data string, args ...string) *process {
	t.Helper()
	p := &process{t: t, stderr: new(safeBuffer), exited: make(chan error, 1)}
	p.cmd = command(t, append([]string{"serve", "--data", data, "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"}, args...)...)
	p.cmd.Stderr = p.stderr
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(out)
	line, err := lines.ReadString('\n')
	go func() {
		rest, _ := io.ReadAll(lines)
		err := p.cmd.Wait()
		if len(rest) > 0 {
			err = fmt.Errorf("more than the ready line on stdout: %q", rest)
		}
		p.exited <- err
	}()
	t.Cleanup(func() { _ = p.cmd.Process.Kill() })
	api, ok := strings.CutPrefix(strings.TrimSpace(line), "ready ")
	if err != nil || !ok {
		t.Fatalf("first line %q, %v; stderr:\n%s", line, err, p.stderr)
	}
	p.api = api
	key, err := os.ReadFile(filepath.Join(data, adminKeyFile))
	if err != nil {
		t.Fatal(err)
	}
	p.key = strings.TrimSpace(string(key))
	return p
}

// stop ends the node as an operator does and checks that it ends well.
func (p *process) stop() {
	p.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		p.t.Fatal(err)
	}
	if err := <-p.exited; err != nil {
		p.t.Fatalf("stopped with %v; stderr:\n%s", err, p.stderr)
	}
}

// do sends a request with the admin key; a status of 0 stands for an answer that never came.
func (p *process) do(method, path, contentType, body string, header ...string) (int, []byte) {
	req, err := http.NewRequest(method, p.api+path, strings.NewReader(body))
	if err != nil {
		p.t.Error(err)
		return 0, nil
	}
	req.Header.Set("Authorization", "Bearer "+p.key)
	if body != "" {
		req.Header.Set("Content-Type", contentType)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, nil
	}
	return resp.StatusCode, answer
}

// stores puts n stores with the ids s0, s1, … into the node.
func (p *process) stores(n int) {
	p.t.Helper()
	var rows strings.Builder
	for i := range n {
		fmt.Fprintf(&rows, `{"id":"s%d","name":"Store %d","lat":%g,"lng":%g}`+"\n", i, i, 52+float64(i)/1000, 13.4)
	}
	if status, body := p.do("POST", "/v1/stores:import", "application/x-ndjson", rows.String()); status != 200 {
		p.t.Fatalf("import: %d %s", status, body)
	}
}

func (p *process) length(id string) int {
	p.t.Helper()
	status, body := p.do("GET", "/v1/stores/"+id+"/queue", "", "")
	var q struct{ Length *int }
	if err := json.Unmarshal(body, &q); err != nil || status != 200 {
		p.t.Fatalf("queue of %s: %d %s %v", id, status, body, err)
	}
	if q.Length == nil {
		return 0
	}
	return *q.Length
}

func TestServeStartsAndStops(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	p := start(t, data)
	info, err := os.Stat(filepath.Join(data, adminKeyFile))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v %v", info.Mode(), err)
	}
	if _, _, err := shortline.ParseKey(p.key); err != nil {
		t.Fatalf("%q: %v", p.key, err)
	}
	p.stores(3)
	p.do("POST", "/v1/stores/s1/queue", "application/json", `{"length":7}`)
	p.stop() // only then all of stderr has been read
	if n := strings.Count(p.stderr.String(), p.key); n != 1 {
		t.Errorf("the admin key is printed %d times, want once", n)
	}

	p = start(t, data)
	if n := p.length("s1"); n != 7 {
		t.Errorf("length %d after a restart, want 7", n)
	}
	p.stop()
	if strings.Contains(p.stderr.String(), p.key) {
		t.Error("the second start prints the admin key again")
	}
}

// A crash between the file and the database leaves a key file whose key is not valid yet; the next start takes it up.
func TestServeTakesUpTheKeyFile(t *testing.T) {
	data := t.TempDir()
	_, secret, err := shortline.NewKey("x", []shortline.Scope{shortline.ScopeAdmin}, nil, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(data, adminKeyFile), []byte(secret+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	p := start(t, data)
	if status, body := p.do("GET", "/admin/v1/keys", "", ""); p.key != secret || status != 200 {
		t.Errorf("key taken up: %v, %d %s", p.key == secret, status, body)
	}
	p.stop()
}

func TestServeRefusesWhatCannotWork(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	inUse := filepath.Join(t.TempDir(), "data")
	p := start(t, inUse)
	defer p.stop()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	foreign := t.TempDir()
	if err := os.WriteFile(filepath.Join(foreign, "shortline.db"), bytes.Repeat([]byte("no database "), 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	badKey := t.TempDir()
	if err := os.WriteFile(filepath.Join(badKey, adminKeyFile), []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	free := []string{"--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"}
	for _, c := range []struct {
		name string
		args []string
		exit int
		want string // a regular expression
	}{
		{"port in use", []string{"--listen", taken.Addr().String()}, 1, `address 127\.0\.0\.1:\d+ is in use.*--listen`},
		{"admin port in use", []string{"--listen", "127.0.0.1:0", "--admin-listen", taken.Addr().String()}, 1, `is in use.*--admin-listen`},
		{"folder in use", append(free, "--data", inUse), 1, `in use by another shortline`},
		{"folder is a file", append(free, "--data", file), 1, regexp.QuoteMeta(file)},
		{"not a database", append(free, "--data", foreign), 1, `(?i)not .*database`},
		{"key file is none", append(free, "--data", badKey), 1, `admin\.key holds something else`},
		{"all faults at once", []string{"--listen", "nonsense", "--feed-retention", "1s", "--log-level", "loud", "--details-cache", "1MiB"}, 2, `(?s)nonsense.*1MiB.*1s.*loud`},
		{"size without sense", []string{"--details-cache", "much"}, 2, `256MiB`},
		{"argument", []string{"now"}, 2, `now`},
	} {
		t.Run(c.name, func(t *testing.T) {
			cmd := command(t, append([]string{"serve"}, c.args...)...)
			out, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.ExitCode() != c.exit {
				t.Errorf("ended with %v, want exit code %d", err, c.exit)
			}
			last := strings.TrimSpace(string(out))
			last = last[strings.LastIndexByte(last, '\n')+1:]
			if !regexp.MustCompile(c.want).MatchString(last) || !strings.HasPrefix(last, "shortline: ") {
				t.Errorf("last line %q, want one like %s", last, c.want)
			}
		})
	}
}

// What is acknowledged survives SIGKILL, and nothing is applied twice: writers add one to a store of their own again and
// again, each time with a new Idempotency-Key; the node is killed while they do; after the restart each sends the write
// whose answer it did not get again with the same key. Then every length must be exactly the number of writes.
func TestAcknowledgedWritesSurviveKill(t *testing.T) {
	const writers = 32
	total, runs := 10_000, 2
	if testing.Short() || raceEnabled {
		total, runs = 2_000, 1
	}
	if text := os.Getenv("SHORTLINE_CRASH_RUNS"); text != "" {
		runs, _ = strconv.Atoi(text)
	}
	http.DefaultTransport.(*http.Transport).MaxIdleConnsPerHost = writers
	for run := range runs {
		data := t.TempDir()
		p := start(t, data)
		p.stores(writers)
		kill := int64(total - rand.IntN(200)) // somewhere in the middle of a batch
		var acknowledged atomic.Int64
		var counts [writers]int // how many writes of each writer were answered
		send := func(p *process, w int) int {
			status, body := p.do("POST", fmt.Sprintf("/v1/stores/s%d/queue", w), "application/json", `{"delta":1}`, "Idempotency-Key", fmt.Sprintf("run-%d-%d", w, counts[w]))
			if status != 0 && status != 200 && status != 503 {
				t.Errorf("writer %d: %d %s", w, status, body)
			}
			return status
		}
		var all sync.WaitGroup
		for w := range writers {
			all.Go(func() {
				for send(p, w) == 200 {
					counts[w]++
					if acknowledged.Add(1) == kill {
						_ = p.cmd.Process.Kill()
					}
				}
			})
		}
		all.Wait()
		<-p.exited
		p = start(t, data)
		for w := range writers {
			before := p.length(fmt.Sprintf("s%d", w))
			if before < counts[w] || before > counts[w]+1 {
				t.Errorf("run %d, store s%d: length %d after the restart, but %d writes were acknowledged and one was under way", run, w, before, counts[w])
			}
			if status := send(p, w); status != 200 {
				t.Fatalf("retry of writer %d: %d", w, status)
			}
			if after := p.length(fmt.Sprintf("s%d", w)); after != counts[w]+1 {
				t.Errorf("run %d, store s%d: length %d after the retry, want %d", run, w, after, counts[w]+1)
			}
		}
		p.stop()
		t.Logf("run %d: killed at %d acknowledged writes, all there", run, acknowledged.Load())
	}
}

// The real file goes in by the real command, twice, and real questions get the answers of brute force.
func TestImportRealStores(t *testing.T) {
	path, err := filepath.Abs("../../../shared/data/starbucks.csv")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Skipf("SKIPPED: the real stores are not here: %v", err)
	}
	p := start(t, filepath.Join(t.TempDir(), "data"))
	defer p.stop()
	for i, want := range []string{"imported 25599, unchanged 0, rejected 1 ", "imported 0, unchanged 25599, rejected 1 "} {
		cmd := command(t, "import", path, "--server", p.api, "--key", p.key)
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), want) || !strings.Contains(string(out), "line 8031 (store 19773-160973)") {
			t.Fatalf("import %d: %v\n%s", i+1, err, out)
		}
	}
	stores := readStarbucks(t, path)
	rng := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		at := stores[rng.IntN(len(stores))]
		lat, lng := max(-90, min(90, at.lat+rng.NormFloat64()/10)), math.Remainder(at.lng+rng.NormFloat64()/10, 360)
		slices.SortFunc(stores, func(a, b place) int {
			if d := haversine(lat, lng, a.lat, a.lng) - haversine(lat, lng, b.lat, b.lng); math.Abs(d) > 1e-6 {
				return int(math.Copysign(1, d))
			}
			return strings.Compare(a.id, b.id)
		})
		status, body := p.do("GET", fmt.Sprintf("/v1/nearby?lat=%g&lng=%g&radius=21000km&limit=20", lat, lng), "", "")
		var answer struct {
			Stores []struct {
				ID        string
				DistanceM float64 `json:"distance_m"`
			}
		}
		if err := json.Unmarshal(body, &answer); err != nil || status != 200 || len(answer.Stores) != 20 {
			t.Fatalf("%d %s %v", status, body, err)
		}
		for i, got := range answer.Stores {
			if want := haversine(lat, lng, stores[i].lat, stores[i].lng); got.ID != stores[i].id || math.Abs(got.DistanceM-want) > 0.001 {
				t.Fatalf("around %g,%g place %d is %s at %.4f m, want %s at %.4f m", lat, lng, i, got.ID, got.DistanceM, stores[i].id, want)
			}
		}
	}
}

type place struct {
	id       string
	lat, lng float64
}

func readStarbucks(t *testing.T, path string) []place {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	var out []place
	for _, row := range rows[1:] {
		lng, err1 := strconv.ParseFloat(row[11], 64)
		lat, err2 := strconv.ParseFloat(row[12], 64)
		if err1 == nil && err2 == nil {
			out = append(out, place{row[1], lat, lng})
		}
	}
	if len(out) != 25_599 {
		t.Fatalf("%d stores in the file", len(out))
	}
	return out
}

func haversine(lat1, lng1, lat2, lng2 float64) float64 {
	const rad = math.Pi / 180
	s1, s2 := math.Sin((lat2-lat1)*rad/2), math.Sin((lng2-lng1)*rad/2)
	a := s1*s1 + math.Cos(lat1*rad)*math.Cos(lat2*rad)*s2*s2
	return 2 * 6_371_008.8 * math.Atan2(math.Sqrt(a), math.Sqrt(1-a))
}

// The demo has life in it at once, and the three lines that newcomers are shown work when pasted.
func TestDemoSuggestionsWorkWhenPasted(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("SKIPPED: curl is not installed")
	}
	p := start(t, filepath.Join(t.TempDir(), "it's a folder"), "--demo", "--simulate")
	defer p.stop()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for !strings.Contains(p.stderr.String(), "first reading for every store") {
		select {
		case <-ctx.Done():
			t.Fatalf("the simulation did not start:\n%s", p.stderr)
		case <-time.After(20 * time.Millisecond):
		}
	}
	lines := regexp.MustCompile(`(?m)^ +(curl .*)$`).FindAllStringSubmatch(p.stderr.String(), -1)
	if len(lines) != 3 {
		t.Fatalf("%d curl lines, want 3:\n%s", len(lines), p.stderr)
	}
	for i, want := range []string{`"id":"` + demoStore + `"`, `"length":7,`, `"length":`} {
		out, err := exec.CommandContext(ctx, "sh", "-c", lines[i][1]+" -sS --fail-with-body").CombinedOutput()
		if err != nil || !strings.Contains(string(out), want) {
			t.Errorf("%s\n%v\n%s", lines[i][1], err, out)
		}
	}
	_, body := p.do("GET", "/v1/nearby?lat=40.758&lng=-73.9855&radius=20km&limit=100", "", "")
	if n := strings.Count(string(body), `"queue":{"length"`); n != 100 {
		t.Errorf("%d of 100 stores in New York have a queue", n)
	}
}
