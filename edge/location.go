package edge

import (
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/shortline/shortline/geo"
)

// source says what the place of a client was taken from, best first.
type source string

// The sources.
const (
	sourceQuery  source = "query"  // lat and lng of the request
	sourceHeader source = "header" // a header of a trusted proxy
	sourceGeoIP  source = "geoip"  // the client's address
	sourceRegion source = "region" // nothing was known: this node's own region
)

// location is where a client is taken to be.
type location struct {
	at     geo.Point
	source source
	detail string     // the header's name
	addr   netip.Addr // of the client, as far as it is known
}

// placeHeaders are the headers in which content delivery networks and load balancers tell the client's place.
var placeHeaders = []struct {
	name string
	lng  string // header of the longitude; empty: name holds both
	read func(string) (geo.Point, bool)
}{
	{"Cf-Iplatitude", "Cf-Iplongitude", nil},                           // Cloudflare, "Add visitor location headers"
	{"Cloudfront-Viewer-Latitude", "Cloudfront-Viewer-Longitude", nil}, // Amazon CloudFront
	{"X-Vercel-Ip-Latitude", "X-Vercel-Ip-Longitude", nil},             // Vercel
	{"Fastly-Geo-Latitude", "Fastly-Geo-Longitude", nil},               // Fastly, set in VCL from client.geo
	{"X-Appengine-Citylatlong", "", readPair},                          // Google App Engine
	{"X-Client-Geo-Latlong", "", readPair},                             // Google Cloud load balancers: {client_city_lat_long}
	{"X-Akamai-Edgescape", "", readEdgescape},                          // Akamai
	{"X-Geo-Latitude", "X-Geo-Longitude", nil},                         // anybody's own
}

// locate finds where the client is: what it says itself, then what a trusted proxy says, then what is known of its address,
// else this node's own region. Headers of anybody else do not count.
func (s *steering) locate(r *http.Request, said *geo.Point) location {
	addr, trusted := s.client(r)
	loc := location{at: s.cfg.Point, source: sourceRegion, addr: addr}
	if said != nil {
		loc.at, loc.source = *said, sourceQuery
		return loc
	}
	if trusted {
		if p, name, ok := readPlace(r.Header); ok {
			loc.at, loc.source, loc.detail = p, sourceHeader, name
			return loc
		}
	}
	if s.geoIP != nil && addr.IsValid() {
		if p, ok := s.geoIP(addr); ok {
			loc.at, loc.source = p, sourceGeoIP
		}
	}
	return loc
}

// client is the address that the request comes from: the last one in X-Forwarded-For that is no trusted proxy, if the sender is one.
func (s *steering) client(r *http.Request) (addr netip.Addr, trusted bool) {
	ap, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}, false
	}
	addr = ap.Addr().Unmap().WithZone("")
	if !s.trusts(addr) {
		return addr, false
	}
	for _, line := range slices.Backward(r.Header["X-Forwarded-For"]) {
		for _, hop := range slices.Backward(strings.Split(line, ",")) {
			a, ok := parseHop(hop)
			if !ok {
				return addr, true // beyond what cannot be read nothing is known
			}
			if addr = a; !s.trusts(a) {
				return addr, true
			}
		}
	}
	return addr, true
}

// parseHop reads an address of X-Forwarded-For, which some proxies write with a port.
func parseHop(text string) (netip.Addr, bool) {
	text = strings.TrimSpace(text)
	if a, err := netip.ParseAddr(text); err == nil {
		return a.Unmap().WithZone(""), true
	}
	ap, err := netip.ParseAddrPort(text)
	return ap.Addr().Unmap().WithZone(""), err == nil
}

func (s *steering) trusts(a netip.Addr) bool {
	return slices.ContainsFunc(s.cfg.TrustProxies, func(p netip.Prefix) bool { return p.Contains(a) })
}

// readPlace returns the place that the headers tell, and the name of the one that does.
func readPlace(h http.Header) (p geo.Point, name string, ok bool) {
	for _, ph := range placeHeaders {
		values := h[ph.name]
		if len(values) != 1 {
			continue
		}
		if ph.lng == "" {
			p, ok = ph.read(values[0])
		} else {
			p, ok = readDegrees(values[0], h.Get(ph.lng))
		}
		if ok {
			return p, ph.name, true
		}
	}
	return geo.Point{}, "", false
}

func readPair(text string) (geo.Point, bool) {
	lat, lng, ok := strings.Cut(text, ",")
	if !ok {
		return geo.Point{}, false
	}
	return readDegrees(lat, lng)
}

// readDegrees refuses 0,0 as well: it is what many say who do not know.
func readDegrees(lat, lng string) (p geo.Point, ok bool) {
	var errLat, errLng error
	p.Lat, errLat = strconv.ParseFloat(strings.TrimSpace(lat), 64)
	p.Lng, errLng = strconv.ParseFloat(strings.TrimSpace(lng), 64)
	return p, errLat == nil && errLng == nil && p.Valid() && p != geo.Point{}
}

// readEdgescape reads "georegion=263,country_code=US,…,lat=40.71,long=-74.01,…".
func readEdgescape(text string) (geo.Point, bool) {
	var lat, lng string
	for part := range strings.SplitSeq(text, ",") {
		switch name, value, _ := strings.Cut(strings.TrimSpace(part), "="); name {
		case "lat":
			lat = value
		case "long":
			lng = value
		}
	}
	return readDegrees(lat, lng)
}

// network is the part of an address by which clients are told apart when some of them are sent elsewhere.
func network(a netip.Addr) string {
	bits := 48
	if a.Is4() {
		bits = 24
	}
	p, err := a.Prefix(bits)
	if err != nil {
		return ""
	}
	return p.String()
}
