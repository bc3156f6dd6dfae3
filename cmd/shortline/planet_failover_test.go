package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/edge/client"
	"github.com/shortline/shortline/internal/planet"
	"github.com/shortline/shortline/regions"
)

// load writes and reads at some nodes until it is stopped, and keeps what was acknowledged. Each writer adds one to the queue of its own
// store, with an idempotency key, so that a lost write and one that is applied twice both show in the sum.
type steadyLoad struct {
	w     *world
	nodes []*planet.Node
	stop  context.CancelFunc
	began time.Time
	wg    sync.WaitGroup

	mu     sync.Mutex
	acked  map[shortline.StoreID]int // guarded by mu
	unsure map[shortline.StoreID]int // guarded by mu: writes whose outcome nobody could tell
	failed []error                   // guarded by mu: reads and writes that were refused or failed
	reads  int                       // guarded by mu
	gap    time.Duration             // guarded by mu: the longest time without any acknowledgement
	last   time.Time                 // guarded by mu
}

func (w *world) steady(nodes []*planet.Node) *steadyLoad {
	ctx, cancel := context.WithCancel(w.Context())
	l := &steadyLoad{w: w, nodes: nodes, stop: cancel, began: time.Now(), acked: map[shortline.StoreID]int{}, unsure: map[shortline.StoreID]int{}, last: time.Now()}
	for i, id := range w.stores {
		l.wg.Go(func() { l.write(ctx, i, id) })
	}
	for i := range 4 {
		l.wg.Go(func() { l.read(ctx, i) })
	}
	w.Cleanup(l.end)
	return l
}

func (l *steadyLoad) end() {
	l.stop()
	l.wg.Wait()
}

func (l *steadyLoad) write(ctx context.Context, i int, id shortline.StoreID) {
	one := 1
	for n := 0; ctx.Err() == nil; n++ {
		c := l.w.client(l.nodes[(i+n)%len(l.nodes)], nil)
		call, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		_, err := c.SetQueue(call, shortline.QueueUpdate{ID: id, Delta: &one}, client.WriteOptions{IdempotencyKey: fmt.Sprintf("%d-%s-%d", l.began.UnixNano(), id, n)})
		cancel()
		l.mu.Lock()
		if err == nil {
			l.acked[id]++
			l.gap, l.last = max(l.gap, time.Since(l.last)), time.Now()
		} else {
			l.unsure[id]++
			l.failed = append(l.failed, fmt.Errorf("write %d of %s: %w", n, id, err))
		}
		l.mu.Unlock()
		pause(ctx, 20*time.Millisecond)
	}
}

func (l *steadyLoad) read(ctx context.Context, i int) {
	var session *client.Session // every other reader has one
	if i%2 == 0 {
		session = new(client.Session)
	}
	longest := map[shortline.StoreID]int{}
	for n := 0; ctx.Err() == nil; n++ {
		id := l.w.stores[n%len(l.w.stores)]
		call, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		q, err := l.w.client(l.nodes[(i+n)%len(l.nodes)], session).Queue(call, id, client.ReadOptions{})
		cancel()
		l.mu.Lock()
		l.reads++
		switch {
		case err != nil:
			l.failed = append(l.failed, fmt.Errorf("read %s: %w", id, err))
		case session != nil && q.Length < longest[id]:
			l.failed = append(l.failed, fmt.Errorf("the session went backwards: %s was %d and is %d", id, longest[id], q.Length))
		default:
			longest[id] = q.Length
		}
		l.mu.Unlock()
		pause(ctx, 5*time.Millisecond)
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// count is how many writes were acknowledged so far.
func (l *steadyLoad) count() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, a := range l.acked {
		n += a
	}
	return n
}

// settle ends the load and holds what was acknowledged against what the primary has: nothing lost, nothing twice, no request failed.
func (l *steadyLoad) settle(what string) {
	l.w.Helper()
	l.end()
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, err := range l.failed {
		if i == 10 {
			break
		}
		l.w.Errorf("%s: %v", what, err)
	}
	tr := l.w.truth()
	total := 0
	for _, id := range l.w.stores {
		total += l.acked[id]
		if got := tr.length[id]; got < l.acked[id] || got > l.acked[id]+l.unsure[id] {
			l.w.Errorf("%s: %s has %d, and %d were acknowledged (%d without an outcome)", what, id, got, l.acked[id], l.unsure[id])
		}
	}
	l.w.Logf("%s: %d writes and %d reads, %d failed; the longest time without an acknowledgement was %v", what, total, l.reads, len(l.failed), l.gap.Round(time.Millisecond))
}

// zero sets all queues to nothing.
func (w *world) zero(n *planet.Node) {
	zero := 0
	for _, id := range w.stores {
		_, err := w.client(n, nil).SetQueue(w.deadline(), shortline.QueueUpdate{ID: id, Length: &zero}, client.WriteOptions{})
		w.check(err)
	}
}

// Nobody notices but by a pause: an operator moves the primary, then the new primary's region dies with all its processes, and comes back.
func TestPlanetMovesThePrimary(t *testing.T) {
	if testing.Short() {
		t.Skip("starts three regions")
	}
	w := startWorld(t, 8, planet.Options{Nodes: 1})
	home := w.Regions()[0].Nodes[0]
	w.zero(home)

	l := w.steady(w.Nodes())
	w.eventually("writes are acknowledged", func() bool { return l.count() > 50 })
	w.eventually("the regions move the primary to eu-west", func() bool {
		var answer map[string]any
		_, err := w.client(home, nil).AdminPost(w.deadline(), "switchover", map[string]any{"to": "eu-west", "reason": "a test"}, &answer)
		return err == nil || w.Primary() == "eu-west" // its standbys may need a moment after the start
	})
	w.eventually("eu-west takes writes", func() bool { return w.Primary() == "eu-west" })
	before := l.count()
	w.eventually("writes go on", func() bool { return l.count() > before+50 })
	l.settle("switchover")

	w.zero(home)
	var survivors []*planet.Node
	for _, r := range w.Regions() {
		if r.ID != "eu-west" {
			survivors = append(survivors, r.Nodes...)
		}
	}
	l = w.steady(survivors)
	w.eventually("writes are acknowledged", func() bool { return l.count() > 50 })
	w.eventually("a standby confirms writes, so that a failover may lose nothing", func() bool { return w.durable() })
	dead := w.Region("eu-west")
	dead.Nodes[0].Kill()
	dead.Postgres.Kill()
	w.eventually("another region takes writes", func() bool { p := w.Primary(); return p != "eu-west" && p != "" })
	before = l.count()
	w.eventually("writes go on", func() bool { return l.count() > before+50 })
	l.settle("failover")

	w.check(dead.Postgres.Start(w.deadline()))
	w.check(dead.Nodes[0].Start(w.deadline()))
	w.eventually("the dead region follows the new primary", func() bool {
		return w.held("eu-west") && w.follows("eu-west")
	})
}

// cluster is what an operator sees.
func (w *world) cluster() (c regions.Cluster, err error) {
	for _, n := range w.Nodes() {
		if !n.Running() {
			continue
		}
		if _, err = w.client(n, nil).AdminGet(w.deadline(), "cluster", &c); err == nil {
			return c, nil
		}
	}
	return c, err
}

// durable tells whether every write is confirmed by a standby, and nothing is under way.
func (w *world) durable() bool {
	c, err := w.cluster()
	return err == nil && c.Durability.Mode == regions.Quorum && c.Operation == nil
}

// held tells whether a region is there again after a failover from it.
func (w *world) held(id regions.ID) bool {
	c, err := w.cluster()
	return err == nil && slices.ContainsFunc(c.Regions, func(r regions.ClusterRegion) bool { return r.Name == id && r.Held })
}

// follows tells whether a region's database streams from the primary's.
func (w *world) follows(id regions.ID) bool {
	rows, err := w.Region(id).Postgres.Rows(w.deadline(), "shortline", "SELECT status FROM pg_stat_wal_receiver")
	return err == nil && len(rows) == 1 && rows[0][0] == "streaming"
}
