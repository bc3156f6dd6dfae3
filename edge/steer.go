package edge

import (
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/shortline/shortline/geo"
	"github.com/shortline/shortline/regions"
)

// Headers that lead clients to the nearest region.
const (
	headerNearest    = "Shortline-Nearest-Region"
	headerNearestURL = "Shortline-Nearest-Url"
	headerRelayed    = "Shortline-Relayed"
)

// steeredParam marks a request that was sent here by a redirect: it is not sent on.
const steeredParam = "steered"

// Steer is what a node does when a client reads from it that should use another region.
type Steer string

// The ways to steer.
const (
	SteerOff      Steer = "off"
	SteerHint     Steer = "hint"     // headers tell the better region
	SteerRedirect Steer = "redirect" // reads are sent there with 307, when it is nearer by a margin
)

// SteerConfig says where the node is and how it leads clients. Its zero value gives hints.
type SteerConfig struct {
	// Point is where this node's region is.
	Point geo.Point
	// URL is the base URL at which clients reach this node.
	URL string
	// Steer is how clients are led (SteerHint).
	Steer Steer
	// Margin is by how much another region must be nearer for a redirect (500 km).
	Margin geo.Metres
	// Reach are addresses, host:port, at which this node reaches other nodes' APIs, by those that they tell clients.
	Reach map[string]string
	// TrustProxies are the networks of proxies whose headers about the client count.
	TrustProxies []netip.Prefix
}

func (c *SteerConfig) validate() error {
	var faults []error
	switch c.Steer {
	case "", SteerOff, SteerHint, SteerRedirect:
	default:
		faults = append(faults, fmt.Errorf("steer: %q is not off, hint or redirect", c.Steer))
	}
	if !c.Point.Valid() {
		faults = append(faults, fmt.Errorf("region-point: %v,%v is not a place", c.Point.Lat, c.Point.Lng))
	}
	if math.IsNaN(float64(c.Margin)) || c.Margin < 0 {
		faults = append(faults, fmt.Errorf("steer-margin: %v is negative", c.Margin))
	}
	if u, err := url.Parse(c.URL); c.URL != "" && (err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil) {
		faults = append(faults, fmt.Errorf("advertise-url: %q is not a URL such as https://eu-west.example.org", c.URL))
	}
	return errors.Join(faults...)
}

// steering knows the regions and leads clients to the right one.
type steering struct {
	cfg    SteerConfig
	region regions.ID
	look   func() *regions.View
	single bool                               // no other region is known, nor will be
	geoIP  func(netip.Addr) (geo.Point, bool) // nil: none
	relays *relayer
	hold   time.Duration // for how long a read may wait for the primary region

	steered *prometheus.CounterVec
}

func newSteering(s *Server, deps *Deps, r prometheus.Registerer) *steering {
	t := &steering{cfg: s.cfg.Steer, region: regions.ID(s.cfg.Region), look: deps.View, geoIP: deps.GeoIP, relays: newRelayer(), hold: max(s.cfg.SessionWait, s.cfg.WriteHold),
		steered: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "shortline_steered_total", Help: "Reads of clients that another region should serve, by what was done: hint, redirect, relay, relay_failed."}, []string{"how"})}
	for _, how := range []string{"hint", "redirect", "relay", "relay_failed"} {
		t.steered.WithLabelValues(how)
	}
	if t.cfg.Steer == "" {
		t.cfg.Steer = SteerHint
	}
	if t.cfg.Margin == 0 {
		t.cfg.Margin = 500_000
	}
	t.cfg.URL = strings.TrimSuffix(t.cfg.URL, "/")
	if t.look == nil {
		t.look, t.single = s.alone, true
	}
	r.MustRegister(t.steered)
	return t
}

// alone is the view of a node that knows of no other.
func (s *Server) alone() *regions.View {
	health, reason := s.Health()
	n := regions.NodeStatus{Name: s.cfg.Region, Region: regions.ID(s.cfg.Region), Point: s.cfg.Steer.Point, Health: health, Reason: reason, API: s.cfg.Steer.URL, Version: s.cfg.Version}
	if a := s.feed.Applied(); a != nil {
		n.Lag, n.Epoch = max(0, s.now().Sub(a.At)), a.Token.Epoch
	}
	return regions.Alone(n, s.now())
}

// Health says whether clients may be sent to this node, and why not.
func (s *Server) Health() (regions.Health, string) {
	select {
	case <-s.stopping:
		return regions.Stopping, "it is shutting down"
	default:
	}
	if _, err := s.state(); err != nil {
		return regions.Starting, "its first snapshot is still loading"
	}
	return regions.Healthy, ""
}

// route is where the client at a location should go.
func (s *steering) route(v *regions.View, loc location, buf []regions.Choice) regions.Route {
	key := network(loc.addr)
	if loc.source == sourceQuery {
		key += fmt.Sprintf(" %.1f,%.1f", loc.at.Lat, loc.at.Lng) // many clients may share one address
	}
	return v.Route(regions.Client{Point: loc.at, Key: regions.ClientKey(key)}, buf)
}

// urlFor is the base URL of a region for a client: that of one of its nodes which are ready, the same for the same client. It is empty
// where no node tells one.
func urlFor(p *regions.Place, key uint64) string {
	var first string
	n := 0
	for i := range p.Nodes {
		if node := &p.Nodes[i]; node.Ready() && node.API != "" {
			n++
		} else if first == "" {
			first = node.API
		}
	}
	if n == 0 {
		return first // it may be back by the time that it is needed
	}
	at := int(key % uint64(n))
	for i := range p.Nodes {
		if node := &p.Nodes[i]; node.Ready() && node.API != "" {
			if at == 0 {
				return node.API
			}
			at--
		}
	}
	return first
}

// Elsewhere is part of Elsewhere: other nodes of this region first if clients may still come to it, then the other regions in the
// order of a route.
func (s *steering) Elsewhere(near *geo.Point) []LiveRegion {
	at := s.cfg.Point
	if near != nil {
		at = *near
	}
	v := s.look()
	out := []LiveRegion{}
	for _, c := range v.Route(regions.Client{Point: at}, nil).Choices {
		for i := range c.Place.Nodes {
			n := &c.Place.Nodes[i]
			if n.Name != v.Self && n.Ready() && n.API != "" && n.API != s.cfg.URL && c.Fault == regions.Fit {
				out = append(out, LiveRegion{Name: string(c.Place.ID), URL: n.API})
				break
			}
		}
	}
	return out
}

// steer is the middleware around reads. It takes the mark of a redirect off the query, leads clients to a better region by
// headers or redirects, and passes a read that this node cannot serve on to one that can.
func (s *Server) steer(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		r := c.Request()
		if r.Method != http.MethodGet && r.Method != http.MethodHead || !steerable(c.Path()) {
			return next(c)
		}
		marked := false
		if strings.Contains(r.URL.RawQuery, steeredParam+"=") {
			r.URL.RawQuery, marked = cutParameter(r.URL.RawQuery, steeredParam)
		}
		fixed := marked || len(r.Header[headerRelayed]) > 0
		if target := s.steering.better(r, c.Response().Header(), fixed); target != "" {
			return c.NoContent(http.StatusTemporaryRedirect)
		}
		began := time.Now()
		err := next(c)
		if err != nil && len(r.Header[headerRelayed]) == 0 && !c.Response().Committed {
			return s.steering.relay(c, err, began)
		}
		return err
	}
}

// steerable tells whether a path is a read that any region can serve. Live updates are led by their own messages.
func steerable(path string) bool {
	switch path {
	case "/v1/nearby", "/v1/stores/:id", "/v1/stores/:id/queue", "/v1/stores/:id/stats", "/v1/stores/:id/forecast", "/v1/accuracy", "/v1/heatmap", "/v1/map":
		return true
	}
	return false
}

// cutParameter removes a parameter from a raw query.
func cutParameter(raw, name string) (rest string, found bool) {
	var kept []string
	for pair := range strings.SplitSeq(raw, "&") {
		if strings.HasPrefix(pair, name+"=") {
			found = true
			continue
		}
		kept = append(kept, pair)
	}
	return strings.Join(kept, "&"), found
}

// better sets headers that tell a region which should serve the client rather than this one. It returns where to redirect
// to, empty if the request is to be served here. A request that is fixed has been sent here by another region and stays.
func (s *steering) better(r *http.Request, h http.Header, fixed bool) string {
	if s.cfg.Steer == SteerOff || s.single {
		return ""
	}
	v := s.look()
	if len(v.Places) < 2 {
		return ""
	}
	loc := s.locate(r, placeOfQuery(r))
	var room [8]regions.Choice
	route := s.route(v, loc, room[:0])
	if route.Desperate {
		return ""
	}
	best := &route.Choices[0]
	if best.Place.ID == s.region || loc.source == sourceRegion && best.Distance > s.cfg.Margin && here(&route, s.region).Fault == regions.Fit {
		return ""
	}
	base := urlFor(best.Place, regions.ClientKey(network(loc.addr)))
	if base == "" {
		return ""
	}
	h[headerNearest], h[headerNearestURL] = []string{string(best.Place.ID)}, []string{base}
	own := here(&route, s.region)
	if s.cfg.Steer != SteerRedirect || fixed || len(r.Header["Authorization"]) > 0 || // clients do not send a key on to another host
		own != nil && own.Fault == regions.Fit && best.Distance+s.cfg.Margin > own.Distance {
		s.steered.WithLabelValues("hint").Inc()
		return ""
	}
	target := base + r.URL.EscapedPath() + "?"
	if r.URL.RawQuery != "" {
		target += r.URL.RawQuery + "&"
	}
	target += steeredParam + "=" + url.QueryEscape(string(s.region))
	h.Set("Location", target)
	h.Set("Cache-Control", "no-store")
	s.steered.WithLabelValues("redirect").Inc()
	return target
}

// here returns the choice that is this node's own region, nil where it is not among them.
func here(r *regions.Route, id regions.ID) *regions.Choice {
	for i := range r.Choices {
		if r.Choices[i].Place.ID == id {
			return &r.Choices[i]
		}
	}
	return nil
}

// placeOfQuery is what lat and lng of a query say, nil if they do not say a place.
func placeOfQuery(r *http.Request) *geo.Point {
	if !strings.Contains(r.URL.RawQuery, "lat=") {
		return nil
	}
	var p geo.Point
	seen := 0
	err := parameters(r.URL.RawQuery, func(name, value string) (err error) {
		switch name {
		case "lat":
			p.Lat, err = parseNumber(name, value)
			seen |= 1
		case "lng":
			p.Lng, err = parseNumber(name, value)
			seen |= 2
		}
		return err
	})
	if err != nil || seen != 3 || !p.Valid() {
		return nil // the handler refuses it
	}
	return &p
}
