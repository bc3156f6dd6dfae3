package postgres

import (
	"context"
	_ "embed"
	"io/fs"
	"net"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/internal/planet"
	"github.com/shortline/shortline/replication"
)

//go:embed grants.sql
var grants string

// Several nodes start at once on an empty database: one migrates, all have one epoch and one beginning.
func TestConcurrentOpens(t *testing.T) {
	p := sharedServer(t)
	dsn := p.DSN(owner, newDatabase(t, p))
	stores := make([]*Store, 4)
	var wg sync.WaitGroup
	for i := range stores {
		wg.Go(func() {
			s, err := Open(context.Background(), Config{Write: dsn, ConnectTimeout: long})
			if err != nil {
				t.Error(err)
				return
			}
			t.Cleanup(func() { check(t, s.Close()) })
			stores[i] = s
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	for _, s := range stores {
		if got := page(t, s, replication.Cursor{}); len(got.Changes) != 1 || got.Head.Epoch != 1 {
			t.Errorf("the feed begins with %+v", got)
		}
	}
	check(t, Migrate(deadline(t), dsn)) // again
}

func TestMigrationNames(t *testing.T) {
	files, err := fs.Glob(migrations, "migrations/*")
	check(t, err)
	for _, f := range files {
		if !regexp.MustCompile(`^\d{5}_[a-z_]+\.sql$`).MatchString(path.Base(f)) {
			t.Errorf("the migration %s is not called like 00001_what.sql", f)
		}
	}
	if int(schemaVersion()) != len(files) {
		t.Errorf("there are %d migrations, and the last is %d", len(files), schemaVersion())
	}
}

// Whatever keeps a store from opening is said in one line with the remedy, and without a password.
func TestOpenRefuses(t *testing.T) {
	p := sharedServer(t)
	good := p.DSN(owner, newDatabase(t, p))
	check(t, Migrate(deadline(t), good))
	edit := func(f func(u *url.URL)) string {
		u, err := url.Parse(good)
		check(t, err)
		f(u)
		return u.String()
	}
	prepared := func(role string, sql ...string) string { // another database, or role
		name := newDatabase(t, p)
		dsn := p.DSN(owner, name)
		check(t, Migrate(deadline(t), dsn))
		conn := connect(t, p, name)
		for _, s := range sql {
			exec(t, conn, s)
		}
		return p.DSN(role, name)
	}
	silent, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and says nothing
	check(t, err)
	defer silent.Close()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	closed := free.Addr().String()
	check(t, free.Close())
	exec(t, connect(t, p, planet.Superuser), "ALTER ROLE "+hasty+" SET synchronous_commit = local")
	other := prepared(owner)

	const secret = "hunter2/ä"
	for _, c := range []struct {
		name string
		cfg  Config
		want string
	}{
		{"no DSN", Config{}, "write postgres://role:password@host:5432/database"},
		{"not a DSN", Config{Write: "postgres://a:" + secret + "@[::1:5/x?sslmode=never"}, "is not one of PostgreSQL"},
		{"a DSN in words that is none", Config{Write: "host=a password='" + secret + "' sslmode=never"}, "is not one of PostgreSQL"},
		{"wrong password", Config{Write: edit(func(u *url.URL) { u.User = url.UserPassword(owner, secret) })}, "check the role and password"},
		{"no such database", Config{Write: edit(func(u *url.URL) { u.Path = "/nowhere" })}, "create the database"},
		{"nobody there", Config{Write: edit(func(u *url.URL) { u.Host = closed })}, "check that the server runs"},
		{"no answer", Config{Write: edit(func(u *url.URL) { u.Host = silent.Addr().String() }), ConnectTimeout: 300 * time.Millisecond}, "context deadline exceeded: check that the server runs"},
		{"no replica", Config{Write: good, Read: edit(func(u *url.URL) { u.Host = closed })}, "connect to the replica at " + closed},
		{"newer", Config{Write: prepared(owner, "INSERT INTO shortline.migrations (version_id, is_applied) VALUES (99, true)")}, "written by a newer shortline (schema 99"},
		{"no rights on the schema", Config{Write: prepared(hasty)}, "lacks rights"},
		{"too few rights", Config{Write: prepared(hasty, "GRANT USAGE ON SCHEMA shortline TO "+hasty, "GRANT SELECT ON ALL TABLES IN SCHEMA shortline TO "+hasty)},
			"lacks rights (DELETE on shortline.changes"},
		{"commits that wait for nobody", Config{Write: prepared(hasty), Quorum: true}, "synchronous_commit is local"},
		{"another deployment", Config{Write: good, Read: other}, "different deployments"},
		{"may not migrate", Config{Write: p.DSN(hasty, newDatabase(t, p))}, "see grants.sql"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := Open(deadline(t), c.cfg)
			if err == nil {
				check(t, s.Close())
				t.Fatal("it opens")
			}
			text := err.Error()
			if !strings.Contains(text, c.want) || strings.ContainsAny(text, "\n\t") {
				t.Errorf("the error is %q, want one line with %q", text, c.want)
			}
			for _, s := range []string{p.Password(), secret, url.PathEscape(secret)} {
				if strings.Contains(text, s) {
					t.Errorf("the error has a password: %q", text)
				}
			}
			t.Log(text)
		})
	}
}

// The roles of grants.sql suffice, and none has more than it needs.
func TestGrants(t *testing.T) {
	p := startServer(t, planet.PostgresConfig{Name: "grants", NoFsync: true})
	check(t, p.Exec(deadline(t), planet.Superuser, grants))
	dsn := map[string]string{}
	for _, role := range []string{"shortline_owner", "shortline_writer", "shortline_reader"} {
		check(t, p.Exec(deadline(t), planet.Superuser, "ALTER ROLE "+role+" PASSWORD '"+p.Password()+"'"))
		dsn[role] = p.DSN(role, planet.Superuser)
	}
	cfg := Config{Write: dsn["shortline_writer"], Read: dsn["shortline_reader"]}
	if _, err := Open(deadline(t), cfg); err == nil || !strings.Contains(err.Error(), "see grants.sql") {
		t.Errorf("the writer migrates: %v", err)
	}
	cfg.Owner = dsn["shortline_owner"]
	s := openStore(t, cfg, mutantNone)
	start := replication.Cursor{XID: head(t, s).Horizon}
	w := write(put("x", "X"), length("x", 1), replication.Item{Delete: "x"})
	w[0].Idempotency = &replication.Idempotency{Key: "k", TTL: time.Hour}
	_, _, err := s.Commit(deadline(t), w)
	check(t, err)
	if n := len(page(t, s, start).Changes); n != 3 {
		t.Errorf("the feed has %d changes", n)
	}
	if _, err := s.Snapshot(deadline(t), "", 10); err != nil {
		t.Error(err)
	}
	if _, err := s.Keys(deadline(t)); err != nil {
		t.Error(err)
	}
	check(t, s.Prune(deadline(t), time.Now().Add(time.Hour), time.Now().Add(2*time.Hour)))
	for role, denied := range map[string][]string{
		"shortline_writer": {"TRUNCATE shortline.stores", "DROP TABLE shortline.keys", "CREATE TABLE shortline.t ()"},
		"shortline_reader": {"UPDATE shortline.control SET epoch = 9", "DELETE FROM shortline.changes", "INSERT INTO shortline.keys VALUES ('a', 1, '', '')"},
		"shortline_owner":  {"CREATE ROLE more", "ALTER SYSTEM SET fsync = off"},
	} {
		conn, err := pgx.Connect(deadline(t), dsn[role])
		check(t, err)
		for _, sql := range denied {
			if _, err := conn.Exec(deadline(t), sql); sqlState(err) != "42501" {
				t.Errorf("%s: %s: %v", role, sql, err)
			}
		}
		hangUp(conn)
	}
}

// A node reads from its standby what it wrote to the primary, in order, and its token tells when that is there.
func TestStandby(t *testing.T) {
	p := startServer(t, planet.PostgresConfig{Name: "primary", NoFsync: true})
	standby, err := p.Standby(deadline(t), "local", planet.PostgresConfig{NoFsync: true})
	check(t, err)
	t.Cleanup(func() { check(t, standby.Stop()) })
	check(t, p.WaitStreaming(deadline(t), "local"))
	name := newDatabase(t, p)
	eventually(t, "the standby has the database", func() bool {
		conn, err := standby.Connect(deadline(t), planet.Superuser, name)
		if err == nil {
			hangUp(conn)
		}
		return err == nil
	})
	s := openStore(t, Config{Write: p.DSN(owner, name), Read: standby.DSN(owner, name)}, mutantNone)
	onPrimary := openStore(t, Config{Write: p.DSN(owner, name)}, mutantNone)

	if _, err := Open(deadline(t), Config{Write: standby.DSN(owner, name)}); err == nil || !strings.Contains(err.Error(), "let it point to the primary") {
		t.Errorf("writes to a standby: %v", err)
	}
	start := replication.Cursor{XID: head(t, s).Horizon}
	hold := begin(t, s) // seen from the standby, too
	_, token := commitAll(t, s, put("x", "X"), length("x", 1))
	eventually(t, "the standby has received the commit", func() bool { return head(t, s).LSN >= token.LSN })
	eventually(t, "the commit is visible on the standby", func() bool {
		rows, err := s.Snapshot(deadline(t), "", 10)
		check(t, err)
		return len(rows) == 1
	})
	if got := page(t, s, start); len(got.Changes) != 0 || got.Head.Horizon != hold.xid {
		t.Errorf("with transaction %d open the standby shows %+v", hold.xid, got)
	}
	hold.commit(delta("x", 1))
	var seen []replication.Cursor
	cursor := start
	for i := range 200 {
		_, token = commitAll(t, s, delta("x", i%3-1))
		got := page(t, s, cursor)
		for _, ch := range got.Changes {
			cursor = replication.Cursor{XID: ch.XID, ID: ch.ID}
			seen = append(seen, cursor)
		}
	}
	eventually(t, "the horizon passes the last token", func() bool {
		got := page(t, s, cursor)
		for _, ch := range got.Changes {
			cursor = replication.Cursor{XID: ch.XID, ID: ch.ID}
			seen = append(seen, cursor)
		}
		return got.Head.Horizon > token.XID
	})
	var want []replication.Cursor
	for _, ch := range page(t, onPrimary, start).Changes {
		want = append(want, replication.Cursor{XID: ch.XID, ID: ch.ID})
	}
	if !slices.Equal(seen, want) || len(want) != 203 {
		t.Errorf("the standby showed %d changes, the primary %d", len(seen), len(want))
	}
}

// A database of an older schema is brought forward with what is in it.
func TestOpenMigratesAnOldDatabase(t *testing.T) {
	p := sharedServer(t)
	name := newDatabase(t, p)
	dsn := p.DSN(owner, name)
	s := openStore(t, Config{Write: dsn}, mutantNone)
	commitAll(t, s, put("a", "A"), length("a", 4))
	conn := connect(t, p, name)
	for _, sql := range []string{
		"ALTER TABLE shortline.queues DROP COLUMN served, DROP COLUMN busy_ms",
		"ALTER TABLE shortline.changes DROP COLUMN learned_s",
		"DELETE FROM shortline.migrations WHERE version_id > 2",
	} {
		exec(t, conn, sql)
	}
	s = openStore(t, Config{Write: dsn}, mutantNone)
	rows, err := s.Rows(deadline(t), []shortline.StoreID{"a"})
	check(t, err)
	if len(rows) != 1 || rows[0].Queue == nil || rows[0].Queue.Length != 4 || rows[0].Queue.LearnedS != 0 {
		t.Errorf("the row is %+v", rows)
	}
	if res, _ := commitAll(t, s, length("a", 3)); res.Items[0].Queue.Queue.Rev != 2 {
		t.Errorf("an update makes %+v", res.Items[0])
	}
	if got := page(t, s, replication.Cursor{}); len(got.Changes) != 4 {
		t.Errorf("the feed has %+v", got.Changes)
	}
}
