package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/pflag"
	"golang.org/x/sync/errgroup"

	"github.com/shortline/shortline/edge"
	"github.com/shortline/shortline/geo"
	"github.com/shortline/shortline/regions"
	"github.com/shortline/shortline/regions/dnsserver"
	"github.com/shortline/shortline/regions/gossip"
)

// placeSettings say where a node is, how others find it, and how it leads clients to the nearest region.
type placeSettings struct {
	point, advertiseURL string
	gossipListen        string
	gossipAdvertise     string
	join, gossipKeys    []string
	gossipKeyFile       string
	nodeName            string
	capacity            float64

	trustProxy  []string
	geoIP       string
	steer       string
	steerMargin float64 // kilometres

	publicAddrs []string
	dns         dnsserver.Config
}

func (s *placeSettings) bind(f *pflag.FlagSet) {
	f.StringVar(&s.point, "region-point", "", "`LAT,LNG` of this node's region; known for regions named like those of the large clouds, such as us-east-1, eu-west, asia-southeast1")
	f.StringVar(&s.advertiseURL, "advertise-url", "", "base `URL` at which clients reach this node; default: the address of --listen")
	f.StringVar(&s.gossipListen, "gossip-listen", "", "`address` to learn of other nodes at, by UDP and TCP, such as :7946; without it the node knows of no other")
	f.StringVar(&s.gossipAdvertise, "gossip-advertise", "", "`address` at which other nodes reach --gossip-listen")
	f.StringSliceVar(&s.join, "join", nil, "gossip `addresses` of some other nodes, to find them all by")
	f.StringSliceVar(&s.gossipKeys, "gossip-key", nil, "`secrets` of 16 bytes or more for gossip, instead of --cluster-key: the first encrypts, all are accepted, so that they can be changed")
	f.StringVar(&s.gossipKeyFile, "gossip-key-file", "", "`file` with such secrets, one a line; read again when it changes, so that keys are changed without a restart")
	f.StringVar(&s.nodeName, "node-name", "", "`name` of this node among all; default: its region and gossip address")
	f.Float64Var(&s.capacity, "capacity", 0, "requests a `second` that this node is meant to bear; past 80 % of its nodes' together, a region sends some clients to the next; 0: no limit")
	f.StringSliceVar(&s.trustProxy, "trust-proxy", nil, "`networks` of proxies, such as 10.0.0.0/8, whose headers about the client (X-Forwarded-For, CDN location headers) count")
	f.StringVar(&s.geoIP, "geoip", "", "`file` in MaxMind's format with the places of addresses; read again when it is replaced")
	f.StringVar(&s.steer, "steer", "hint", "off, hint (headers name a better region) or redirect (reads are sent there with 307)")
	f.Float64Var(&s.steerMargin, "steer-margin", 500, "`kilometres` by which another region must be nearer for a redirect")
	f.StringSliceVar(&s.publicAddrs, "public-addr", nil, "IP `addresses` of this node for DNS, at most 4; default: the one in --advertise-url")
	f.StringVar(&s.dns.Listen, "dns-listen", "", "`address` to answer DNS queries at, such as :53, by UDP and TCP")
	f.StringVar(&s.dns.Zone, "dns-zone", "", "`name` of the zone that --dns-listen answers for, with the addresses of the nearest region")
	f.StringSliceVar(&s.dns.Nameservers, "dns-ns", nil, "`names` of the zone's name servers, NAME or NAME=ADDRESS for those inside the zone; default: ns1 with the addresses of this region")
	f.StringVar(&s.dns.Contact, "dns-contact", "", "mail `address` of who looks after the zone; default: hostmaster@ZONE")
	f.StringSliceVar(&s.dns.CAA, "dns-caa", nil, "`authorities` that may issue certificates for the zone")
	f.DurationVar(&s.dns.TTL, "dns-ttl", 30*time.Second, "how long DNS answers may be kept")
	f.Float64Var(&s.dns.Rate, "dns-rate", 200, "DNS answers a `second` that one network gets by UDP; -1: no limit")
}

// apply checks the settings and puts those of clients into the edge's. All faults are told at once.
func (s *placeSettings) apply(cfg *edge.Config) error {
	var faults []error
	region := regions.ID(cfg.Region)
	if s.point != "" {
		lat, lng, err := parsePlace(s.point)
		if err != nil {
			faults = append(faults, fmt.Errorf("--region-point: %w", err))
		}
		cfg.Steer.Point = geo.Point{Lat: lat, Lng: lng}
	} else if p, ok := regions.KnownPoint(region); ok {
		cfg.Steer.Point = p
	} else if s.gossipListen != "" {
		faults = append(faults, fmt.Errorf("--region-point is missing: where region %q is is not known by its name", region))
	}
	if s.gossipListen == "" && (len(s.join) > 0 || s.gossipAdvertise != "" || len(s.gossipKeys) > 0 || s.gossipKeyFile != "") {
		faults = append(faults, errors.New("--join, --gossip-advertise and --gossip-key need --gossip-listen"))
	}
	if len(s.gossipKeys) > 0 && s.gossipKeyFile != "" {
		faults = append(faults, errTwoGossipKeys)
	}
	if s.gossipKeyFile != "" {
		if _, err := readGossipKeys(s.gossipKeyFile); err != nil {
			faults = append(faults, err)
		}
	}
	if s.gossipListen != "" {
		g := gossip.Config{Cluster: "x", Listen: s.gossipListen, Advertise: s.gossipAdvertise, Seeds: s.join, Keys: s.gossipKeys, Region: region, Name: s.nodeName,
			Status: func() regions.NodeStatus { return regions.NodeStatus{} }}
		if err := g.Validate(); err != nil {
			faults = append(faults, fmt.Errorf("gossip: %w", err))
		}
	}
	if (s.dns.Listen == "") != (s.dns.Zone == "") {
		faults = append(faults, errors.New("--dns-listen and --dns-zone go together"))
	} else if s.dns.Listen != "" {
		if _, err := dnsserver.New(s.dnsConfig(func() *regions.View { return nil })); err != nil {
			faults = append(faults, fmt.Errorf("DNS: %w", err))
		}
	}
	if len(s.publicAddrs) > 4 {
		faults = append(faults, errors.New("--public-addr has more than 4 addresses"))
	}
	for _, text := range s.publicAddrs {
		if _, err := netip.ParseAddr(text); err != nil {
			faults = append(faults, fmt.Errorf("--public-addr %q is not an IP address", text))
		}
	}
	if !(s.capacity >= 0 && s.capacity < 1e9) {
		faults = append(faults, fmt.Errorf("--capacity %v is not a number of requests a second", s.capacity))
	}
	if !(s.steerMargin >= 0 && s.steerMargin <= 20_038) {
		faults = append(faults, fmt.Errorf("--steer-margin %v is not between 0 and 20038 km", s.steerMargin))
	}
	cfg.Steer.TrustProxies = nil
	for _, text := range s.trustProxy {
		p, err := netip.ParsePrefix(strings.TrimSpace(text))
		if a, aerr := netip.ParseAddr(strings.TrimSpace(text)); aerr == nil {
			p, err = netip.PrefixFrom(a, a.BitLen()), nil
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("--trust-proxy %q is not a network such as 10.0.0.0/8", text))
			continue
		}
		cfg.Steer.TrustProxies = append(cfg.Steer.TrustProxies, p.Masked())
	}
	cfg.Steer.Steer, cfg.Steer.Margin, cfg.Steer.URL = edge.Steer(s.steer), geo.Metres(s.steerMargin*1000), strings.TrimSuffix(s.advertiseURL, "/")
	if s.steerMargin == 0 {
		cfg.Steer.Margin = 1
	}
	return errors.Join(faults...)
}

// advertised is the address that others reach a listener at: the advertised host of gossip where it listens everywhere.
func (s *placeSettings) advertised(l net.Addr) string {
	tcp, ok := l.(*net.TCPAddr)
	if !ok || !tcp.IP.IsUnspecified() {
		return l.String()
	}
	for _, addr := range []string{s.gossipAdvertise, s.gossipListen} {
		if host, _, err := net.SplitHostPort(addr); err == nil && host != "" {
			if ip, err := netip.ParseAddr(host); err != nil || !ip.IsUnspecified() {
				return net.JoinHostPort(host, strconv.Itoa(tcp.Port))
			}
		}
	}
	return dialable(l)
}

// newGossip makes this node's part in the gossip, nil where there is none.
func (n *node) newGossip(log *slog.Logger, r prometheus.Registerer) (err error) {
	s := n.s
	if s.gossipListen == "" {
		return nil
	}
	keys, err := s.secrets()
	if err != nil {
		return err
	}
	n.gossip, err = gossip.New(gossip.Config{
		Cluster: s.deployment, Listen: s.gossipListen, Advertise: s.gossipAdvertise, Seeds: s.join, Keys: keys, Region: s.region(), Name: s.nodeName,
		Status: n.status, State: n.control.state, Log: log, Registerer: r})
	return err
}

// status is what this node tells the others of itself.
func (n *node) status() regions.NodeStatus {
	s := n.s
	out := regions.NodeStatus{Point: s.edge.Steer.Point, Health: regions.Starting, Reason: "it is starting", API: s.edge.Steer.URL, Version: n.app.version, Capacity: s.capacity}
	out.Addrs = s.addrs(s.edge.Steer.URL)
	if n.server == nil {
		return out
	}
	out.Health, out.Reason = n.server.Health()
	out.Load = n.rate.measure(n.server.Requests(), time.Now())
	if n.peerListener != nil {
		out.Cluster = s.advertised(n.peerListener.Addr())
	}
	if n.adminURL != "" {
		out.Admin = n.adminURL
	}
	out.Writes, _ = n.primary()
	if a := n.feed.Applied(); a != nil {
		out.Lag, out.Epoch, out.Position = max(0, time.Since(a.At)), a.Token.Epoch, regions.LSN(a.Token.LSN)
	}
	return out
}

// rateMeter makes a rate of a counter, smoothed over some ten seconds.
type rateMeter struct {
	mu   sync.Mutex
	last uint64    // guarded by mu
	at   time.Time // guarded by mu
	rate float64   // guarded by mu
}

func (m *rateMeter) measure(count uint64, now time.Time) float64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	passed := now.Sub(m.at).Seconds()
	if m.at.IsZero() || passed > 60 {
		m.last, m.at = count, now
		return m.rate
	}
	if passed >= 0.5 {
		m.rate += (float64(count-m.last)/passed - m.rate) * min(1, passed/10)
		m.last, m.at = count, now
	}
	return m.rate
}

// view is what is known of all regions; nil without gossip.
func (n *node) view() func() *regions.View {
	if n.gossip == nil {
		return nil
	}
	return n.gossip.View
}

// notes are what /readyz tells of other nodes.
func (n *node) notes() map[string]func() string {
	notes := map[string]func() string{}
	if n.gossip != nil {
		notes["gossip"] = func() string {
			v := n.gossip.View()
			all, ready := 0, 0
			for i := range v.Places {
				all, ready = all+len(v.Places[i].Nodes), ready+v.Places[i].Ready
			}
			return fmt.Sprintf("%d of %d nodes in %d regions are ready", ready, all, len(v.Places))
		}
	}
	if n.geoIP != nil {
		notes["geoip"] = func() string {
			if p := n.geoIP.Problem(); p != "" {
				return p
			}
			return "built " + n.geoIP.Built().UTC().Format(time.DateOnly)
		}
	}
	return notes
}

// openGeoIP reads the database of --geoip, where there is one.
func (n *node) openGeoIP(log *slog.Logger, r prometheus.Registerer) (find func(netip.Addr) (geo.Point, bool), err error) {
	if n.s.geoIP == "" {
		return nil, nil
	}
	if n.geoIP, err = geo.OpenGeoIP(n.s.geoIP, log); err != nil {
		return nil, fmt.Errorf("--geoip: %w", err)
	}
	r.MustRegister(
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "shortline_geoip_build_timestamp_seconds", Help: "When the GeoIP database in use was built."},
			func() float64 { return float64(n.geoIP.Built().Unix()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "shortline_geoip_problem", Help: "1 while the GeoIP database is old, or its file cannot be used; the log says why."},
			func() float64 {
				if n.geoIP.Problem() != "" {
					return 1
				}
				return 0
			}))
	return n.geoIP.Find, nil
}

func (s *placeSettings) dnsConfig(view func() *regions.View) dnsserver.Config {
	cfg := s.dns
	cfg.View = view
	if cfg.Rate == 0 {
		cfg.Rate = -1
	}
	return cfg
}

// addrs are this node's addresses for DNS.
func (s *placeSettings) addrs(api string) []netip.Addr {
	var out []netip.Addr
	for _, text := range s.publicAddrs {
		if a, err := netip.ParseAddr(text); err == nil {
			out = append(out, a.Unmap())
		}
	}
	if u, err := url.Parse(api); err == nil && len(out) == 0 {
		if a, err := netip.ParseAddr(u.Hostname()); err == nil {
			out = append(out, a.Unmap())
		}
	}
	return out
}

// newDNS makes the server of --dns-listen, where there is one.
func (n *node) newDNS(find func(netip.Addr) (geo.Point, bool), log *slog.Logger, r prometheus.Registerer) (err error) {
	if n.s.dns.Listen == "" {
		return nil
	}
	view := n.view()
	if view == nil {
		view = func() *regions.View {
			s := n.status()
			s.Name, s.Region = n.s.edge.Region, n.s.region()
			return regions.Alone(s, time.Now())
		}
	}
	cfg := n.s.dnsConfig(view)
	cfg.GeoIP, cfg.Point, cfg.Log, cfg.Registerer = find, n.s.edge.Steer.Point, log, r
	n.dns, err = dnsserver.New(cfg)
	return err
}

// gossiping is the order of stopping for gossip: the others learn at once that this node stops, and it leaves when its
// requests are done.
func (n *node) gossiping(alive, serving context.Context) error {
	stop := context.AfterFunc(alive, n.gossip.Refresh)
	defer stop()
	group, serving := errgroup.WithContext(serving)
	group.Go(func() error { return n.followGossipKeys(serving, 2*time.Second) })
	group.Go(func() error { return n.gossip.Run(serving) })
	return group.Wait()
}

// moveLive asks live clients to go elsewhere when this node's region is drained.
func (n *node) moveLive(ctx context.Context) error {
	off := false
	for {
		changed := n.gossip.Changed()
		p := n.gossip.View().Place(n.s.region())
		now := p != nil && p.State.Duty != regions.Active && p.State.Duty != ""
		if now && !off {
			if err := n.server.MoveLive(ctx, 10*time.Second); err != nil && ctx.Err() == nil {
				n.log.Warn("not all live clients were asked to go elsewhere", "err", err)
			}
		}
		off = now
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}
