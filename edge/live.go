package edge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/geo"
	"github.com/shortline/shortline/replication"
)

// LiveConfig bounds live updates. Its zero value works; of the limits, a negative one is none.
type LiveConfig struct {
	// Connections bounds those of this node (four fifths of the files that the process may open), PerAddress those from one
	// IP address, of IPv6 from one /64 (1,000; connections from loopback, where a proxy stands, only count if it is set), and
	// PerKey those with one API key (10,000).
	Connections, PerAddress, PerKey int
	// Stores bounds how many stores one connection may follow (1,000).
	Stores int
	// Messages is how many messages a second a client may send for long (10); ten times as many may come at once.
	Messages int
	// Origins are the origins whose pages may connect, such as https://example.org; empty: all. What is served is public, and
	// a browser sends no credentials of its own accord.
	Origins []string
	// PingEvery is how often each WebSocket is asked for a sign of life (30 s); one that gives none for twice that is closed.
	PingEvery time.Duration
	// StallAfter is how long a client may take nothing of what is sent to it (60 s). Then it is cut off.
	StallAfter time.Duration
	// Drain is the time over which connections are asked to go elsewhere when this node stops (20 s). It takes less where
	// there are few.
	Drain time.Duration
}

func (c *LiveConfig) faults() []error {
	var faults []error
	for _, d := range []struct {
		name  string
		value time.Duration
	}{{"live-ping-every", c.PingEvery}, {"live-stall-after", c.StallAfter}, {"live-drain", c.Drain}} {
		if d.value < 0 {
			faults = append(faults, fmt.Errorf("%s: %v is negative", d.name, d.value))
		}
	}
	for _, o := range c.Origins {
		if !validOrigin(o) {
			faults = append(faults, fmt.Errorf("live-origins: %q is not an origin such as https://example.org", o))
		}
	}
	return faults
}

func (c *LiveConfig) defaults() {
	for _, n := range []struct {
		field *int
		value int
	}{{&c.Connections, openFiles() / 5 * 4}, {&c.PerKey, 10_000}, {&c.Stores, 1000}, {&c.Messages, 10}} {
		if *n.field == 0 {
			*n.field = n.value
		}
	}
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{{&c.PingEvery, 30 * time.Second}, {&c.StallAfter, time.Minute}, {&c.Drain, 20 * time.Second}} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
}

// LiveRegion is a place where live connections may go.
type LiveRegion struct {
	Name string `json:"name"`
	URL  string `json:"url"`
}

// Elsewhere tells which regions live clients may go to when this node stops, best first, this one left out. near is the
// place that a client asked about, nil where it is not known. It must not block.
type Elsewhere interface {
	Elsewhere(near *geo.Point) []LiveRegion
}

// liveHub hands every change of a queue to those who follow the store. The catalog tells it what changed, after the change
// can be read; what is sent is read from the catalog at the moment of sending. So nothing is sent that is not in memory, a
// connection never sees a queue go back, and a slow one gets the newest value instead of all of them.
//
// The hub's work is spread over shards, each of which owns a part of the connections. Locks are taken in the order: a
// shard's, then the hub's.
type liveHub struct {
	cfg       LiveConfig
	catalog   *Catalog
	elsewhere Elsewhere
	token     func() string // of what memory holds
	region    string
	// catchUp waits a short while until memory holds what a token stands for. If that does not come about, what there is has
	// to do: the rest follows as changes.
	catchUp func(replication.Token)
	log     *slog.Logger
	metrics *liveMetrics
	shards  []*liveShard
	wake    chan struct{} // one element: there is something to publish
	ended   chan struct{} // closed when Run is about to return: conversations end
	talks   sync.WaitGroup

	mu        sync.Mutex
	topics    map[shortline.StoreID]*liveTopic // stores that somebody follows; guarded by mu
	pending   []*liveTopic                     // changed, not published; each once; guarded by mu
	moves     []storeMove                      // not published; guarded by mu
	allMoved  bool                             // there were more than fit into moves; guarded by mu
	lastAreas time.Time                        // when areas were last looked at; guarded by mu
	open      int                              // connections; guarded by mu
	areas     int                              // of them, those that follow an area; guarded by mu
	byAddress map[netip.Addr]int               // guarded by mu
	byKey     map[shortline.KeyID]int          // guarded by mu
	running   bool                             // guarded by mu
	next      int                              // shard of the next connection; guarded by mu
}

// maxMoves is how many moves of stores are remembered one by one; past it, every area is looked at anew.
const maxMoves = 16

func newLiveHub(s *Server, elsewhere Elsewhere, r prometheus.Registerer) *liveHub {
	h := &liveHub{
		cfg: s.cfg.Live, catalog: s.catalog, elsewhere: elsewhere, token: s.appliedToken, region: s.cfg.Region, log: s.log,
		catchUp: func(t replication.Token) { _ = s.satisfy(context.Background(), t, true) },
		wake:    make(chan struct{}, 1), ended: make(chan struct{}), topics: map[shortline.StoreID]*liveTopic{},
		byAddress: map[netip.Addr]int{}, byKey: map[shortline.KeyID]int{},
	}
	h.shards = make([]*liveShard, max(2, runtime.GOMAXPROCS(0)))
	for i := range h.shards {
		h.shards[i] = &liveShard{hub: h, number: i, wake: make(chan struct{}, 1)}
	}
	h.metrics = newLiveMetrics(r, h)
	h.catalog.live.Store(h)
	return h
}

// Run publishes until ctx ends, then cuts off who is still connected, and returns nil when all goroutines of all
// connections have ended.
func (h *liveHub) Run(ctx context.Context) error {
	h.mu.Lock()
	h.running = true
	h.mu.Unlock()
	var group errgroup.Group
	for _, s := range h.shards {
		group.Go(func() error { s.run(ctx); return nil })
	}
	group.Go(func() error { h.publish(ctx); return nil })
	group.Go(func() error { h.sweep(ctx); return nil })
	err := group.Wait()
	h.mu.Lock()
	h.running = false
	h.mu.Unlock()
	close(h.ended)
	for _, s := range h.shards {
		for _, c := range s.all() {
			c.end(endShutdown)
		}
	}
	h.talks.Wait()
	return err
}

// replaced is told that the catalog has another state: whatever anybody follows may have changed.
func (h *liveHub) replaced() {
	h.mu.Lock()
	for _, t := range h.topics {
		h.addPending(t)
	}
	h.allMoved = h.areas > 0
	h.mu.Unlock()
	h.poke()
}

// changed is told of what one call of the feed changed. It does not keep c.
func (h *liveHub) changed(c *liveChanges) {
	if len(c.stores) == 0 {
		return
	}
	h.mu.Lock()
	for _, id := range c.stores {
		if t := h.topics[id]; t != nil {
			h.addPending(t)
		}
	}
	if h.areas > 0 {
		if len(h.moves)+len(c.moves) > maxMoves {
			h.allMoved = true
		}
		if h.allMoved {
			h.moves = nil
		} else {
			h.moves = append(h.moves, c.moves...)
		}
	}
	some := len(h.pending) > 0 || len(h.moves) > 0 || h.allMoved
	h.mu.Unlock()
	if some {
		h.poke()
	}
}

func (h *liveHub) addPending(t *liveTopic) {
	if !t.pending {
		t.pending = true
		h.pending = append(h.pending, t)
	}
}

func (h *liveHub) poke() {
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// publish marks what changed in the mailboxes of those who follow it, until ctx ends.
func (h *liveHub) publish(ctx context.Context) {
	var topics []*liveTopic
	again := time.NewTimer(time.Hour)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-h.wake:
		case <-again.C:
		}
		h.mu.Lock()
		topics, h.pending = h.pending, topics[:0]
		for _, t := range topics {
			t.pending = false
		}
		moves, all, wait := h.takeMoves(time.Now())
		h.mu.Unlock()
		if wait > 0 {
			again.Reset(wait)
		}
		for _, s := range h.shards {
			s.mark(topics, moves, all)
		}
		clear(topics)
	}
}

// areaCost is about what it takes to look for the stores of one area.
const areaCost = 4 * time.Microsecond

// takeMoves hands over what areas are to be held against. While stores come in by the thousand, areas are not looked at all
// the time: wait tells when to come again.
func (h *liveHub) takeMoves(now time.Time) (moves []storeMove, all bool, wait time.Duration) {
	if len(h.moves) == 0 && !h.allMoved {
		return nil, false, 0
	}
	pause := 20*time.Millisecond + time.Duration(h.areas)*areaCost*10
	if wait = pause - now.Sub(h.lastAreas); wait > 0 {
		return nil, false, wait
	}
	moves, all = h.moves, h.allMoved
	h.moves, h.allMoved, h.lastAreas = nil, false, now
	return moves, all, 0
}

// sweep looks after connections that are silent, half open or overdue, until ctx ends: there is no timer a connection.
func (h *liveHub) sweep(ctx context.Context) {
	ticker := time.NewTicker(min(time.Second, h.cfg.PingEvery/4+time.Millisecond))
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-ticker.C:
			for _, s := range h.shards {
				s.sweep(now)
			}
		}
	}
}

// admit takes a place for a connection, or tells why there is none. The place is given back when the connection ends.
func (h *liveHub) admit(c *liveConn) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case !h.running:
		return &apiError{kind: kindNotReady, detail: "this node is starting or stopping; connect to another one", retryAfter: time.Second}
	case h.cfg.Connections > 0 && h.open >= h.cfg.Connections:
		return &apiError{kind: kindNotReady, detail: fmt.Sprintf("this node has %d live connections, which is all that it takes; connect to another one", h.open), retryAfter: 5 * time.Second}
	case h.limitsAddress(c.address) && h.byAddress[c.address] >= h.perAddress():
		return tooMany("this address has %d live connections, which is the limit", h.perAddress())
	case c.key != "" && h.cfg.PerKey > 0 && h.byKey[c.key] >= h.cfg.PerKey:
		return tooMany("this API key has %d live connections, which is the limit", h.cfg.PerKey)
	}
	h.open++
	h.byAddress[c.address]++
	if c.key != "" {
		h.byKey[c.key]++
	}
	c.shard = h.shards[h.next%len(h.shards)]
	h.next++
	return nil
}

func tooMany(format string, args ...any) error {
	return &apiError{kind: kindTooManyConnections, detail: fmt.Sprintf(format, args...), retryAfter: 5 * time.Second}
}

func (h *liveHub) perAddress() int {
	if h.cfg.PerAddress == 0 {
		return 1000
	}
	return h.cfg.PerAddress
}

func (h *liveHub) limitsAddress(a netip.Addr) bool {
	return h.cfg.PerAddress > 0 || h.cfg.PerAddress == 0 && !a.IsLoopback()
}

// leave gives the place of a connection back.
func (h *liveHub) leave(c *liveConn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.open--
	if h.byAddress[c.address]--; h.byAddress[c.address] == 0 {
		delete(h.byAddress, c.address)
	}
	if c.key != "" {
		if h.byKey[c.key]--; h.byKey[c.key] == 0 {
			delete(h.byKey, c.key)
		}
	}
}

func (h *liveHub) connections() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.open
}

// drainRate is how many connections a second are asked to leave at least.
const drainRate = 1000

// drain asks every connection to go elsewhere, spread over some time, waits until they have gone, and ends those that
// have not with the close code 1001. It returns when none is left, or when ctx ends.
func (h *liveHub) drain(ctx context.Context) error {
	n := h.connections()
	if n == 0 {
		return nil
	}
	spread := min(h.cfg.Drain, time.Duration(n)*time.Second/drainRate)
	within := max(time.Second, spread/10).Round(time.Second)
	h.log.Info("asking live connections to go elsewhere", "connections", n, "spread", spread)
	if err := h.move(ctx, spread, within); err != nil {
		return err
	}
	if h.emptied(ctx, within+2*time.Second) {
		return nil
	}
	for _, s := range h.shards {
		for _, c := range s.all() {
			c.close(closeGoingAway, "this node is stopping", endDrained)
		}
	}
	if !h.emptied(ctx, 3*time.Second) && ctx.Err() == nil {
		return errors.New("some live connections did not end in time")
	}
	return ctx.Err()
}

// move sends the reconnect message to every connection that there is now, in an order of chance, spread over some time.
func (h *liveHub) move(ctx context.Context, spread, within time.Duration) error {
	var all []*liveConn
	for _, s := range h.shards {
		all = append(all, s.all()...)
	}
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	const steps = 50
	for chunk := range slices.Chunk(all, max(1, (len(all)+steps-1)/steps)) {
		for _, c := range chunk {
			c.sendReconnect(within)
		}
		if len(chunk) == len(all) {
			break
		}
		if err := pause(ctx, spread*time.Duration(len(chunk))/time.Duration(len(all))); err != nil {
			return err
		}
	}
	return nil
}

// emptied waits until no connection is left, and tells whether that came about in time.
func (h *liveHub) emptied(ctx context.Context, limit time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for h.connections() > 0 {
		if pause(ctx, 20*time.Millisecond) != nil {
			return false
		}
	}
	return true
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// MoveLive asks every live connection of this node to go elsewhere, spread over some time: for a region that is drained. Those
// that stay are served on. It returns when all were asked.
func (s *Server) MoveLive(ctx context.Context, spread time.Duration) error {
	return s.live.move(ctx, spread, max(time.Second, spread/10))
}
