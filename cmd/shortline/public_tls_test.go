package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shortline/shortline/internal/pki"
)

// publicPair writes a certificate for loopback and its key, and returns the pool that trusts it.
func publicPair(t *testing.T, cert, key, name string) *x509.CertPool {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	made, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	text := pemOf(made)
	if err := errors.Join(pki.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})), pki.WriteFile(cert, text)); err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(text)
	return pool
}

func pemOf(cert *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})
}

// A node with --tls-cert speaks TLS at the address that its ready line names, and shows a new certificate once the files are replaced.
func TestServeOverTLS(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	pool := publicPair(t, cert, key, "first")
	p := start(t, filepath.Join(dir, "data"), "--tls-cert", cert, "--tls-key", key, "--http-listen", "127.0.0.1:0")
	if !strings.HasPrefix(p.api, "https://") {
		t.Fatalf("ready at %s", p.api)
	}
	name := func(pool *x509.CertPool) (string, error) {
		c := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, DisableKeepAlives: true, ForceAttemptHTTP2: true}}
		res, err := c.Get(p.api + "/healthz")
		if err != nil {
			return "", err
		}
		return res.TLS.PeerCertificates[0].Subject.CommonName, res.Body.Close()
	}
	if got, err := name(pool); got != "first" {
		t.Fatal(got, err)
	}
	t.Run("http:// is led there", func(t *testing.T) { ledToTLS(t, p, pool) })
	pool = publicPair(t, cert, key, "second")
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		got, err := name(pool)
		if got == "second" {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("the new certificate is not shown: %q, %v", got, err)
		}
	}
	p.stop()
}

// ledToTLS: reads over plain HTTP end up at the same name and path over TLS; writes do not.
func ledToTLS(t *testing.T, p *process, pool *x509.CertPool) {
	plain := plainAddr(t, p)
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, DisableKeepAlives: true}}
	res, err := c.Get("http://" + plain + "/v1/nearby?lat=1&lng=2")
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if got := res.Request.URL.String(); got != p.api+"/v1/nearby?lat=1&lng=2" || res.StatusCode != http.StatusOK {
		t.Errorf("it ended at %s with %s", got, res.Status)
	}
	res, err = c.Post("http://"+plain+"/v1/stores/a/queue", "application/json", strings.NewReader(`{"length":1}`))
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusForbidden || res.Request.URL.Scheme != "http" {
		t.Errorf("a write over plain HTTP: %s at %s", res.Status, res.Request.URL)
	}
}

func TestPlainLocation(t *testing.T) {
	files, named := publicTLSSettings{}, publicTLSSettings{domains: []string{"api.example.org", "b.example.org"}}
	for _, c := range []struct {
		s                *publicTLSSettings
		base, host, want string
	}{
		{&files, "https://10.0.0.5:8443", "api.example.org", "https://api.example.org:8443/v1?a=%2f"},
		{&files, "https://10.0.0.5:443", "[2001:db8::1]:80", "https://[2001:db8::1]/v1?a=%2f"},
		{&files, "https://10.0.0.5", "", "https://10.0.0.5/v1?a=%2f"},
		{&named, "https://api.example.org", "B.example.org:80", "https://B.example.org/v1?a=%2f"},
		{&named, "https://api.example.org:8443", "evil.example", "https://api.example.org:8443/v1?a=%2f"},
	} {
		r := httptest.NewRequest("GET", "/v1?a=%2f", nil)
		r.Host = c.host
		if got := c.s.secureURL(c.base, r); got != c.want {
			t.Errorf("%s for %q: %s, want %s", c.base, c.host, got, c.want)
		}
	}
}

func TestPublicTLSSettings(t *testing.T) {
	for want, args := range map[string][]string{
		"go together":                {"--tls-cert", "x"},
		"two ways to a certificate":  {"--tls-cert", "x", "--tls-key", "y", "--acme-domain", "a.example.org"},
		`--acme-domain "localhost"`:  {"--acme-domain", "localhost"},
		`--acme-domain "*.a.org"`:    {"--acme-domain", "*.a.org"},
		"--http-listen leads to TLS": {"--http-listen", ":80"},
		`--http-listen "80"`:         {"--http-listen", "80", "--tls-cert", "x", "--tls-key", "y"},
		"is not an https:// URL":     {"--acme-domain", "a.example.org", "--acme-directory", "http://ca"},
	} {
		err := run(context.Background(), append([]string{"serve"}, args...), func(string) string { return "" }, strings.NewReader(""), new(bytes.Buffer), new(bytes.Buffer))
		var usage *usageError
		if !errors.As(err, &usage) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q", args, err, want)
		}
	}
	for addr, want := range map[string]string{"127.0.0.1:443": "https://api.example.org", "[::]:8443": "https://api.example.org:8443"} {
		s := publicTLSSettings{domains: []string{"api.example.org"}}
		if got := s.base(addr); got != want {
			t.Errorf("%s: %s, want %s", addr, got, want)
		}
	}
}
