package edge

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// liveMetrics count what the hub does.
type liveMetrics struct {
	sockets, events   atomic.Int64
	stalled           atomic.Int64
	messages, writes  prometheus.Counter
	coalesced         prometheus.Counter
	received, refused prometheus.Counter
	disconnects       map[string]prometheus.Counter
}

func newLiveMetrics(r prometheus.Registerer, h *liveHub) *liveMetrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	m := &liveMetrics{
		messages:    counter("shortline_live_messages_total", "Messages put on the way to live clients."),
		writes:      counter("shortline_live_writes_total", "Writes that they went out with."),
		coalesced:   counter("shortline_live_coalesced_total", "Changes that a client did not get because a newer one came before it read."),
		received:    counter("shortline_live_received_total", "Messages from live clients."),
		refused:     counter("shortline_live_refused_total", "Live connections refused because of a limit."),
		disconnects: map[string]prometheus.Counter{},
	}
	ends := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "shortline_live_disconnects_total", Help: "Live connections that ended, by reason."}, []string{"reason"})
	for _, reason := range endReasons {
		m.disconnects[reason] = ends.WithLabelValues(reason)
	}
	gauge := func(name, help string, labels prometheus.Labels, value func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: labels}, value)
	}
	const connections, aboutConnections = "shortline_live_connections", "Live connections, by transport."
	r.MustRegister(m.messages, m.writes, m.coalesced, m.received, m.refused, ends,
		gauge(connections, aboutConnections, prometheus.Labels{"transport": "websocket"}, func() float64 { return float64(m.sockets.Load()) }),
		gauge(connections, aboutConnections, prometheus.Labels{"transport": "sse"}, func() float64 { return float64(m.events.Load()) }),
		gauge("shortline_live_stalled", "Live connections to which a write is waiting.", nil, func() float64 { return float64(m.stalled.Load()) }),
		gauge("shortline_live_stores", "Stores that somebody follows.", nil, func() float64 {
			h.mu.Lock()
			defer h.mu.Unlock()
			return float64(len(h.topics))
		}))
	return m
}

func (m *liveMetrics) began(c *liveConn) { m.kind(c).Add(1) }

func (m *liveMetrics) ended(c *liveConn, reason string) {
	m.kind(c).Add(-1)
	m.disconnects[reason].Inc()
}

func (m *liveMetrics) kind(c *liveConn) *atomic.Int64 {
	if c.sse {
		return &m.events
	}
	return &m.sockets
}
