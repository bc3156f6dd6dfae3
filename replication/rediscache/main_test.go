package rediscache

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/geo"
	"github.com/shortline/shortline/internal/planet"
	"github.com/shortline/shortline/replication"
)

// shared is the cluster of the tests that leave it whole; the others start their own.
var shared struct {
	once    sync.Once
	cluster *planet.RedisCluster
	err     error
}

func TestMain(m *testing.M) {
	redis.SetLogger(quiet{})
	code := m.Run()
	if shared.cluster != nil {
		if err := shared.cluster.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	if code == 0 {
		// The client's own reload of the cluster's state outlives its Close by a moment; goleak waits for that.
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// quiet keeps the client's complaints about servers that are meant to be down out of the tests' output.
type quiet struct{}

func (quiet) Printf(context.Context, string, ...any) {}

func sharedCluster(t testing.TB) *planet.RedisCluster {
	t.Helper()
	planet.Need(t)
	shared.once.Do(func() { shared.cluster, shared.err = planet.StartRedis(deadline(t), planet.RedisConfig{}) })
	must(t, shared.err)
	return shared.cluster
}

func ownCluster(t testing.TB, cfg planet.RedisConfig) *planet.RedisCluster {
	t.Helper()
	planet.Need(t)
	c, err := planet.StartRedis(deadline(t), cfg)
	must(t, err)
	t.Cleanup(func() { must(t, c.Stop()) })
	return c
}

func deadline(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// must fails the test on an error.
func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("still not: %s", what)
		}
	}
}

// world is a database with one history, and every version that a store ever had.
type world struct {
	mu    sync.Mutex // guards all
	rows  map[shortline.StoreID]replication.Row
	past  map[shortline.StoreID][]replication.Row // by rev-1; a deleted one has no name
	fail  error
	reads int
	pause func() // called before an answer that has been read already
}

func newWorld() *world {
	return &world{rows: map[shortline.StoreID]replication.Row{}, past: map[shortline.StoreID][]replication.Row{}}
}

func storeID(i int) shortline.StoreID { return shortline.StoreID(fmt.Sprintf("store-%d", i)) }

// cellOf spreads stores over cells, five to each.
func cellOf(i int) geo.Cell { return geo.CellAt(place(i), 7) }

func place(i int) geo.Point { return geo.Point{Lat: 48 + float64(i/5)*0.5, Lng: 11} }

func index(id shortline.StoreID) int {
	var i int
	if _, err := fmt.Sscanf(string(id), "store-%d", &i); err != nil {
		return -1
	}
	return i
}

// put commits the next rev of a store and returns the change.
func (w *world) put(i int) shortline.Change {
	w.mu.Lock()
	defer w.mu.Unlock()
	id := storeID(i)
	rev := uint64(len(w.past[id]) + 1)
	p := place(i)
	s := shortline.Store{ID: id, Name: fmt.Sprintf("Store %d at %d", i, rev), Lat: p.Lat, Lng: p.Lng, Timezone: "Europe/Berlin",
		Hours: "Mo-Fr 07:00-19:00", Address: &shortline.Address{Street: "Invalidenstraße 17", City: "Berlin"}, Tags: []string{"takeaway"}}
	row := replication.Row{Store: s, Rev: rev}
	w.rows[id] = row
	w.past[id] = append(w.past[id], row)
	return shortline.Change{Kind: shortline.StorePut, Rev: rev, Subject: string(id), Store: &s}
}

func (w *world) remove(i int) shortline.Change {
	w.mu.Lock()
	defer w.mu.Unlock()
	id := storeID(i)
	delete(w.rows, id)
	row := replication.Row{Store: shortline.Store{ID: id}, Rev: uint64(len(w.past[id]) + 1), Deleted: true}
	w.past[id] = append(w.past[id], row)
	return shortline.Change{Kind: shortline.StoreDeleted, Rev: row.Rev, Subject: string(id)}
}

// at is a store as it was at the rev.
func (w *world) at(id shortline.StoreID, rev uint64) (replication.Row, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if rev == 0 || rev > uint64(len(w.past[id])) {
		return replication.Row{}, false
	}
	return w.past[id][rev-1], true
}

// latest is the newest version of a store, a tombstone included.
func (w *world) latest(id shortline.StoreID) (replication.Row, bool) {
	w.mu.Lock()
	n := uint64(len(w.past[id]))
	w.mu.Unlock()
	return w.at(id, n)
}

func (w *world) Rows(ctx context.Context, ids []shortline.StoreID) ([]replication.Row, error) {
	w.mu.Lock()
	w.reads++
	fail, pause := w.fail, w.pause
	var rows []replication.Row
	for _, id := range ids {
		if row, ok := w.rows[id]; ok {
			rows = append(rows, row)
		}
	}
	w.mu.Unlock()
	if pause != nil {
		pause()
	}
	return rows, fail
}

func (w *world) readsSoFar() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.reads
}

func (w *world) setPause(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pause = f
}

// memory is what a node knows.
type memory struct {
	mu   sync.Mutex
	revs map[shortline.StoreID]uint64 // guarded by mu
}

func newMemory() *memory { return &memory{revs: map[shortline.StoreID]uint64{}} }

func (m *memory) take(ch shortline.Change) {
	m.mu.Lock()
	defer m.mu.Unlock()
	id := shortline.StoreID(ch.Subject)
	if ch.Kind == shortline.StoreDeleted {
		delete(m.revs, id)
	} else {
		m.revs[id] = max(m.revs[id], ch.Rev)
	}
}

func (m *memory) minRev(id shortline.StoreID) (uint64, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	rev, ok := m.revs[id]
	return rev, ok
}

func anyCell(id shortline.StoreID) (geo.Cell, bool) {
	i := index(id)
	return cellOf(max(i, 0)), i >= 0
}

// config is for tests that are not about time: Redis on a busy machine may be slow and yet be right.
func config(t testing.TB, addrs []string) Config {
	return Config{Addrs: addrs, Deployment: deploymentOf(t), CellOf: anyCell, ReadTimeout: 5 * time.Second, WriteTimeout: 5 * time.Second,
		StartTimeout: time.Minute, Failures: 1000, Registerer: prometheus.NewRegistry()}
}

// deploymentOf is a name for this run of the test, so that tests can share a cluster.
func deploymentOf(t testing.TB) shortline.StoreID {
	deployments.mu.Lock()
	defer deployments.mu.Unlock()
	if deployments.known[t] == 0 {
		deployments.known[t] = len(deployments.known) + 1
	}
	return shortline.StoreID(fmt.Sprintf("t%d", deployments.known[t]))
}

var deployments = struct {
	mu    sync.Mutex
	known map[testing.TB]int // guarded by mu
}{known: map[testing.TB]int{}}

// start makes a Cache and runs it until the test ends.
func start(t testing.TB, cfg Config, next replication.Details, prepare ...func(*Cache)) *Cache {
	t.Helper()
	c, err := New(deadline(t), cfg, next)
	must(t, err)
	for _, p := range prepare {
		p(c)
	}
	t.Cleanup(run(t, c))
	return c
}

// run returns a function that ends Run and closes the cache.
func run(t testing.TB, c *Cache) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	return func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}

// settle waits until everything queued has been written.
func settle(t testing.TB, c *Cache) {
	t.Helper()
	eventually(t, "the queue is empty", func() bool { return c.pending.Load() == 0 })
}

func (c *Cache) count(o outcome) int            { return counted(c.metrics.reads[o]) }
func (c *Cache) countWrites(o writeOutcome) int { return counted(c.metrics.writes[o]) }

func counted(counter prometheus.Counter) int {
	r := prometheus.NewRegistry()
	r.MustRegister(counter)
	families, err := r.Gather()
	if err != nil {
		panic(err)
	}
	return int(families[0].GetMetric()[0].GetCounter().GetValue())
}

// read reads stores and compares them with the truth, which must not change meanwhile.
func read(t testing.TB, c *Cache, w *world, stores ...int) {
	t.Helper()
	var ids []shortline.StoreID
	for _, i := range stores {
		ids = append(ids, storeID(i))
	}
	rows, err := c.Rows(context.Background(), ids)
	must(t, err)
	if err := w.agrees(ids, rows); err != nil {
		t.Fatal(err)
	}
}

func (w *world) agrees(ids []shortline.StoreID, rows []replication.Row) error {
	got := map[shortline.StoreID]replication.Row{}
	for _, r := range rows {
		if _, twice := got[r.Store.ID]; twice {
			return fmt.Errorf("%s came twice", r.Store.ID)
		}
		got[r.Store.ID] = r
	}
	asked := map[shortline.StoreID]bool{}
	for _, id := range ids {
		if asked[id] {
			continue
		}
		asked[id] = true
		want, exists := w.latest(id)
		exists = exists && !want.Deleted
		row, ok := got[id]
		delete(got, id)
		if ok != exists {
			return fmt.Errorf("%s: answered %v, exists %v", id, ok, exists)
		}
		if ok && (row.Rev != want.Rev || !row.Store.Equal(&want.Store)) {
			return fmt.Errorf("%s: answered %+v at %d, the truth is %+v at %d", id, row.Store, row.Rev, want.Store, want.Rev)
		}
	}
	if len(got) > 0 {
		return fmt.Errorf("answered what was not asked for: %v", got)
	}
	return nil
}
