package failover

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/shortline/shortline/regions"
)

// metrics of a controller. All are 0 at a node that does not lead; package control tells the agreed state, at every node.
type metrics struct {
	failures   prometheus.Counter
	operations *prometheus.CounterVec
	pause      *prometheus.HistogramVec
}

func newMetrics(r prometheus.Registerer, c *Controller) *metrics {
	m := &metrics{
		failures: prometheus.NewCounter(prometheus.CounterOpts{Name: "shortline_controller_failed_actions_total", Help: "Actions of this controller that did not succeed and were tried again."}),
		operations: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "shortline_controller_operations_total", Help: "Changes of the primary that this controller ended, by kind."},
			[]string{"kind"}),
		pause: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "shortline_controller_pause_seconds", Help: "For how long no write could be acknowledged, by kind of operation.",
			Buckets: []float64{.1, .2, .3, .5, .75, 1, 1.5, 2, 3, 4, 6, 8, 12, 20, 40}}, []string{"kind"}),
	}
	for _, kind := range []regions.OperationKind{regions.Failover, regions.Switchover, regions.Reinstate} {
		m.operations.WithLabelValues(string(kind))
		m.pause.WithLabelValues(string(kind))
	}
	gauge := func(name, help string, value func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value)
	}
	risk := func(pick func(regions.Risk) float64) func() float64 {
		return func() float64 {
			s := c.Situation()
			if s.Led == 0 {
				return 0
			}
			return pick(s.Risk(c.cfg.Policy))
		}
	}
	r.MustRegister(m.failures, m.operations, m.pause,
		gauge("shortline_controller_leads", "1 where this node leads the control plane.", risk(func(regions.Risk) float64 { return 1 })),
		gauge("shortline_risk_bytes", "Log that would be lost if the primary region failed now, in acknowledged writes.", risk(func(r regions.Risk) float64 { return float64(r.Bytes) })),
		gauge("shortline_risk_pause_seconds", "About how long writes would wait if the primary region failed now; 0 where it would need an operator.", risk(func(r regions.Risk) float64 { return r.PauseS })),
		gauge("shortline_risk_needs_operator", "1 where a failover would not happen by itself if the primary region failed now.", risk(func(r regions.Risk) float64 {
			if r.Barred != "" {
				return 1
			}
			return 0
		})),
	)
	return m
}

func (m *metrics) ended(op *regions.Operation, pause time.Duration) {
	m.operations.WithLabelValues(string(op.Kind)).Inc()
	m.pause.WithLabelValues(string(op.Kind)).Observe(pause.Seconds())
}
