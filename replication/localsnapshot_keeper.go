package replication

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// SnapshotKeeperConfig sets up a SnapshotKeeper. Path and Save.Deployment have to be set.
type SnapshotKeeperConfig struct {
	Path string
	// Save is how saves are made; they are gentle, except for the last one.
	Save SaveConfig
	// Every is the time between two saves (15 min, a tenth more or less, so that nodes do not fall into step). The first one
	// is made after FirstAfter (1 min).
	Every, FirstAfter time.Duration
	// StopTimeout bounds the save at the end (10 s). If it does not suffice the former file stays.
	StopTimeout time.Duration
	Log         *slog.Logger
	Registerer  prometheus.Registerer
}

// SnapshotKeeper saves the local snapshot of a node now and then, and when the node stops.
type SnapshotKeeper struct {
	cfg    SnapshotKeeperConfig
	source Source
	saved  atomic.Int64 // when, in milliseconds since 1970; 0: not in this life
	failed prometheus.Counter
}

// NewSnapshotKeeper makes a SnapshotKeeper. It starts nothing; see Run.
func NewSnapshotKeeper(source Source, cfg SnapshotKeeperConfig) *SnapshotKeeper {
	if cfg.Every == 0 {
		cfg.Every = 15 * time.Minute
	}
	if cfg.FirstAfter == 0 {
		cfg.FirstAfter = time.Minute
	}
	if cfg.StopTimeout == 0 {
		cfg.StopTimeout = 10 * time.Second
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	k := &SnapshotKeeper{cfg: cfg, source: source,
		failed: prometheus.NewCounter(prometheus.CounterOpts{Name: "shortline_local_snapshot_failures_total", Help: "Local snapshots that could not be saved."})}
	if cfg.Registerer != nil {
		cfg.Registerer.MustRegister(k.failed, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "shortline_local_snapshot_saved_timestamp_seconds", Help: "When the local snapshot was last saved; 0: not since the start."},
			func() float64 { return float64(k.saved.Load()) / 1000 }))
	}
	return k
}

// Run saves until ctx ends, then once more, and returns nil. What cannot be saved is logged and tried again at the next
// time; the former file stays.
func (k *SnapshotKeeper) Run(ctx context.Context) error {
	wait := k.cfg.FirstAfter
	for {
		sleep(ctx, wait)
		if ctx.Err() != nil {
			break
		}
		cfg := k.cfg.Save
		cfg.Gentle = true
		k.save(ctx, cfg)
		wait = k.cfg.Every + time.Duration((rand.Float64()-0.5)*0.2*float64(k.cfg.Every))
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), k.cfg.StopTimeout)
	defer cancel()
	k.save(last, k.cfg.Save)
	return nil
}

func (k *SnapshotKeeper) save(ctx context.Context, cfg SaveConfig) {
	info, err := SaveSnapshot(ctx, k.source, k.cfg.Path, cfg)
	switch {
	case err == nil:
		k.saved.Store(time.Now().UnixMilli())
		k.cfg.Log.Info("local snapshot saved", "stores", info.Rows, "keys", info.Keys)
	case ctx.Err() == nil || context.Cause(ctx) == context.DeadlineExceeded:
		k.failed.Inc()
		k.cfg.Log.Error("the local snapshot was not saved; the former one stays", "err", err)
	}
}
