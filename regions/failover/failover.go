// Package failover carries out what regions.Decide decides: it looks at the databases, begins, resumes and ends changes of
// the primary, and keeps the sync set and the standbys in order.
//
// It promises that it may die at any moment: each step of an operation is idempotent or committed, so whichever controller
// leads next goes on from what is agreed. It commands databases through regions.Database and the agreed state through
// Control, and knows no raft, no SQL and no HTTP.
package failover

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/shortline/shortline/regions"
)

// Control is the control plane as a controller needs it.
type Control interface {
	// State is what is agreed upon, as far as it is applied here.
	State() regions.State
	// Changed returns a channel that is closed at the next change of State.
	Changed() <-chan struct{}
	// ProposeIn returns nil once the command is applied here; a *regions.RefusedError where it was refused, as it is with RuleNoLeader where
	// this node does not lead in the term any more. With any other error it may or may not be applied, now or later.
	ProposeIn(ctx context.Context, term uint64, c regions.Command) error
	// Leading tells whether this node leads and has applied all that was committed before its term.
	Leading() (term uint64, ok bool)
	// Renewed is how long ago this node applied the last renewal of the lease by that node of the primary region, or by any for
	// ""; since its own start where it has applied none.
	Renewed(node string) time.Duration
}

// Config sets up a Controller. Self is required.
type Config struct {
	Self   string // this node, for the history
	Policy regions.Policy
	// Probe is how often each database is looked at (250 ms), Call how long an answer may take (1 s), Command how long a command
	// other than a promotion may take (3 s), Promote how long that may (15 s).
	Probe, Call, Command, Promote time.Duration
	// Poll is how often something is looked at that is about to happen (5 ms).
	Poll time.Duration
	// Follow is how long an operation waits in its end for a standby that confirms writes (5 s).
	Follow time.Duration
	// Practice is when to switch over for practice, in the five fields of cron, UTC; "": never.
	Practice string
}

func (c *Config) defaults() {
	set := func(d *time.Duration, to time.Duration) {
		if *d == 0 {
			*d = to
		}
	}
	set(&c.Probe, 250*time.Millisecond)
	set(&c.Call, time.Second)
	set(&c.Command, 3*time.Second)
	set(&c.Promote, 15*time.Second)
	set(&c.Poll, 5*time.Millisecond)
	set(&c.Follow, 5*time.Second)
	c.Policy = c.Policy.WithDefaults()
}

// Deps are what a Controller works with. Control and Database are required.
type Deps struct {
	Control Control
	// Database returns the database of a region, which is asked for again and again.
	Database func(regions.ID, regions.RegionState) regions.Database
	// Room tells how many requests a second a region bears now, and how many the others could bear besides their own. ok is false
	// while that is not known.
	Room    func(regions.ID) (bears, room float64, ok bool)
	Log     *slog.Logger
	Metrics prometheus.Registerer
	Now     func() time.Time // time of day
}

// Controller watches over the primary while its node leads the control plane. Several may run, one acts.
type Controller struct {
	cfg  Config
	deps Deps
	log  *slog.Logger
	born time.Time
	kick chan struct{}
	met  *metrics

	mu      sync.Mutex
	watch   regions.Watch           // guarded by mu
	asking  map[regions.ID]bool     // guarded by mu: a question is under way
	blocked []*regions.RefusedError // guarded by mu: what bars the failover that is wanted

	began began // guarded by mu

	// Only the loop touches these.
	retry       map[regions.ID]time.Time // when a region may next be told to follow
	checkpoints uint64                   // the epoch of the last checkpoint
	said        string
	follows     sync.WaitGroup // databases that are being told to follow
	named       named          // the target that has its standbys named already

	mutant mutant
}

// mutant switches a safeguard off, for the tests of the tests.
type mutant uint8

const (
	mutantNone     mutant = iota
	mutantRechoose        // the target is chosen again by whoever resumes
	mutantNoWait          // the lease is not waited out
	mutantNoDetach        // nobody is detached
)

// began is the intent that this controller committed itself, so that it can measure the pause by its own clock.
type began struct {
	epoch uint64
	at    time.Time
}

// named is a target whose own answer, after it was detached, has shown that its standbys are named as they will be committed.
type named struct {
	epoch  uint64
	target regions.ID
}

// New makes a Controller. It starts nothing; see Run.
func New(cfg Config, deps Deps) (*Controller, error) {
	cfg.defaults()
	if cfg.Self == "" || deps.Control == nil || deps.Database == nil {
		return nil, errors.New("a controller needs a name, the control plane and the databases")
	}
	if _, err := schedule(cfg.Practice); err != nil {
		return nil, err
	}
	if deps.Log == nil {
		deps.Log = slog.New(slog.DiscardHandler)
	}
	if deps.Now == nil {
		deps.Now = time.Now
	}
	if deps.Metrics == nil {
		deps.Metrics = prometheus.NewRegistry()
	}
	c := &Controller{cfg: cfg, deps: deps, log: deps.Log, born: time.Now(), kick: make(chan struct{}, 1),
		asking: map[regions.ID]bool{}, retry: map[regions.ID]time.Time{}}
	c.met = newMetrics(deps.Metrics, c)
	return c, nil
}

// Run watches and acts until the context ends.
func (c *Controller) Run(ctx context.Context) error {
	var probes sync.WaitGroup
	defer c.follows.Wait()
	defer probes.Wait()
	probes.Go(func() { c.practise(ctx) })
	tick := time.NewTicker(c.cfg.Probe)
	defer tick.Stop()
	for ctx.Err() == nil {
		changed := c.deps.Control.Changed()
		term, leads := c.deps.Control.Leading()
		c.mu.Lock()
		c.watch.Leads(term, leads, time.Since(c.born))
		c.mu.Unlock()
		if leads {
			c.ask(ctx, &probes)
			if c.turn(ctx) {
				continue
			}
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		case <-changed:
		case <-c.kick:
		}
	}
	return nil
}

// ask looks at each database that is not being looked at, without waiting for the answers.
func (c *Controller) ask(ctx context.Context, probes *sync.WaitGroup) {
	s := c.deps.Control.State()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, id := range s.Databases() {
		if c.asking[id] {
			continue
		}
		c.asking[id] = true
		probes.Go(func() {
			began := time.Now()
			ctx, cancel := context.WithTimeout(ctx, c.cfg.Call)
			defer cancel()
			st, err := c.deps.Database(id, s.Regions[id]).Status(ctx)
			c.saw(id, st, err)
			if rest := c.cfg.Probe - time.Since(began); rest > 0 && err == nil {
				sleep(ctx, rest/2)
			}
			c.mu.Lock()
			defer c.mu.Unlock()
			delete(c.asking, id)
		})
	}
}

func (c *Controller) saw(id regions.ID, st regions.DatabaseStatus, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.watch.Saw(id, st, err, time.Since(c.born))
}

// Situation is what this controller knows now.
func (c *Controller) Situation() regions.Situation {
	s, renewed := c.deps.Control.State(), c.deps.Control.Renewed("")
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.watch.Situation(s, renewed, time.Since(c.born))
}

// turn decides and acts once. It returns true where something was done and the next thing should be looked for at once.
func (c *Controller) turn(ctx context.Context) bool {
	sit := c.Situation()
	a := regions.Decide(sit, c.cfg.Policy, c.deps.Now())
	c.say(a)
	if a.Do == regions.Nothing {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Policy.Stall+c.cfg.Promote)
	defer cancel()
	err := c.act(ctx, sit, a)
	switch {
	case errors.Is(err, errNotYet):
		return false
	case err != nil && ctx.Err() == nil:
		c.log.Info("an action did not succeed and is tried again", "action", a.Do, "region", a.Region, "epoch", sit.State.Epoch, "err", err)
		c.met.failures.Inc()
		return false
	}
	return err == nil
}

// say logs what bars a failover when that changes.
func (c *Controller) say(a regions.Action) {
	c.mu.Lock()
	c.blocked = a.Blocked
	c.mu.Unlock()
	text := ""
	for _, why := range a.Blocked {
		text += string(why.Rule) + " "
	}
	if text == c.said {
		return
	}
	c.said = text
	for _, why := range a.Blocked {
		c.log.Warn("what should be done about the primary is barred", "rule", why.Rule, "detail", why.Detail, "evidence", a.Evidence)
	}
}

// errNotYet says that an action has to wait for something that is not under this controller's hand.
var errNotYet = errors.New("not yet")

// act does one thing.
func (c *Controller) act(ctx context.Context, s regions.Situation, a regions.Action) error {
	if a.Do != regions.Resume {
		c.log.Info("acting", "action", a.Do, "region", a.Region, "why", a.Why, "epoch", s.State.Epoch)
	}
	switch a.Do {
	case regions.Begin:
		return c.begin(ctx, regions.Command{Why: a.Why, Intent: a.Intent})
	case regions.Resume:
		return c.resume(ctx, s)
	case regions.CallOff:
		return c.propose(ctx, regions.Command{Why: a.Why, Abort: &regions.Abort{Epoch: s.State.Operation.Epoch}})
	case regions.Reopened:
		return c.propose(ctx, regions.Command{Why: a.Why, Reopen: &regions.Reopen{Epoch: s.State.Operation.Epoch, Evidence: a.Evidence}})
	}
	return c.tend(ctx, s, a)
}

// begin commits an intent, and notes when. The standbys of a switchover's target are named before, which then costs no pause.
func (c *Controller) begin(ctx context.Context, cmd regions.Command) error {
	if in := cmd.Intent; in.Kind == regions.Switchover {
		s := c.deps.Control.State()
		s.Operation = &regions.Operation{Members: in.Members}
		c.nameAhead(ctx, s, in.To)
	}
	at := time.Now()
	if err := c.propose(ctx, cmd); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.began = began{cmd.Intent.Epoch, at}
	return nil
}

// pause is for how long an operation has been stopping writes.
func (c *Controller) pause(op *regions.Operation) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.began.epoch == op.Epoch {
		return time.Since(c.began.at)
	}
	return c.deps.Now().Sub(op.Begun)
}

// propose commits a command in this controller's name, unless it has another, in the term in which it was decided: a controller that stood still
// and does not know yet that it was replaced must not have its decision taken by the one that replaced it.
func (c *Controller) propose(ctx context.Context, cmd regions.Command) error {
	c.mu.Lock()
	term := c.watch.Term()
	c.mu.Unlock()
	cmd.At = c.deps.Now().UTC()
	if cmd.By == "" {
		cmd.By = c.cfg.Self
	}
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Command)
	defer cancel()
	return c.deps.Control.ProposeIn(ctx, term, cmd)
}

// commander returns a region's database and what commands to it have to carry. The error says that this node does not lead
// any more, so that its commands should not be given.
func (c *Controller) commander(id regions.ID) (regions.Database, regions.Order, error) {
	term, leads := c.deps.Control.Leading()
	if !leads {
		return nil, regions.Order{}, errors.New("this node does not lead any more")
	}
	s := c.deps.Control.State()
	r, ok := s.Regions[id]
	if !ok {
		return nil, regions.Order{}, fmt.Errorf("there is no region %s any more", id)
	}
	return c.deps.Database(id, r), s.Order(term), nil
}

// command gives one command to a region's database, with its deadline, and takes the answer for a look at it.
func (c *Controller) command(ctx context.Context, id regions.ID, what string, do func(context.Context, regions.Database, regions.Order) (regions.DatabaseStatus, error)) (regions.DatabaseStatus, error) {
	db, order, err := c.commander(id)
	if err != nil {
		return regions.DatabaseStatus{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Command)
	defer cancel()
	st, err := do(ctx, db, order)
	if err != nil {
		return st, fmt.Errorf("%s %s in %v: %w", what, id, order, err)
	}
	c.saw(id, st, nil)
	return st, nil
}

// sleep waits, and returns false where the context ended before.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// Kick makes the loop look again at once.
func (c *Controller) Kick() {
	select {
	case c.kick <- struct{}{}:
	default:
	}
}

func sorted(ids []regions.ID) []regions.ID { ids = slices.Clone(ids); slices.Sort(ids); return ids }
