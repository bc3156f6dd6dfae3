package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/edge/client"
	"github.com/shortline/shortline/internal/planet"
)

// TestPlanet is what three regions promise together, from outside, over real processes.
func TestPlanet(t *testing.T) {
	w := startWorld(t, 24, planet.Options{Env: tinyDetails})
	for _, part := range []struct {
		name string
		test func(*world)
	}{
		{"a write is seen everywhere", (*world).testVisible},
		{"a session crosses regions", (*world).testSession},
		{"a key ends everywhere", (*world).testRevoked},
		{"the order of commits decides", func(w *world) {
			if faults := w.commitAgainstXIDs(); len(faults) > 0 {
				w.Errorf("the wrong one won:\n%s", strings.Join(faults, "\n"))
			}
		}},
		{"live in every region", (*world).testLive},
		{"a live client moves", (*world).testLiveMoves},
		{"a region without database and Redis", (*world).testWithout},
		{"no stale read", (*world).testStaleReads},
		{"a part that ends is told", (*world).testTold},
	} {
		t.Run(part.name, func(t *testing.T) { part.test(w.part(t)) })
	}
}

// A write sent to a far region is committed in the primary one, and every node of all regions comes to show it without any
// token.
func (w *world) testVisible() {
	far := w.Region("ap-southeast").Nodes[1]
	answer := w.setQueue(far, new(client.Session), w.stores[1], 41)
	if !answer.Applied || answer.Length != 41 {
		w.Errorf("the answer is %+v", answer)
	}
	if tr := w.truth(); tr.length[w.stores[1]] != 41 {
		w.Errorf("after the answer the primary's database has %d", tr.length[w.stores[1]])
	}
	for _, n := range w.Nodes() {
		w.eventually(n.Name()+" shows it", func() bool {
			q, err := w.client(n, new(client.Session)).Queue(w.deadline(), w.stores[1], client.ReadOptions{})
			return err == nil && q.Length == 41
		})
	}
}

// A key that is made in one region is taken in all, and when it is revoked in another, refused in all.
func (w *world) testRevoked() {
	made, err := w.client(w.Region("ap-southeast").Nodes[0], new(client.Session)).CreateKey(w.deadline(), client.KeySpec{Name: "till", Scopes: []shortline.Scope{shortline.ScopeQueueWrite}})
	w.check(err)
	status := func(n *planet.Node) int {
		req, err := http.NewRequestWithContext(w.deadline(), http.MethodPost, n.API()+"/v1/stores/"+string(w.stores[0])+"/queue", strings.NewReader(`{"length":1}`))
		w.check(err)
		req.Header.Set("Authorization", "Bearer "+made.Secret)
		req.Header.Set("Content-Type", "application/json")
		res, err := w.http.Do(req)
		w.check(err)
		w.check(res.Body.Close())
		return res.StatusCode
	}
	everywhere := func(want int) time.Duration {
		began := time.Now()
		for _, n := range w.Nodes() {
			w.eventually(fmt.Sprintf("%s answers %d", n.Name(), want), func() bool { return status(n) == want })
		}
		return time.Since(began)
	}
	everywhere(http.StatusOK)
	_, err = w.client(w.Region("eu-west").Nodes[0], new(client.Session)).RevokeKey(w.deadline(), made.ID)
	w.check(err)
	w.Logf("all nodes refuse a revoked key %v after the answer", everywhere(http.StatusUnauthorized).Round(time.Millisecond))
	for _, n := range w.Nodes() { // and for good
		if got := status(n); got != http.StatusUnauthorized {
			w.Errorf("%s takes it again: %d", n.Name(), got)
		}
	}
}

// With its token a session sees its writes at once, wherever it goes next.
func (w *world) testSession() {
	session := new(client.Session)
	nodes := w.Nodes()
	for i := range 60 {
		writer, reader := nodes[i%len(nodes)], nodes[(i*5+1)%len(nodes)]
		w.setQueue(writer, session, w.stores[2], 100+i)
		q, err := w.client(reader, session).Queue(w.deadline(), w.stores[2], client.ReadOptions{})
		w.check(err)
		if q.Length != 100+i {
			w.Fatalf("%s wrote %d, then %s read %d", writer.Name(), 100+i, reader.Name(), q.Length)
		}
	}
}

// commitAgainstXIDs makes two transactions commit in the opposite order of their numbers on one store, its queue and the
// store itself, and returns where not the last one is in force.
//
// One write of three stores locks them in order of their ids. A transaction of the test's own has the second; so the write
// has its number and the first, and waits, while another node writes the third. Then it goes on.
func (w *world) commitAgainstXIDs() (faults []string) {
	w.Helper()
	ctx := w.deadline()
	primary := w.Region(w.Primary())
	first, held, last := w.stores[3], w.stores[4], w.stores[5]
	a, b := primary.Nodes[0], primary.Nodes[1%len(primary.Nodes)]
	session := new(client.Session)
	var followers []*follower
	for _, n := range w.Nodes() {
		followers = append(followers, w.follow(n, w.stores[6], last))
	}
	race := func(early, late func() error) {
		release, err := primary.Postgres.Hold(ctx, "shortline", fmt.Sprintf("SELECT FROM shortline.queues WHERE store = '%s' FOR UPDATE", held))
		w.check(err)
		defer release()
		var done sync.WaitGroup
		var earlyErr error
		done.Go(func() { earlyErr = early() })
		w.eventually("the first transaction waits for the lock", func() bool {
			rows, err := primary.Postgres.Rows(ctx, "shortline", "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND backend_xid IS NOT NULL")
			return err == nil && rows[0][0] == "1"
		})
		var lateDone sync.WaitGroup
		var lateErr error
		lateDone.Go(func() { lateErr = late() })
		w.eventually("the second has committed", func() bool {
			rows, err := primary.Postgres.Rows(ctx, "shortline", fmt.Sprintf(`SELECT s.body::json->>'name', q.length FROM shortline.stores s
				JOIN shortline.queues q ON q.store = s.id WHERE s.id = '%s'`, last))
			return err == nil && (rows[0][0] == "late" || rows[0][1] == "11")
		})
		release()
		done.Wait()
		lateDone.Wait()
		w.check(errors.Join(earlyErr, lateErr))
	}
	length := func(n int) *int { return &n }
	race(func() error {
		_, err := w.client(a, session).SetQueues(ctx, []shortline.QueueUpdate{{ID: first, Length: length(77)}, {ID: held, Length: length(77)}, {ID: last, Length: length(77)}}, client.WriteOptions{})
		return err
	}, func() error {
		_, err := w.client(b, session).SetQueue(ctx, shortline.QueueUpdate{ID: last, Length: length(11)}, client.WriteOptions{})
		return err
	})
	race(func() error {
		var body bytes.Buffer
		for i := 3; i <= 5; i++ {
			line, err := json.Marshal(w.store(i, "early"))
			if err != nil {
				return err
			}
			body.Write(append(line, '\n'))
		}
		_, err := w.client(a, session).ImportBytes(ctx, client.NDJSON, body.Bytes())
		return err
	}, func() error {
		_, err := w.client(b, session).PutStore(ctx, w.store(5, "late"))
		return err
	})
	rows, err := primary.Postgres.Rows(ctx, "shortline", fmt.Sprintf(
		"SELECT kind, coalesce(length::text, body::json->>'name') FROM shortline.changes WHERE subject = '%s' ORDER BY xid, id", last))
	w.check(err)
	if got := fmt.Sprint(rows[len(rows)-4:]); got != "[[3 77] [3 11] [1 early] [1 late]]" {
		w.Fatalf("the test did not get what it wants: the feed ends with %s", got)
	}
	tr := w.truth()
	if tr.length[last] != 77 || tr.name[last] != "early" {
		w.Fatalf("the database has %d and %q", tr.length[last], tr.name[last])
	}
	w.caughtUp(session)
	for _, f := range followers {
		if got := f.lastBefore(w, session); got != 77 {
			faults = append(faults, fmt.Sprintf("live at %s ends with %d", f.node.Name(), got))
		}
	}
	w.caughtUp(session)
	return append(faults, w.everyCacheIs(w.truth())...)
}

// A region loses its database and its Redis under load: no nearby fails, answers say how old they are, and when both are
// back the region catches up by itself.
func (w *world) testWithout() {
	region := w.Region("eu-west")
	here := w.Region(w.Primary()).Nodes[0]
	stop := make(chan struct{})
	var reads atomic.Int64
	var failed sync.Map
	var load sync.WaitGroup
	for i := range 8 {
		load.Go(func() {
			c := w.client(region.Nodes[i%len(region.Nodes)], new(client.Session))
			for {
				select {
				case <-stop:
					return
				default:
				}
				a, err := c.Nearby(w.Context(), client.NearbyQuery{Lat: 51.5, Lng: -0.12, Limit: 10, ReadOptions: client.ReadOptions{Consistency: client.Eventual}})
				if err == nil && len(a.Stores) != 10 {
					err = fmt.Errorf("%d stores", len(a.Stores))
				}
				if err != nil {
					failed.Store(err.Error(), true)
				}
				reads.Add(1)
				time.Sleep(time.Millisecond)
			}
		})
	}
	lag := func(n *planet.Node) float64 {
		a, err := w.client(n, new(client.Session)).Nearby(w.deadline(), client.NearbyQuery{Lat: 51.5, Lng: -0.12})
		w.check(err)
		return a.LagS
	}
	w.eventually("there is load", func() bool { return reads.Load() > 100 })
	region.Postgres.Kill()
	for i := range region.Redis.Nodes() {
		region.Redis.Kill(i)
	}
	w.setQueue(here, new(client.Session), w.stores[6], 5)
	for _, n := range region.Nodes {
		w.eventually(n.Name()+" says that it is behind", func() bool { return lag(n) > 1 })
	}
	before := reads.Load()
	w.eventually("reads go on", func() bool { return reads.Load() > before+100 })
	w.setQueue(here, new(client.Session), w.stores[6], 66)
	ctx := w.deadline()
	for i := range region.Redis.Nodes() {
		w.check(region.Redis.Restart(ctx, i))
	}
	w.check(region.Postgres.Restart(ctx))
	back := time.Now()
	for _, n := range region.Nodes {
		c := w.client(n, new(client.Session))
		w.eventually(n.Name()+" has caught up", func() bool {
			q, err := c.Queue(w.deadline(), w.stores[6], client.ReadOptions{})
			return err == nil && q.Length == 66 && lag(n) < 1
		})
	}
	w.Logf("caught up %v after both were back, %d reads", time.Since(back).Round(time.Millisecond), reads.Load())
	close(stop)
	load.Wait()
	failed.Range(func(err, _ any) bool {
		w.Errorf("a nearby failed: %v", err)
		return true
	})
	w.check(region.Redis.Wait(ctx))
}

// A node that is killed is told, with what killed it, and planet.json has no process for it until it is back.
func (w *world) testTold() {
	node := w.Region("ap-southeast").Nodes[0]
	w.check(syscall.Kill(node.PID(), syscall.SIGKILL))
	entry := func() *int {
		var s planetFile
		s.read(w.T, w.File())
		return s.Regions[2].Nodes[0].PID
	}
	w.eventually("planet.json says so", func() bool { return entry() == nil })
	w.eventually("it is told", func() bool {
		return strings.Contains(w.out.String(), node.Name()+" has ended by itself: killed by killed")
	})
	w.check(node.Start(w.deadline()))
	w.eventually("planet.json has it again", func() bool { pid := entry(); return pid != nil && *pid == node.PID() })
	w.setQueue(node, new(client.Session), w.stores[0], 3)
}

// planetFile is planet.json as the contract has it.
type planetFile struct {
	AdminKey string `json:"admin_key"`
	Primary  string
	Regions  []struct {
		Name     string
		Lat, Lng float64
		Nodes    []struct {
			Name, API, Admin string
			PID              *int
		}
		Postgres struct {
			Addr, DSN, Data string
			PID             *int
		}
		Redis []struct {
			Addr string
			PID  *int
		}
	}
}

func (f *planetFile) read(t *testing.T, path string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(text, f)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (f *planetFile) pids() (all []int) {
	for _, r := range f.Regions {
		for _, n := range r.Nodes {
			all = append(all, *n.PID)
		}
		for _, n := range r.Redis {
			all = append(all, *n.PID)
		}
		all = append(all, *r.Postgres.PID)
	}
	return all
}

// The command itself: it brings in a file of stores, prints its ready line, describes itself truly, and leaves nothing, be
// it asked to end or killed, and whatever has crashed before.
func TestPlanetCommand(t *testing.T) {
	planet.Need(t)
	for _, end := range []syscall.Signal{syscall.SIGINT, syscall.SIGKILL} {
		t.Run(end.String(), func(t *testing.T) { testPlanetCommand(t, end) })
	}
}

func testPlanetCommand(t *testing.T, end syscall.Signal) {
	work := t.TempDir()
	dir := filepath.Join(work, "planet")
	stores := filepath.Join(work, "stores.csv")
	program := filepath.Join(work, "program")
	for path, text := range map[string]string{
		stores:  "id,name,lat,lng\na,First,51.5,-0.12\nb,Second,51.6,-0.12\nbad,Bad,,\n",
		program: "#!/bin/sh\nSHORTLINE_TEST_MAIN=1 exec '" + testProgram(t) + "' \"$@\"\n",
	} {
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cmd := command(t, "planet", "--dir", dir, "--regions", "us-east,mars", "--nodes", "1", "--stores", stores, "--simulate", "--program", program)
	stderr := new(safeBuffer)
	cmd.Stderr = stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill() }()
	line, err := bufio.NewReader(out).ReadString('\n')
	url, ok := strings.CutPrefix(strings.TrimSpace(line), "ready ")
	if err != nil || !ok {
		t.Fatalf("%q, %v; stderr:\n%s", line, err, stderr)
	}
	if resp, err := http.Get(url + "v1/stores/a"); err != nil || resp.StatusCode != 200 {
		t.Errorf("%s: %v %v", url, resp, err)
	} else {
		_ = resp.Body.Close()
	}
	var f planetFile
	f.read(t, filepath.Join(dir, "planet.json"))
	if f.Primary != "us-east" || len(f.Regions) != 2 || f.Regions[1].Name != "mars" || f.AdminKey == "" || len(f.pids()) != 2*(1+3+1) {
		t.Errorf("planet.json is %+v", f)
	}
	for _, pid := range f.pids() {
		if err := syscall.Kill(pid, 0); err != nil {
			t.Errorf("process %d: %v", pid, err)
		}
	}
	if err := syscall.Kill(*f.Regions[1].Redis[0].PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Signal(end); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); end == syscall.SIGINT && err != nil {
		t.Errorf("it ended with %v; stderr:\n%s", err, stderr)
	}
	gone := func() bool {
		_, err := os.Stat(dir)
		return errors.Is(err, os.ErrNotExist) && !slices.ContainsFunc(f.pids(), func(pid int) bool { return syscall.Kill(pid, 0) == nil })
	}
	if end == syscall.SIGINT && !gone() {
		t.Error("something is left")
	}
	for limit := time.Now().Add(time.Minute); !gone(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatal("something is still left")
		}
	}
}

func TestPlanetRefuses(t *testing.T) {
	full := t.TempDir()
	if err := os.WriteFile(filepath.Join(full, "x"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		args string
		code int
		says string
	}{
		{"--nodes 0", 2, "--nodes 0 is not between 1 and 20"},
		{"--nodes 50", 2, "50 nodes"},
		{"--regions us-east,us-east", 2, "region us-east is named twice"},
		{"--regions US", 2, `region "US" must be`},
		{"--stores stores.txt", 2, "must end in"},
		{"--stores nosuch.csv", 1, "nosuch.csv"},
		{"--simulate-rate 0", 2, "--simulate-rate"},
		{"--dir " + full, 1, "is not empty"},
	} {
		got := shell(t, nil, "", append([]string{"planet"}, strings.Fields(tc.args)...)...)
		if got.code != tc.code || !strings.Contains(got.stderr, tc.says) || got.stdout != "" {
			t.Errorf("%s: exit code %d, %q", tc.args, got.code, got.stderr)
		}
	}
}
