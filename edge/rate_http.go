package edge

import (
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"
)

// Headers of draft-ietf-httpapi-ratelimit-headers-10.
const (
	headerRateLimit  = "RateLimit"
	headerRatePolicy = "RateLimit-Policy"
)

// limitRate is the middleware that refuses clients who come too often, with 429. Those of this machine are not counted: a node that is
// tried out, or stands behind a proxy that it was not told of, would take all clients for one.
func (s *Server) limitRate(next echo.HandlerFunc) echo.HandlerFunc {
	if s.limiter.byAddress == nil && s.limiter.byKey == nil {
		return next
	}
	return func(c echo.Context) error {
		r := c.Request()
		addr, _ := s.steering.client(r)
		if addr.IsLoopback() || r.URL.Path == "/healthz" || len(r.Header[headerRelayed]) > 0 && s.steering.isNode(addr) {
			return next(c)
		}
		key := ""
		if len(r.Header["Authorization"]) > 0 {
			if k, err := s.bearer(r); err == nil && k != nil { // a key that is not one counts for its address
				key = string(k.ID)
			}
		}
		limit, left, wait := s.limiter.ask(addr, key)
		if limit == nil || wait == 0 && left > limit.burst/4 {
			return next(c)
		}
		reset := (limit.burst - left) * limit.every
		if wait > 0 {
			reset = wait
		}
		h := c.Response().Header()
		h[headerRatePolicy] = []string{fmt.Sprintf("%q;q=%d;w=%d", limit.name, limit.burst, max(limit.burst*limit.every/int64(time.Second), 1))} // as the draft writes it, not as Go would
		h[headerRateLimit] = []string{fmt.Sprintf("%q;r=%d;t=%d", limit.name, left, (reset+int64(time.Second)-1)/int64(time.Second))}
		if wait == 0 {
			return next(c)
		}
		return &apiError{kind: kindRateLimited, retryAfter: time.Duration(wait),
			detail: "this " + limit.name + " sends more than " + strconv.FormatFloat(1e9/float64(limit.every), 'g', 3, 64) + " requests a second; wait as long as Retry-After says"}
	}
}

// isNode tells whether an address is that of a node that this one knows of.
func (s *steering) isNode(addr netip.Addr) bool {
	v := s.look()
	for i := range v.Places {
		for _, n := range v.Places[i].Nodes {
			if u, err := url.Parse(n.API); err == nil && u.Hostname() == addr.String() {
				return true
			}
		}
	}
	return false
}
