package rediscache

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/geo"
)

// Config sets up a Cache. Addrs, Deployment and CellOf must be given.
type Config struct {
	// Addrs are host:port of some nodes of the cluster; the others are found through them.
	Addrs              []string
	Username, Password string
	TLS                *tls.Config // nil: none

	// Deployment separates the keys of deployments that share a cluster: 1 to 64 of A-Z, a-z, 0-9, '-', '_' and '.'.
	Deployment shortline.StoreID
	// Database is what tells this deployment's database from that of another with the same name, such as an id made when it
	// was created ("": not looked at). It is of the same form as Deployment.
	Database shortline.StoreID
	// DatabaseOf is asked for it where it is not known yet, until it tells; Redis is not used before. Nil: it never will be known.
	DatabaseOf func(context.Context) (shortline.StoreID, error)
	// Lineage is the number of the history that next reads; see SetLineage.
	Lineage uint64

	// CellOf tells the cell that a store is in; false: it is not known, and the store bypasses Redis. CellOf and MinRev must be
	// quick and safe to call from several goroutines, and must not call the Cache.
	CellOf func(shortline.StoreID) (geo.Cell, bool)
	// MinRev tells the rev of a store in the node's memory; what is older in Redis is passed over. false: memory knows no such
	// store, and it bypasses Redis. Memory must follow the database that next reads. Without MinRev (nil) answers may be
	// up to TTL old, namely when a change was lost on its way to Redis.
	MinRev func(shortline.StoreID) (rev uint64, ok bool)

	// TTL is how long a value lives, give or take a tenth (1 hour).
	TTL time.Duration
	// ReadTimeout bounds a read of Redis (80 ms), WriteTimeout a write (250 ms), StartTimeout the checks at the start (5 s),
	// NextTimeout a read of next (2 s).
	ReadTimeout, WriteTimeout, StartTimeout, NextTimeout time.Duration
	// Queue is how many fills and changes may wait to be written (4,096); more are dropped.
	Queue int
	// PoolSize is how many connections to one node there are at most (16).
	PoolSize int
	// Failures in a row make a node of the cluster be skipped (5), for Pause (1 s) at a time.
	Failures int
	Pause    time.Duration

	// Patient lets New succeed while no Redis answers, or the database is not known. Everything is read from next until Run has found one and checked it, which
	// it tries every Pause.
	Patient bool

	Log        *slog.Logger
	Registerer prometheus.Registerer
}

func (c Config) withDefaults() Config {
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&c.TTL, time.Hour}, {&c.ReadTimeout, 80 * time.Millisecond}, {&c.WriteTimeout, 250 * time.Millisecond},
		{&c.StartTimeout, 5 * time.Second}, {&c.NextTimeout, 2 * time.Second}, {&c.Pause, time.Second},
	} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	for _, n := range []struct {
		field *int
		value int
	}{{&c.Queue, 4096}, {&c.PoolSize, 16}, {&c.Failures, 5}} {
		if *n.field == 0 {
			*n.field = n.value
		}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

// Validate reports every fault at once.
func (c Config) Validate() error {
	var faults []error
	if len(c.Addrs) == 0 {
		faults = append(faults, errors.New("no address of a Redis node is given: name one or more as host:port"))
	}
	if _, err := shortline.ParseStoreID(string(c.Deployment)); err != nil {
		faults = append(faults, fmt.Errorf("the deployment %q cannot stand in a key: use 1 to 64 of A-Z, a-z, 0-9, '-', '_' and '.'", c.Deployment))
	}
	if _, err := shortline.ParseStoreID(string(c.Database)); err != nil && c.Database != "" {
		faults = append(faults, fmt.Errorf("the database id %q cannot stand in a value: use at most 64 of A-Z, a-z, 0-9, '-', '_' and '.'", c.Database))
	}
	if c.CellOf == nil {
		faults = append(faults, errors.New("CellOf is not set: without it no store has a key"))
	}
	for name, d := range map[string]time.Duration{"TTL": c.TTL, "ReadTimeout": c.ReadTimeout, "WriteTimeout": c.WriteTimeout,
		"StartTimeout": c.StartTimeout, "NextTimeout": c.NextTimeout, "Pause": c.Pause} {
		if d < 0 || d > 0 && d < time.Millisecond {
			faults = append(faults, fmt.Errorf("%s is %v: give 1 ms or more, or 0 for the default", name, d))
		}
	}
	for name, n := range map[string]int{"Queue": c.Queue, "PoolSize": c.PoolSize, "Failures": c.Failures} {
		if n < 0 {
			faults = append(faults, fmt.Errorf("%s is %d: give 1 or more, or 0 for the default", name, n))
		}
	}
	return errors.Join(faults...)
}

// owner stands in every value: two deployments of one name, of which each has its own database, do not believe each other.
func (c Config) owner() string { return string(c.Deployment) + "/" + string(c.Database) }

func (c Config) breaker() breakerConfig { return breakerConfig{failures: c.Failures, pause: c.Pause} }

// noMaintenance keeps the client from asking for announcements that only a commercial Redis makes.
var noMaintenance = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
