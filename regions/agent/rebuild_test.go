package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shortline/shortline/regions"
	"github.com/shortline/shortline/replication"
	"github.com/shortline/shortline/replication/postgres"
)

// A target that was promoted and given up has the timeline's number in common with the one that took its place, and may have its
// fork in common, too: it is built anew.
func TestAbandonedTarget(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 3)
	a, b, c := w.ids[0], w.ids[1], w.ids[2]
	cfg := w.cfg[b]
	cfg.BeginEpoch = func(context.Context, string, uint64, regions.LSN) error { return errors.New("cut off") }
	w.cfg[b] = cfg
	w.startAll()
	ctx := deadline(t)
	for _, id := range []regions.ID{b, c} {
		_, err := w.all[id].Detach(ctx, w.order(2, 1))
		check(t, err)
	}
	if _, err := w.all[b].Promote(ctx, w.order(2, 1), 2); err == nil {
		t.Fatal("the promotion was not cut off")
	}
	w.exec(b, "INSERT INTO public.t VALUES (666)")
	p, err := w.all[c].Promote(ctx, w.order(3, 2), 3)
	check(t, err)
	check(t, w.tryAs(c, "shortline_writer", "INSERT INTO public.t VALUES (1)"))
	_, err = w.all[b].Follow(ctx, w.order(3, 2), c, p.Fork)
	check(t, err)
	w.await(b, "streaming from c", func(s regions.DatabaseStatus) bool { return streams(s) && s.Upstream == c })
	eventually(t, "the copy has what counts", func() bool { return w.query(b, "SELECT string_agg(i::text, ',') FROM public.t") == "1" })
	// Asked again, it does not begin again.
	s, err := w.all[b].Follow(ctx, w.order(3, 2), c, 0)
	if check(t, err); s.Role != regions.RoleStandby {
		t.Errorf("asked again: %+v", s)
	}
	_ = a
}

// wrapped makes a folder with PostgreSQL's programs in which one is a shell script; REAL in it is the real one.
func wrapped(t *testing.T, program, script string) string {
	t.Helper()
	real, err := findTools("")
	check(t, err)
	dir := t.TempDir()
	entries, err := os.ReadDir(real.bin)
	check(t, err)
	for _, e := range entries {
		if e.Name() != program {
			check(t, os.Symlink(filepath.Join(real.bin, e.Name()), filepath.Join(dir, e.Name())))
		}
	}
	check(t, os.WriteFile(filepath.Join(dir, program), []byte("#!/bin/sh\nREAL="+filepath.Join(real.bin, program)+"\n"+script), 0o755))
	for d := dir; d != "/"; d = filepath.Dir(d) { // the server's user runs it
		_ = os.Chmod(d, 0o755|os.ModeSticky&fileMode(d))
		if d == os.TempDir() || filepath.Dir(d) == os.TempDir() {
			break
		}
	}
	return dir
}

func fileMode(path string) os.FileMode {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Mode()
}

// A rewind that is killed midway with its agent is taken up by the next one.
func TestInterruptedRewind(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2)
	w.startAll()
	a, b := w.ids[0], w.ids[1]
	p := diverge(w, func(*postgres.Store) {
		w.exec(a, "INSERT INTO public.t SELECT i, repeat('x', 500) FROM generate_series(1, 30000) i; CREATE TABLE public.more AS TABLE public.t")
	})
	w.exec(b, "INSERT INTO public.t SELECT i, repeat('y', 500) FROM generate_series(1, 30000) i")
	w.stop(a)
	m, err := openMemory(filepath.Join(w.cfg[a].Dir, "agent.json"), a, mutantNone)
	check(t, err)
	check(t, m.update(func(r *remembered) {
		r.Order, r.Role, r.Rejoin = w.order(2, 1), regions.RoleStandby, &rejoin{Primary: b, Epoch: 2, Fork: p.Fork}
	}))
	flag := filepath.Join(w.dir, "killed")
	check(t, os.Chmod(w.dir, 0o777))
	bin := wrapped(t, "pg_rewind", "$REAL \"$@\" & P=$!\nsleep 0.1\nkill -9 $P\nwait $P\ntouch "+flag+"\nsleep 100\n")
	self, err := os.Executable()
	check(t, err)
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), "SHORTLINE_TEST_BIN="+bin, "SHORTLINE_TEST_AGENT="+strings.Join([]string{string(a), w.cfg[a].Dir, w.cfg[a].Listen, string(b), w.addr[b]}, " "))
	cmd.Stderr = os.Stderr
	check(t, cmd.Start())
	eventually(t, "the rewind is killed", func() bool { _, err := os.Stat(flag); return err == nil })
	check(t, cmd.Process.Kill())
	_ = cmd.Wait()
	w.start(a)
	s := w.await(a, "streaming from b", func(s regions.DatabaseStatus) bool { return streams(s) && s.Upstream == b })
	if s.Epoch < 1 || s.Timeline != 2 {
		t.Errorf("status: %+v", s)
	}
	eventually(t, "the rows of the new primary", func() bool {
		return w.query(a, "SELECT count(*) || min(pad) FROM public.t WHERE pad <> ''") == "30000"+strings.Repeat("y", 500)
	})
}

// A copy that finds no room says so, and the old data stays.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2)
	a, b := w.ids[0], w.ids[1]
	dir := w.cfg[b].Dir
	check(t, os.MkdirAll(dir, 0o755))
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=160m,mode=755"); err != nil {
		fmt.Fprintf(os.Stderr, "SKIPPED %s: no right to mount: %v\n", t.Name(), err)
		t.Skip(err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	t.Cleanup(func() { w.stop(b) })
	w.startAll()
	filler := filepath.Join(dir, "filler")
	check(t, os.WriteFile(filler, make([]byte, max(0, freeBytes(dir)-8<<20)), 0o600))
	// As a controller would ask whose state says that this server's history was abandoned.
	check(t, w.all[b].mem().update(func(r *remembered) { r.Epoch = 0 }))
	s, err := w.all[b].Follow(deadline(t), w.order(1, 1), a, 0)
	check(t, err)
	if s.Role != regions.RoleRejoin {
		t.Errorf("status: %+v", s)
	}
	s = w.await(b, "out of room", func(s regions.DatabaseStatus) bool { return strings.Contains(s.Err, "too little room") })
	t.Log(s.Err)
	if _, err := os.Stat(filepath.Join(dir, "data", "PG_VERSION")); err != nil {
		t.Errorf("the old data: %v", err)
	}
	check(t, os.Remove(filler))
	w.await(b, "streaming", func(s regions.DatabaseStatus) bool { return streams(s) && s.Err == "" })
}

// TestRejoinTime measures how long an old primary with 100 MB of its own and 1 GB in all takes to come back. It is run by
// hand: SHORTLINE_TEST_REJOIN=1 go test -run TestRejoinTime -v -timeout 20m ./regions/agent
func TestRejoinTime(t *testing.T) {
	if os.Getenv("SHORTLINE_TEST_REJOIN") == "" {
		t.Skip("set SHORTLINE_TEST_REJOIN=1 to measure it")
	}
	w := newWorld(t, 2)
	for id, cfg := range w.cfg {
		cfg.Settings = map[string]string{"shared_buffers": "128MB", "max_wal_size": "1GB"}
		w.cfg[id] = cfg
	}
	w.startAll()
	a, b := w.ids[0], w.ids[1]
	w.exec(a, "SET statement_timeout = 0; INSERT INTO public.t SELECT i, repeat(md5(i::text), 28) FROM generate_series(1, 500000) i")
	w.exec(a, "INSERT INTO public.t SELECT i, repeat(md5(i::text), 28) FROM generate_series(500001, 1000000) i")
	w.exec(a, "CHECKPOINT")
	p := diverge(w, func(s *postgres.Store) {
		for i := range 20 {
			_, _, err := s.Commit(context.Background(), []replication.Write{keyed(fmt.Sprint("k", i), "/v1/stores/s1/queue", delta("s1", 1))})
			check(t, err)
		}
		w.exec(a, "UPDATE public.t SET pad = repeat(md5(pad), 28) WHERE i <= 100000")
	})
	size := w.query(a, "SELECT pg_size_pretty(pg_database_size('shortline'))")
	diverged := w.query(a, "SELECT pg_size_pretty(pg_current_wal_flush_lsn() - '"+p.Fork.String()+"'::pg_lsn)")
	began := time.Now()
	_, err := w.all[a].Follow(deadline(t), w.order(2, 1), b, p.Fork)
	check(t, err)
	w.await(a, "streaming from b", func(s regions.DatabaseStatus) bool { return streams(s) && s.Upstream == b })
	h, txs := w.lostAt(a)
	t.Logf("database %s, %s of log past the fork: streams after %v, with %d transactions saved of %s", size, diverged, time.Since(began).Round(10*time.Millisecond), len(txs), h.Region)
}
