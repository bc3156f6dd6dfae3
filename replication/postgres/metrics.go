package postgres

import (
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
)

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, append([]string{"server"}, labels...), nil)
}

var (
	descConns    = desc("shortline_postgres_connections", "Connections to PostgreSQL, by server (primary or replica) and state.", "state")
	descMax      = desc("shortline_postgres_connections_max", "Connections that there may be at most.")
	descAcquired = desc("shortline_postgres_acquires_total", "Times that a connection was asked for and given.")
	descWaited   = desc("shortline_postgres_acquire_seconds_total", "Time spent waiting for a connection, in sum.")
	descGivenUp  = desc("shortline_postgres_acquires_given_up_total", "Times that somebody's time ran out while waiting for a connection.")
	descUsable   = desc("shortline_postgres_usable", "1 once the server has been reached and found fit; it may still fail later.")
)

// Describe is part of prometheus.Collector.
func (s *Store) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descConns, descMax, descAcquired, descWaited, descGivenUp, descUsable} {
		ch <- d
	}
}

// Collect is part of prometheus.Collector: it tells of the connections to both servers.
func (s *Store) Collect(ch chan<- prometheus.Metric) {
	for of, pool := range map[side]*pgxpool.Pool{primary: s.writes, replica: s.reads} {
		metric := func(d *prometheus.Desc, kind prometheus.ValueType, v float64, labels ...string) {
			ch <- prometheus.MustNewConstMetric(d, kind, v, append([]string{string(of)}, labels...)...)
		}
		st := pool.Stat()
		metric(descConns, prometheus.GaugeValue, float64(st.AcquiredConns()), "in_use")
		metric(descConns, prometheus.GaugeValue, float64(st.IdleConns()), "idle")
		metric(descConns, prometheus.GaugeValue, float64(st.ConstructingConns()), "connecting")
		metric(descMax, prometheus.GaugeValue, float64(st.MaxConns()))
		metric(descAcquired, prometheus.CounterValue, float64(st.AcquireCount()))
		metric(descWaited, prometheus.CounterValue, st.AcquireDuration().Seconds())
		metric(descGivenUp, prometheus.CounterValue, float64(st.CanceledAcquireCount()))
		usable := 1.0
		if s.faults[of].Load() != nil {
			usable = 0
		}
		metric(descUsable, prometheus.GaugeValue, usable)
	}
}
