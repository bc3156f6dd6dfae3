package replication

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"time"

	"github.com/VictoriaMetrics/fastcache"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/shortline/shortline"
)

// DetailsConfig sets up a DetailsCache. Its zero value works, but for Encode.
type DetailsConfig struct {
	// MaxBytes bounds the cache (256 MiB; at least 32 MiB). It lies outside the garbage collector's heap.
	MaxBytes int
	// LoadTimeout bounds one read of the database (2 s).
	LoadTimeout time.Duration
	// Encode appends what is cached of a row to dst; at most 60,000 bytes, or the row is not cached.
	Encode     func(dst []byte, row *Row) []byte
	Registerer prometheus.Registerer
}

// DetailsCache keeps encoded details of stores in bounded memory in front of a database. Every entry carries the rev of
// its row, and a reader says which rev it must have at least, so that an entry that is out of date is a miss by itself: no
// invalidation is needed, and a slow fill can do no harm.
type DetailsCache struct {
	cfg    DetailsConfig
	cache  *fastcache.Cache
	source Details

	mu      sync.Mutex
	loading map[shortline.StoreID]*load // guarded by mu

	hits, misses prometheus.Counter
	loadSeconds  prometheus.Histogram
}

// load is one read of the database under way; err may be read once done is closed.
type load struct {
	done chan struct{}
	err  error
}

// NewDetailsCache makes an empty cache in front of source.
func NewDetailsCache(source Details, cfg DetailsConfig) *DetailsCache {
	if cfg.MaxBytes == 0 {
		cfg.MaxBytes = 256 << 20
	}
	if cfg.LoadTimeout == 0 {
		cfg.LoadTimeout = 2 * time.Second
	}
	d := &DetailsCache{
		cfg: cfg, cache: fastcache.New(cfg.MaxBytes), source: source, loading: map[shortline.StoreID]*load{},
		hits:   prometheus.NewCounter(prometheus.CounterOpts{Name: "shortline_details_cache_hits_total", Help: "Store details found in the node's cache."}),
		misses: prometheus.NewCounter(prometheus.CounterOpts{Name: "shortline_details_cache_misses_total", Help: "Store details that had to be read from the database."}),
		loadSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "shortline_store_details_seconds", Help: "Time of one read of store details from the database.",
			Buckets: prometheus.ExponentialBuckets(0.00005, 2, 16)}),
	}
	if r := cfg.Registerer; r != nil {
		r.MustRegister(d.hits, d.misses, d.loadSeconds, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "shortline_details_cache_bytes", Help: "Memory of the details cache."}, func() float64 {
			var s fastcache.Stats
			d.cache.UpdateStats(&s)
			return float64(s.BytesSize)
		}))
	}
	return d
}

// Get appends the cached details of the store to dst if they are of minRev or newer; otherwise it returns dst as it was.
func (d *DetailsCache) Get(dst []byte, id shortline.StoreID, minRev uint64) ([]byte, bool) {
	var key [64]byte
	out := d.cache.Get(dst, append(key[:0], id...))
	const trailer = 8
	if n := len(out) - trailer; n >= len(dst) && binary.LittleEndian.Uint64(out[n:]) >= minRev {
		d.hits.Inc()
		return out[:n], true
	}
	d.misses.Inc()
	return out[:len(dst)], false
}

// Load reads the stores from the database and puts those that exist into the cache. Each store is read by one caller at a
// time; the others wait for that read. It returns the first error; what could be read is in the cache all the same.
func (d *DetailsCache) Load(ctx context.Context, ids []shortline.StoreID) error {
	var mine []shortline.StoreID
	var theirs []*load
	own := &load{done: make(chan struct{})}
	d.mu.Lock()
	for _, id := range ids {
		if l := d.loading[id]; l == nil {
			d.loading[id] = own
			mine = append(mine, id)
		} else if l != own {
			theirs = append(theirs, l)
		}
	}
	d.mu.Unlock()
	if len(mine) > 0 {
		own.err = d.fill(mine)
		d.mu.Lock()
		for _, id := range mine {
			delete(d.loading, id)
		}
		d.mu.Unlock()
		close(own.done)
	}
	err := own.err
	for _, l := range theirs {
		select {
		case <-l.done:
			if err == nil {
				err = l.err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return err
}

// fill does not run under a request's context: others may be waiting for the same rows.
func (d *DetailsCache) fill(ids []shortline.StoreID) error {
	ctx, cancel := context.WithTimeout(context.Background(), d.cfg.LoadTimeout)
	defer cancel()
	start := time.Now()
	rows, err := d.source.Rows(ctx, ids)
	d.loadSeconds.Observe(time.Since(start).Seconds())
	if err != nil {
		return fmt.Errorf("read details of %d stores: %w", len(ids), err)
	}
	for i := range rows {
		d.Put(&rows[i])
	}
	return nil
}

// Put caches a row that the caller has read. It may be an older one than what is there; readers notice by its rev.
func (d *DetailsCache) Put(row *Row) {
	value := d.cfg.Encode(make([]byte, 0, 512), row)
	if len(value) > 60_000 { // fastcache takes 64 KiB with the key
		return
	}
	d.cache.Set([]byte(row.Store.ID), binary.LittleEndian.AppendUint64(value, row.Rev))
}

// Close gives the memory back. Nothing may use the cache afterwards.
func (d *DetailsCache) Close() { d.cache.Reset() }
