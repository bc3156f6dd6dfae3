package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/shortline/shortline/regions"
)

// ErrNoLease says that this node may not acknowledge writes at the moment.
var ErrNoLease = errors.New("this node does not hold the lease")

// LeaseConfig says whose lease it is and how long it lasts.
type LeaseConfig struct {
	Region regions.ID
	Node   string // unique in the cluster
	// TTL is how long a renewal lasts, from before it was asked for (1.5 s). Every is how often it is renewed (0.4 s). Margin is
	// how much before its end the lease is not used any more: longer than anything takes between a check and what rests on it (0.1 s).
	TTL, Every, Margin time.Duration

	Clock      func() time.Duration  // nil: Boottime
	Log        *slog.Logger          // nil: none
	Registerer prometheus.Registerer // nil: none
}

// MaxTTL bounds LeaseConfig.TTL: a failover waits at least that long.
const MaxTTL = regions.MaxLeaseTTL

// Validate reports every fault.
func (c LeaseConfig) Validate() error {
	c = c.withDefaults()
	var faults []error
	if c.TTL > MaxTTL {
		faults = append(faults, fmt.Errorf("a lease of %v (--lease-ttl) is longer than %v", c.TTL, MaxTTL))
	}
	if c.Margin < 0 || c.Every <= 0 || c.TTL < 2*c.Every+c.Margin {
		faults = append(faults, fmt.Errorf("a lease of %v that is renewed every %v and not used for its last %v would not last through one renewal that is lost", c.TTL, c.Every, c.Margin))
	}
	if c.Region == "" || c.Node == "" {
		faults = append(faults, errors.New("a lease needs a region and a node"))
	}
	return errors.Join(faults...)
}

func (c LeaseConfig) withDefaults() LeaseConfig {
	set := func(d *time.Duration, to time.Duration) {
		if *d == 0 {
			*d = to
		}
	}
	set(&c.TTL, 1500*time.Millisecond)
	set(&c.Every, 400*time.Millisecond)
	set(&c.Margin, 100*time.Millisecond)
	if c.Clock == nil {
		c.Clock = Boottime
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Registerer == nil {
		c.Registerer = prometheus.NewRegistry()
	}
	return c
}

// Plane is the agreed state as a lease needs it; a Node is one.
type Plane interface {
	State() regions.State
	Changed() <-chan struct{}
	Propose(ctx context.Context, c regions.Command) error
}

// Lease is this node's right to acknowledge writes: for a while after each renewal that was agreed on, counted from before it
// was asked for. It renews while its region is primary and nothing is under way that takes that from it, and gives the lease
// back when something is.
type Lease struct {
	cfg   LeaseConfig
	plane Plane
	log   *slog.Logger

	grant atomic.Pointer[grant] // what is held; nil: nothing
	mu    sync.Mutex
	ended uint64        // the greatest epoch whose lease was given back: a late answer does not bring it back; guarded by mu
	given chan struct{} // closed and replaced when the lease is given after it was not held; guarded by mu

	renewals *prometheus.CounterVec
	took     prometheus.Histogram
	mutant   leaseMutant
}

type grant struct {
	epoch uint64
	until time.Duration // by the clock
}

// leaseMutant switches a safeguard off, for the tests of the tests.
type leaseMutant uint8

const (
	leaseSound    leaseMutant = iota
	leaseForever              // it does not end
	leaseLate                 // it is counted from the answer
	leaseKept                 // it is not given up when it is given back
	leaseComeback             // an answer that is late brings it back
)

// NewLease makes a Lease. It holds nothing before Run.
func NewLease(cfg LeaseConfig, plane Plane) (*Lease, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	l := &Lease{cfg: cfg, plane: plane, log: cfg.Log.With("part", "lease"), given: make(chan struct{})}
	l.renewals = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "shortline_lease_renewals_total", Help: "Renewals of the write lease that this node asked for, by result."}, []string{"result"})
	for _, result := range []string{"renewed", "waiting", "refused", "failed"} {
		l.renewals.WithLabelValues(result)
	}
	l.took = prometheus.NewHistogram(prometheus.HistogramOpts{Name: "shortline_lease_renewal_seconds", Help: "How long a renewal of the write lease took.", Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2}})
	cfg.Registerer.MustRegister(l.renewals, l.took, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "shortline_lease_remaining_seconds", Help: "For how long this node may still acknowledge writes without another renewal; 0: it may not."},
		func() float64 { return l.Remaining().Seconds() }))
	return l, nil
}

// Check returns the epoch in which this node may acknowledge writes now, or an error that wraps ErrNoLease. It does not block.
func (l *Lease) Check() (epoch uint64, err error) {
	g := l.grant.Load()
	if g == nil {
		return 0, l.why()
	}
	if now := l.cfg.Clock(); now >= g.until && l.mutant != leaseForever {
		return 0, fmt.Errorf("%w: it lapsed %v ago, as it could not be renewed", ErrNoLease, (now - g.until).Round(time.Millisecond))
	}
	return g.epoch, nil
}

// why tells why nothing is held.
func (l *Lease) why() error {
	s := l.plane.State()
	switch {
	case s.ClusterID == "":
		return fmt.Errorf("%w: the control state is not known yet", ErrNoLease)
	case s.Primary != l.cfg.Region:
		return fmt.Errorf("%w: %s is primary, not %s", ErrNoLease, s.Primary, l.cfg.Region)
	case s.Operation != nil:
		return fmt.Errorf("%w: a %s is under way", ErrNoLease, s.Operation.Kind)
	}
	return fmt.Errorf("%w: it is being asked for", ErrNoLease)
}

// Remaining tells for how long the lease lasts without another renewal.
func (l *Lease) Remaining() time.Duration {
	g := l.grant.Load()
	if g == nil {
		return 0
	}
	return max(0, g.until-l.cfg.Clock())
}

// Given returns a channel that is closed when this node gets the lease next time, after it did not hold it.
func (l *Lease) Given() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.given
}

// maxRenewals is how many renewals may be under way at once: while one waits for a leader that is gone, the next may find the
// new one.
const maxRenewals = 3

// Run renews the lease until ctx ends, and then gives it back: whoever acknowledges writes must have stopped by then.
func (l *Lease) Run(ctx context.Context) error {
	var all sync.WaitGroup
	defer func() {
		all.Wait()
		if g := l.grant.Load(); g != nil {
			l.surrender(context.WithoutCancel(ctx), g.epoch)
		}
	}()
	ticker := time.NewTicker(l.cfg.Every)
	defer ticker.Stop()
	slots := make(chan struct{}, maxRenewals)
	for asked := uint64(0); ; {
		changed := l.plane.Changed()
		s := l.plane.State()
		epoch := s.PrimaryEpoch
		takes := s.TakesWrites(l.cfg.Region, epoch)
		if g := l.grant.Load(); g != nil && (!takes || g.epoch != epoch) {
			l.giveUp(g.epoch)
			all.Go(func() { l.surrender(ctx, g.epoch) })
		}
		if takes && asked != epoch { // do not wait for the tick in a new epoch
			asked = epoch
			l.ask(ctx, &all, slots, epoch)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-ticker.C:
			if takes {
				l.ask(ctx, &all, slots, epoch)
			}
		}
	}
}

// ask begins a renewal, unless too many are under way.
func (l *Lease) ask(ctx context.Context, all *sync.WaitGroup, slots chan struct{}, epoch uint64) {
	select {
	case slots <- struct{}{}:
	default:
		l.renewals.WithLabelValues("waiting").Inc()
		return
	}
	all.Go(func() {
		defer func() { <-slots }()
		l.renew(ctx, epoch)
	})
}

// renew asks for the lease once. The time is noted before the question, so that it ends here before anybody who knows of the
// renewal takes it to have ended.
func (l *Lease) renew(ctx context.Context, epoch uint64) {
	t0 := l.cfg.Clock()
	ctx, cancel := context.WithTimeout(ctx, l.cfg.TTL) // an answer after that is of no use
	defer cancel()
	err := l.plane.Propose(ctx, regions.Command{At: time.Now(), By: l.cfg.Node,
		Renew: &regions.Renew{Region: l.cfg.Region, Epoch: epoch, Node: l.cfg.Node, TTLMS: l.cfg.TTL.Milliseconds()}})
	var refused *regions.RefusedError
	switch {
	case err == nil:
		l.renewals.WithLabelValues("renewed").Inc()
		l.took.Observe((l.cfg.Clock() - t0).Seconds())
		if l.mutant == leaseLate {
			t0 = l.cfg.Clock()
		}
		l.extend(epoch, t0+l.cfg.TTL-l.cfg.Margin)
	case errors.As(err, &refused) && refused.Rule != regions.RuleNoLeader:
		l.renewals.WithLabelValues("refused").Inc()
		l.log.Debug("the lease was not renewed", "epoch", epoch, "err", err)
	default:
		l.renewals.WithLabelValues("failed").Inc()
		l.log.Debug("the lease was not renewed", "epoch", epoch, "err", err)
	}
}

// extend takes a renewal over, unless the lease was given back since it was asked for.
func (l *Lease) extend(epoch uint64, until time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	g := l.grant.Load()
	if epoch <= l.ended && l.mutant != leaseComeback || g != nil && (g.epoch > epoch || g.epoch == epoch && g.until >= until) {
		return
	}
	l.grant.Store(&grant{epoch, until})
	if g == nil || g.epoch != epoch || g.until <= l.cfg.Clock() {
		close(l.given)
		l.given = make(chan struct{})
	}
	if g == nil || g.epoch != epoch {
		l.log.Info("this node holds the lease", "region", l.cfg.Region, "epoch", epoch)
	}
}

// giveUp ends the lease of an epoch for good.
func (l *Lease) giveUp(epoch uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = max(l.ended, epoch)
	if g := l.grant.Load(); g != nil && g.epoch <= epoch && l.mutant != leaseKept {
		l.grant.Store(nil)
		l.log.Info("this node gives the lease back", "region", l.cfg.Region, "epoch", epoch)
	}
}

// surrender tells the others that the lease is not used any more, so that nobody waits for its end. Whether it is heard or not,
// it is not used any more.
func (l *Lease) surrender(ctx context.Context, epoch uint64) {
	l.giveUp(epoch)
	ctx, cancel := context.WithTimeout(ctx, l.cfg.TTL)
	defer cancel()
	err := l.plane.Propose(ctx, regions.Command{At: time.Now(), By: l.cfg.Node, Surrender: &regions.Surrender{Region: l.cfg.Region, Epoch: epoch, Node: l.cfg.Node}})
	if err != nil {
		l.log.Debug("giving the lease back", "epoch", epoch, "err", err)
	}
}
