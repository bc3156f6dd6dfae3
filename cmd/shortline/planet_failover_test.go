package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/edge/client"
	"github.com/shortline/shortline/internal/planet"
	"github.com/shortline/shortline/regions"
	"github.com/shortline/shortline/replication"
)

// load writes and reads at some nodes until it is stopped, and keeps what was acknowledged. Each writer adds one to the queue of its own
// store, with an idempotency key, so that a lost write and one that is applied twice both show in the sum.
//
// A lenient one bears refusals and silence, as nodes that are killed, frozen or cut off make them. Then a write of which the outcome is not
// known is sent again with its key, elsewhere, until it is known: so every sum is exact at any time.
type steadyLoad struct {
	w       *world
	nodes   *balancer
	lenient bool
	stop    context.CancelFunc
	began   time.Time
	wg      sync.WaitGroup

	mu      sync.Mutex
	acked   map[shortline.StoreID]int // guarded by mu
	unsure  map[shortline.StoreID]int // guarded by mu: writes whose outcome nobody could tell
	open    []*keyedWrite             // guarded by mu: a lenient load's, at its end
	acks    []epochAck                // guarded by mu
	failed  []error                   // guarded by mu: what must not be
	refused int                       // guarded by mu: what a lenient load bears
	lost    int                       // guarded by mu: sessions that were told that what they saw is lost
	reads   int                       // guarded by mu
	gap     time.Duration             // guarded by mu: the longest time without any acknowledgement
	last    time.Time                 // guarded by mu
}

// keyedWrite is one that may be sent more than once.
type keyedWrite struct {
	id    shortline.StoreID
	key   string
	begun time.Time // the first time
	tried bool      // its outcome was unknown before
}

// epochAck is an acknowledgement, and the epoch that the write belongs to.
type epochAck struct {
	epoch        uint64
	begun, acked time.Time
}

func (w *world) steady(nodes []*planet.Node) *steadyLoad { return w.load(nodes, false) }

func (w *world) load(nodes []*planet.Node, lenient bool) *steadyLoad {
	return w.loadOver(newBalancer(nodes), lenient)
}

func (w *world) loadOver(nodes *balancer, lenient bool) *steadyLoad {
	ctx, cancel := context.WithCancel(w.Context())
	l := &steadyLoad{w: w, nodes: nodes, lenient: lenient, stop: cancel, began: time.Now(), acked: map[shortline.StoreID]int{}, unsure: map[shortline.StoreID]int{}, last: time.Now()}
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
	for n := 0; ctx.Err() == nil; n++ {
		k := &keyedWrite{id: id, key: fmt.Sprintf("%d-%s-%d", l.began.UnixNano(), id, n), begun: time.Now()}
		node := i + n
		if l.lenient {
			node = i // or all would wait for the one that does not answer
		}
		for try := 0; !l.sendTo(node+try, k); try++ {
			if ctx.Err() != nil {
				l.mu.Lock()
				l.open = append(l.open, k)
				l.mu.Unlock()
				return
			}
			pause(ctx, 100*time.Millisecond)
		}
		pause(ctx, 20*time.Millisecond)
	}
}

// patience is how long an answer may take: longer than a node holds a write.
func (l *steadyLoad) patience() time.Duration {
	if l.lenient {
		return 13 * time.Second
	}
	return time.Minute
}

// sendTo sends a write once, to the nth node.
func (l *steadyLoad) sendTo(n int, k *keyedWrite) (known bool) {
	node, done := l.nodes.pick(n)
	defer done()
	return l.send(node, k)
}

// send sends a write once. It is false where a lenient load has to ask again what became of it.
func (l *steadyLoad) send(n *planet.Node, k *keyedWrite) (known bool) {
	one, session := 1, new(client.Session)
	call, cancel := context.WithTimeout(context.WithoutCancel(l.w.Context()), l.patience())
	defer cancel()
	a, err := l.w.client(n, session).SetQueue(call, shortline.QueueUpdate{ID: k.id, Delta: &one}, client.WriteOptions{IdempotencyKey: k.key})
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case err == nil:
		l.acked[k.id]++
		l.gap, l.last = max(l.gap, now.Sub(l.last)), now
		token, err := replication.ParseToken(session.Token())
		if err != nil {
			l.failed = append(l.failed, fmt.Errorf("a write of %s was answered with the token %q: %w", k.id, session.Token(), err))
		}
		l.acks = append(l.acks, epochAck{token.Epoch, k.begun, now})
		if want := l.acked[k.id]; l.lenient && a.Length != want { // nobody else writes it
			l.failed = append(l.failed, fmt.Errorf("%s has %d after %d acknowledged writes, says %s (%s)", k.id, a.Length, want, n.Name(), k.key))
			l.acked[k.id] = a.Length // what follows is held against this
		}
	case l.lenient && !bearable(err):
		l.failed = append(l.failed, fmt.Errorf("write %s of %s at %s: %w", k.key, k.id, n.Name(), err))
		k.tried = true
		return false
	case l.lenient && surelyNot(err) && !k.tried:
		l.refused++
	case l.lenient:
		l.refused++
		k.tried = true
		return false
	default:
		l.unsure[k.id]++
		l.failed = append(l.failed, fmt.Errorf("write %s of %s: %w", k.key, k.id, err))
	}
	return true
}

// bearable tells whether an error is what faults may do to clients: a refusal that says so, or no answer.
func bearable(err error) bool {
	var problem *client.Problem
	return !errors.As(err, &problem) || problem.Status == http.StatusServiceUnavailable || problem.Status == http.StatusGatewayTimeout
}

// starts tells of a refusal whether it is that of a node that has just been started.
func starts(p *client.Problem) bool { return strings.HasSuffix(p.Type, "/not-ready") }

// surelyNot tells of a write that failed whether it certainly was not done. That a connection is refused tells nothing: for a request with a key
// net/http makes another one by itself.
func surelyNot(err error) bool {
	var problem *client.Problem
	return errors.As(err, &problem) && problem.Status == http.StatusServiceUnavailable
}

func (l *steadyLoad) read(ctx context.Context, i int) {
	var session *client.Session // every other reader has one
	if i%2 == 0 {
		session = new(client.Session)
	}
	longest := map[shortline.StoreID]int{}
	for n := 0; ctx.Err() == nil; n++ {
		id := l.w.stores[n/3%len(l.w.stores)] // at each of three nodes in turn
		node, done := l.nodes.pick(i + n)
		call, cancel := context.WithTimeout(context.WithoutCancel(ctx), l.patience())
		q, err := l.w.client(node, session).Queue(call, id, client.ReadOptions{})
		cancel()
		done()
		var problem *client.Problem
		l.mu.Lock()
		l.reads++
		switch {
		case err != nil && l.lenient && session != nil && errors.As(err, &problem) && problem.TokenLost():
			l.lost++
			session.Forget()
			clear(longest)
		case err != nil && l.lenient && bearable(err) && (session != nil || !errors.As(err, &problem) || starts(problem)): // without a token nothing is refused
			l.refused++
		case err != nil:
			l.failed = append(l.failed, fmt.Errorf("read %s at %s: %w", id, node.Name(), err))
		case session != nil && q.Length < longest[id]:
			l.failed = append(l.failed, fmt.Errorf("the session went backwards: %s was %d and is %d at %s", id, longest[id], q.Length, node.Name()))
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

// twoWriters tells where a write was begun after a later epoch had acknowledged one, and was acknowledged itself.
func (l *steadyLoad) twoWriters() (faults []string) {
	first := map[uint64]time.Time{}
	for _, a := range l.acks {
		if at, ok := first[a.epoch]; !ok || a.acked.Before(at) {
			first[a.epoch] = a.acked
		}
	}
	for _, a := range l.acks {
		for epoch, at := range first {
			if epoch > a.epoch && a.begun.After(at) {
				faults = append(faults, fmt.Sprintf("a write of epoch %d was begun %v after one of epoch %d was acknowledged", a.epoch, a.begun.Sub(at), epoch))
			}
		}
	}
	return faults
}

// settle ends the load and holds what was acknowledged against what the primary has: nothing lost, nothing twice, one writer at a time, no request
// failed.
func (l *steadyLoad) settle(what string) {
	l.w.Helper()
	l.end()
	for i, k := range l.open {
		l.w.eventually("it is known what became of "+k.key, func() bool { return l.sendTo(i, k) })
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, f := range l.twoWriters() {
		if i < 10 {
			l.w.Errorf("%s: %s", what, f)
		}
	}
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
	l.w.Logf("%s: %d writes and %d reads, %d failed, %d refused, %d sessions lost; the longest time without an acknowledgement was %v", what, total, l.reads, len(l.failed), l.refused, l.lost, l.gap.Round(time.Millisecond))
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
