package edge

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
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
		Transport: &http.Transport{MaxConnsPerHost: 64, MaxIdleConnsPerHost: 16, IdleConnTimeout: 30 * time.Second, ResponseHeaderTimeout: relayTimeout,
			DisableCompression: true, MaxResponseHeaderBytes: 64 << 10}}}
}

// relay answers a read that failed with err because this node cannot serve it: the nearest other node that can is asked,
// once, and where this node's database is behind, one of the primary region. A node that is asked in this way does not ask
// another. It returns err where that does not help either.
func (s *steering) relay(c echo.Context, err error) error {
	base := ""
	switch asAPIError(err).kind.name {
	case kindNotReady.name, kindStoreUnavailable.name:
		base = s.helper()
	case kindBehind.name:
		base = s.ahead()
	}
	if base == "" {
		return err
	}
	select {
	case s.relays.slots <- struct{}{}:
		defer func() { <-s.relays.slots }()
	default:
		return err
	}
	res, rerr := s.ask(c.Request(), base)
	if rerr == nil && res.StatusCode >= 500 {
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

// ahead is the base URL of a node of the primary region, which lacks nothing that was acknowledged; "" in that region itself.
func (s *steering) ahead() string {
	v := s.look()
	for i := range v.Places {
		if p := &v.Places[i]; p.Primary && p.ID != s.region {
			return s.other(v, p)
		}
	}
	return ""
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
	ctx, cancel := context.WithTimeout(r.Context(), relayTimeout)
	if scheme, rest, ok := strings.Cut(base, "://"); ok {
		host, path, _ := strings.Cut(rest, "/")
		if via := s.cfg.Reach[host]; via != "" {
			base = scheme + "://" + via + "/" + path
		}
	}
	target := strings.TrimSuffix(base, "/") + r.URL.EscapedPath()
	if r.URL.RawQuery != "" {
		target += "?" + r.URL.RawQuery
	}
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
