package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shortline/shortline/internal/pki"
	"github.com/shortline/shortline/internal/planet"
	"github.com/shortline/shortline/replication/rediscache"
)

// authorityFiles makes an authority and a certificate of loopback for both ends of a connection: name-ca.pem, name.pem, name.key.
func authorityFiles(t *testing.T, dir, name string) planet.RedisTLS {
	t.Helper()
	f := planet.RedisTLS{CA: filepath.Join(dir, name+"-ca.pem"), Cert: filepath.Join(dir, name+".pem"), Key: filepath.Join(dir, name+".key")}
	now := time.Now()
	root := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	rootKey, err1 := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name + " node"}, NotBefore: root.NotBefore, NotAfter: root.NotAfter,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	leafKey, err2 := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	rootDER, err1 := x509.CreateCertificate(rand.Reader, root, root, rootKey.Public(), rootKey)
	leafDER, err2 := x509.CreateCertificate(rand.Reader, leaf, root, leafKey.Public(), rootKey)
	secret, err3 := x509.MarshalPKCS8PrivateKey(leafKey)
	if err := errors.Join(err1, err2, err3); err != nil {
		t.Fatal(err)
	}
	block := func(kind string, der []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}) }
	if err := errors.Join(pki.WriteFile(f.CA, block("CERTIFICATE", rootDER)), pki.WriteFile(f.Cert, block("CERTIFICATE", leafDER)), pki.WriteFile(f.Key, block("PRIVATE KEY", secret))); err != nil {
		t.Fatal(err)
	}
	return f
}

// Redis that speaks TLS and asks for certificates answers whoever has the right ones and knows the right authority, and nobody else. That a
// node caches in it is in TestServeOnPostgres.
func TestRedisOverTLS(t *testing.T) {
	planet.Need(t)
	dir := t.TempDir()
	ours, strangers := authorityFiles(t, dir, "ours"), authorityFiles(t, dir, "strangers")
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cluster, err := planet.StartRedis(ctx, planet.RedisConfig{Masters: 1, TLS: &ours})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cluster.Stop(); err != nil {
			t.Error(err)
		}
	})
	first := cluster.TLSAddrs()
	good := redisSettings{addrs: first, tls: true, ca: ours.CA, cert: ours.Cert, key: ours.Key}
	for name, c := range map[string]struct {
		change func(*redisSettings)
		want   string // "": it answers
	}{
		"all as it should be":     {func(*redisSettings) {}, ""},
		"without TLS":             {func(s *redisSettings) { *s = redisSettings{addrs: first} }, "EOF"},
		"without a certificate":   {func(s *redisSettings) { s.cert, s.key = "", "" }, "certificate required"},
		"a stranger's":            {func(s *redisSettings) { s.cert, s.key = strangers.Cert, strangers.Key }, "unknown certificate authority"},
		"it trusts others":        {func(s *redisSettings) { s.ca = strangers.CA }, "certificate signed by unknown authority"},
		"it trusts the system's":  {func(s *redisSettings) { s.ca = "" }, "certificate signed by unknown authority"},
		"a certificate elsewhere": {func(s *redisSettings) { s.addrs = []string{strings.Replace(first[0], "127.0.0.1", "localhost", 1)} }, "not valid for any names"},
	} {
		t.Run(name, func(t *testing.T) {
			s := good
			c.change(&s)
			if err := s.validate(); err != nil {
				t.Fatal(err)
			}
			cfg, err := s.config("test", slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			facts, err := rediscache.Inspect(ctx, cfg, s.addrs[0])
			switch {
			case c.want == "" && (err != nil || facts.Fault != nil || facts.State != "ok"):
				t.Errorf("%+v, %v", facts, err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

// doctor tells when the certificate for Redis ends, and that its files cannot be used.
func TestDoctorLooksAtRedisCertificate(t *testing.T) {
	f := authorityFiles(t, t.TempDir(), "ours")
	s := subject{name: "serve"}
	s.serve.redis = redisSettings{tls: true, cert: f.Cert, key: f.Key}
	var found findings
	s.certificates(&found, time.Now().AddDate(0, -1, 0))
	s.certificates(&found, time.Now().Add(2*time.Hour))
	s.serve.redis.key = f.CA
	s.certificates(&found, time.Now())
	for i, want := range []finding{{Verdict: fine, Detail: "CN=ours node, until"}, {Verdict: fail, Detail: "CN=ours node, until"}, {Verdict: fail, Fix: "correct --redis-tls-cert and --redis-tls-key"}} {
		if got := found[i]; got.Check != "certificate for Redis" || got.Verdict != want.Verdict || !strings.Contains(got.Detail, want.Detail) || want.Fix != "" && got.Fix != want.Fix {
			t.Errorf("look %d: %+v", i, got)
		}
	}
}

func TestRedisSettings(t *testing.T) {
	file := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for want, s := range map[string]redisSettings{
		"of no use without --redis-tls": {ca: "x"},
		"go together":                   {tls: true, cert: "x"},
		"is not an address":             {addrs: []string{"redis"}},
	} {
		if err := s.validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", s, err, want)
		}
	}
	for want, s := range map[string]redisSettings{
		"--redis-tls-ca: open": {tls: true, ca: file + ".none"},
		"has no certificate":   {tls: true, ca: file},
		"--redis-tls-cert: ":   {tls: true, cert: file, key: file},
	} {
		if _, err := s.config("test", slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", s, err, want)
		}
	}
}
