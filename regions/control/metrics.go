package control

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/shortline/shortline/regions"
)

type metrics struct {
	commit  prometheus.Histogram
	refused prometheus.Counter
}

func newMetrics(n *Node) *metrics {
	m := &metrics{
		commit: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "shortline_control_commit_seconds", Help: "How long it took, at the leader, until a change of the control state was agreed on.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5}}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{Name: "shortline_control_refused_connections_total", Help: "Connections to the control port that were refused: without the cluster key, or of another cluster."}),
	}
	gauge := func(name, help string, get func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, get)
	}
	n.cfg.Registerer.MustRegister(m.commit, m.refused,
		gauge("shortline_control_leader", "1 while this node is the control leader.", func() float64 {
			if _, ok := n.Leading(); ok {
				return 1
			}
			return 0
		}),
		gauge("shortline_control_term", "Raft's term, as this node knows it.", func() float64 { _, term := n.Leader(); return float64(term) }),
		gauge("shortline_control_index", "The latest change of the control state that this node knows, renewals of the lease not counted.", func() float64 { return float64(n.View().Index) }),
		gauge("shortline_control_age_seconds", "How long ago what this node knows of the control state was surely up to date; -1: never.", func() float64 {
			if age, ok := n.Age(); ok {
				return age.Seconds()
			}
			return -1
		}),
		stateCollector{n})
	return m
}

// desc describes a gauge of the agreed state; of_region is the region that it is about, not that of the node that tells it.
func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

var (
	descEpoch     = desc("shortline_control_epoch", "The newest epoch, as far as it is known here; 0: nothing is known.")
	descDegraded  = desc("shortline_control_degraded", "1 while no standby has to confirm writes although one should, as far as it is known here.")
	descSync      = desc("shortline_control_sync_members", "Members of the sync set, as far as it is known here.")
	descOperation = desc("shortline_control_operation", "1 while a change of the primary is under way.")
	descPaused    = desc("shortline_control_paused", "1 while the automation is paused.")
	descUnacked   = desc("shortline_control_failover_unacknowledged", "1 while nobody has acknowledged the latest automatic failover; none happens within an hour of it until then.")
	descPrimary   = desc("shortline_region_primary", "1 for the region that takes writes, as far as it is known here.", "of_region")
	descDuty      = desc("shortline_region_state", "1 for the state that a region is in: active, draining or drained.", "of_region", "state")
	descHeld      = desc("shortline_region_held", "1 for a region that came back from a failure and becomes primary only once somebody undrained it.", "of_region")
)

// stateCollector reads the agreed state when it is asked, at every node that follows it.
type stateCollector struct{ n *Node }

// Describe is part of prometheus.Collector.
func (stateCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descEpoch, descDegraded, descSync, descOperation, descPaused, descUnacked, descPrimary, descDuty, descHeld} {
		ch <- d
	}
}

// Collect is part of prometheus.Collector.
func (c stateCollector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	flag := func(d *prometheus.Desc, on bool, labels ...string) {
		if on {
			gauge(d, 1, labels...)
		} else {
			gauge(d, 0, labels...)
		}
	}
	s := c.n.State()
	gauge(descEpoch, float64(s.Epoch))
	flag(descDegraded, s.Durability.Mode == regions.Degraded)
	gauge(descSync, float64(len(s.Sync)))
	flag(descOperation, s.Operation != nil)
	flag(descPaused, s.Paused != nil)
	flag(descUnacked, s.LastAutomatic != nil && s.LastAutomatic.Acknowledged == nil)
	for id, r := range s.Regions {
		if r.Witness {
			continue
		}
		flag(descPrimary, id == s.Primary, string(id))
		for _, duty := range []regions.Duty{regions.Active, regions.Draining, regions.Drained} {
			flag(descDuty, r.Duty == duty, string(id), string(duty))
		}
		flag(descHeld, r.Held, string(id))
	}
}
