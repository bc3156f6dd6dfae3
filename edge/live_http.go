package edge

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/replication"
)

// liveProtocol is the subprotocol that the server speaks. A browser cannot send an Authorization header with a WebSocket;
// it may offer this one, and its key as a second one that begins with liveKeyProtocol.
const (
	liveProtocol    = "shortline"
	liveKeyProtocol = "key."
)

// liveSocket answers GET /v1/live.
func (s *Server) liveSocket(c echo.Context) error {
	r := c.Request()
	if err := noParameters(r.URL.RawQuery); err != nil {
		return err
	}
	offered := protocols(r.Header)
	for _, p := range offered {
		if key, ok := strings.CutPrefix(p, liveKeyProtocol); ok && r.Header.Get("Authorization") == "" {
			r.Header.Set("Authorization", "Bearer "+key)
		}
	}
	if _, err := s.liveKey(r); err != nil { // first: a page cannot see why its WebSocket fails, and may ask without one
		return err
	}
	accept, err := handshake(r)
	if err != nil {
		c.Response().Header().Set("Upgrade", "websocket")
		return err
	}
	conn, err := s.newLiveConn(c)
	if err != nil {
		return err
	}
	h := c.Response().Header().Clone()
	h.Set("Upgrade", "websocket")
	h.Set("Connection", "Upgrade")
	h.Set("Sec-Websocket-Accept", accept)
	if slices.Contains(offered, liveProtocol) {
		h.Set("Sec-Websocket-Protocol", liveProtocol)
	}
	if err := s.takeOver(c, conn, http.StatusSwitchingProtocols, h); err != nil {
		return err
	}
	s.live.talks.Go(conn.listen)
	return nil
}

// liveEvents answers GET /v1/live/sse.
func (s *Server) liveEvents(c echo.Context) error {
	r := c.Request()
	order, err := parseLiveQuery(r.URL.RawQuery)
	if err != nil {
		return err
	}
	if last := r.Header.Get("Last-Event-Id"); last != "" {
		// An id that is none of ours, or lost, does not matter: what comes first is the newest there is.
		order.token, err = replication.ParseToken(last)
		order.hasMark = err == nil
	}
	conn, err := s.newLiveConn(c)
	if err != nil {
		return err
	}
	conn.sse = true
	h := c.Response().Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // nginx would collect what is to go out at once
	if r.Method == http.MethodHead {
		s.live.leave(conn)
		return c.NoContent(http.StatusOK)
	}
	if r.ProtoMajor > 1 {
		return s.streamEvents(c, conn, &order)
	}
	h = h.Clone()
	h.Set("Connection", "close") // the end of the answer is that of the connection
	if err := s.takeOver(c, conn, http.StatusOK, h); err != nil {
		return err
	}
	conn.say(liveAnswer{frame: []byte("retry: 1000\n\n")})
	s.live.talks.Go(conn.discard) // it has nothing to say
	if order.hasMark {
		s.live.talks.Go(func() {
			s.live.catchUp(order.token)
			conn.begin(&order)
		})
		return nil
	}
	conn.begin(&order)
	return nil
}

// begin follows what an event stream was opened for.
func (c *liveConn) begin(o *liveOrder) {
	if err := c.follow(o); err != nil {
		c.refuse(err)
		c.close(closePolicy, "", endProtocol)
	}
}

// streamEvents is liveEvents where the connection is shared with other requests.
func (s *Server) streamEvents(c echo.Context, conn *liveConn, order *liveOrder) error {
	w := c.Response()
	w.WriteHeader(http.StatusOK)
	gone, closed := context.WithCancel(c.Request().Context())
	wire := &answerWire{w: w, rc: http.NewResponseController(w), gone: gone, closed: closed}
	conn.wire = wire
	s.live.enter(conn)
	if order.hasMark {
		s.live.catchUp(order.token)
	}
	conn.begin(order)
	<-gone.Done()
	conn.end(endClient)
	wire.stop()
	return nil
}

// newLiveConn checks whether the request may have a live connection, and takes a place for it.
func (s *Server) newLiveConn(c echo.Context) (*liveConn, error) {
	r := c.Request()
	key, err := s.liveKey(r)
	if err != nil {
		return nil, err
	}
	if err := s.allowOrigin(r); err != nil {
		return nil, err
	}
	if _, err := s.state(); err != nil {
		return nil, err
	}
	select {
	case <-s.stopping:
		return nil, &apiError{kind: kindNotReady, detail: "this node is stopping; connect to another one", retryAfter: time.Second}
	default:
	}
	conn := &liveConn{hub: s.live, address: addressOf(c.RealIP())}
	if key != nil {
		conn.key = key.ID
	}
	if err := s.live.admit(conn); err != nil {
		s.live.metrics.refused.Inc()
		return nil, err
	}
	return conn, nil
}

// liveKey returns the API key of a request that may read, nil where it has none. Reads may be open, but a key that is sent must
// be good.
func (s *Server) liveKey(r *http.Request) (*shortline.Key, error) {
	if err := s.allowRead(r); err != nil {
		return nil, err
	}
	return s.bearer(r)
}

// addressOf is what connections of one client have in common: an IPv4 address, or the /64 that one household has of IPv6.
func addressOf(text string) netip.Addr {
	addr, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Addr{}
	}
	addr = addr.Unmap().WithZone("")
	if addr.Is6() && !addr.IsLoopback() {
		if prefix, err := addr.Prefix(64); err == nil {
			return prefix.Addr()
		}
	}
	return addr
}

// allowOrigin refuses pages of other origins than those named, if some are. Programs send no Origin.
func (s *Server) allowOrigin(r *http.Request) error {
	origin := r.Header.Get("Origin")
	if origin == "" || len(s.cfg.Live.Origins) == 0 || slices.ContainsFunc(s.cfg.Live.Origins, func(o string) bool { return strings.EqualFold(o, origin) }) {
		return nil
	}
	return &apiError{kind: kindForbidden, detail: fmt.Sprintf("pages of %q may not connect; --live-origins names those that may", clip(origin))}
}

func validOrigin(text string) bool {
	u, err := url.Parse(text)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" && u.User == nil && u.Path == "" && u.RawQuery == "" && u.Fragment == ""
}

// protocols are the subprotocols that a client offers.
func protocols(h http.Header) []string {
	var all []string
	for _, line := range h["Sec-Websocket-Protocol"] {
		for p := range strings.SplitSeq(line, ",") {
			all = append(all, strings.TrimSpace(p))
		}
	}
	return all
}

// handshake checks that the request asks for a WebSocket, and returns what proves that it was understood (RFC 6455, 4.2).
func handshake(r *http.Request) (accept string, err error) {
	upgrade := func(format string, args ...any) (string, error) {
		return "", &apiError{kind: kindUpgrade, detail: fmt.Sprintf(format, args...)}
	}
	switch {
	case r.Method != http.MethodGet || !hasWord(r.Header["Upgrade"], "websocket") || !hasWord(r.Header["Connection"], "upgrade"):
		return upgrade("this call is a WebSocket: open ws://…/v1/live, or use /v1/live/sse")
	case r.ProtoMajor != 1:
		return upgrade("WebSockets are served over HTTP/1.1 here; use that, or /v1/live/sse")
	case r.Header.Get("Sec-Websocket-Version") != "13":
		return upgrade("Sec-WebSocket-Version is %q; this service speaks 13", clip(r.Header.Get("Sec-Websocket-Version")))
	}
	key := r.Header.Get("Sec-Websocket-Key")
	if raw, err := base64.StdEncoding.DecodeString(key); err != nil || len(raw) != 16 {
		return "", malformed("Sec-WebSocket-Key", "must be 16 bytes in base64")
	}
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:]), nil
}

func hasWord(lines []string, word string) bool {
	for _, line := range lines {
		for w := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(strings.TrimSpace(w), word) {
				return true
			}
		}
	}
	return false
}

// takeOver takes the connection away from the HTTP server, so that its goroutine and buffers go, and writes the head of the
// answer. On an error the connection's place has been given back.
func (s *Server) takeOver(c echo.Context, conn *liveConn, status int, h http.Header) error {
	raw, buffered, err := http.NewResponseController(c.Response().Writer).Hijack()
	if err != nil {
		s.live.leave(conn)
		return fmt.Errorf("take over a connection: %w", err)
	}
	if lazy, ok := raw.(*lazyConn); ok {
		raw = lazy.Conn // its deadlines are what they are said to be from Hijack on
	}
	c.Response().Status, c.Response().Committed = status, true
	early := earlyBytes(buffered)
	var head bytes.Buffer
	fmt.Fprintf(&head, "HTTP/1.1 %d %s\r\n", status, http.StatusText(status))
	_ = h.Write(&head) // to memory
	head.WriteString("\r\n")
	if err = finish(raw, head.Bytes(), time.Now().Add(5*time.Second)); err == nil {
		if tcp, ok := raw.(*net.TCPConn); ok {
			conn.wire, err = newTCPWire(tcp, early)
		} else {
			conn.wire = &connWire{raw, early}
		}
	}
	if err != nil {
		_ = raw.Close()
		s.live.leave(conn)
		s.live.metrics.disconnects[endHandshake].Inc()
		return fmt.Errorf("begin a live connection: %w: %w", context.Canceled, err)
	}
	s.live.enter(conn)
	return nil
}

// earlyBytes are what the client sent without waiting for the answer.
func earlyBytes(b *bufio.ReadWriter) []byte {
	n := b.Reader.Buffered()
	if n == 0 {
		return nil
	}
	early, _ := b.Reader.Peek(n)
	return bytes.Clone(early)
}

// enter puts a connection in service.
func (h *liveHub) enter(c *liveConn) {
	now := time.Now()
	c.seen.Store(now.UnixNano())
	c.nextPing = now.Add(rand.N(h.cfg.PingEvery)).UnixNano() // not all at the same moment
	h.metrics.began(c)
	c.shard.add(c)
	select {
	case <-h.ended: // between taking a place and now
		c.end(endShutdown)
	default:
	}
}

// liveParameters are the parameters of GET /v1/live/sse.
var liveParameters = []string{"store", "lat", "lng", "radius", "limit"}

// parseLiveQuery reads what an event stream is to follow.
func parseLiveQuery(raw string) (liveOrder, error) {
	o := liveOrder{op: "subscribe", radius: defaultRadius, limit: defaultLimit}
	seen := map[string]bool{}
	var names []string
	err := parameters(raw, func(name, value string) (err error) {
		if !slices.Contains(liveParameters, name) {
			return unknownParameter(name, liveParameters)
		}
		if seen[name] && name != "store" {
			return malformed(name, "is given more than once")
		}
		seen[name] = true
		switch name {
		case "store":
			names = append(names, value)
		case "lat":
			o.at.Lat, err = parseNumber(name, value)
		case "lng":
			o.at.Lng, err = parseNumber(name, value)
		case "radius":
			o.radius, err = parseRadius(value)
		case "limit":
			o.limit, err = parseLimit(value)
		}
		return err
	})
	switch {
	case err != nil:
		return o, err
	case seen["lat"] != seen["lng"]:
		return o, malformed("lat", "and lng are required together")
	case !seen["lat"] && (seen["radius"] || seen["limit"]):
		return o, malformed("lat", "is required beside radius and limit, and so is lng")
	case !seen["lat"] && !seen["store"]:
		return o, malformed("store", "is required, or lat and lng: what is to be followed")
	}
	if o.area = seen["lat"]; o.area {
		if err := shortline.CheckCoordinates("lat", o.at.Lat, "lng", o.at.Lng); err != nil {
			return o, err
		}
	}
	if names != nil {
		return o, o.setStores(names)
	}
	return o, nil
}

func parseLimit(value string) (int, error) {
	n, err := strconv.Atoi(value)
	switch {
	case err != nil:
		return 0, malformed("limit", "%q is not a whole number", clip(value))
	case n < 1 || n > maxLimit:
		return 0, invalid("limit", "%d is not between 1 and %d", n, maxLimit)
	}
	return n, nil
}
