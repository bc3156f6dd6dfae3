package edge_test

import (
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
)

// Whoever comes too often gets 429 with the headers that say so, and nobody else does.
func TestRateLimit(t *testing.T) {
	var mu sync.Mutex
	from := netip.MustParseAddr("203.0.113.1") // whence the document is asked for
	n := newTestNode(t, func(s *nodeSetup) {
		s.edge.RateAddress, s.edge.RateKey = 0.5, 0.8 // five, and eight at once
		s.edge.Steer.TrustProxies = []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}
		s.from = func() netip.Addr { mu.Lock(); defer mu.Unlock(); return from }
	})
	n.get(t, "/healthz").want(t, 200) // the client gets the document, too
	come := func(addr string) {
		mu.Lock()
		defer mu.Unlock()
		from = netip.MustParseAddr(addr)
		n.client.Transport.(*checkedTransport).next.(*http.Transport).CloseIdleConnections() // the next request comes over a new connection
	}
	const path = "/v1/nearby?lat=0&lng=0"
	spend := func(t *testing.T, want int, headers ...string) reply {
		t.Helper()
		for i := range want {
			if got := n.get(t, path, headers...); got.status != 200 {
				t.Fatalf("request %d: %d %s", i+1, got.status, got.body)
			}
		}
		last := n.get(t, path, headers...)
		last.wantProblem(t, 429, "rate-limited")
		return last
	}
	t.Run("by address", func(t *testing.T) {
		come("203.0.113.7")
		last := spend(t, 5)
		if p, l, r := last.header["Ratelimit-Policy"], last.header["Ratelimit"], last.header.Get("Retry-After"); len(p) != 1 || p[0] != `"address";q=5;w=10` || len(l) != 1 || l[0] != `"address";r=0;t=2` || r != "2" {
			t.Errorf("%q %q %q", p, l, r)
		}
	})
	t.Run("others do not pay for it", func(t *testing.T) {
		come("203.0.113.8")
		n.get(t, path).want(t, 200)
	})
	t.Run("load balancers may ask as often as they like", func(t *testing.T) {
		come("203.0.113.7")
		for range 20 {
			n.get(t, "/healthz").want(t, 200)
		}
	})
	t.Run("a spoofed address does not help", func(t *testing.T) {
		come("203.0.113.7")
		for _, h := range []string{"X-Forwarded-For: 203.0.113.99", "X-Real-Ip: 203.0.113.99", "Forwarded: for=203.0.113.99", "X-Forwarded-For: 127.0.0.1", "Shortline-Relayed: eu-west"} {
			n.get(t, path, h).wantProblem(t, 429, "rate-limited")
		}
	})
	t.Run("a key has its own, wherever it comes from", func(t *testing.T) {
		_, key := n.newKey(t, "read")
		come("203.0.113.7")
		for range 4 {
			n.get(t, path, "Authorization: Bearer "+key).want(t, 200)
		}
		come("203.0.113.9")
		last := spend(t, 4, "Authorization: Bearer "+key)
		if !strings.Contains(string(last.body), "this key sends") {
			t.Errorf("%s", last.body)
		}
		n.get(t, path).want(t, 200)
	})
	t.Run("a key that is none counts for its address", func(t *testing.T) {
		come("203.0.113.10")
		for _, h := range []string{"", "Authorization: Bearer x", "Authorization: Bearer " + n.key[:len(n.key)-1] + "2", "Authorization: Bearer x", ""} {
			if h == "" {
				n.get(t, path).want(t, 200)
			} else {
				n.get(t, path, h)
			}
		}
		n.get(t, path, "Authorization: Bearer x").wantProblem(t, 429, "rate-limited")
	})
	t.Run("behind a trusted proxy clients are told apart", func(t *testing.T) {
		come("198.51.100.1")
		spend(t, 5, "X-Forwarded-For: 203.0.113.20")
		n.get(t, path, "X-Forwarded-For: 203.0.113.21").want(t, 200)
		n.get(t, path, "X-Forwarded-For: 203.0.113.20, 203.0.113.22").want(t, 200) // what a client puts in front does not count
	})
	t.Run("this machine is not counted", func(t *testing.T) {
		come("127.0.0.1")
		for range 20 {
			n.get(t, path).want(t, 200)
		}
	})
}
