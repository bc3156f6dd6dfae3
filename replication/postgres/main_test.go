package postgres

import (
	"context"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/internal/planet"
	"github.com/shortline/shortline/replication"
)

// shared is the server of all tests that need nothing special of one; it begins with the first of them.
var shared struct {
	once   sync.Once
	server *planet.Postgres
	err    error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if shared.server != nil {
		if err := shared.server.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = max(code, 1)
		}
	}
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// Roles of the shared server.
const (
	owner = "shortline" // without rights but those on the databases that are made for it
	hasty = "hasty"     // without any, and its commits wait for no standby
)

// long bounds what should take a moment; nothing depends on how long it takes.
const long = 2 * time.Minute

func deadline(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), long)
	t.Cleanup(cancel)
	return ctx
}

func sharedServer(t testing.TB) *planet.Postgres {
	t.Helper()
	planet.Need(t)
	shared.once.Do(func() {
		shared.server, shared.err = planet.StartPostgres(context.Background(), planet.PostgresConfig{Name: "shared", NoFsync: true, Roles: []string{owner, hasty}})
	})
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.server
}

// startServer starts a server of t's own.
func startServer(t testing.TB, cfg planet.PostgresConfig) *planet.Postgres {
	t.Helper()
	planet.Need(t)
	cfg.Roles = append(cfg.Roles, owner)
	p, err := planet.StartPostgres(deadline(t), cfg)
	check(t, err)
	t.Cleanup(func() { check(t, p.Stop()) })
	return p
}

var databases atomic.Int64

// newDatabase makes an empty database that belongs to owner.
func newDatabase(t testing.TB, p *planet.Postgres) (name string) {
	t.Helper()
	name = fmt.Sprintf("test%d", databases.Add(1))
	check(t, p.Exec(deadline(t), planet.Superuser, "CREATE DATABASE "+name+" OWNER "+owner+""))
	return name
}

// openStore opens a store that ends with t.
func openStore(t testing.TB, cfg Config, m mutant) *Store {
	t.Helper()
	s, err := open(deadline(t), cfg, m)
	check(t, err)
	t.Cleanup(func() { check(t, s.Close()) })
	return s
}

// connect opens a session as the superuser.
func connect(t testing.TB, p *planet.Postgres, database string) *pgx.Conn {
	t.Helper()
	conn, err := p.Connect(deadline(t), planet.Superuser, database)
	check(t, err)
	t.Cleanup(func() { hangUp(conn) })
	return conn
}

func exec(t testing.TB, conn *pgx.Conn, sql string, args ...any) {
	t.Helper()
	_, err := conn.Exec(deadline(t), sql, args...)
	check(t, err)
}

// eventually polls until ok, and fails the test if that takes too long.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(long); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("still not: %s", what)
		}
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func put(id shortline.StoreID, name string) replication.Item {
	return replication.Item{Put: &shortline.Store{ID: id, Name: name, Lat: 52.5, Lng: 13.4}}
}

func length(id shortline.StoreID, n int) replication.Item {
	return replication.Item{Queue: &shortline.QueueUpdate{ID: id, Length: &n}}
}

func delta(id shortline.StoreID, n int) replication.Item {
	return replication.Item{Queue: &shortline.QueueUpdate{ID: id, Delta: &n}}
}

func write(items ...replication.Item) []replication.Write { return []replication.Write{{Items: items}} }

func commitAll(t testing.TB, s *Store, items ...replication.Item) (replication.Result, replication.Token) {
	t.Helper()
	results, token, err := s.Commit(context.Background(), write(items...))
	check(t, err)
	return results[0], token
}
