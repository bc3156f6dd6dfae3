package agent

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/shortline/shortline/internal/planet"
	"github.com/shortline/shortline/regions"
	"github.com/shortline/shortline/replication"
	"github.com/shortline/shortline/replication/postgres"
)

func TestMain(m *testing.M) {
	if what := os.Getenv("SHORTLINE_TEST_AGENT"); what != "" {
		os.Exit(agentProcess(what))
	}
	goleak.VerifyTestMain(m)
}

// long bounds what should take a moment; nothing depends on how long it takes.
const long = time.Minute

func deadline(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), long)
	t.Cleanup(cancel)
	return ctx
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually polls until ok, and fails the test if that takes too long.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(long); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("still not: %s", what)
		}
	}
}

// freeAddr is an address of loopback at which nobody listens, below the ports that kernels hand out.
func freeAddr(t testing.TB) string {
	t.Helper()
	for range 1000 {
		addr := fmt.Sprintf("127.0.0.1:%d", 14000+rand.IntN(18000))
		if l, err := net.Listen("tcp", addr); err == nil {
			_ = l.Close()
			return addr
		}
	}
	t.Fatal("no free port")
	return ""
}

// world is some regions' agents in this process.
type world struct {
	t    testing.TB
	dir  string
	ids  []regions.ID
	addr map[regions.ID]string
	cfg  map[regions.ID]Config
	all  map[regions.ID]*run
}

// run is an agent that runs.
type run struct {
	*Agent
	cancel context.CancelFunc
	done   sync.WaitGroup
	err    error
	ended  atomic.Bool
}

const testPassword = `it's a:secret\`

// newWorld prepares regions a, b, … ; the first has the database.
func newWorld(t testing.TB, n int) *world {
	t.Helper()
	planet.Need(t.(planet.TB))
	dir, err := os.MkdirTemp("/tmp", "shortline-agent-")
	check(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	check(t, os.Chmod(dir, 0o755))
	w := &world{t: t, dir: dir, addr: map[regions.ID]string{}, cfg: map[regions.ID]Config{}, all: map[regions.ID]*run{}}
	for i := range n {
		id := regions.ID(string(rune('a'+i)) + "-region")
		w.ids = append(w.ids, id)
		w.addr[id] = freeAddr(t)
	}
	for i, id := range w.ids {
		peers := map[regions.ID]string{}
		for _, other := range w.ids {
			if other != id {
				peers[other] = w.addr[other]
			}
		}
		cfg := Config{Region: id, Dir: filepath.Join(dir, string(id)), Listen: w.addr[id], Peers: peers, Password: testPassword, BeginEpoch: beginEpoch,
			Settings: map[string]string{"fsync": "off", "shared_buffers": "16MB", "max_wal_size": "256MB", "wal_keep_size": "128MB", "max_connections": "50"}, Log: slog.New(slog.DiscardHandler)}
		if os.Getenv("SHORTLINE_TEST_LOG") != "" {
			cfg.Log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
			cfg.Output = func(line string) { fmt.Fprintln(os.Stderr, id, "|", line) }
		}
		if i == 0 {
			cfg.Init = Init{Primary: true, SQL: testSQL()}
		} else {
			cfg.Init = Init{From: w.ids[0]}
		}
		w.cfg[id] = cfg
	}
	t.Cleanup(func() {
		for _, id := range w.ids {
			w.stop(id)
		}
	})
	return w
}

func testSQL() string {
	sql := postgres.Grants()
	for _, role := range []string{"shortline_owner", "shortline_writer", "shortline_reader"} {
		sql += fmt.Sprintf("\nALTER ROLE %s PASSWORD '%s';", role, strings.ReplaceAll(testPassword, "'", "''"))
	}
	return sql
}

func beginEpoch(ctx context.Context, dsn string, epoch uint64, fork regions.LSN) error {
	e := postgres.Epoch{Number: epoch, Fork: uint64(fork)}
	if fork == 0 {
		e.Fork = replication.NoFork
	}
	_, err := postgres.BeginEpoch(ctx, dsn, e)
	return err
}

// start starts a region's agent.
func (w *world) start(id regions.ID, change ...func(*Config)) *run {
	w.t.Helper()
	cfg := w.cfg[id]
	for _, c := range change {
		c(&cfg)
	}
	a, err := New(cfg)
	check(w.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	r := &run{Agent: a, cancel: cancel}
	r.done.Go(func() { r.err = a.Run(ctx); r.ended.Store(true) })
	w.all[id] = r
	return r
}

// stop ends a region's agent as a planned stop does.
func (w *world) stop(id regions.ID) {
	w.t.Helper()
	r := w.all[id]
	if r == nil {
		return
	}
	delete(w.all, id)
	r.cancel()
	r.done.Wait()
	if r.err != nil {
		w.t.Errorf("agent of %s: %v", id, r.err)
	}
}

// await waits until the status is as wanted.
func (w *world) await(id regions.ID, what string, ok func(regions.DatabaseStatus) bool) (s regions.DatabaseStatus) {
	w.t.Helper()
	ctx := deadline(w.t)
	for {
		r := w.all[id]
		if r.ended.Load() {
			w.t.Fatalf("%s: the agent ended: %v", id, r.err)
		}
		var err error
		if s, err = r.Status(ctx); err != nil {
			w.t.Fatalf("%s: still not %s: %+v, %v", id, what, s, err)
		}
		if ok(s) {
			return s
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func isPrimary(s regions.DatabaseStatus) bool { return s.Role == regions.RolePrimary && !s.Fenced }
func streams(s regions.DatabaseStatus) bool {
	return s.Role == regions.RoleStandby && s.Streaming
}

// startAll starts every region; the first is primary of epoch 1, with a table, and the others stream.
func (w *world) startAll() {
	w.t.Helper()
	w.start(w.ids[0])
	w.await(w.ids[0], "primary", isPrimary)
	check(w.t, postgres.Migrate(deadline(w.t), w.dsn(w.ids[0], "shortline_owner")))
	w.exec(w.ids[0], "CREATE TABLE public.t (i bigint PRIMARY KEY, pad text); GRANT ALL ON public.t TO public")
	for _, id := range w.ids[1:] {
		w.start(id)
	}
	for _, id := range w.ids[1:] {
		w.await(id, "streaming", streams)
	}
}

// dsn is how to reach a region's server as a role over TCP.
func (w *world) dsn(id regions.ID, role string) string {
	host, port, _ := splitAddr(w.addr[id])
	return fmt.Sprintf("host=%s port=%s user=%s password=%s dbname=shortline sslmode=disable connect_timeout=5", host, port, role, quoteConninfo(testPassword))
}

// exec runs SQL as the superuser through the socket, past every fence.
func (w *world) exec(id regions.ID, sql string) {
	w.t.Helper()
	check(w.t, w.tryAs(id, superuser, sql))
}

func (w *world) tryAs(id regions.ID, role, sql string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	a := &Agent{cfg: w.cfg[id]}
	dsn := a.localDSN(role, "shortline")
	if role == superuser {
		dsn += " options='-c default_transaction_read_only=off -c synchronous_commit=local'"
	}
	conn, err := dial(ctx, dsn)
	if err != nil {
		return err
	}
	defer hangUp(conn)
	_, err = conn.PgConn().Exec(ctx, sql).ReadAll()
	return err
}

// query returns one value as text.
func (w *world) query(id regions.ID, sql string) string {
	w.t.Helper()
	ctx := deadline(w.t)
	a := &Agent{cfg: w.cfg[id]}
	conn, err := dial(ctx, a.localDSN(superuser, "shortline"))
	check(w.t, err)
	defer hangUp(conn)
	var got string
	check(w.t, conn.QueryRow(ctx, "SELECT ("+sql+")::text").Scan(&got))
	return got
}

func (w *world) order(epoch uint64, attempt uint32) regions.Order {
	return regions.Order{Epoch: epoch, Attempt: attempt, Term: 1}
}
