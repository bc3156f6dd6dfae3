// Package rediscache keeps store details in a Redis Cluster, in front of the database that a node reads them from.
//
// It promises that Redis only ever makes reads cheaper: an answer is never older than what the node's memory knew when it
// was asked for, whatever Redis holds, loses, refuses or delays, and a read fails only if the database fails. Three things
// see to that, and none relies on the others:
//
//   - A value says of which deployment, lineage and rev it is, and is used only if all of them suit the reader. So it does
//     no harm if a change never reaches Redis: those who know of the change pass over the old value, and those who do not
//     are answered as of their own memory.
//   - Redis replaces a value only by one of a greater (lineage, rev); a fill that is late loses against a change.
//   - A fill that was read from the database before a change is not written after it by the same node.
//
// It must not know what serves the stores, nor how changes travel: it is told of both through Config and Apply.
package rediscache

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/replication"
)

// Cache is a replication.Details that looks in Redis first. Its methods may be called from several goroutines.
type Cache struct {
	cfg     Config
	client  *redis.ClusterClient
	next    replication.Details
	loader  *replication.Loader
	queue   chan job
	pending atomic.Int64 // jobs in the queue or being written
	lineage atomic.Uint64
	usable  atomic.Bool // Redis has been checked
	owner   string
	metrics *metrics
	log     *slog.Logger

	// mu makes one step of looking at landings and adding to the queue: see Apply. No I/O happens under it.
	mu       sync.Mutex
	landings map[shortline.StoreID]*landing // guarded by mu

	breakers breakers

	// Safeguards that tests switch off to see that something then fails.
	unversioned, unchecked, floorless bool
	// late, if set, takes jobs in place of Redis; tests deliver them in another order.
	late func(jobs []job)
}

var _ replication.Details = (*Cache)(nil)

// New connects to Redis, makes sure that it can be used, and returns a Cache of what next reads. It starts nothing: until
// Run is called nothing is written to Redis. The error says what to do; it wraps ErrUnreachable if Redis did not answer and
// the Config is not Patient.
func New(ctx context.Context, cfg Config, next replication.Details) (*Cache, error) {
	cfg = cfg.withDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("set up the Redis cache: %w", err)
	}
	c := &Cache{
		cfg: cfg, next: next, queue: make(chan job, cfg.Queue), owner: cfg.owner(), log: cfg.Log,
		landings: map[shortline.StoreID]*landing{},
	}
	c.lineage.Store(cfg.Lineage)
	c.metrics = newMetrics(c)
	c.breakers = breakers{cfg: cfg.breaker(), log: cfg.Log, nodes: map[string]*breaker{}}
	c.loader = replication.NewLoader(source{c}, replication.LoaderConfig{Timeout: cfg.NextTimeout})
	c.client = newClient(cfg, &c.breakers)
	switch err := c.prepare(ctx); {
	case err == nil:
	case cfg.Patient && (errors.Is(err, ErrUnreachable) || errors.Is(err, errNoDatabase)):
		cfg.Log.Warn("Redis is not used yet; details come from the database until it is", "err", err)
	default:
		_ = c.client.Close()
		return nil, err
	}
	if cfg.Registerer != nil {
		c.metrics.register(cfg.Registerer)
	}
	return c, nil
}

// errNoDatabase says that it is not known yet of which database the keys would be.
var errNoDatabase = errors.New("the database has not told which one it is")

// prepare checks that Redis can be used and is ours.
func (c *Cache) prepare(ctx context.Context) error {
	if c.cfg.Database == "" && c.cfg.DatabaseOf != nil {
		id, err := c.cfg.DatabaseOf(ctx)
		if _, bad := shortline.ParseStoreID(string(id)); err != nil || bad != nil {
			return fmt.Errorf("%w: %w", errNoDatabase, errors.Join(err, bad))
		}
		c.cfg.Database = id
		c.owner = c.cfg.owner() // nobody looks at it before usable is set
	}
	err := check(ctx, c.cfg)
	if err == nil {
		err = c.mark(ctx)
	}
	c.usable.Store(err == nil)
	return err
}

// seek waits for Redis, if it could not be used so far, until ctx ends. What is wrong with it is logged when it is new.
func (c *Cache) seek(ctx context.Context) {
	ticker := time.NewTicker(c.cfg.Pause)
	defer ticker.Stop()
	for said := ""; !c.usable.Load(); {
		err := c.prepare(ctx)
		switch {
		case err == nil:
			c.log.Info("Redis answers; details are cached in it from now on")
			return
		case ctx.Err() == nil && err.Error() != said && !errors.Is(err, ErrUnreachable) && !errors.Is(err, errNoDatabase):
			said = err.Error()
			c.log.Error("Redis answers and cannot be used; details come from the database", "err", err)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// SetLineage makes values of older lineages misses from now on. It is called when the database that next reads follows
// the new history and not before: what is read from next afterwards is taken to be of this lineage. A smaller number than
// the present one changes nothing.
func (c *Cache) SetLineage(n uint64) {
	for {
		old := c.lineage.Load()
		if n <= old || c.lineage.CompareAndSwap(old, n) {
			return
		}
	}
}

// Close closes the connections. Rows goes on answering from next.
func (c *Cache) Close() error { return c.client.Close() }

// newClient sets the client up to give up early: whatever takes longer than a read of the database is of no use.
func newClient(cfg Config, b *breakers) *redis.ClusterClient {
	slowest := max(cfg.ReadTimeout, cfg.WriteTimeout)
	return redis.NewClusterClient(&redis.ClusterOptions{
		Addrs: cfg.Addrs, Username: cfg.Username, Password: cfg.Password, TLSConfig: cfg.TLS,
		// The context has the deadline of the call; these bound what the client does by itself.
		ContextTimeoutEnabled: true, DialTimeout: slowest, ReadTimeout: slowest, WriteTimeout: slowest, PoolTimeout: slowest,
		DialerRetries: 1, MinRetryBackoff: time.Millisecond, MaxRetryBackoff: 8 * time.Millisecond,
		// After a failover the client asks the node that is gone until it loads the cluster's state again.
		ClusterStateReloadInterval: time.Second,
		PoolSize:                   cfg.PoolSize,
		DisableIdentity:            true, DisableRoutingPolicies: true,
		MaintNotificationsConfig: noMaintenance,
		NewClient: func(opt *redis.Options) *redis.Client {
			client := redis.NewClient(opt)
			client.AddHook(hook{breaker: b.of(opt.Addr)})
			return client
		},
	})
}
