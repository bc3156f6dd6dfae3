package client

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shortline/shortline"
)

// TestLiveDoesNotGoBack moves a Live to a node that is behind: what it has told stands until the node has newer values, or until it is
// clear that there are none, as after a failover that lost some.
func TestLiveDoesNotGoBack(t *testing.T) {
	var told []string
	r := liveRun{Live: &Live{cfg: LiveConfig{Stores: []shortline.StoreID{"a", "b", "c", "d"}}}, retry: time.NewTimer(time.Hour), settled: time.NewTimer(time.Hour)}
	r.cfg.On = func(e LiveEvent) error {
		switch e.Kind {
		case LiveSnapshot:
			for _, s := range e.Stores {
				told = append(told, fmt.Sprintf("%s=%d", s.ID, s.Length))
			}
		case LiveChanged:
			told = append(told, fmt.Sprintf("%s:%d", e.ID, e.Queue.Length))
		case LiveRemoved:
			told = append(told, fmt.Sprintf("%s-", e.ID))
		}
		return nil
	}
	base := time.Now()
	queue := func(id string, at, length int) Queue {
		q := Queue{ID: shortline.StoreID(id), Length: length}
		if at > 0 {
			q.UpdatedAt = base.Add(time.Duration(at) * time.Millisecond)
		}
		return q
	}
	hear := func(from *session, kind LiveKind, queues ...Queue) {
		t.Helper()
		e := LiveEvent{Kind: kind, Area: false}
		for _, q := range queues {
			e.Stores, e.Queue, e.ID = append(e.Stores, LiveStore{Queue: q}), q, q.ID
		}
		if err := r.take(heard{from: from, event: e}); err != nil {
			t.Fatal(err)
		}
	}
	want := func(what, all string) {
		t.Helper()
		if !slices.Equal(told, strings.Fields(all)) {
			t.Errorf("%s: it told %v, not %s", what, told, all)
		}
		told = nil
	}
	first, second := newSession(r.Live, "first"), newSession(r.Live, "second")
	r.next = first
	hear(first, LiveSnapshot, queue("a", 10, 1), queue("b", 10, 1), queue("c", 10, 1), queue("d", 10, 1))
	hear(first, LiveChanged, queue("a", 20, 2))
	hear(first, LiveChanged, queue("b", 20, 2))
	hear(first, LiveChanged, queue("c", 20, 2))
	hear(first, LiveRemoved, queue("d", 0, 0))
	want("the first node", "a=1 b=1 c=1 d=1 a:2 b:2 c:2 d-")

	r.next = second
	hear(first, LiveChanged, queue("a", 30, 3))
	hear(second, LiveSnapshot, queue("a", 10, 1), queue("b", 0, 0), queue("c", 20, 2), queue("d", 10, 1))
	want("a node that is behind", "a:3 a=3 b=2 c=2 d=1")
	hear(second, LiveChanged, queue("a", 20, 2))
	hear(second, LiveChanged, queue("b", 10, 1))
	want("it catches up", "")
	hear(second, LiveChanged, queue("a", 30, 3))
	hear(second, LiveChanged, queue("a", 40, 4))
	hear(second, LiveChanged, queue("b", 15, 9))
	want("it has caught up with one", "a:3 a:4")
	if err := r.release(); err != nil {
		t.Fatal(err)
	}
	want("the other one was lost", "b:9")
	hear(second, LiveChanged, queue("c", 5, 8)) // a resync brought another history
	want("on one connection nothing is held back", "c:8")
}

// TestLiveForgetsWhatLeftTheArea: what is not followed any more is not kept.
func TestLiveForgetsWhatLeftTheArea(t *testing.T) {
	var g told
	now := time.Now()
	area := func(ids ...shortline.StoreID) LiveEvent {
		e := LiveEvent{Kind: LiveSnapshot, Area: true}
		for _, id := range ids {
			e.Stores = append(e.Stores, LiveStore{Queue: Queue{ID: id, UpdatedAt: now}})
		}
		return e
	}
	g.moved(now)
	g.pass(area("a", "b"), []shortline.StoreID{"n"}, now)
	g.pass(LiveEvent{Kind: LiveChanged, Queue: Queue{ID: "n", UpdatedAt: now}}, nil, now)
	g.pass(LiveEvent{Kind: LiveChanged, Queue: Queue{ID: "a", UpdatedAt: now.Add(-time.Second)}}, nil, now)
	g.pass(area("b"), []shortline.StoreID{"n"}, now)
	if len(g.queues) != 2 || len(g.release()) != 0 {
		t.Errorf("it keeps %v", g.queues)
	}
}
