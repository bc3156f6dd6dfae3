package replication

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/shortline/shortline"
)

// LoaderConfig sets up a Loader. Its zero value works.
type LoaderConfig struct {
	// Timeout bounds one read of the database (2 s).
	Timeout    time.Duration
	Registerer prometheus.Registerer
}

// Loader reads stores from a database for those who cache them, each store by one caller at a time.
type Loader struct {
	cfg    LoaderConfig
	source Details

	mu      sync.Mutex
	loading map[shortline.StoreID]*load // guarded by mu

	seconds prometheus.Histogram
}

// load is one read of the database under way; err may be read once done is closed.
type load struct {
	done chan struct{}
	err  error
}

// NewLoader makes a Loader that reads from source.
func NewLoader(source Details, cfg LoaderConfig) *Loader {
	if cfg.Timeout == 0 {
		cfg.Timeout = 2 * time.Second
	}
	l := &Loader{
		cfg: cfg, source: source, loading: map[shortline.StoreID]*load{},
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "shortline_store_details_seconds", Help: "Time of one read of store details from the database.",
			Buckets: prometheus.ExponentialBuckets(0.00005, 2, 16)}),
	}
	if cfg.Registerer != nil {
		cfg.Registerer.MustRegister(l.seconds)
	}
	return l
}

// Load reads the stores and hands those that exist to keep. A store that another caller is reading already is not read
// again: Load waits until that caller's keep has returned. It returns the first error; what could be read is kept all the
// same.
func (l *Loader) Load(ctx context.Context, ids []shortline.StoreID, keep func([]Row)) error {
	var mine []shortline.StoreID
	var theirs []*load
	own := &load{done: make(chan struct{})}
	l.mu.Lock()
	for _, id := range ids {
		if other := l.loading[id]; other == nil {
			l.loading[id] = own
			mine = append(mine, id)
		} else if other != own {
			theirs = append(theirs, other)
		}
	}
	l.mu.Unlock()
	if len(mine) > 0 {
		l.lead(own, mine, keep)
	}
	err := own.err
	for _, other := range theirs {
		select {
		case <-other.done:
			if err == nil {
				err = other.err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return err
}

// lead reads for this caller and for those who wait; it lets them go even if source or keep panics.
func (l *Loader) lead(own *load, ids []shortline.StoreID, keep func([]Row)) {
	own.err = errPanicked
	defer func() {
		l.mu.Lock()
		for _, id := range ids {
			delete(l.loading, id)
		}
		l.mu.Unlock()
		close(own.done)
	}()
	own.err = l.read(ids, keep)
}

var errPanicked = errors.New("the read of store details panicked")

// read does not run under a request's context: others may be waiting for the same rows.
func (l *Loader) read(ids []shortline.StoreID, keep func([]Row)) error {
	ctx, cancel := context.WithTimeout(context.Background(), l.cfg.Timeout)
	defer cancel()
	start := time.Now()
	rows, err := l.source.Rows(ctx, ids)
	l.seconds.Observe(time.Since(start).Seconds())
	if err != nil {
		return fmt.Errorf("read details of %d stores: %w", len(ids), err)
	}
	keep(rows)
	return nil
}
