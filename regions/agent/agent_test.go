package agent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/shortline/shortline/regions"
)

// A primary gives way to a standby, and the third follows.
func TestFailover(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 3)
	w.startAll()
	a, b, c := w.ids[0], w.ids[1], w.ids[2]
	ctx := deadline(t)

	s, err := w.all[a].SetSync(ctx, w.order(1, 1), []regions.ID{b, c})
	check(t, err)
	if len(s.Sync) != 2 || s.Timeline != 1 || s.Epoch != 1 || s.System == "" || s.PID == 0 {
		t.Errorf("status of the primary: %+v", s)
	}
	w.exec(a, "INSERT INTO public.t SELECT generate_series(1, 1000)")
	w.await(a, "both stream", func(s regions.DatabaseStatus) bool { return s.Standbys[b] >= s.Position && s.Standbys[c] >= s.Position })

	s, err = w.all[a].ReadOnly(ctx, w.order(2, 1), true)
	check(t, err)
	if !s.ReadOnly || s.Fenced {
		t.Errorf("status of a fenced primary: %+v", s)
	}
	if err := w.tryAs(a, "shortline_writer", "INSERT INTO public.t VALUES (5000)"); sqlState(err) != "25006" {
		t.Errorf("a write past the fence: %v", err)
	}
	for _, id := range []regions.ID{c, b} {
		began := time.Now()
		s, err := w.all[id].Detach(ctx, w.order(2, 1))
		check(t, err)
		t.Logf("detach took %v", time.Since(began))
		if s.Upstream != "" || s.Streaming || s.Position == 0 || s.Epoch != 1 {
			t.Errorf("status of a detached standby: %+v", s)
		}
	}
	if _, err := w.all[a].Promote(ctx, w.order(2, 1), 3); err == nil {
		t.Error("an order promoted for an epoch that is not its own")
	}
	_, err = w.all[b].SetSync(ctx, w.order(2, 1), []regions.ID{c})
	check(t, err)
	began := time.Now()
	p, err := w.all[b].Promote(ctx, w.order(2, 1), 2)
	check(t, err)
	t.Logf("promote took %v", time.Since(began))
	if p.Epoch != 2 || p.Timeline != 2 || p.Fork == 0 {
		t.Errorf("promotion: %+v", p)
	}
	again, err := w.all[b].Promote(ctx, w.order(2, 1), 2)
	if check(t, err); again != p {
		t.Errorf("promoted again: %+v, then %+v", p, again)
	}
	if s := w.await(b, "primary", isPrimary); s.Epoch != 2 || s.Timeline != 2 || len(s.Sync) != 1 || s.ReadOnly {
		t.Errorf("status of the new primary: %+v", s)
	}
	began = time.Now()
	_, err = w.all[c].Follow(ctx, w.order(2, 1), b, p.Fork)
	check(t, err)
	w.await(c, "streaming from b", func(s regions.DatabaseStatus) bool { return streams(s) && s.Upstream == b })
	t.Logf("follow took %v", time.Since(began))
	check(t, w.tryAs(b, "shortline_writer", "INSERT INTO public.t VALUES (1001)"))
	if got := w.query(b, "SELECT count(*) FROM public.t"); got != "1001" {
		t.Errorf("%s rows", got)
	}
	if _, err := w.all[c].Follow(ctx, w.order(1, 9), a, 0); !errors.Is(err, regions.ErrOldOrder) {
		t.Errorf("an older order: %v", err)
	}
	if _, err := w.all[c].Follow(ctx, w.order(3, 1), a, 0); err == nil {
		t.Error("it followed the primary of an older epoch")
	}

	// The old primary has a little more, and comes back by a rewind.
	w.exec(a, "SELECT pg_switch_wal()")
	_, err = w.all[a].Follow(ctx, w.order(3, 1), b, p.Fork)
	if err == nil {
		t.Error("it followed a primary that has not begun the order's epoch")
	}
}

// A primary that dies leaves the beginning of a record with its standbys, since they are sent the log by the page. Whoever does not
// become primary then follows at once, without a rewind.
func TestFollowsPastAnUnfinishedRecord(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 3)
	w.startAll()
	a, b, c := w.ids[0], w.ids[1], w.ids[2]
	ctx := deadline(t)
	w.await(a, "both stream", func(s regions.DatabaseStatus) bool { return s.Standbys[b] > 0 && s.Standbys[c] > 0 })
	// Nobody waits for this, so it is written by and by, to the last full page.
	w.exec(a, "SELECT pg_logical_emit_message(false, 'test', repeat('x', 100000))")
	end := w.query(a, "SELECT pg_current_wal_insert_lsn() - '0/0'")
	begun := func(s regions.DatabaseStatus) bool {
		return streams(s) && fmt.Sprint(uint64(s.Position)) != end && uint64(s.Position)%8192 == 0
	}
	w.await(b, "has the beginning of the record", begun)
	w.await(c, "has the beginning of the record", begun)
	for _, id := range []regions.ID{b, c} {
		_, err := w.all[id].Detach(ctx, w.order(2, 1))
		check(t, err)
	}
	p, err := w.all[b].Promote(ctx, w.order(2, 1), 2)
	check(t, err)
	before, err := w.all[c].Status(ctx)
	check(t, err)
	if before.Position <= p.Fork || before.PID == 0 {
		t.Fatalf("%s has the log up to %v, the fork is at %v: no record is unfinished", c, before.Position, p.Fork)
	}
	_, err = w.all[c].Follow(ctx, w.order(2, 1), b, p.Fork)
	check(t, err)
	s := w.await(c, "streaming from b", func(s regions.DatabaseStatus) bool { return streams(s) && s.Upstream == b && s.Timeline == 2 })
	if s.PID != before.PID {
		t.Error("its server was started anew")
	}
	w.exec(b, "CREATE TABLE public.after AS SELECT generate_series(1, 100) AS n")
	w.await(c, "has the new history", func(regions.DatabaseStatus) bool {
		return w.query(c, "SELECT coalesce(to_regclass('public.after')::text, '')") != "" && w.query(c, "SELECT count(*) FROM public.after") == "100"
	})
}

// An agent that makes its database does not say that it is there before it is: whoever is told to be ready would lose the connection.
func TestNotReadyWhileTheDatabaseIsMade(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	id := w.ids[0]
	w.start(id)
	var early string
	eventually(t, "it is a primary", func() bool {
		s, err := w.all[id].Status(deadline(t))
		if err != nil || s.Role != regions.RolePrimary {
			return false
		}
		if _, err := os.Stat(filepath.Join(w.cfg[id].Dir, "data", "PG_VERSION")); err != nil {
			early = err.Error()
		}
		return true
	})
	if early != "" {
		t.Errorf("it says that it is a primary before its data is in its place: %s", early)
	}

	a := w.all[id].Agent
	check(t, a.lock(deadline(t)))
	p := a.server.Load()
	a.server.Store(&process{pid: p.pid, exited: p.exited, began: p.began, safe: true}) // as it is while roles are made
	s, err := a.probeStatus(deadline(t))
	a.server.Store(p)
	a.unlock()
	if check(t, err); s.Role != regions.RoleStarting {
		t.Errorf("a server that only the agent reaches is told of as %s", s.Role)
	}
}
