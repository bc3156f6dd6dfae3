package planet

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sync/errgroup"
)

// startPostgres starts one without fsync that ends with the test.
func startPostgres(t *testing.T, cfg PostgresConfig) *Postgres {
	t.Helper()
	Need(t)
	cfg.NoFsync = true
	began := time.Now()
	p, err := StartPostgres(deadline(t), cfg)
	check(t, err)
	t.Logf("started in %v", time.Since(began).Round(time.Millisecond))
	t.Cleanup(func() {
		if err := p.Stop(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// ask returns one value as text.
func ask(t *testing.T, p *Postgres, sql string, args ...any) string {
	t.Helper()
	conn, err := p.Connect(deadline(t), Superuser, Superuser)
	check(t, err)
	defer hangUp(conn)
	var got string
	check(t, conn.QueryRow(deadline(t), sql, args...).Scan(&got))
	return got
}

func TestPostgres(t *testing.T) {
	t.Parallel()
	ctx := deadline(t)
	var printed bytes.Buffer
	p := startPostgres(t, PostgresConfig{Name: "pg-test", Roles: []string{"app"}, Settings: map[string]string{"work_mem": "5MB", "log_statement": "ddl"},
		Output: &printed, Init: func(ctx context.Context, conn *pgx.Conn) error {
			_, err := conn.Exec(ctx, "CREATE DATABASE shop OWNER app")
			return err
		}})
	for setting, want := range map[string]string{"work_mem": "5MB", "wal_log_hints": "on", "synchronous_commit": "on", "fsync": "off",
		"hot_standby_feedback": "off", "server_encoding": "UTF8", "lc_collate": "C", "listen_addresses": "127.0.0.1"} {
		if got := ask(t, p, "SELECT current_setting($1)", setting); got != want {
			t.Errorf("%s is %s, want %s", setting, got, want)
		}
	}

	app, err := p.Connect(ctx, "app", "shop")
	check(t, err)
	_, err = app.Exec(ctx, "CREATE TABLE t (i int)")
	hangUp(app)
	check(t, err)
	var refused *pgconn.PgError
	if _, err := pgx.Connect(ctx, p.DSNVia(p.Addr(), Superuser, Superuser)); !errors.As(err, &refused) || refused.Code != "28000" {
		t.Errorf("the superuser over TCP: %v", err)
	}
	wrong := strings.Replace(p.DSN("app", "shop"), p.Password(), "wrong", 1)
	if _, err := pgx.Connect(ctx, wrong); !errors.As(err, &refused) || refused.Code != "28P01" {
		t.Errorf("a wrong password: %v", err)
	}
	if psql, err := exec.LookPath("psql"); err == nil {
		for _, dsn := range []string{p.DSN(Superuser, "shop"), p.DSN("app", "shop")} {
			if out, err := exec.Command(psql, "-XAtc", "SELECT 1", dsn).CombinedOutput(); err != nil {
				t.Errorf("psql: %v\n%s", err, out)
			}
		}
	}

	addr := p.Addr()
	write := func() { check(t, p.Exec(ctx, "shop", "INSERT INTO t VALUES (1)")) }
	for _, end := range []struct {
		name string
		do   func() error
	}{
		{"StopFast", p.StopFast},
		{"StopImmediate", p.StopImmediate},
		{"Kill", func() error { p.Kill(); return nil }},
		{"Restart alone", func() error { return nil }},
		{"StopFast, paused", func() error { check(t, p.Pause()); return p.StopFast() }},
		{"Kill, paused", func() error { check(t, p.Pause()); p.Kill(); return nil }},
	} {
		write()
		before := p.PID()
		check(t, end.do())
		if p.Running() != (end.name == "Restart alone") {
			t.Errorf("after %s: running is %v", end.name, p.Running())
		}
		check(t, p.Restart(ctx))
		if p.PID() == before || p.PID() == 0 || p.Addr() != addr {
			t.Errorf("after %s: process %d was %d, at %s", end.name, p.PID(), before, p.Addr())
		}
	}
	if err := p.start(ctx); err == nil {
		t.Error("it started twice")
	}
	conn, err := p.Connect(ctx, Superuser, "shop")
	check(t, err)
	defer hangUp(conn)
	var n int
	check(t, conn.QueryRow(ctx, "SELECT count(*) FROM t").Scan(&n))
	if n != 6 {
		t.Errorf("%d rows of 6", n)
	}

	// A frozen one answers nobody, on no connection, and goes on where it was.
	check(t, p.Pause())
	tree, err := p.current().tree()
	check(t, err)
	if len(tree) < 5 {
		t.Errorf("only %d processes", len(tree))
	}
	for _, e := range tree {
		if e.state != 'T' {
			t.Errorf("process %d is in state %c", e.pid, e.state)
		}
	}
	if err := p.Probe(ctx); err == nil {
		t.Error("a frozen server answered")
	}
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	if _, err := p.current().freeze(); err != nil { // again
		t.Error(err)
	}
	if err := p.WaitStreaming(short, "nobody"); err == nil || !p.Running() {
		t.Errorf("running %v, %v", p.Running(), err)
	}
	check(t, p.Resume())
	check(t, conn.QueryRow(ctx, "SELECT count(*) FROM t").Scan(&n))

	check(t, p.Stop())
	check(t, p.Stop())
	if exists(p.dir) || exists(p.sockets) || p.PID() != 0 {
		t.Errorf("left: folder %v, sockets %v, process %d", exists(p.dir), exists(p.sockets), p.PID())
	}
	if out := printed.String(); !strings.Contains(out, "\npg-test | ") || !strings.Contains(out, "CREATE TABLE t (i int)") {
		t.Errorf("printed %s", out)
	}
	if p.Pause() == nil || p.Resume() == nil {
		t.Error("a server that is gone can be paused")
	}
}

func TestPostgresFailsToStart(t *testing.T) {
	t.Parallel()
	Need(t)
	for _, tc := range []struct {
		name string
		cfg  PostgresConfig
		want string
	}{
		{"setting", PostgresConfig{Settings: map[string]string{"shared_buffers": "lots"}}, `invalid value for parameter "shared_buffers"`},
		{"hook", PostgresConfig{Init: func(context.Context, *pgx.Conn) error { return errors.New("no such luck") }}, "no such luck"},
		{"time", PostgresConfig{Timeout: time.Millisecond}, "not ready after 1ms"},
		{"name", PostgresConfig{Name: "a'b"}, "is not of the form"},
		{"folder", PostgresConfig{Dir: "."}, "not empty"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			base := tc.cfg.Dir
			if base == "" {
				tc.cfg.Dir = filepath.Join(reachable(t), "pg")
			}
			p, err := StartPostgres(deadline(t), tc.cfg)
			if err == nil {
				_ = p.Stop()
			}
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v", err)
			}
			if base == "" && exists(tc.cfg.Dir) {
				t.Error("the folder is still there")
			}
		})
	}
}

// reachable is a folder that another user may enter, unlike t.TempDir.
func reachable(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "shortline-planet-test-")
	check(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	check(t, os.Chmod(dir, 0o755))
	return dir
}

func TestPostgresKeepsItsFolder(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(reachable(t), "pg")
	p := startPostgres(t, PostgresConfig{Dir: dir, Keep: true})
	check(t, p.Stop())
	if !exists(filepath.Join(p.Data(), "PG_VERSION")) || exists(p.sockets) {
		t.Errorf("data %v, sockets %v", exists(p.Data()), exists(p.sockets))
	}
}

func TestStandby(t *testing.T) {
	t.Parallel()
	ctx := deadline(t)
	primary := startPostgres(t, PostgresConfig{Name: "us"})
	wan, err := StartProxy(primary.Addr(), 5*time.Millisecond)
	check(t, err)
	t.Cleanup(func() { _ = wan.Close() })

	began := time.Now()
	var eu, ap *Postgres
	var g errgroup.Group
	g.Go(func() (err error) {
		eu, err = primary.Standby(ctx, "eu-west", PostgresConfig{NoFsync: true, Via: wan.Addr()})
		return err
	})
	g.Go(func() (err error) {
		ap, err = primary.Standby(ctx, "ap", PostgresConfig{NoFsync: true, Settings: map[string]string{"work_mem": "6MB"}})
		return err
	})
	err = g.Wait()
	for _, s := range []*Postgres{eu, ap} {
		if s != nil {
			t.Cleanup(func() {
				if err := s.Stop(); err != nil {
					t.Error(err)
				}
			})
		}
	}
	check(t, err)
	check(t, primary.WaitStreaming(ctx, "eu-west", "ap"))
	t.Logf("two standbys stream after %v", time.Since(began).Round(time.Millisecond))
	if got := ask(t, primary, "SELECT string_agg(slot_name, ' ' ORDER BY slot_name) FROM pg_replication_slots WHERE active"); got != "ap eu_west" {
		t.Errorf("active slots: %s", got)
	}
	if got := ask(t, ap, "SHOW work_mem"); got != "6MB" {
		t.Errorf("work_mem is %s", got)
	}

	// A quorum commit reaches the standby through the proxy, and no longer once that is cut.
	check(t, primary.Exec(ctx, Superuser, "CREATE TABLE t (i int)"))
	check(t, primary.Exec(ctx, Superuser, `ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 ("eu-west")'`))
	check(t, primary.Exec(ctx, Superuser, "SELECT pg_reload_conf()"))
	eventually(t, "eu-west is in the quorum", func() bool {
		return ask(t, primary, "SELECT sync_state FROM pg_stat_replication WHERE application_name = 'eu-west'") == "quorum"
	})
	check(t, primary.Exec(ctx, Superuser, "INSERT INTO t VALUES (1)"))
	wan.Blackhole()
	blocked := make(chan error, 1)
	writer, stopWriter := context.WithCancel(ctx)
	defer stopWriter()
	go func() { blocked <- primary.Exec(writer, Superuser, "INSERT INTO t VALUES (2)") }()
	eventually(t, "the primary notices", func() bool {
		return ask(t, primary, "SELECT count(*)::text FROM pg_stat_replication WHERE application_name = 'eu-west'") == "0"
	})
	select {
	case err := <-blocked:
		t.Errorf("a commit without its quorum ended: %v", err)
	default:
	}
	wan.Heal()
	check(t, <-blocked)

	// The primary crashes; a standby is promoted with SQL alone and the other one follows it.
	eventually(t, "ap has both rows", func() bool { return ask(t, ap, "SELECT count(*)::text FROM t") == "2" })
	primary.Kill()
	check(t, ap.CreateSlot(ctx, "eu-west"))
	check(t, ap.Exec(ctx, Superuser, "SELECT pg_promote(false)"))
	eventually(t, "ap is primary", func() bool { return ask(t, ap, "SELECT pg_is_in_recovery()::text") == "false" })
	conninfo, err := ap.Conninfo("eu-west", "")
	check(t, err)
	check(t, eu.Exec(ctx, Superuser, "ALTER SYSTEM SET primary_conninfo = "+quoteSetting(conninfo)))
	check(t, eu.Exec(ctx, Superuser, "SELECT pg_reload_conf()"))
	check(t, ap.WaitStreaming(ctx, "eu-west"))
	check(t, ap.Exec(ctx, Superuser, "INSERT INTO t VALUES (3)"))
	eventually(t, "eu has all rows", func() bool { return ask(t, eu, "SELECT count(*)::text FROM t") == "3" })

	// Standbys keep their port and their role over a restart.
	eu.Kill()
	check(t, eu.Restart(ctx))
	check(t, ap.WaitStreaming(ctx, "eu-west"))
}
