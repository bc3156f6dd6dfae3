package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/pflag"
	"golang.org/x/crypto/acme"
	"golang.org/x/crypto/acme/autocert"

	"github.com/shortline/shortline/internal/pki"
)

// publicTLSSettings say how clients reach this node over TLS.
type publicTLSSettings struct {
	cert, key   string
	domains     []string
	email       string
	directory   string
	directoryCA string
	http        string
	manager     *autocert.Manager // of load; nil: certificates come from files
}

func (s *publicTLSSettings) bind(f *pflag.FlagSet) {
	f.StringVar(&s.cert, "tls-cert", "", "`file` of the certificate that clients see, with those between it and an authority; --listen then speaks TLS; read again when it changes")
	f.StringVar(&s.key, "tls-key", "", "`file` of its private key")
	f.StringSliceVar(&s.domains, "acme-domain", nil, "`names` for which to get certificates by ACME (Let's Encrypt), instead of --tls-cert; the name must lead to --listen at port 443, or to --http-listen at port 80; using it agrees to the authority's terms")
	f.StringVar(&s.email, "acme-email", "", "mail `address` that the authority writes to about the certificates")
	f.StringVar(&s.directory, "acme-directory", acme.LetsEncryptURL, "`URL` of the ACME authority")
	f.StringVar(&s.directoryCA, "acme-ca", "", "`file` of the certificates that an ACME authority of your own is known by; default: those of the system")
	f.StringVar(&s.http, "http-listen", "", "`address`, such as :80, that leads clients who come with http:// to --listen over TLS, and answers the challenges of --acme-domain there")
}

func (s *publicTLSSettings) on() bool { return s.cert != "" || len(s.domains) > 0 }

func (s *publicTLSSettings) validate() error {
	var faults []error
	if (s.cert == "") != (s.key == "") {
		faults = append(faults, errors.New("--tls-cert and --tls-key go together"))
	}
	if s.cert != "" && len(s.domains) > 0 {
		faults = append(faults, errors.New("--tls-cert and --acme-domain are two ways to a certificate; give one of them"))
	}
	for _, d := range s.domains {
		if !strings.Contains(strings.Trim(d, "."), ".") || strings.ContainsAny(d, "/:* ") {
			faults = append(faults, fmt.Errorf("--acme-domain %q is not a name such as api.example.org", d))
		}
	}
	if s.http != "" && !s.on() {
		faults = append(faults, errors.New("--http-listen leads to TLS, of which there is none: give --tls-cert and --tls-key, or --acme-domain"))
	}
	if u, err := url.Parse(s.directory); len(s.domains) > 0 && (err != nil || u.Scheme != "https") {
		faults = append(faults, fmt.Errorf("--acme-directory %q is not an https:// URL", s.directory))
	}
	return errors.Join(faults...)
}

// base is the URL of an address that this node is reached at: with ACME its certificates are of names alone.
func (s *publicTLSSettings) base(addr string) string {
	if !s.on() {
		return "http://" + addr
	}
	if _, port, err := net.SplitHostPort(addr); err == nil && len(s.domains) > 0 {
		if port == "443" {
			return "https://" + s.domains[0]
		}
		addr = net.JoinHostPort(s.domains[0], port)
	}
	return "https://" + addr
}

// load makes the configuration of the public port, nil where it speaks without TLS.
func (s *publicTLSSettings) load(data string, log *slog.Logger, r prometheus.Registerer) (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}}
	switch {
	case s.cert != "":
		pair, err := pki.LoadServerPair(s.cert, s.key, log)
		if err != nil {
			return nil, fmt.Errorf("--tls-cert: %w", err)
		}
		cfg.GetCertificate = pair.GetCertificate
		r.MustRegister(expiry("public", pair.Expires))
		warnExpiry(log, s.cert, pair.Expires())
		return cfg, nil
	case len(s.domains) > 0:
		manager, err := s.newManager(filepath.Join(data, "acme"))
		if err != nil {
			return nil, err
		}
		s.manager = manager
		cfg.NextProtos = append(cfg.NextProtos, acme.ALPNProto)
		var said atomic.Int64 // when, in Unix seconds
		cfg.GetCertificate = func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
			cert, err := manager.GetCertificate(h)
			if err != nil && isOurs(h.ServerName, s.domains) { // of other names there is no end
				// The manager tries again after a minute; until then each client would make a line.
				if last, now := said.Load(), time.Now().Unix(); now-last >= 60 && said.CompareAndSwap(last, now) {
					log.Error("no certificate by ACME", "name", h.ServerName, "err", err)
				}
			}
			return cert, err
		}
		return cfg, nil
	}
	return nil, nil
}

func isOurs(name string, domains []string) bool {
	for _, d := range domains {
		if strings.EqualFold(strings.TrimSuffix(name, "."), d) {
			return true
		}
	}
	return false
}

// newManager gets and renews certificates when they are asked for, and keeps them in a folder.
func (s *publicTLSSettings) newManager(dir string) (*autocert.Manager, error) {
	client := &acme.Client{DirectoryURL: s.directory, UserAgent: "shortline", HTTPClient: &http.Client{Timeout: 30 * time.Second}}
	if s.directoryCA != "" {
		roots, err := readRoots("acme-ca", s.directoryCA)
		if err != nil {
			return nil, err
		}
		client.HTTPClient.Transport = &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, Proxy: http.ProxyFromEnvironment}
	}
	return &autocert.Manager{Prompt: autocert.AcceptTOS, Cache: autocert.DirCache(dir), Client: client, Email: s.email, HostPolicy: s.isAllowed}, nil
}

// isAllowed refuses names for which no certificate is wanted. An authority of one's own may look at the challenges at another port than 80,
// and name it.
func (s *publicTLSSettings) isAllowed(_ context.Context, host string) error {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	if !isOurs(host, s.domains) {
		return fmt.Errorf("%q is none of --acme-domain", host)
	}
	return nil
}
