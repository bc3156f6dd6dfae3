package rediscache

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// outcome is what became of one store that was asked for.
type outcome int

const (
	hit outcome = iota
	absent
	outdated     // older than memory
	otherLineage // of another history
	tombstone
	garbage  // not a value of ours
	failed   // Redis did not answer
	skipped  // the node of the cluster is being skipped
	bypassed // CellOf or MinRev does not know the store
	outcomes
)

var outcomeNames = [outcomes]string{"hit", "absent", "outdated", "lineage", "tombstone", "garbage", "failed", "skipped", "bypassed"}

// writeOutcome is what became of one fill or change.
type writeOutcome int

const (
	stored     writeOutcome = iota
	replaced                // over something that was not ours
	kept                    // Redis had the same or a newer one
	overtaken               // a fill that was older than a change
	dropped                 // the queue was full
	lost                    // Redis did not answer
	passedOver              // the node of the cluster is being skipped
	unfit                   // a store that is not valid by today's rules
	writeOutcomes
)

var writeNames = [writeOutcomes]string{"stored", "replaced", "kept", "overtaken", "dropped", "failed", "skipped", "unfit"}

type metrics struct {
	reads   [outcomes]prometheus.Counter
	writes  [writeOutcomes]prometheus.Counter
	seconds prometheus.Histogram
	all     []prometheus.Collector
}

func newMetrics(c *Cache) *metrics {
	m := &metrics{}
	reads := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "shortline_redis_reads_total", Help: "Stores looked up in Redis, by what was found; all but hits are read from the database."}, []string{"result"})
	for o := range outcomes {
		m.reads[o] = reads.WithLabelValues(outcomeNames[o])
	}
	writes := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "shortline_redis_writes_total", Help: "Values for Redis, by what became of them."}, []string{"result"})
	for o := range writeOutcomes {
		m.writes[o] = writes.WithLabelValues(writeNames[o])
	}
	m.seconds = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "shortline_redis_read_seconds", Help: "Time of one lookup in Redis, of all stores of a request.",
		Buckets: prometheus.ExponentialBuckets(0.00005, 2, 12)})
	m.all = []prometheus.Collector{reads, writes, m.seconds,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "shortline_redis_nodes_skipped", Help: "Nodes of the Redis Cluster that are being skipped because they fail."},
			func() float64 { return float64(c.breakers.open(time.Now())) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "shortline_redis_queue", Help: "Values that wait to be written to Redis."},
			func() float64 { return float64(c.pending.Load()) })}
	return m
}

func (m *metrics) register(r prometheus.Registerer) { r.MustRegister(m.all...) }
