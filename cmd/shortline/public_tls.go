package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
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
}

func (s *publicTLSSettings) bind(f *pflag.FlagSet) {
	f.StringVar(&s.cert, "tls-cert", "", "`file` of the certificate that clients see, with those between it and an authority; --listen then speaks TLS; read again when it changes")
	f.StringVar(&s.key, "tls-key", "", "`file` of its private key")
	f.StringSliceVar(&s.domains, "acme-domain", nil, "`names` for which to get certificates by ACME (Let's Encrypt), instead of --tls-cert; the name must lead to --listen at port 443; using it agrees to the authority's terms")
	f.StringVar(&s.email, "acme-email", "", "mail `address` that the authority writes to about the certificates")
	f.StringVar(&s.directory, "acme-directory", acme.LetsEncryptURL, "`URL` of the ACME authority")
	f.StringVar(&s.directoryCA, "acme-ca", "", "`file` of the certificates that an ACME authority of your own is known by; default: those of the system")
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
		manager, err := s.manager(filepath.Join(data, "acme"))
		if err != nil {
			return nil, err
		}
		cfg.NextProtos = append(cfg.NextProtos, acme.ALPNProto)
		cfg.GetCertificate = func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
			cert, err := manager.GetCertificate(h)
			if err != nil && isOurs(h.ServerName, s.domains) { // of other names there is no end
				log.Error("no certificate by ACME", "name", h.ServerName, "err", err)
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

// manager gets and renews certificates when they are asked for, and keeps them in a folder.
func (s *publicTLSSettings) manager(dir string) (*autocert.Manager, error) {
	client := &acme.Client{DirectoryURL: s.directory, UserAgent: "shortline", HTTPClient: &http.Client{Timeout: 30 * time.Second}}
	if s.directoryCA != "" {
		text, err := os.ReadFile(s.directoryCA)
		if err != nil {
			return nil, fmt.Errorf("--acme-ca: %w", err)
		}
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("--acme-ca: %s has no certificate in PEM form", s.directoryCA)
		}
		client.HTTPClient.Transport = &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, Proxy: http.ProxyFromEnvironment}
	}
	return &autocert.Manager{Prompt: autocert.AcceptTOS, Cache: autocert.DirCache(dir), Client: client, Email: s.email, HostPolicy: autocert.HostWhitelist(s.domains...)}, nil
}
