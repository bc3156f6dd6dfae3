package edge_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/edge/client"
)

// selfSigned makes a certificate for loopback and the pool that trusts it.
func selfSigned(t testing.TB) (*tls.Config, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, NextProtos: []string{"h2", "http/1.1"}, MinVersion: tls.VersionTLS12}, pool
}

// The public port over TLS: HTTP/2 and 1.1, with the header that keeps browsers there, and live updates over a WebSocket and both kinds of
// event streams.
func TestTLS(t *testing.T) {
	cfg, pool := selfSigned(t)
	n := newTestNode(t, func(s *nodeSetup) { s.tls = cfg })
	transport := newTransport(t)
	transport.TLSClientConfig = &tls.Config{RootCAs: pool}
	transport.ForceAttemptHTTP2 = true
	n.client = &http.Client{Transport: transport}
	old := newTransport(t)
	old.TLSClientConfig = &tls.Config{RootCAs: pool}
	old.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{}
	n.put(t, shortline.Store{ID: "s1", Name: "S", Lat: 52, Lng: 13})
	for proto, c := range map[string]*http.Client{"HTTP/2.0": n.client, "HTTP/1.1": {Transport: old}} {
		res, err := c.Get(n.api + "/v1/nearby?lat=52&lng=13")
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != 200 || res.Proto != proto || res.Header.Get("Strict-Transport-Security") == "" || res.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: %s %v", proto, res.Proto, res.Header)
		}
		events, err := c.Get(n.api + "/v1/live/sse?store=s1")
		if err != nil {
			t.Fatal(err)
		}
		first := make([]byte, 32)
		if k, err := events.Body.Read(first); err != nil || !strings.Contains(string(first[:k]), "retry") && !strings.Contains(string(first[:k]), "event") {
			t.Errorf("events over %s: %q, %v", proto, first[:k], err)
		}
		_ = events.Body.Close()
	}
	live, _ := follow(t, n.api, client.LiveConfig{Stores: []shortline.StoreID{"s1"}}, func(c *client.Config) { c.HTTPClient = n.client })
	await(t, live, "the snapshot", func(client.LiveEvent) bool { return true })
	if res, err := http.Get("http://" + strings.TrimPrefix(n.api, "https://") + "/healthz"); err == nil {
		if _ = res.Body.Close(); res.StatusCode != 400 {
			t.Errorf("plain HTTP was answered with %d", res.StatusCode)
		}
	}
	bad := &http.Client{Transport: newTransport(t)}
	if _, err := bad.Get(n.api + "/healthz"); err == nil {
		t.Error("a client that does not trust the certificate went on")
	}
}
