package failover

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/shortline/shortline/regions"
)

// world is a deployment in virtual time: databases with logs that fork, a control plane that agrees, nodes that write under
// a lease, and the real controllers. Everything in it is guarded by one lock, which is never held while time passes.
type world struct {
	t   *testing.T
	cfg worldConfig

	mu      sync.Mutex
	ids     []regions.ID
	dbs     map[regions.ID]*db
	cut     map[string]bool // "a>b": nothing gets from a to b
	state   regions.State
	past    []moment // older states, for those who hear of them late
	changed chan struct{}
	leader  regions.ID
	term    uint64
	ledFrom time.Time
	alive   map[regions.ID]bool        // the node process of the region: voter, controller, lease and gate
	frozen  map[regions.ID]bool        // it and its database stand still
	still   map[regions.ID]*standstill // its node alone stands still, or has just gone on
	deaf    map[regions.ID]bool        // its node and agent are cut off from the control plane, its database is not
	renewed time.Time                  // when the last renewal was applied
	seq     uint64
	acks    []ack

	// kill ends the controller that makes the kill-th effective call, before or after it has its effect.
	calls, kill int
	after       bool
	who         victim
	trace       []string

	start time.Time
	wg    sync.WaitGroup
	ctx   context.Context
}

type worldConfig struct {
	regions    []regions.ID
	witness    bool
	slow       map[regions.ID]time.Duration // how far a standby is behind
	promote    time.Duration                // how long a promotion takes
	async      bool                         // mutant: no commit waits for a standby
	noGate     bool                         // mutant: nodes do not look at the lease
	noLineage  bool                         // mutant: a database says that it is of the newest epoch
	forwards   bool                         // mutant: what a leader of an earlier term decided is brought before the present one
	dateless   bool                         // mutant: the state machine takes any target as primary
	controller mutant
}

type moment struct {
	at    time.Time
	state regions.State
}

type ack struct {
	id           uint64
	epoch        uint64
	begun, acked time.Time
}

// victim is who dies at the call: the controller, its whole region, or whoever was called.
type victim int

const (
	controllerDies victim = iota
	regionDies
	calleeDies
	controllerStands // still, with its voter and lease, for a while
)

// entry is one record of a log. No two are alike.
type entry struct {
	seq, write, epoch uint64
	at                time.Time
}

type db struct {
	id       regions.ID
	up       bool
	role     regions.Role
	log      []entry
	timeline uint32
	upstream regions.ID
	readOnly bool
	sync     []regions.ID
	order    regions.Order
	readyAt  time.Time // a rejoin is over
}

func (d *db) epoch() uint64 {
	for _, e := range slices.Backward(d.log) {
		if e.epoch > 0 {
			return e.epoch
		}
	}
	return 0
}

const (
	tick   = 10 * time.Millisecond
	ttl    = 1500 * time.Millisecond
	writeT = 300 * time.Millisecond // the longest operation
)

func newWorld(ctx context.Context, t *testing.T, cfg worldConfig) *world {
	if cfg.regions == nil {
		cfg.regions = []regions.ID{"a", "b", "c"}
	}
	w := &world{t: t, cfg: cfg, ids: cfg.regions, dbs: map[regions.ID]*db{}, cut: map[string]bool{}, changed: make(chan struct{}), alive: map[regions.ID]bool{},
		frozen: map[regions.ID]bool{}, still: map[regions.ID]*standstill{}, deaf: map[regions.ID]bool{}, start: time.Now(), renewed: time.Now(), ctx: ctx, leader: "b", term: 1, ledFrom: time.Now()}
	var all []regions.Region
	for _, id := range w.ids {
		w.dbs[id] = &db{id: id, up: true, role: regions.RoleStandby, upstream: "a", timeline: 1, log: []entry{{seq: 1, epoch: 1}}}
		w.alive[id] = true
		all = append(all, regions.Region{ID: id})
	}
	if cfg.witness {
		w.alive["w"] = true
		all = append(all, regions.Region{ID: "w", Witness: true})
	}
	w.seq = 1
	w.dbs["a"].role, w.dbs["a"].upstream = regions.RolePrimary, ""
	w.apply(regions.Command{At: time.Now(), Bootstrap: &regions.Bootstrap{Cluster: "model", ClusterID: "1", Regions: all, Primary: "a", Epoch: 1, Timeline: 1, Position: 1}})
	w.wg.Go(w.elect)
	w.wg.Go(w.replicate)
	for _, id := range w.ids {
		w.wg.Go(func() { w.node(id) })
		w.wg.Go(func() { w.writer(id) })
	}
	for id := range w.alive {
		w.startController(id)
	}
	return w
}

// rest lets time pass; false at the end of the world.
func (w *world) rest(d time.Duration) bool { return sleep(w.ctx, d) }

// reaches tells whether from hears to: both go, and nothing lies between.
func (w *world) reachesLocked(from, to regions.ID) bool {
	return !w.cut[string(from)+">"+string(to)] && !w.cut[string(to)+">"+string(from)]
}

func (w *world) worksLocked(id regions.ID) bool {
	return w.alive[id] && !w.frozen[id] && (w.still[id] == nil || w.still[id].over())
}

// standstill is a time in which a node does nothing. For a moment after it the node believes what it knew before.
type standstill struct {
	until   time.Time
	term    uint64
	leads   bool
	renewed time.Time
	state   regions.State
}

const (
	standFor = 10 * time.Second
	outdated = 600 * time.Millisecond
)

func (s *standstill) over() bool { return !time.Now().Before(s.until) }

// believes tells whether a node has gone on and not heard anything yet.
func (s *standstill) believes() bool { return s != nil && s.over() && time.Since(s.until) < outdated }

// standLocked makes a node stand still.
func (w *world) standLocked(id regions.ID) {
	w.still[id] = &standstill{time.Now().Add(standFor), w.term, w.leader == id && w.majorityLocked(id), w.renewed, w.stateAtLocked(id)}
}

// awake blocks while a node stands still.
func (w *world) awake(id regions.ID) {
	for {
		w.mu.Lock()
		s := w.still[id]
		w.mu.Unlock()
		if s == nil || s.over() || !w.rest(time.Until(s.until)) {
			return
		}
	}
}

// majority tells whether enough voters hear id.
func (w *world) majorityLocked(id regions.ID) bool {
	n := 0
	for other := range w.alive {
		if w.worksLocked(other) && !w.deaf[other] && (other == id || w.reachesLocked(id, other)) {
			n++
		}
	}
	return w.worksLocked(id) && 2*n > len(w.alive)
}

// elect is the control plane's leadership: one that has lost its majority is followed by another 2 s later, outside the primary
// region where that can be.
func (w *world) elect() {
	var without time.Duration
	for w.rest(100 * time.Millisecond) {
		w.mu.Lock()
		if w.majorityLocked(w.leader) {
			without = 0
			if w.leader == w.state.Primary && w.state.Operation == nil {
				w.moveLeaderLocked() // planned, at once
			}
		} else if without += 100 * time.Millisecond; without >= 2*time.Second {
			w.moveLeaderLocked()
			without = 0
		}
		w.mu.Unlock()
	}
}

func (w *world) moveLeaderLocked() {
	var best regions.ID
	for _, id := range slices.Sorted(mapsKeys(w.alive)) {
		if id != w.leader && w.majorityLocked(id) && (best == "" || best == w.state.Primary) {
			best = id
		}
	}
	if best != "" && best != w.state.Primary || best != "" && !w.majorityLocked(w.leader) {
		w.leader, w.term, w.ledFrom = best, w.term+1, time.Now()
		w.notifyLocked()
	}
}

func mapsKeys(m map[regions.ID]bool) func(func(regions.ID) bool) {
	return func(yield func(regions.ID) bool) {
		for id := range m {
			if !yield(id) {
				return
			}
		}
	}
}

func (w *world) notifyLocked() {
	close(w.changed)
	w.changed = make(chan struct{})
}

func (w *world) apply(c regions.Command) *regions.RefusedError {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.applyLocked(c)
}

func (w *world) applyLocked(c regions.Command) *regions.RefusedError {
	if op := w.state.Operation; w.cfg.dateless && c.NewPrimary != nil && op != nil {
		changed := *op
		changed.Target = c.NewPrimary.Region
		w.state.Operation = &changed
	}
	next, why := regions.Apply(w.state, c)
	if why != nil {
		return why
	}
	w.past = append(w.past, moment{time.Now(), next})
	if len(w.past) > 200 {
		w.past = slices.Clone(w.past[100:])
	}
	w.state = next
	if c.Renew != nil {
		w.renewed = time.Now()
	} else {
		w.notifyLocked()
	}
	return nil
}

// stateAt is what a region has heard: the leader all, another what is 20 ms old, one that is cut off what it knew then.
func (w *world) stateAtLocked(id regions.ID) regions.State {
	if id == w.leader {
		return w.state
	}
	if !w.reachesLocked(id, w.leader) {
		return w.state // renewals fail; what it may not do is up to the lease
	}
	limit := time.Now().Add(-20 * time.Millisecond)
	for _, m := range slices.Backward(w.past) {
		if !m.at.After(limit) {
			return m.state
		}
	}
	return w.past[0].state
}

// proposeFrom takes a command to the leader and the answer back.
func (w *world) proposeFrom(ctx context.Context, id regions.ID, c regions.Command) error {
	if !sleep(ctx, 5*time.Millisecond) {
		return ctx.Err()
	}
	w.mu.Lock()
	ok := w.worksLocked(id) && !w.deaf[id] && w.majorityLocked(w.leader) && (id == w.leader || w.reachesLocked(id, w.leader))
	var why *regions.RefusedError
	if ok {
		why = w.applyLocked(c)
	}
	w.mu.Unlock()
	switch {
	case !ok:
		sleep(ctx, time.Second)
		return errors.New("no leader")
	case why != nil:
		return why
	}
	if !sleep(ctx, 5*time.Millisecond) {
		return ctx.Err()
	}
	return nil
}

// replicate moves logs along, and lets primaries write what is no write of anybody's.
func (w *world) replicate() {
	for n := 0; w.rest(tick); n++ {
		w.mu.Lock()
		for _, id := range w.ids {
			d := w.dbs[id]
			if d.role == regions.RoleRejoin && !time.Now().Before(d.readyAt) && d.up && !w.frozen[id] {
				up := w.dbs[d.upstream]
				if up != nil && up.up && !w.frozen[up.id] && w.reachesLocked(id, up.id) {
					d.log, d.timeline, d.role = slices.Clone(up.log), up.timeline, regions.RoleStandby
				}
			}
			if w.streamsLocked(d) {
				up := w.dbs[d.upstream]
				end := min(len(up.log), len(d.log)+20)
				for slow := w.cfg.slow[id]; end > len(d.log) && slow > 0 && time.Since(up.log[end-1].at) < slow; {
					end--
				}
				d.log = append(d.log, up.log[len(d.log):end]...)
				d.timeline = up.timeline
			}
			if n%20 == 0 && d.up && !w.frozen[id] && d.role == regions.RolePrimary {
				w.seq++
				d.log = append(d.log, entry{seq: w.seq, at: time.Now()})
			}
		}
		w.mu.Unlock()
	}
}

// streamsLocked tells whether a standby receives: its log is a part of its upstream's.
func (w *world) streamsLocked(d *db) bool {
	up := w.dbs[d.upstream]
	return up != nil && d.up && up.up && !w.frozen[d.id] && !w.frozen[up.id] && d.role == regions.RoleStandby && up.role != regions.RoleRejoin &&
		w.reachesLocked(d.id, up.id) && len(d.log) <= len(up.log) && d.log[len(d.log)-1] == up.log[len(d.log)-1]
}

// node renews the lease for its region, and surrenders it when an operation begins.
func (w *world) node(id regions.ID) {
	gave := uint64(0)
	for w.rest(400 * time.Millisecond / 4) {
		w.mu.Lock()
		s, works := w.stateAtLocked(id), w.worksLocked(id)
		w.mu.Unlock()
		switch {
		case !works:
		case s.TakesWrites(id, s.PrimaryEpoch):
			began := time.Now()
			ctx, cancel := context.WithTimeout(w.ctx, time.Second)
			err := w.proposeFrom(ctx, id, regions.Command{At: began, Renew: &regions.Renew{Region: id, Epoch: s.PrimaryEpoch, Node: string(id)}})
			cancel()
			if err == nil {
				w.mu.Lock()
				w.gates()[id] = gate{s.PrimaryEpoch, began.Add(ttl - writeT)}
				w.mu.Unlock()
				w.rest(300 * time.Millisecond)
			}
		case s.Primary == id && s.Operation != nil && gave != s.Epoch:
			w.mu.Lock()
			w.gates()[id] = gate{}
			w.mu.Unlock()
			w.rest(writeT) // those under way
			ctx, cancel := context.WithTimeout(w.ctx, time.Second)
			if w.proposeFrom(ctx, id, regions.Command{Surrender: &regions.Surrender{Region: id, Epoch: s.PrimaryEpoch, Node: string(id)}}) == nil {
				gave = s.Epoch
			}
			cancel()
		}
	}
}

type gate struct {
	epoch uint64
	until time.Time
}

var allGates sync.Map // *world → map

func (w *world) gates() map[regions.ID]gate {
	m, _ := allGates.LoadOrStore(w, map[regions.ID]gate{})
	return m.(map[regions.ID]gate)
}

func (w *world) opens(id regions.ID, epoch uint64) bool {
	g := w.gates()[id]
	return w.cfg.noGate || g.epoch == epoch && time.Now().Before(g.until)
}

// writer writes at the database of its region whenever its node holds the lease. With the gate off, whenever that is a
// primary.
func (w *world) writer(id regions.ID) {
	for w.rest(20 * time.Millisecond) {
		w.mu.Lock()
		d := w.dbs[id]
		epoch := d.epoch()
		begun := time.Now()
		if !w.worksLocked(id) || !d.up || d.role != regions.RolePrimary || d.readOnly || !w.opens(id, epoch) {
			w.mu.Unlock()
			continue
		}
		w.seq++
		write := w.seq
		d.log = append(d.log, entry{seq: write, write: write, at: time.Now()})
		at := len(d.log)
		w.mu.Unlock()
		// A commit that waits goes on waiting while everything stands still, however long that takes.
		for confirmed := false; !confirmed; {
			w.mu.Lock()
			if !d.up || d.role != regions.RolePrimary || len(d.log) < at || d.log[at-1].write != write {
				w.mu.Unlock()
				break
			}
			confirmed = len(d.sync) == 0 || w.cfg.async
			for _, s := range d.sync {
				standby := w.dbs[s]
				confirmed = confirmed || standby.upstream == id && w.streamsLocked(standby) && len(standby.log) >= at
			}
			if confirmed = confirmed && w.worksLocked(id); confirmed && w.opens(id, epoch) {
				w.acks = append(w.acks, ack{write, epoch, begun, time.Now()})
			}
			w.mu.Unlock()
			if !confirmed && !w.rest(2*time.Millisecond) {
				return
			}
		}
	}
}

// startController runs the controller of a region until it is killed, and again some seconds later.
func (w *world) startController(id regions.ID) {
	w.wg.Go(func() {
		for w.ctx.Err() == nil {
			ctx, cancel := context.WithCancel(w.ctx)
			i := &incarnation{w: w, id: id, end: cancel}
			c, err := New(Config{Self: "controller-" + string(id)}, Deps{Control: i, Database: i.database, Log: slog.New(slog.DiscardHandler)})
			if err != nil {
				w.t.Error(err)
				cancel()
				return
			}
			c.mutant = w.cfg.controller
			w.mu.Lock()
			controllers(w)[id] = c
			w.mu.Unlock()
			_ = c.Run(ctx)
			cancel()
			w.rest(3 * time.Second)
			w.mu.Lock()
			if i.dead && w.who == controllerDies {
				w.alive[id] = true
			}
			w.mu.Unlock()
		}
	})
}

var allControllers sync.Map

func controllers(w *world) map[regions.ID]*Controller {
	m, _ := allControllers.LoadOrStore(w, map[regions.ID]*Controller{})
	return m.(map[regions.ID]*Controller)
}

// incarnation is a controller's process: once it is dead nothing that it does has an effect.
type incarnation struct {
	w    *world
	id   regions.ID
	dead bool // guarded by w.mu
	end  func()
}

var errDead = errors.New("this process is dead")

// effect counts a call that could have one, and lets die who is to die there. It tells whether the call has its effect, and
// whether the caller lives to hear of it.
func (i *incarnation) effect(what string, callee regions.ID) (do, answer bool) {
	w := i.w
	w.awake(i.id)
	defer w.awake(i.id)
	w.mu.Lock()
	defer w.mu.Unlock()
	if i.dead || !w.worksLocked(i.id) {
		return false, false
	}
	w.calls++
	w.trace = append(w.trace, fmt.Sprintf("%7.3f %s %s", time.Since(w.start).Seconds(), i.id, what))
	if w.calls != w.kill {
		return true, true
	}
	w.trace = append(w.trace, fmt.Sprintf("%7.3f there dies %v, after: %v", time.Since(w.start).Seconds(), []string{"the controller", "the region", "who was called", "(it stands still) the controller"}[w.who], w.after))
	gone := i.id
	switch {
	case w.who == controllerStands && w.after: // in a moment, before it is answered
		w.wg.Go(func() {
			if w.rest(8 * time.Millisecond) {
				w.mu.Lock()
				defer w.mu.Unlock()
				w.standLocked(i.id)
			}
		})
		return true, true
	case w.who == controllerStands:
		w.standLocked(i.id)
		return true, true
	case w.who == calleeDies && callee == "":
		return true, true
	case w.who == calleeDies:
		gone = callee
		if w.after { // in a moment
			w.wg.Go(func() {
				if w.rest(8 * time.Millisecond) {
					w.mu.Lock()
					defer w.mu.Unlock()
					die(w, gone)
				}
			})
		} else {
			die(w, gone)
		}
	default:
		i.dead = true
		w.alive[i.id] = false
		i.end()
	}
	if w.who == regionDies && w.dbs[gone] != nil {
		die(w, gone)
	}
	if w.who != controllerDies {
		w.wg.Go(func() {
			if w.rest(16 * time.Second) {
				w.mu.Lock()
				defer w.mu.Unlock()
				revive(w, gone)
			}
		})
	}
	return w.after || w.who == calleeDies, w.who == calleeDies
}

func (i *incarnation) State() regions.State {
	i.w.awake(i.id)
	i.w.mu.Lock()
	defer i.w.mu.Unlock()
	if s := i.w.still[i.id]; s.believes() {
		return s.state
	}
	return i.w.stateAtLocked(i.id)
}

func (i *incarnation) Changed() <-chan struct{} {
	i.w.mu.Lock()
	defer i.w.mu.Unlock()
	return i.w.changed
}

func (i *incarnation) Leading() (uint64, bool) {
	i.w.awake(i.id)
	i.w.mu.Lock()
	defer i.w.mu.Unlock()
	if s := i.w.still[i.id]; s.believes() && !i.dead {
		return s.term, s.leads
	}
	return i.w.term, i.w.leader == i.id && !i.dead && i.w.majorityLocked(i.id)
}

func (i *incarnation) Renewed(string) time.Duration {
	i.w.awake(i.id)
	i.w.mu.Lock()
	defer i.w.mu.Unlock()
	if s := i.w.still[i.id]; s.believes() {
		return time.Since(s.renewed)
	}
	return time.Since(i.w.renewed)
}

func (i *incarnation) ProposeIn(ctx context.Context, term uint64, c regions.Command) error {
	defer i.w.awake(i.id)
	do, answer := i.effect("propose "+change(c), "")
	err := errDead
	if do {
		if answer {
			i.w.mu.Lock()
			leads := i.w.leader == i.id && i.w.term == term
			i.w.mu.Unlock()
			if !leads && !i.w.cfg.forwards {
				return noLeader("it does not lead in that term")
			}
			err = i.w.proposeFrom(ctx, i.id, c)
		} else if why := i.w.apply(c); why != nil {
			err = why
		}
	}
	if !answer {
		return errDead
	}
	return err
}

func change(c regions.Command) string {
	b, _ := c.MarshalBinary()
	s := string(b)
	if len(s) > 90 {
		s = s[:90]
	}
	return s
}

func (i *incarnation) database(id regions.ID, _ regions.RegionState) regions.Database {
	return &remote{i, id}
}

// remote is a database's agent as a controller reaches it.
type remote struct {
	i  *incarnation
	id regions.ID
}

// call takes a command to the agent. One that stands still carries it out when it wakes up, however late that is.
func (r *remote) call(ctx context.Context, what string, o regions.Order, do func(*db) error) (regions.DatabaseStatus, error) {
	effect, answer := true, true
	defer r.i.w.awake(r.i.id)
	if r.i.w.awake(r.i.id); what != "status" {
		effect, answer = r.i.effect(fmt.Sprintf("%s %s in %v", what, r.id, o), r.id)
	}
	if !effect {
		return regions.DatabaseStatus{}, errDead
	}
	type result struct {
		st  regions.DatabaseStatus
		err error
	}
	done := make(chan result, 1)
	w := r.i.w
	w.wg.Go(func() {
		for w.rest(2 * time.Millisecond) {
			w.mu.Lock()
			d := w.dbs[r.id]
			if !w.reachesLocked(r.i.id, r.id) || w.deaf[r.id] {
				w.mu.Unlock()
				return // no answer ever
			}
			if w.frozen[r.id] {
				w.mu.Unlock()
				continue
			}
			var res result
			switch {
			case !d.up:
				res.err = errors.New("connection refused")
			case what != "status" && o.Less(d.order):
				res.err = fmt.Errorf("%s: the order %v is older than %v", r.id, o, d.order)
			case do != nil:
				d.order = o
				res.err = do(d)
			}
			if res.st = w.statusLocked(d); w.cfg.noLineage {
				res.st.Epoch, res.st.Timeline = w.state.PrimaryEpoch, 0
			}
			w.mu.Unlock()
			done <- res
			return
		}
	})
	select {
	case <-ctx.Done():
		return regions.DatabaseStatus{}, ctx.Err()
	case res := <-done:
		if !answer {
			return regions.DatabaseStatus{}, errDead
		}
		return res.st, res.err
	}
}

func (w *world) statusLocked(d *db) regions.DatabaseStatus {
	st := regions.DatabaseStatus{Region: d.id, Order: d.order, Role: d.role, System: "s", Epoch: d.epoch(), Timeline: d.timeline, Position: regions.LSN(len(d.log)),
		Upstream: d.upstream, Streaming: w.streamsLocked(d), ReadOnly: d.readOnly, Sync: slices.Clone(d.sync), At: time.Now()}
	if d.role == regions.RolePrimary {
		st.Standbys = map[regions.ID]regions.LSN{}
		for _, id := range w.ids {
			if s := w.dbs[id]; s.upstream == d.id && w.streamsLocked(s) {
				st.Standbys[id] = regions.LSN(len(s.log))
			}
		}
	}
	return st
}

func (r *remote) Status(ctx context.Context) (regions.DatabaseStatus, error) {
	return r.call(ctx, "status", regions.Order{}, nil)
}

func (r *remote) Detach(ctx context.Context, o regions.Order) (regions.DatabaseStatus, error) {
	return r.call(ctx, "detach", o, func(d *db) error {
		if d.role == regions.RoleStandby {
			d.upstream = ""
		}
		return nil
	})
}

func (r *remote) ReadOnly(ctx context.Context, o regions.Order, on bool) (regions.DatabaseStatus, error) {
	return r.call(ctx, fmt.Sprintf("read-only %v", on), o, func(d *db) error { d.readOnly = on; return nil })
}

func (r *remote) SetSync(ctx context.Context, o regions.Order, sync []regions.ID) (regions.DatabaseStatus, error) {
	return r.call(ctx, fmt.Sprintf("set-sync %v", sync), o, func(d *db) error {
		d.sync = slices.Clone(sync)
		return nil
	})
}

func (r *remote) Promote(ctx context.Context, o regions.Order, epoch uint64) (regions.Promotion, error) {
	var p regions.Promotion
	sleep(ctx, r.i.w.cfg.promote)
	_, err := r.call(ctx, "promote", o, func(d *db) error {
		switch {
		case d.role == regions.RoleRejoin:
			return errors.New("it is being copied")
		case d.role == regions.RoleStandby && d.upstream != "" && r.i.w.cfg.controller != mutantNoDetach:
			return errors.New("it is not detached")
		}
		p = regions.Promotion{Epoch: epoch, Fork: regions.LSN(len(d.log)), Timeline: d.timeline}
		if d.role == regions.RoleStandby {
			d.timeline++
			p.Timeline = d.timeline
		}
		d.role, d.readOnly = regions.RolePrimary, false
		if d.epoch() < epoch {
			r.i.w.seq++
			d.log = append(d.log, entry{seq: r.i.w.seq, epoch: epoch, at: time.Now()})
		}
		return nil
	})
	if err != nil { // the command may still be carried out, and p be written
		return regions.Promotion{}, err
	}
	return p, nil
}

func (r *remote) Follow(ctx context.Context, o regions.Order, primary regions.ID, fork regions.LSN) (regions.DatabaseStatus, error) {
	return r.call(ctx, fmt.Sprintf("follow %s from %v:", primary, fork), o, func(d *db) error {
		up := r.i.w.dbs[primary]
		prefix := len(d.log) <= len(up.log) && d.log[len(d.log)-1] == up.log[len(d.log)-1]
		d.upstream = primary
		if prefix && d.role == regions.RoleStandby && fork != 0 {
			return nil
		}
		d.role, d.readyAt = regions.RoleRejoin, time.Now().Add(time.Second)
		return nil
	})
}

func (r *remote) Checkpoint(ctx context.Context, o regions.Order) error {
	_, err := r.call(ctx, "checkpoint", o, func(*db) error { return nil })
	return err
}
