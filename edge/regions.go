package edge

import (
	"cmp"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/labstack/echo/v4"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/geo"
	"github.com/shortline/shortline/regions"
)

// RouteAnswer is the answer to GET /v1/route.
type RouteAnswer struct {
	Regions     []RouteRegion `json:"regions" doc:"In the order in which this client should try them"`
	Client      RouteClient   `json:"client"`
	Explanation string        `json:"explanation" doc:"Why the first is the first"`
	Region      string        `json:"region" doc:"The region that answered"`
}

// RouteClient is where the client is taken to be.
type RouteClient struct {
	Lat    float64 `json:"lat" minimum:"-90" maximum:"90"`
	Lng    float64 `json:"lng" minimum:"-180" maximum:"180"`
	Source string  `json:"source" enum:"query,header,geoip,region" doc:"What it was taken from: the coordinates of the request, a header of a trusted proxy, the client's address, or nothing but this node's own region"`
	Header string  `json:"header,omitempty" doc:"The header's name, where it was one"`
	Addr   string  `json:"addr,omitempty" doc:"The client's address as this node knows it"`
}

// RouteRegion is one region for a client.
type RouteRegion struct {
	Name      regions.ID `json:"name"`
	DistanceM float64    `json:"distance_m" minimum:"0" doc:"Great-circle distance in metres"`
	Health    string     `json:"health" enum:"healthy,unhealthy"`
	State     string     `json:"state" enum:"active,draining,drained"`
	URL       string     `json:"url" doc:"Base URL; empty where none is known"`
	Use       bool       `json:"use" doc:"Whether it is fit for this client now; the others are there in case that nothing else is left"`
	Why       string     `json:"why" doc:"Why, in words"`
}

// RegionsAnswer is the answer to GET /v1/regions.
type RegionsAnswer struct {
	Regions []RegionInfo `json:"regions"`
	Primary *regions.ID  `json:"primary" nullable:"true" doc:"The region that takes writes; null while there is none"`
	Epoch   uint64       `json:"epoch" doc:"Counts the changes of the primary; 0 where there is no control plane"`
	Region  string       `json:"region" doc:"The region that answered, as it sees the others"`
	AsOf    time.Time    `json:"as_of"`
}

// RegionInfo is one region.
type RegionInfo struct {
	Name        regions.ID `json:"name"`
	Role        string     `json:"role" enum:"primary,standby,witness"`
	State       string     `json:"state" enum:"active,draining,drained" doc:"What it is there for; clients are not sent to one that is draining or drained"`
	Health      string     `json:"health" enum:"healthy,unhealthy" doc:"Whether any of its nodes is ready"`
	Lat         float64    `json:"lat" minimum:"-90" maximum:"90"`
	Lng         float64    `json:"lng" minimum:"-180" maximum:"180"`
	URL         string     `json:"url" doc:"Base URL; empty where none is known"`
	LagS        float64    `json:"lag_s" minimum:"0" doc:"How far its most advanced node may be behind the primary"`
	RTTMS       *float64   `json:"rtt_ms" nullable:"true" doc:"Estimated round trip from the node that answered; null where it is not known"`
	Load        float64    `json:"load" minimum:"0" doc:"Part of its capacity in use; 0 where no capacity is set"`
	CapacityRPS float64    `json:"capacity_rps" minimum:"0" doc:"Requests a second that it is meant to bear; 0 where it is not set"`
	Spill       float64    `json:"spill" minimum:"0" maximum:"1" doc:"Share of the clients nearest to it that are sent elsewhere"`
	Nodes       []NodeInfo `json:"nodes"`
}

// NodeInfo is one node of a region.
type NodeInfo struct {
	Name    string   `json:"name"`
	Health  string   `json:"health" enum:"healthy,starting,unhealthy,stopping,dead,flapping,silent"`
	Reason  string   `json:"reason,omitempty" doc:"Why it is not healthy"`
	URL     string   `json:"url"`
	Addrs   []string `json:"addrs,omitempty" doc:"Its public addresses, for DNS"`
	Version string   `json:"version"`
	LagS    float64  `json:"lag_s" minimum:"0"`
	RTTMS   float64  `json:"rtt_ms" minimum:"0" doc:"Estimated round trip from the node that answered; 0 where it is not known"`
	LoadRPS float64  `json:"load_rps" minimum:"0" doc:"Requests a second"`
	SkewMS  float64  `json:"skew_ms" doc:"How far its clock is ahead of that of the node that answered"`
	AgeS    float64  `json:"age_s" minimum:"0" doc:"Seconds since it told of itself"`
}

// regionRoutes are the calls about regions.
func (s *Server) regionRoutes() []route {
	number := func(low, high float64) *huma.Schema {
		return &huma.Schema{Type: huma.TypeNumber, Minimum: &low, Maximum: &high}
	}
	return []route{
		{http.MethodGet, "/v1/route", s.getRoute, operation{
			id: "route", tag: "Regions", summary: "The regions in the order this client should use them", answer: RouteAnswer{},
			description: "By great-circle distance among the regions that are healthy, not drained and not overloaded. Without `lat` and `lng` the client's place is taken from headers of a trusted proxy, else from its address, else it is this node's region; `client.source` says which.",
			params: []*huma.Param{
				{Name: "lat", In: "query", Description: "Latitude of the client in degrees; goes with `lng`", Schema: number(-90, 90)},
				{Name: "lng", In: "query", Description: "Longitude of the client in degrees; goes with `lat`", Schema: number(-180, 180)}},
			problems: []problemKind{kindMalformed, kindInvalid}}},
		{http.MethodGet, "/v1/regions", s.getRegions, operation{
			id: "regions", tag: "Regions", summary: "Every region as this node sees it", answer: RegionsAnswer{},
			description: "Role, state, health, lag and nodes of every region. What one node sees is a hint and may be some seconds old; which region takes writes is decided elsewhere.",
			problems:    []problemKind{kindMalformed}}},
	}
}

// explainRoutes are the operator's: the same answer for anybody else's address.
func (s *Server) explainRoutes(guard echo.MiddlewareFunc) []route {
	text := func(name, description string) *huma.Param {
		return &huma.Param{Name: name, In: "query", Description: description, Schema: &huma.Schema{Type: huma.TypeString}}
	}
	return []route{{http.MethodGet, "/admin/v1/route", guard(s.explainRoute), operation{
		id: "explainRoute", tag: "Regions", summary: "The regions in the order that a client at a place or address is given", scope: shortline.ScopeAdmin, answer: RouteAnswer{},
		params:   []*huma.Param{text("lat", "Latitude in degrees; goes with `lng`"), text("lng", "Longitude in degrees; goes with `lat`"), text("addr", "An IP address, instead of coordinates")},
		problems: []problemKind{kindMalformed, kindInvalid}}}}
}

// explainRoute answers GET /admin/v1/route.
func (s *Server) explainRoute(c echo.Context) error {
	var addr netip.Addr
	raw, given := cutParameter(c.Request().URL.RawQuery, "addr")
	if given {
		values, err := url.ParseQuery(c.Request().URL.RawQuery)
		if err != nil || raw != "" || len(values["addr"]) != 1 {
			return malformed("addr", "stands alone, and once")
		}
		if addr, err = netip.ParseAddr(values.Get("addr")); err != nil {
			return malformed("addr", "%q is not an IP address", clip(values.Get("addr")))
		}
	}
	said, err := parseRoutePlace(raw)
	if err != nil {
		return err
	}
	t := s.steering
	if !given {
		return s.answerRoute(c, t.locate(c.Request(), said))
	}
	loc := location{at: t.cfg.Point, source: sourceRegion, addr: addr.Unmap().WithZone("")}
	if t.geoIP != nil {
		if p, ok := t.geoIP(loc.addr); ok {
			loc.at, loc.source = p, sourceGeoIP
		}
	}
	return s.answerRoute(c, loc)
}

// getRoute answers GET /v1/route.
func (s *Server) getRoute(c echo.Context) error {
	r := c.Request()
	said, err := parseRoutePlace(r.URL.RawQuery)
	if err != nil {
		return err
	}
	return s.answerRoute(c, s.steering.locate(r, said))
}

func (s *Server) answerRoute(c echo.Context, loc location) error {
	t := s.steering
	route := t.route(t.look(), loc, nil)
	answer := RouteAnswer{Regions: []RouteRegion{}, Region: s.cfg.Region, Explanation: route.Explain(),
		Client: RouteClient{Lat: loc.at.Lat, Lng: loc.at.Lng, Source: string(loc.source), Header: loc.detail}}
	if loc.addr.IsValid() {
		answer.Client.Addr = loc.addr.String()
	}
	key := regions.ClientKey(network(loc.addr))
	for i := range route.Choices {
		choice := &route.Choices[i]
		answer.Regions = append(answer.Regions, RouteRegion{
			Name: choice.Place.ID, DistanceM: float64(choice.Distance), Health: placeHealth(choice.Place), State: placeState(choice.Place),
			URL: s.urlOf(c, choice.Place, key), Use: choice.Fault == regions.Fit, Why: choice.Why()})
	}
	c.Response().Header()["Cache-Control"] = noStoreHeader
	return s.answer(c, http.StatusOK, "", answer)
}

// urlOf is urlFor, with the address that the client used itself where this node was not told its own.
func (s *Server) urlOf(c echo.Context, p *regions.Place, key uint64) string {
	if base := urlFor(p, key); base != "" || p.ID != s.steering.region {
		return base
	}
	return ownURL(c.Request())
}

// ownURL is how the client reached this node, empty where it did not say.
func ownURL(r *http.Request) string {
	if r.Host == "" {
		return ""
	}
	if r.TLS != nil {
		return "https://" + r.Host
	}
	return "http://" + r.Host
}

func parseRoutePlace(raw string) (*geo.Point, error) {
	var p geo.Point
	seen := map[string]bool{}
	err := parameters(raw, func(name, value string) (err error) {
		if name != "lat" && name != "lng" {
			return unknownParameter(name, []string{"lat", "lng"})
		}
		if seen[name] {
			return malformed(name, "is given more than once")
		}
		seen[name] = true
		if name == "lat" {
			p.Lat, err = parseNumber(name, value)
		} else {
			p.Lng, err = parseNumber(name, value)
		}
		return err
	})
	switch {
	case err != nil:
		return nil, err
	case len(seen) == 0:
		return nil, nil
	case !seen["lat"]:
		return nil, malformed("lat", "is required with lng: the latitude in degrees, such as lat=40.7580")
	case !seen["lng"]:
		return nil, malformed("lng", "is required with lat: the longitude in degrees, such as lng=-73.9855")
	}
	if err := shortline.CheckCoordinates("lat", p.Lat, "lng", p.Lng); err != nil {
		return nil, err
	}
	return &p, nil
}

func placeHealth(p *regions.Place) string {
	if p.Ready > 0 {
		return "healthy"
	}
	return "unhealthy"
}

func placeState(p *regions.Place) string { return string(cmp.Or(p.State.Duty, regions.Active)) }

// getRegions answers GET /v1/regions.
func (s *Server) getRegions(c echo.Context) error {
	if err := noParameters(c.Request().URL.RawQuery); err != nil {
		return err
	}
	v := s.steering.look()
	answer := RegionsAnswer{Regions: []RegionInfo{}, Epoch: v.Epoch, Region: s.cfg.Region, AsOf: v.At.UTC()}
	if id, ok := v.Primary(); ok {
		answer.Primary = &id
	}
	for i := range v.Places {
		p := &v.Places[i]
		info := RegionInfo{Name: p.ID, Role: "standby", State: placeState(p), Health: placeHealth(p), Lat: p.Point.Lat, Lng: p.Point.Lng, URL: s.urlOf(c, p, 0),
			LagS: p.Lag.Seconds(), Load: p.Load, CapacityRPS: p.Capacity, Spill: p.Spill, Nodes: []NodeInfo{}}
		switch {
		case p.Primary:
			info.Role = "primary"
		case p.State.Witness:
			info.Role = "witness"
		}
		if p.RTT > 0 {
			info.RTTMS = ptr(milliseconds(p.RTT))
		}
		for j := range p.Nodes {
			info.Nodes = append(info.Nodes, nodeInfo(&p.Nodes[j], v.At))
		}
		answer.Regions = append(answer.Regions, info)
	}
	c.Response().Header()["Cache-Control"] = noStoreHeader
	return s.answer(c, http.StatusOK, "", answer)
}

func nodeInfo(n *regions.Node, now time.Time) NodeInfo {
	info := NodeInfo{Name: n.Name, Health: string(n.Health), Reason: n.Reason, URL: n.API, Version: n.Version, LagS: n.Lag.Seconds(), RTTMS: milliseconds(n.RTT),
		LoadRPS: n.Load, SkewMS: milliseconds(n.Skew), AgeS: max(0, now.Sub(n.Heard).Seconds())}
	for _, a := range n.Addrs {
		info.Addrs = append(info.Addrs, a.String())
	}
	switch {
	case !n.Alive && n.Health != regions.Stopping:
		info.Health, info.Reason = "dead", "it does not answer"
	case n.Flapping:
		info.Health, info.Reason = "flapping", "it came and went too often lately"
	case n.Silent:
		info.Health, info.Reason = "silent", "it answers probes but does not tell of itself"
	}
	switch info.Health {
	case "healthy", "starting", "unhealthy", "stopping", "dead", "flapping", "silent":
	default: // of a later version
		info.Health = "unhealthy"
	}
	return info
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
