package main

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"golang.org/x/net/netutil"
	"golang.org/x/sync/errgroup"
)

// plainConnections bounds those of --http-listen, of which each lives for some seconds; further ones wait.
const plainConnections = 1000

// plain is the handler of --http-listen: the authority's challenges where certificates come by ACME, and the way to base, which is the URL
// of the API over TLS. Only what is safe to repeat is led there. Anything else is refused, so that whoever sends keys and writes over a
// network that can be read notices it.
func (s *publicTLSSettings) plain(base string) http.Handler {
	toTLS := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(http.StatusForbidden)
			_, _ = w.Write([]byte(`{"type":"about:blank","title":"Forbidden","status":403,"detail":"this port speaks HTTP without TLS; use https://, and change the API key that was sent here"}` + "\n"))
			return
		}
		w.Header().Set("Connection", "close")
		http.Redirect(w, r, s.secureURL(base, r), http.StatusPermanentRedirect)
	})
	if s.manager != nil {
		return s.manager.HTTPHandler(toTLS)
	}
	return toTLS
}

// secureURL is where a request belongs: the same name where certificates may be of any, else one that they are of, at the port of base.
func (s *publicTLSSettings) secureURL(base string, r *http.Request) string {
	to, err := url.Parse(base)
	if err != nil {
		return base
	}
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.Trim(host, "[]")
	if host != "" && (len(s.domains) == 0 || isOurs(host, s.domains)) {
		if strings.Contains(host, ":") {
			host = "[" + host + "]"
		}
		if port := to.Port(); port != "" && port != "443" {
			host += ":" + port
		}
		to.Host = host
	}
	return "https://" + to.Host + r.URL.RequestURI()
}

// servePlain serves --http-listen until ctx ends, and closes the listener.
func (s *publicTLSSettings) servePlain(ctx context.Context, l net.Listener, base string, log *slog.Logger) error {
	log.Info("http:// is led to TLS", "at", l.Addr().String(), "to", base)
	group, alive := errgroup.WithContext(ctx)
	serveUntil(alive, group, &http.Server{Handler: s.plain(base), ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 5 * time.Second, WriteTimeout: 5 * time.Second,
		IdleTimeout: 5 * time.Second, MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug)}, netutil.LimitListener(l, plainConnections))
	return group.Wait()
}
