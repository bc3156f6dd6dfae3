package edge

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/shortline/shortline/regions"
)

const (
	// relayTimeout bounds one read that is passed on, maxRelays how many are under way at a time: past it clients get this
	// node's own answer.
	relayTimeout = 5 * time.Second
	maxRelays    = 256
)

// relayer passes reads on to other nodes.
type relayer struct {
	client *http.Client
	slots  chan struct{}
}

func newRelayer() *relayer {
	return &relayer{slots: make(chan struct{}, maxRelays), client: &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{DialContext: (&net.Dialer{Timeout: relayTimeout, Control: noNeighbours}).DialContext, MaxConnsPerHost: 64, MaxIdleConnsPerHost: 16, IdleConnTimeout: 30 * time.Second, ResponseHeaderTimeout: relayTimeout,
			DisableCompression: true, MaxResponseHeaderBytes: 64 << 10}}}
}

// noNeighbours keeps relays from link-local addresses: no node is there, but the service by which clouds tell a machine its secrets is.
func noNeighbours(_, address string, _ syscall.RawConn) error {
	if to, err := netip.ParseAddrPort(address); err != nil || to.Addr().Unmap().IsLinkLocalUnicast() || to.Addr().IsMulticast() {
		return fmt.Errorf("%s is no address of a node", address)
	}
	return nil
}

// relay answers a read that failed with err because this node cannot serve it: the nearest other node that can is asked,
// once, and where this node's database is behind, one of the primary region. A node that is asked in this way does not ask
// another. It returns err where that does not help either.
func (s *steering) relay(c echo.Context, err error, began time.Time) error {
	switch asAPIError(err).kind.name {
	case kindNotReady.name, kindStoreUnavailable.name:
		if base := s.helper(); base != "" {
			return s.through(c, base, err)
		}
	case kindBehind.name:
		return s.relayAhead(c, err, began)
	}
	return err
}

// aheadPause is the time between two attempts to find a node of the primary region that answers.
const aheadPause = 100 * time.Millisecond

// relayAhead passes a read on to the primary region. While that moves, because it has just died, say, nobody can answer; the read is
// held for as long as a write would be.
func (s *steering) relayAhead(c echo.Context, err error, began time.Time) error {
	ctx, cancel := context.WithDeadline(c.Request().Context(), began.Add(s.hold))
	defer cancel()
	for last := err; ; {
		base, own := s.ahead()
		if own {
			return last
		}
		if base != "" {
			if last = s.through(c, base, err); last == nil || c.Response().Committed {
				return last
			}
		}
		t := time.NewTimer(aheadPause)
		select {
		case <-ctx.Done():
			t.Stop()
			return last
		case <-t.C:
		}
	}
}

// through passes a read on to the node at base. Where that fails before anything was answered, the error wraps err.
func (s *steering) through(c echo.Context, base string, err error) error {
	select {
	case s.relays.slots <- struct{}{}:
		defer func() { <-s.relays.slots }()
	default:
		return err
	}
	res, rerr := s.ask(c.Request(), base)
	if rerr == nil && (res.StatusCode >= 500 || res.StatusCode/100 == 3 && res.StatusCode != http.StatusNotModified) {
		_ = res.Body.Close()
		rerr = fmt.Errorf("it answered %s", res.Status)
	}
	if rerr != nil {
		s.steered.WithLabelValues("relay_failed").Inc()
		return fmt.Errorf("%w (and %s could not help: %w)", err, base, rerr)
	}
	defer func() { _ = res.Body.Close() }()
	s.steered.WithLabelValues("relay").Inc()
	w := c.Response()
	for _, name := range []string{"Content-Type", "Content-Length", "Cache-Control", "Etag", "Www-Authenticate", headerToken, headerRegion} {
		if v := res.Header[name]; len(v) > 0 {
			w.Header()[name] = v
		}
	}
	w.Header().Set(headerRelayed, string(s.region))
	w.WriteHeader(res.StatusCode)
	_, err = io.Copy(w, res.Body)
	return err
}

// helper is the base URL of the node that a read is passed on to: of this region first, then of the nearest that is fit.
func (s *steering) helper() string {
	v := s.look()
	if base := s.other(v, v.Place(s.region)); base != "" {
		return base
	}
	for _, c := range v.Route(regions.Client{Point: s.cfg.Point}, nil).Choices {
		if base := s.other(v, c.Place); base != "" {
			return base
		}
	}
	return ""
}

// ahead is the base URL of a node of the primary region, which lacks nothing that was acknowledged; "" where none is known. own says
// that it is this region, or the only one.
func (s *steering) ahead() (base string, own bool) {
	v := s.look()
	for i := range v.Places {
		if p := &v.Places[i]; p.Primary {
			return s.other(v, p), p.ID == s.region
		}
	}
	return "", len(v.Places) < 2
}

// other is the base URL of a node of the region that is ready and is not this one.
func (s *steering) other(v *regions.View, p *regions.Place) string {
	if p == nil {
		return ""
	}
	for i := range p.Nodes {
		if n := &p.Nodes[i]; n.Name != v.Self && n.Ready() && n.API != "" && n.API != s.cfg.URL {
			return n.API
		}
	}
	return ""
}

// ask sends the read to another node, marked so that it goes no further.
func (s *steering) ask(r *http.Request, base string) (*http.Response, error) {
	to, err := url.Parse(base)
	if err != nil || to.Scheme != "http" && to.Scheme != "https" || to.Host == "" || to.User != nil || strings.ContainsAny(base, "?#") { // what is appended has to be the end of the path
		return nil, fmt.Errorf("it says that it is at %q, which is no base URL", clip(base))
	}
	if via := s.cfg.Reach[to.Host]; via != "" {
		to.Host = via
	}
	target := to.Scheme + "://" + to.Host + strings.TrimSuffix(to.EscapedPath(), "/") + r.URL.EscapedPath()
	if r.URL.RawQuery != "" {
		target += "?" + r.URL.RawQuery
	}
	ctx, cancel := context.WithTimeout(r.Context(), relayTimeout)
	req, err := http.NewRequestWithContext(ctx, r.Method, target, nil)
	if err != nil {
		cancel()
		return nil, err
	}
	for _, name := range []string{"Accept", "Authorization", "If-None-Match", headerToken, headerRequestID} {
		if v := r.Header[name]; len(v) > 0 {
			req.Header[name] = v
		}
	}
	req.Header.Set(headerRelayed, string(s.region))
	res, err := s.relays.client.Do(req)
	if err != nil {
		cancel()
		return nil, err
	}
	if n, err := strconv.Atoi(res.Header.Get("Content-Length")); err == nil && n > maxRelayBytes {
		_ = res.Body.Close()
		cancel()
		return nil, fmt.Errorf("it answers with %d bytes", n)
	}
	res.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(res.Body, maxRelayBytes), closer{res.Body, cancel}}
	return res, nil
}

// maxRelayBytes bounds an answer that is passed on; a heat map is the largest.
const maxRelayBytes = 32 << 20

// closer ends the request with its body.
type closer struct {
	body   io.Closer
	cancel context.CancelFunc
}

// Close is part of io.Closer.
func (c closer) Close() error {
	defer c.cancel()
	return c.body.Close()
}
