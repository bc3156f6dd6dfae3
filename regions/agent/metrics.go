package agent

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	starts   prometheus.Counter
	commands *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	rejoins  *prometheus.CounterVec
	lost     prometheus.Counter
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		starts:   prometheus.NewCounter(prometheus.CounterOpts{Name: "shortline_db_starts_total", Help: "Starts of the PostgreSQL server."}),
		commands: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "shortline_db_commands_total", Help: "Commands of controllers, by what came of them."}, []string{"command", "outcome"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "shortline_db_command_seconds", Help: "How long commands took.",
			Buckets: []float64{.002, .005, .01, .025, .05, .1, .25, .5, 1, 5, 30}}, []string{"command"}),
		rejoins: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "shortline_db_rejoins_total", Help: "Attempts to make the server a standby again, by what came of them."}, []string{"outcome"}),
		lost:    prometheus.NewCounter(prometheus.CounterOpts{Name: "shortline_db_lost_writes_total", Help: "Changes that only this server had and that were exported before a rejoin."}),
	}
	for _, name := range []string{"detach", "read-only", "set-sync", "promote", "follow", "checkpoint"} {
		m.seconds.WithLabelValues(name)
		for _, outcome := range []string{"done", "refused"} {
			m.commands.WithLabelValues(name, outcome)
		}
	}
	for _, outcome := range []string{"done", "failed"} {
		m.rejoins.WithLabelValues(outcome)
	}
	if r == nil {
		return m
	}
	r.MustRegister(m.starts, m.commands, m.seconds, m.rejoins, m.lost)
	return m
}

func (m *metrics) command(name string, took time.Duration, err error) {
	outcome := "done"
	if err != nil {
		outcome = "refused"
	}
	m.commands.WithLabelValues(name, outcome).Inc()
	m.seconds.WithLabelValues(name).Observe(took.Seconds())
}
