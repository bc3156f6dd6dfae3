package edge

import (
	"net"
	"net/http"
	"net/netip"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// connections bounds how many connections of the public port are open at a time, in all and from one address, so that those of one client
// leave room for others. Live connections leave it when they become live: for them there is LiveConfig.
type connections struct {
	max, perAddress int                   // negative: no limit
	exempt          func(netip.Addr) bool // from perAddress
	refused         *prometheus.CounterVec

	mu   sync.Mutex
	open map[net.Conn]netip.Addr // guarded by mu
	from map[netip.Addr]int      // guarded by mu
}

func newConnections(cfg *Config, trusts func(netip.Addr) bool, r prometheus.Registerer) *connections {
	c := &connections{max: cfg.Connections, perAddress: cfg.ConnectionsPerAddress,
		exempt: func(a netip.Addr) bool { return a.IsLoopback() || trusts(a) },
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "shortline_http_connections_refused_total", Help: "Connections to the public port that were closed at once, by the limit: total, address."}, []string{"limit"}),
		open: map[net.Conn]netip.Addr{}, from: map[netip.Addr]int{}}
	c.refused.WithLabelValues("total")
	c.refused.WithLabelValues("address")
	r.MustRegister(c.refused, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "shortline_http_connections", Help: "Connections to the public port that are open, without live ones."}, func() float64 {
		c.mu.Lock()
		defer c.mu.Unlock()
		return float64(len(c.open))
	}))
	return c
}

// admit counts a connection, or tells which limit it would pass.
func (c *connections) admit(conn net.Conn) (limit string) {
	addr := remoteAddr(conn)
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.max >= 0 && len(c.open) >= c.max:
		return "total"
	case c.perAddress >= 0 && c.from[addr] >= c.perAddress && !c.exempt(addr):
		return "address"
	}
	c.open[conn] = addr
	c.from[addr]++
	return ""
}

// changed is http.Server.ConnState.
func (c *connections) changed(conn net.Conn, to http.ConnState) {
	if to != http.StateClosed && to != http.StateHijacked {
		return
	}
	if secure, ok := conn.(interface{ NetConn() net.Conn }); ok {
		conn = secure.NetConn()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	addr, ok := c.open[conn]
	if !ok {
		return
	}
	delete(c.open, conn)
	if c.from[addr]--; c.from[addr] == 0 {
		delete(c.from, addr)
	}
}

func remoteAddr(conn net.Conn) netip.Addr {
	if tcp, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
		return tcp.AddrPort().Addr().Unmap().WithZone("")
	}
	return netip.Addr{}
}

// boundedListener closes at once what is past the limits.
type boundedListener struct {
	net.Listener
	limits *connections
}

// Accept is part of net.Listener.
func (l boundedListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		limit := l.limits.admit(conn)
		if limit == "" {
			return conn, nil
		}
		l.limits.refused.WithLabelValues(limit).Inc()
		_ = conn.Close()
	}
}
