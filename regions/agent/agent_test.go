package agent

import (
	"errors"
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
