package dnsserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"runtime"
	"strings"
	"sync"
	"time"

	"encoding/binary"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sync/errgroup"

	"github.com/shortline/shortline/geo"
	"github.com/shortline/shortline/regions"
)

const (
	maxTCPConns   = 256
	tcpIdle       = 10 * time.Second
	maxTCPQueries = 128
	maxUDPQuery   = 4096
	// maxUDPAnswer is what fits into every network's packets.
	maxUDPAnswer = 1232
)

// Config sets up a Server. Listen, Zone and View are required; for all else zero works.
type Config struct {
	// Listen is the "host:port" to listen on, by UDP and TCP.
	Listen string
	// Zone is the name that it is the authority for, such as "stores.example.org".
	Zone string
	// Nameservers are the zone's: "name", or "name=address" for one inside the zone. None: ns1 of the zone with the addresses of
	// this node's region.
	Nameservers []string
	// Contact is the mail address of who looks after the zone ("hostmaster@ZONE").
	Contact string
	// CAA are the authorities that may issue certificates for the zone; none: no such record.
	CAA []string
	// TTL is how long answers may be kept (30 s).
	TTL time.Duration
	// Rate is how many answers a second one network (/24, /56) gets by UDP (200); every second one beyond is an empty one that
	// asks to come by TCP, the rest is dropped. Negative: no limit.
	Rate float64

	// View is what is known of all regions; GeoIP finds addresses (nil: none); Point is where this node's region is: clients
	// of whom nothing is known are taken to be there.
	View  func() *regions.View
	GeoIP func(netip.Addr) (geo.Point, bool)
	Point geo.Point

	Log        *slog.Logger
	Registerer prometheus.Registerer
	Now        func() time.Time // nil: time.Now
}

// Server is the authority for one zone.
type Server struct {
	cfg     Config
	zone    string // in lower case, with the dot at the end
	ns      []nameserver
	contact string
	ttl     uint32
	limit   *limiter
	born    time.Time
	queries *prometheus.CounterVec
}

type nameserver struct {
	name  string
	addrs []netip.Addr
}

// New makes a Server. It starts nothing; see Run. The error names every fault of the configuration.
func New(cfg Config) (*Server, error) {
	if cfg.TTL == 0 {
		cfg.TTL = 30 * time.Second
	}
	if cfg.Rate == 0 {
		cfg.Rate = 200
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{cfg: cfg, zone: dns.CanonicalName(cfg.Zone), ttl: uint32(cfg.TTL / time.Second), born: cfg.Now(), limit: newLimiter(cfg.Rate),
		queries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "shortline_dns_queries_total", Help: "DNS queries, by protocol and what became of them."}, []string{"proto", "result"})}
	for _, proto := range []string{"udp", "tcp"} {
		for _, result := range []string{"answered", "failed", "dropped", "refused"} {
			s.queries.WithLabelValues(proto, result)
		}
	}
	if err := s.configure(); err != nil {
		return nil, err
	}
	if cfg.Registerer != nil {
		cfg.Registerer.MustRegister(s.queries)
	}
	return s, nil
}

// configure checks the configuration and reads names out of it.
func (s *Server) configure() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if labels, ok := dns.IsDomainName(s.cfg.Zone); !ok || labels < 1 || !hostname(s.zone) {
		fault("the zone %q is not a name such as stores.example.org", s.cfg.Zone)
	}
	if _, _, err := net.SplitHostPort(s.cfg.Listen); err != nil {
		fault("the address %q is not one such as :53", s.cfg.Listen)
	}
	if s.cfg.View == nil {
		fault("a Server needs View")
	}
	if s.cfg.TTL < time.Second || s.cfg.TTL > time.Hour {
		fault("answers cannot be kept for %v; 1s to 1h are possible", s.cfg.TTL)
	}
	for _, text := range s.cfg.Nameservers {
		name, addrs, _ := strings.Cut(text, "=")
		ns := nameserver{name: dns.CanonicalName(name)}
		if !hostname(ns.name) {
			fault("the name server %q is not a host's name", name)
			continue
		}
		for _, a := range strings.Split(addrs, "+") {
			if a == "" {
				continue
			}
			addr, err := netip.ParseAddr(a)
			if err != nil {
				fault("the name server %s has the address %q, which is none", name, a)
			}
			ns.addrs = append(ns.addrs, addr)
		}
		switch inside := dns.IsSubDomain(s.zone, ns.name); {
		case inside && len(ns.addrs) == 0:
			fault("the name server %s is inside the zone and needs an address: %s=192.0.2.1", name, name)
		case !inside && len(ns.addrs) > 0:
			fault("the name server %s is outside of the zone: its address does not belong here", name)
		case inside && (ns.name == s.zone || dns.CountLabel(ns.name) != dns.CountLabel(s.zone)+1):
			fault("the name server %s must be one label below the zone", name)
		}
		s.ns = append(s.ns, ns)
	}
	if len(s.cfg.Nameservers) == 0 {
		s.ns = []nameserver{{name: "ns1." + s.zone}}
	}
	contact := s.cfg.Contact
	if contact == "" {
		contact = "hostmaster@" + s.zone
	}
	user, host, ok := strings.Cut(contact, "@")
	s.contact = strings.ReplaceAll(user, ".", `\.`) + "." + dns.CanonicalName(host)
	if _, valid := dns.IsDomainName(s.contact); !ok || !valid || user == "" || host == "" {
		fault("the contact %q is not a mail address", contact)
	}
	for _, ca := range s.cfg.CAA {
		if !hostname(dns.CanonicalName(ca)) {
			fault("the certificate authority %q is not a name such as letsencrypt.org", ca)
		}
	}
	return errors.Join(faults...)
}

// hostname tells whether a name with the dot at the end has only letters, digits and hyphens.
func hostname(name string) bool {
	return len(name) > 1 && strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-.") == "" && !strings.Contains(name, "..") && name[0] != '.'
}

// Run serves until ctx ends, and returns nil.
func (s *Server) Run(ctx context.Context) error {
	pc, l, err := s.listen()
	if err != nil {
		return err
	}
	s.cfg.Log.Info("DNS listens", "addr", l.Addr().String(), "zone", s.zone)
	return s.Serve(ctx, pc, l)
}

// listen opens both listeners, on the same port where that is left to the system.
func (s *Server) listen() (*net.UDPConn, net.Listener, error) {
	l, err := net.Listen("tcp", s.cfg.Listen)
	if err != nil {
		return nil, nil, fmt.Errorf("listen for DNS: %w", err)
	}
	pc, err := net.ListenPacket("udp", l.Addr().String())
	if err != nil {
		_ = l.Close()
		return nil, nil, fmt.Errorf("listen for DNS: %w", err)
	}
	return pc.(*net.UDPConn), l, nil
}

// Serve is Run with listeners that are open. It closes them.
func (s *Server) Serve(ctx context.Context, pc *net.UDPConn, l net.Listener) error {
	group, ctx := errgroup.WithContext(ctx)
	stop := context.AfterFunc(ctx, func() { _ = pc.Close(); _ = l.Close() })
	defer stop()
	_ = pc.SetReadBuffer(4 << 20) // as much as the system allows
	everywhere := pc.LocalAddr().(*net.UDPAddr).IP.IsUnspecified()
	if everywhere { // answers must come from the address that was asked
		err6 := ipv6.NewPacketConn(pc).SetControlMessage(ipv6.FlagDst|ipv6.FlagInterface, true)
		err4 := ipv4.NewPacketConn(pc).SetControlMessage(ipv4.FlagDst|ipv4.FlagInterface, true)
		if err4 != nil && err6 != nil {
			return fmt.Errorf("serve DNS: %w", err4)
		}
	}
	for range max(2, runtime.GOMAXPROCS(0)) {
		group.Go(func() error {
			if everywhere {
				return s.serveSessions(ctx, pc)
			}
			return s.servePackets(ctx, pc)
		})
	}
	group.Go(func() error { return s.serveTCP(ctx, l) })
	if err := group.Wait(); ctx.Err() == nil {
		return err
	}
	return nil
}

// servePackets answers what comes in at one address, a packet at a time: nothing queues but in the socket, which drops what
// is too much.
func (s *Server) servePackets(ctx context.Context, pc *net.UDPConn) error {
	buf, out := make([]byte, maxUDPQuery), make([]byte, 0, maxUDPAnswer)
	for {
		n, from, err := pc.ReadFromUDPAddrPort(buf)
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return nil
			}
			continue // an error of an answer before, such as a port that is closed
		}
		if b := s.packet(buf[:n], from.Addr().Unmap(), out[:0]); b != nil {
			_, _ = pc.WriteToUDPAddrPort(b, from)
		}
	}
}

// serveSessions is servePackets for a socket of many addresses.
func (s *Server) serveSessions(ctx context.Context, pc *net.UDPConn) error {
	buf, out := make([]byte, maxUDPQuery), make([]byte, 0, maxUDPAnswer)
	for {
		n, session, err := dns.ReadFromSessionUDP(pc, buf)
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return nil
			}
			continue
		}
		from := session.RemoteAddr().(*net.UDPAddr).AddrPort().Addr().Unmap()
		if b := s.packet(buf[:n], from, out[:0]); b != nil {
			_, _ = dns.WriteToSessionUDP(pc, b, session)
		}
	}
}

// packet answers one query by UDP, nil where there is to be no answer.
func (s *Server) packet(q []byte, from netip.Addr, out []byte) []byte {
	verdict := s.limit.take(from, s.cfg.Now())
	if verdict == drop {
		s.queries.WithLabelValues("udp", "dropped").Inc()
		return nil
	}
	return s.handle(q, from, false, verdict == slip, out)
}

// serveTCP takes a bounded number of connections; past it the oldest silent ones give way by their deadlines.
func (s *Server) serveTCP(ctx context.Context, l net.Listener) error {
	slots := make(chan struct{}, maxTCPConns)
	var conns sync.WaitGroup
	defer conns.Wait()
	for {
		c, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return nil
			}
			time.Sleep(5 * time.Millisecond) // out of files: it may be over soon
			continue
		}
		select {
		case slots <- struct{}{}:
		default:
			_ = c.Close()
			s.queries.WithLabelValues("tcp", "dropped").Inc()
			continue
		}
		conns.Go(func() {
			defer func() { <-slots }()
			stop := context.AfterFunc(ctx, func() { _ = c.Close() })
			defer stop()
			defer func() { _ = c.Close() }()
			s.serveConn(c)
		})
	}
}

// serveConn answers the queries of one connection in turn.
func (s *Server) serveConn(c net.Conn) {
	ap, err := netip.ParseAddrPort(c.RemoteAddr().String())
	if err != nil {
		return
	}
	buf, out := make([]byte, 2+maxUDPQuery), make([]byte, 0, 4096)
	for range maxTCPQueries {
		_ = c.SetDeadline(s.cfg.Now().Add(tcpIdle))
		if _, err := io.ReadFull(c, buf[:2]); err != nil {
			return
		}
		n := int(binary.BigEndian.Uint16(buf))
		if n > maxUDPQuery { // no honest query is that long
			return
		}
		if _, err := io.ReadFull(c, buf[2:2+n]); err != nil {
			return
		}
		b := s.handle(buf[2:2+n], ap.Addr().Unmap(), true, false, out[:0])
		if b == nil {
			return
		}
		if _, err := c.Write(append(binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(b)), uint16(len(b))), b...)); err != nil {
			return
		}
	}
}

// apiPort is the port of a node's API where clients speak HTTPS to it; ok is false where they do not.
func apiPort(api string) (port string, ok bool) {
	u, err := url.Parse(api)
	if err != nil || u.Scheme != "https" {
		return "", false
	}
	if port = u.Port(); port == "" {
		port = "443"
	}
	return port, true
}
