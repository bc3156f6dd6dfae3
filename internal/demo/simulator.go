package demo

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"time"

	"github.com/shortline/shortline"
)

const (
	// BatchSize is the most updates that are handed to submit at once.
	BatchSize = 100

	defaultRate     = 200
	defaultFillRate = 4000
	// tick is how often updates are sent; a rate below BatchSize/tick makes smaller batches, not fewer.
	tick = 250 * time.Millisecond
	// restless is the least time between two looks at one store.
	restless = 10 * time.Second
	// looksPerUpdate bounds the work of a tick where hardly any line moves.
	looksPerUpdate = 10

	submitTimeout = 10 * time.Second
	backoffMin    = 250 * time.Millisecond
	backoffMax    = 30 * time.Second
)

// Submit takes the next lengths of some stores, at most BatchSize of them and each store at most once. The lengths are
// absolute and ObservedAt is zero, so sending a batch again does no harm. It may keep the slice. An error means that the
// batch has to be sent again; a store that is gone is no error, or the simulator would never get past it.
type Submit func(ctx context.Context, updates []shortline.QueueUpdate) error

// Config sets how lively the simulation is. The zero value works.
type Config struct {
	// Rate is the most updates a second over all stores, once each has had its first; 0: 200.
	Rate float64
	// FillRate is the most first readings a second; 0: 4000. What submit takes is the other limit.
	FillRate float64
	// Seed chooses the dice. Two simulators with the same seed and stores that are run at the same times do the same.
	Seed uint64
	// Now is the clock that the stores live by; nil: time.Now. The pace of sending is not taken from it.
	Now func() time.Time
	// Log gets changes of state; nil: they are dropped.
	Log *slog.Logger
}

// Validate reports every fault of c, or nil.
func (c Config) Validate() error {
	var errs []error
	for _, f := range []struct {
		name string
		v    float64
	}{{"rate", c.Rate}, {"fill rate", c.FillRate}} {
		if math.IsNaN(f.v) || math.IsInf(f.v, 0) || f.v < 0 {
			errs = append(errs, fmt.Errorf("the %s of the simulation is %v, it must be a number of updates a second, or 0 for the default", f.name, f.v))
		}
	}
	return errors.Join(errs...)
}

// Simulator moves the lines of a fixed set of stores. It overwrites what else is reported for them.
type Simulator struct {
	cfg    Config
	submit Submit
	lines  []line // in the order in which they are looked at, over and over
	next   int    // the line to look at next
	rng    *rand.Rand
}

// line is a store under simulation. Only Run touches it.
type line struct {
	id       shortline.StoreID
	shop     shop
	state    state
	reported int // the length that submit took last; -1: none yet
}

// New prepares a simulation of the stores and starts nothing. Where a store has no time zone its longitude has to do; where
// it has no hours it is always open. Stores that pass Validate are never refused.
func New(cfg Config, stores []shortline.Store, submit Submit) (*Simulator, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Rate == 0 {
		cfg.Rate = defaultRate
	}
	if cfg.FillRate == 0 {
		cfg.FillRate = defaultFillRate
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Simulator{cfg: cfg, submit: submit, rng: rand.New(rand.NewPCG(cfg.Seed, 0)), lines: make([]line, len(stores))}
	open := newOpener()
	// Neighbours in the list are neighbours on the map; shuffled, every region moves all the time.
	for i, at := range s.rng.Perm(len(stores)) {
		shop, err := open.shop(&stores[i])
		if err != nil {
			return nil, err
		}
		s.lines[at] = line{id: stores[i].ID, shop: shop, reported: -1}
	}
	return s, nil
}

// opener makes shops of stores, which share time zones and hours.
type opener struct {
	zones map[string]*time.Location
	hours map[string]opening
}

func newOpener() *opener {
	return &opener{zones: map[string]*time.Location{}, hours: map[string]opening{"": nil}}
}

func (o *opener) shop(st *shortline.Store) (shop, error) {
	zone, err := zoneOf(st, o.zones)
	if err != nil {
		return shop{}, fmt.Errorf("simulate store %s: %w", st.ID, err)
	}
	open, ok := o.hours[st.Hours]
	if !ok {
		if open, err = shortline.ParseHours(st.Hours); err != nil {
			return shop{}, fmt.Errorf("simulate store %s: %w", st.ID, err)
		}
		o.hours[st.Hours] = open
	}
	return newShop(st.ID, zone, open, st.ServiceS), nil
}

func zoneOf(st *shortline.Store, cache map[string]*time.Location) (*time.Location, error) {
	if st.Timezone == "" {
		return time.FixedZone("", int(math.Round(st.Lng/15))*3600), nil
	}
	if loc, ok := cache[st.Timezone]; ok {
		return loc, nil
	}
	loc, err := shortline.LoadTimezone(st.Timezone)
	if err != nil {
		return nil, err
	}
	cache[st.Timezone] = loc
	return loc, nil
}

// Run gives every store a first reading at the fill rate, then sends what changes, spread evenly, until ctx ends; then it
// returns nil. It starts no goroutine and must not be called twice. A store is sent only when its length differs from what
// submit took last. While submit fails, Run tries all stores of the batch again (it may have arrived all the same), ever more
// slowly, with their lengths of that moment: nothing that submit did not take counts as sent.
func (s *Simulator) Run(ctx context.Context) error {
	s.cfg.Log.Info("simulation starts", "stores", len(s.lines), "rate", s.cfg.Rate)
	t := time.NewTicker(tick)
	defer t.Stop()
	first := len(s.lines) // how many stores have no reading yet
	filled := first == 0
	var allowance float64
	for {
		rate := s.cfg.Rate
		if !filled {
			rate = s.cfg.FillRate
		}
		// Unused allowance is lost, but for the fraction: a quiet time is not followed by a burst.
		_, fraction := math.Modf(allowance)
		allowance = fraction + rate*tick.Seconds()
		budget := int(allowance)
		if !filled {
			budget = min(budget, first)
			first -= budget
		}
		for _, batch := range s.collect(budget, filled) {
			if !s.deliver(ctx, batch) {
				return nil
			}
		}
		if !filled && first == 0 {
			filled = true
			s.cfg.Log.Info("simulation has a first reading for every store", "stores", len(s.lines))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
	}
}

// collect looks at the next stores until budget of them have changed, and returns those in batches. It looks at each store
// at most once, and never sooner than restless after the last time on average.
func (s *Simulator) collect(budget int, filled bool) [][]*line {
	looks := budget
	if filled {
		perTick := float64(len(s.lines)) * tick.Seconds() / restless.Seconds()
		looks = min(int(math.Ceil(perTick)), looksPerUpdate*budget, len(s.lines))
	}
	now := s.cfg.Now()
	var out [][]*line
	for n := 0; looks > 0 && n < budget; looks-- {
		l := &s.lines[s.next]
		s.next = (s.next + 1) % len(s.lines)
		l.state = l.shop.step(l.state, now, s.rng)
		if l.state.length == l.reported {
			continue
		}
		if n%BatchSize == 0 {
			out = append(out, make([]*line, 0, min(BatchSize, budget-n)))
		}
		out[len(out)-1] = append(out[len(out)-1], l)
		n++
	}
	return out
}

// deliver hands a batch to submit until it takes it; false means that ctx ended before that.
func (s *Simulator) deliver(ctx context.Context, batch []*line) bool {
	wait := backoffMin
	for failures := 0; ; failures++ {
		updates := make([]shortline.QueueUpdate, len(batch))
		lengths := make([]int, len(batch))
		for i, l := range batch {
			if failures > 0 {
				l.state = l.shop.step(l.state, s.cfg.Now(), s.rng)
			}
			lengths[i] = l.state.length
			updates[i] = shortline.QueueUpdate{ID: l.id, Length: &lengths[i]}
		}
		err := s.try(ctx, updates)
		if err == nil {
			for _, l := range batch {
				l.reported = l.state.length
			}
			if failures > 0 {
				s.cfg.Log.Info("simulated updates are taken again", "failures", failures)
			}
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		level := slog.LevelDebug
		if failures == 0 {
			level = slog.LevelWarn
		}
		pause := time.Duration(float64(wait) * (0.5 + s.rng.Float64()/2))
		s.cfg.Log.Log(ctx, level, "simulated updates are not taken, trying again", "err", err, "updates", len(updates), "pause", pause)
		select {
		case <-ctx.Done():
			return false
		case <-time.After(pause):
		}
		wait = min(2*wait, backoffMax)
	}
}

func (s *Simulator) try(ctx context.Context, updates []shortline.QueueUpdate) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, submitTimeout)
	defer cancel()
	return s.submit(ctx, updates)
}
