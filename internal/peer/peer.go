// Package peer is how nodes, database agents and controllers of one deployment talk to each other: HTTP/2 with prior
// knowledge, one kept connection a pair, and requests signed with the cluster key.
//
// It promises that a request which was not signed by somebody who has the key, was changed on its way, is too old or was
// here before is refused before its body is acted on. It knows nothing of what is asked. With an Identity both ends show certificates
// too; without one nothing is encrypted and answers are not signed: the network between nodes has to be private then.
package peer

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/shortline/shortline/internal/pki"
)

// The version that this binary speaks, and the lowest that a receiver of its messages must speak. Version 2 knows uses of API keys; a
// receiver of version 1 refuses the one write that has them.
const (
	Version = 2
	Needs   = 1
)

// Kind names why something was refused; kinds are part of the protocol.
type Kind string

// Kinds of refusals of whole requests.
const (
	Unauthorized Kind = "unauthorized"
	Skewed       Kind = "clock-skew"
	Replayed     Kind = "replayed"
	Malformed    Kind = "malformed"
	TooLarge     Kind = "too-large"
	TooNew       Kind = "version"
	Loop         Kind = "loop"
	Overloaded   Kind = "overloaded"
	Failed       Kind = "failed" // what was asked could not be done; the detail says why
)

// Status is the HTTP status of a refusal.
func (k Kind) Status() int {
	switch k {
	case Unauthorized, Skewed:
		return http.StatusUnauthorized
	case Replayed:
		return http.StatusConflict
	case Malformed:
		return http.StatusBadRequest
	case TooLarge:
		return http.StatusRequestEntityTooLarge
	case TooNew:
		return http.StatusUpgradeRequired
	case Loop:
		return http.StatusLoopDetected
	case Failed:
		return http.StatusUnprocessableEntity
	}
	return http.StatusServiceUnavailable
}

// Refusal is the body of the answer to a request that was refused as a whole.
type Refusal struct {
	Kind   Kind   `json:"error"`
	Detail string `json:"detail"`
}

// Error says both.
func (r *Refusal) Error() string { return string(r.Kind) + ": " + r.Detail }

// NewTransport keeps a connection to each peer and finds out by pings when the other end is dead or frozen: a request
// itself may rightly take as long as a write may be held. id is nil for connections without TLS; URLs begin with Scheme(id).
func NewTransport(id *pki.Identity) *http.Transport {
	t := &http.Transport{
		Protocols:          new(http.Protocols),
		DialContext:        (&net.Dialer{Timeout: time.Second, KeepAlive: 15 * time.Second}).DialContext,
		DisableCompression: true,
		IdleConnTimeout:    90 * time.Second,
		HTTP2:              &http.HTTP2Config{SendPingTimeout: time.Second, PingTimeout: time.Second, WriteByteTimeout: 5 * time.Second},
	}
	if id == nil {
		t.Protocols.SetUnencryptedHTTP2(true)
		return t
	}
	t.Protocols.SetHTTP2(true)
	t.DialTLSContext = dialTLS(t.DialContext, id.Client("", "h2"))
	return t
}

// Scheme is how the URLs of calls begin.
func Scheme(id *pki.Identity) string {
	if id == nil {
		return "http://"
	}
	return "https://"
}

// dialTLS makes a handshake a part of dialing: while it fails, nothing was sent.
func dialTLS(dial func(ctx context.Context, network, addr string) (net.Conn, error), cfg *tls.Config) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
		defer cancel()
		secure := tls.Client(conn, cfg)
		if err := secure.HandshakeContext(ctx); err != nil {
			_ = conn.Close()
			return nil, &net.OpError{Op: "dial", Net: network, Addr: conn.RemoteAddr(), Err: fmt.Errorf("TLS: %w", err)}
		}
		return secure, nil
	}
}

// handshakeTimeout bounds a handshake of TLS.
const handshakeTimeout = 3 * time.Second

// NeverSent tells of an error of a request whether it surely was not acted on: nobody was reached, or the other end refused this one's
// certificate, which in TLS 1.3 shows after the handshake, before or after the request is written.
func NeverSent(err error) bool {
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		return true
	}
	if op != nil && op.Op == "remote error" && slices.Contains(certificateAlerts, op.Err.Error()) {
		return true
	}
	return err != nil && strings.HasSuffix(err.Error(), notEstablished)
}

// notEstablished is how net/http words that a new connection was closed before its first request was written: a refusal of the
// certificate that came quicker than that.
const notEstablished = "http2: client conn could not be established"

// certificateAlerts are how crypto/tls words them.
var certificateAlerts = func() (all []string) {
	for _, code := range []tls.AlertError{42, 43, 44, 45, 46, 48, 49, 116} {
		all = append(all, code.Error())
	}
	return all
}()

// Listen is what a Server listens on: TLS over l, or l itself where id is nil.
func Listen(l net.Listener, id *pki.Identity) net.Listener {
	if id == nil {
		return l
	}
	return tls.NewListener(l, id.Server("h2"))
}

// NewServer speaks HTTP/2 and nothing else, with prior knowledge or over TLS as its listener has it (see Listen): one protocol to bound,
// and one connection a peer. No answer may take longer than slowest.
func NewServer(handler http.Handler, slowest time.Duration, log *slog.Logger) *http.Server {
	s := &http.Server{
		Handler: handler, Protocols: new(http.Protocols),
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 30 * time.Second, WriteTimeout: slowest, IdleTimeout: 2 * time.Minute,
		MaxHeaderBytes: 8 << 10,
		HTTP2:          &http.HTTP2Config{MaxConcurrentStreams: 128, MaxReceiveBufferPerStream: 1 << 20, MaxReceiveBufferPerConnection: 4<<20 - 1},
		ErrorLog:       slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	s.Protocols.SetUnencryptedHTTP2(true)
	s.Protocols.SetHTTP2(true)
	return s
}
