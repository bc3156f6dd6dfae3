package main

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/edge/client"
	"github.com/shortline/shortline/internal/planet"
	"github.com/shortline/shortline/replication"
	"github.com/shortline/shortline/replication/postgres"
)

// longTests makes the tests over a planet as long as they are meant to be before a release.
var longTests = os.Getenv("SHORTLINE_TEST_LONG") == "1"

// world is a planet of real processes of what is being tested, with a few stores close to each other.
type world struct {
	*testing.T
	*planet.Planet
	out    *safeBuffer
	http   *http.Client
	stores []shortline.StoreID
}

// startWorld starts a planet with stores s00, s01, ….
func startWorld(t *testing.T, stores int, o planet.Options) *world {
	t.Helper()
	planet.Need(t)
	w := &world{T: t, out: new(safeBuffer), http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}}
	o.Program, o.Grants, o.NoFsync = cmp.Or(o.Program, testProgram(t)), postgres.Grants(), true
	if o.Output == nil {
		o.Output = w.out
	}
	o.Env = append(o.Env, "SHORTLINE_TEST_MAIN=1")
	began := time.Now()
	p, err := planet.Start(w.deadline(), o)
	if err != nil {
		t.Fatalf("%v\n%s", err, w.out)
	}
	t.Logf("the planet started in %v", time.Since(began).Round(time.Millisecond))
	w.Planet = p
	t.Cleanup(func() {
		if err := p.Stop(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("the parts said:\n%s", w.out)
		}
		w.http.CloseIdleConnections()
	})
	for i := range stores {
		w.stores = append(w.stores, shortline.StoreID(fmt.Sprintf("s%02d", i)))
	}
	w.put()
	return w
}

func testProgram(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return self
}

func (w *world) deadline() context.Context {
	ctx, cancel := context.WithTimeout(w.Context(), 2*time.Minute)
	w.Cleanup(cancel)
	return ctx
}

// part is the same world for a subtest.
func (w *world) part(t *testing.T) *world {
	other := *w
	other.T = t
	return &other
}

// check fails the test on an error.
func (w *world) check(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// eventually polls until ok, and fails the test if that takes too long.
func (w *world) eventually(what string, ok func() bool) {
	w.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			w.Fatalf("still not: %s", what)
		}
	}
}

// store is a store as the test has put it, under a name.
func (w *world) store(i int, name string) shortline.Store {
	return shortline.Store{ID: w.stores[i], Name: name, Lat: 51.5 + float64(i)*1e-4, Lng: -0.12, Timezone: "Europe/London"}
}

// put imports the stores and waits until every node has them.
func (w *world) put() {
	w.Helper()
	var body strings.Builder
	for i := range w.stores {
		st := w.store(i, "first")
		fmt.Fprintf(&body, `{"id":%q,"name":%q,"lat":%v,"lng":%v,"timezone":%q}`+"\n", st.ID, st.Name, st.Lat, st.Lng, st.Timezone)
	}
	session := new(client.Session)
	_, err := w.client(w.Nodes()[0], session).ImportBytes(w.deadline(), client.NDJSON, []byte(body.String()))
	w.check(err)
	w.caughtUp(session)
}

// caughtUp waits until every node has what the session has seen.
func (w *world) caughtUp(s *client.Session) {
	w.Helper()
	for _, n := range w.Nodes() {
		w.eventually(n.Name()+" has caught up", func() bool {
			_, err := w.client(n, s).Queue(w.deadline(), w.stores[0], client.ReadOptions{})
			return err == nil
		})
	}
}

// client sends each call once: an error is part of what is tested.
func (w *world) client(n *planet.Node, s *client.Session) *client.Client {
	w.Helper()
	c, err := client.New(client.Config{Server: n.API(), AdminServer: n.Admin(), Key: w.AdminKey(), Session: s, HTTPClient: w.http, Attempts: 1})
	w.check(err)
	return c
}

// setQueue reports a length and returns the answer.
func (w *world) setQueue(n *planet.Node, s *client.Session, id shortline.StoreID, length int) *client.SetQueueAnswer {
	w.Helper()
	a, err := w.client(n, s).SetQueue(w.deadline(), shortline.QueueUpdate{ID: id, Length: &length}, client.WriteOptions{})
	w.check(err)
	return a
}

// truth is what the primary's database says.
type truth struct {
	length    map[shortline.StoreID]int
	updatedAt map[shortline.StoreID]time.Time
	name      map[shortline.StoreID]string
	rev       map[shortline.StoreID]uint64 // of the store, not of its queue
}

func (w *world) truth() truth {
	w.Helper()
	tr := truth{map[shortline.StoreID]int{}, map[shortline.StoreID]time.Time{}, map[shortline.StoreID]string{}, map[shortline.StoreID]uint64{}}
	rows, err := w.Region(w.Primary()).Postgres.Rows(w.deadline(), "shortline", `SELECT s.id, s.rev, s.body::json->>'name', q.length,
		(extract(epoch from q.observed_at) * 1000)::int8 FROM shortline.stores s JOIN shortline.queues q ON q.store = s.id WHERE NOT s.deleted`)
	w.check(err)
	for _, r := range rows {
		id := shortline.StoreID(r[0])
		rev, err := strconv.ParseUint(r[1], 10, 64)
		w.check(err)
		tr.rev[id], tr.name[id] = rev, r[2]
		if r[3] == "" {
			continue
		}
		tr.length[id], err = strconv.Atoi(r[3])
		w.check(err)
		ms, err := strconv.ParseInt(r[4], 10, 64)
		w.check(err)
		tr.updatedAt[id] = time.UnixMilli(ms)
	}
	return tr
}

// everyCacheIs compares what every node holds and what every Redis holds with the database, and returns what differs.
func (w *world) everyCacheIs(tr truth) (faults []string) {
	w.Helper()
	for _, n := range w.Nodes() {
		c := w.client(n, new(client.Session))
		for _, id := range w.stores {
			q, err := c.Queue(w.deadline(), id, client.ReadOptions{})
			w.check(err)
			if q.Length != tr.length[id] || q.Reported() && !q.UpdatedAt.Equal(tr.updatedAt[id]) {
				faults = append(faults, fmt.Sprintf("%s: the queue of %s is %d of %v, in the database %d of %v", n.Name(), id, q.Length, q.UpdatedAt, tr.length[id], tr.updatedAt[id]))
			}
			st, err := c.Store(w.deadline(), id, client.ReadOptions{})
			w.check(err)
			if st.Name != tr.name[id] {
				faults = append(faults, fmt.Sprintf("%s: %s is called %q, in the database %q", n.Name(), id, st.Name, tr.name[id]))
			}
		}
	}
	for _, r := range w.Regions() {
		values, err := r.Redis.Values(w.deadline())
		w.check(err)
		for key, value := range values {
			id := shortline.StoreID(key[strings.LastIndexByte(key, ':')+1:])
			// "SL1:", 20 digits of lineage, 20 of rev, the kind; see replication/rediscache.
			if len(value) < 45 || !slices.Contains(w.stores, id) {
				continue
			}
			rev, err := strconv.ParseUint(value[24:44], 10, 64)
			w.check(err)
			if value[44] == 'S' && (rev != tr.rev[id] || !strings.Contains(value, strconv.Quote(tr.name[id]))) {
				faults = append(faults, fmt.Sprintf("Redis of %s: %s has rev %d, in the database %d", r.ID, id, rev, tr.rev[id]))
			}
		}
	}
	return faults
}

// bentMain is main with a safeguard switched off, or with a cache of details of so many bytes. It returns where neither is asked for. The mutant revs
// has no version check of queues, so that the last of the feed wins and not the last that was committed; gate acknowledges writes without a lease.
func bentMain(mutant, details string) {
	a := &app{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, getenv: os.Getenv, version: "test"}
	a.detailsBytes, _ = strconv.Atoi(details)
	switch mutant {
	case "revs":
		a.target = func(t replication.Target) replication.Target { return revless{t, new(atomic.Uint64)} }
	case "gate":
		a.gate = func(g replication.Gate) replication.Gate { return &openGate{Gate: g} }
	}
	if mutant != "" || a.detailsBytes > 0 {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		code := report(os.Stderr, a.run(ctx, os.Args[1:]))
		stop()
		os.Exit(code)
	}
}

// tinyDetails is an environment in which nodes forget details all the time.
var tinyDetails = []string{"SHORTLINE_TEST_DETAILS=4096"}

// openGate lets pass for ever once it was open.
type openGate struct {
	replication.Gate
	epoch atomic.Uint64
}

func (g *openGate) Check() (uint64, error) {
	epoch, err := g.Gate.Check()
	if err == nil {
		g.epoch.Store(epoch)
	} else if epoch = g.epoch.Load(); epoch > 0 {
		err = nil
	}
	return epoch, err
}

type revless struct {
	replication.Target
	rev *atomic.Uint64
}

type revlessView struct {
	replication.View
	rev *atomic.Uint64
}

func (t revless) Begin() replication.View    { return revlessView{t.Target.Begin(), t.rev} }
func (t revless) Install(v replication.View) { t.Target.Install(v.(revlessView).View) }

func (v revlessView) Apply(changes []shortline.Change) {
	for i := range changes {
		if q := changes[i].Queue; q != nil {
			newest := *q
			newest.Rev = 1<<40 + v.rev.Add(1)
			changes[i].Queue = &newest
		}
	}
	v.View.Apply(changes)
}
