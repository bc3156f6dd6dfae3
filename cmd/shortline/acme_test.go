package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"regexp"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/letsencrypt/pebble/v2/ca"
	"github.com/letsencrypt/pebble/v2/db"
	"github.com/letsencrypt/pebble/v2/va"
	"github.com/letsencrypt/pebble/v2/wfe"
	"github.com/miekg/dns"

	"github.com/shortline/shortline/internal/pki"
)

const acmeName = "shortline.test"

// pebble is the test authority of Let's Encrypt, which looks at a node as the real one does. Every name is on loopback for it; httpPort and
// tlsPort stand for 80 and 443.
func pebble(t *testing.T, httpPort, tlsPort int) (http.Handler, *ca.CAImpl) {
	t.Helper()
	t.Setenv("PEBBLE_VA_NOSLEEP", "1")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	names := &dns.Server{Listener: l, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		if q.Question[0].Qtype == dns.TypeA {
			m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET}, A: net.IPv4(127, 0, 0, 1)}}
		}
		_ = w.WriteMsg(m)
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = names.ActivateAndServe() }()
	t.Cleanup(func() { _ = l.Close(); <-done })

	quiet := log.New(io.Discard, "", 0)
	store := db.NewMemoryStore()
	authority := ca.New(quiet, store, "", "ecdsa", 0, 1, map[string]ca.Profile{"default": {}})
	front := wfe.New(quiet, store, va.New(quiet, httpPort, tlsPort, false, l.Addr().String(), store), authority, []string{"authority.test"}, false, false, 0, 0)
	return front.Handler(), authority
}

func lastPort(t *testing.T, addr string) int {
	t.Helper()
	_, text, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// A node gets its certificate from an ACME authority, by its TLS port or by its plain one, keeps it, and leads http:// to https://.
func TestCertificateByACME(t *testing.T) {
	for _, by := range []string{"tls-alpn-01", "http-01"} {
		t.Run(by, func(t *testing.T) {
			var handler atomic.Pointer[http.Handler]
			directory := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { (*handler.Load()).ServeHTTP(w, r) }))
			t.Cleanup(directory.Close)
			dir := t.TempDir()
			trusted := filepath.Join(dir, "acme-ca.pem")
			if err := pki.WriteFile(trusted, pemOf(directory.Certificate())); err != nil {
				t.Fatal(err)
			}
			args := []string{"--acme-domain", acmeName, "--acme-directory", directory.URL + wfe.DirectoryPath, "--acme-ca", trusted}
			if by == "http-01" {
				args = append(args, "--http-listen", "127.0.0.1:0")
			}
			p := start(t, filepath.Join(dir, "data"), args...)
			api, err := url.Parse(p.api)
			if err != nil || api.Hostname() != acmeName {
				t.Fatalf("ready at %s, %v", p.api, err)
			}
			tlsPort, httpPort := lastPort(t, api.Host), 1
			if by == "http-01" {
				httpPort = lastPort(t, plainAddr(t, p))
			}
			lookAt := tlsPort
			if by == "http-01" {
				lookAt = 1 // nobody is there, so that this challenge fails
			}
			front, authority := pebble(t, httpPort, lookAt)
			handler.Store(&front)
			roots := x509.NewCertPool()
			roots.AddCert(authority.GetRootCert(0).Cert)
			get := func() (*http.Response, error) {
				c := &http.Client{Timeout: time.Minute, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, DisableKeepAlives: true, DialContext: onLoopback(tlsPort)}}
				return c.Get("https://" + acmeName + "/healthz")
			}
			var serial string
			for end := time.Now().Add(time.Minute); serial == ""; time.Sleep(50 * time.Millisecond) {
				res, err := get()
				if err == nil {
					serial = res.TLS.PeerCertificates[0].SerialNumber.String()
					if err = res.Body.Close(); err == nil && res.StatusCode != http.StatusOK {
						err = errors.New(res.Status)
					}
				}
				if err != nil && time.Now().After(end) {
					t.Fatalf("no certificate: %v\n%s", err, p.stderr)
				}
			}
			p.stop()
			again := start(t, filepath.Join(dir, "data"), append(args, "--listen", net.JoinHostPort("127.0.0.1", strconv.Itoa(tlsPort)))...)
			res, err := get()
			if err != nil {
				t.Fatal(err)
			}
			_ = res.Body.Close()
			if got := res.TLS.PeerCertificates[0].SerialNumber.String(); got != serial {
				t.Error("after a restart the node has another certificate")
			}
			again.stop()
		})
	}
}

func onLoopback(port int) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	}
}

var plainLine = regexp.MustCompile(`http:// is led to TLS.* at=(\S+)`)

// plainAddr is what the node of the process says of --http-listen.
func plainAddr(t *testing.T, p *process) string {
	t.Helper()
	m := plainLine.FindStringSubmatch(p.stderr.String())
	if m == nil {
		t.Fatalf("it does not say where http:// comes in:\n%s", p.stderr)
	}
	return m[1]
}
