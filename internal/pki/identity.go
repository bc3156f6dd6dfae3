package pki

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// Files are where an Identity is read from, all PEM.
type Files struct {
	// CA has the certificates of the authorities that are trusted.
	CA string
	// Cert has the node's certificate and those between it and an authority, Key its private key.
	Cert, Key string
}

// Identity is what a node shows to others of its deployment and asks of them. A nil Identity stands for connections without TLS.
type Identity struct {
	deployment string
	files      *reloaded[material]
}

// material is what the files say.
type material struct {
	cert  tls.Certificate
	roots *x509.CertPool
	name  Name
}

// Load reads the files, and again whenever they change, for handshakes after that. It refuses a certificate that others of the deployment would
// refuse, and one of another region than the given one ("": any).
func Load(f Files, deployment, region string, log *slog.Logger) (*Identity, error) {
	i := &Identity{deployment: deployment}
	var err error
	i.files, err = newReloaded([]string{f.CA, f.Cert, f.Key}, log, func() (material, error) {
		var m material
		authorities, err := readCertificates(f.CA)
		if err != nil {
			return m, fmt.Errorf("read the authorities: %w", err)
		}
		m.roots = x509.NewCertPool()
		for _, c := range authorities {
			m.roots.AddCert(c)
		}
		if m.cert, err = tls.LoadX509KeyPair(f.Cert, f.Key); err != nil {
			return m, fmt.Errorf("read the certificate: %w", err)
		}
		chain := []*x509.Certificate{m.cert.Leaf}
		for _, der := range m.cert.Certificate[1:] {
			c, err := x509.ParseCertificate(der)
			if err != nil {
				return m, fmt.Errorf("read the certificate: %w", err)
			}
			chain = append(chain, c)
		}
		if m.name, err = i.judge(m.roots, chain, region); err != nil {
			return m, fmt.Errorf("%s: %w", f.Cert, err)
		}
		return m, nil
	})
	if err != nil {
		return nil, err
	}
	return i, nil
}

// Expires is when the certificate in use ends.
func (i *Identity) Expires() time.Time { return i.files.get().cert.Leaf.NotAfter }

// Name is who the certificate in use is for.
func (i *Identity) Name() Name { return i.files.get().name }

// Server is for listeners: whoever connects must show a certificate of the deployment. protocols are for ALPN.
func (i *Identity) Server(protocols ...string) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: protocols, ClientAuth: tls.RequireAnyClientCert, SessionTicketsDisabled: true,
		GetCertificate:   func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &i.files.get().cert, nil },
		VerifyConnection: i.verify("")}
}

// Client is for connections to nodes of the deployment, of the region unless that is "". Which address they have does not matter: that they are
// reached through proxies and translated addresses is usual.
func (i *Identity) Client(region string, protocols ...string) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: protocols, ServerName: "shortline",
		InsecureSkipVerify:   true, // the name is in the URI, and VerifyConnection looks at all the rest
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &i.files.get().cert, nil },
		VerifyConnection:     i.verify(region)}
}

func (i *Identity) verify(region string) func(tls.ConnectionState) error {
	return func(s tls.ConnectionState) error {
		_, err := i.judge(i.files.get().roots, s.PeerCertificates, region)
		return err
	}
}

// judge returns the name in a chain of certificates, or why it is not accepted.
func (i *Identity) judge(roots *x509.CertPool, chain []*x509.Certificate, region string) (Name, error) {
	if len(chain) == 0 {
		return Name{}, errors.New("no certificate was shown")
	}
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	if _, err := chain[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
		return Name{}, fmt.Errorf("%w; see shortline ca --help", err)
	}
	name, err := NameOf(chain[0])
	if err != nil {
		return name, err
	}
	want := Name{Deployment: i.deployment, Region: cmp.Or(region, name.Region), Node: name.Node}
	if name.URI().Host != want.URI().Host {
		return name, fmt.Errorf("the certificate is of the deployment %s, not of %s", name.Deployment, i.deployment)
	}
	if name.Region != want.Region {
		return name, fmt.Errorf("the certificate is of the region %s, not of %s", name.Region, region)
	}
	return name, nil
}

// ServerPair is a certificate with its key, of a public server or for one that asks for it, read again when its files change.
type ServerPair struct{ files *reloaded[tls.Certificate] }

// LoadServerPair reads a certificate with those between it and an authority, and its key, both PEM.
func LoadServerPair(cert, key string, log *slog.Logger) (*ServerPair, error) {
	files, err := newReloaded([]string{cert, key}, log, func() (tls.Certificate, error) { return tls.LoadX509KeyPair(cert, key) })
	if err != nil {
		return nil, err
	}
	return &ServerPair{files}, nil
}

// Expires is when the certificate in use ends.
func (p *ServerPair) Expires() time.Time { return p.files.get().Leaf.NotAfter }

// GetCertificate is for tls.Config.
func (p *ServerPair) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return p.files.get(), nil
}

// GetClientCertificate is for tls.Config.
func (p *ServerPair) GetClientCertificate(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	return p.files.get(), nil
}
