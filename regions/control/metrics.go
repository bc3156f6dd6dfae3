package control

import (
	"github.com/prometheus/client_golang/prometheus"
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
		}))
	return m
}
