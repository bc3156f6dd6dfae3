package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// The files of an authority's folder.
const (
	BundleFile = "ca.pem" // what nodes trust: the authority's certificate, and the one before while a rotation is open
	keyFile    = "ca.key"
	crossFile  = "ca-cross.pem" // the authority's certificate as signed by the one before, while a rotation is open
)

// AuthorityLife is how long an authority's certificate is valid.
const AuthorityLife = 10 * 365 * 24 * time.Hour

// backdate allows for clocks that are behind.
const backdate = time.Hour

// ErrRotating says that a rotation was begun and is not finished.
var ErrRotating = errors.New("a rotation is open: give every node a new certificate and the new " + BundleFile + ", then finish it")

// Authority makes certificates. It is a folder, to be kept off the nodes.
type Authority struct {
	Deployment string
	dir        string
	key        crypto.Signer
	trusted    []*x509.Certificate // the first is of key
	cross      *x509.Certificate   // nil: no rotation is open
}

// Init makes an authority in an empty or missing folder.
func Init(dir, deployment string, now time.Time) (*Authority, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the authority's folder: %w", err)
	}
	for _, name := range []string{keyFile, BundleFile} {
		if _, err := os.Stat(filepath.Join(dir, name)); !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%s is there already; to replace an authority, rotate it", filepath.Join(dir, name))
		}
	}
	a := &Authority{Deployment: strings.ToLower(deployment), dir: dir}
	key, cert, err := a.newRoot(now)
	if err != nil {
		return nil, err
	}
	a.key, a.trusted = key, []*x509.Certificate{cert}
	return a, a.save()
}

// Open reads an authority's folder.
func Open(dir string) (*Authority, error) {
	a := &Authority{dir: dir}
	text, err := os.ReadFile(filepath.Join(dir, keyFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no authority in %s; make one with: shortline ca init", dir)
	}
	if err != nil {
		return nil, fmt.Errorf("read the authority's key: %w", err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("%s is no PEM file", filepath.Join(dir, keyFile))
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read the authority's key: %w", err)
	}
	var ok bool
	if a.key, ok = key.(crypto.Signer); !ok {
		return nil, errors.New("the authority's key cannot sign")
	}
	if a.trusted, err = readCertificates(filepath.Join(dir, BundleFile)); err != nil {
		return nil, err
	}
	if public, ok := a.key.Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !public.Equal(a.trusted[0].PublicKey) {
		return nil, fmt.Errorf("the key in %s is not that of the first certificate in %s", keyFile, BundleFile)
	}
	if len(a.trusted[0].URIs) != 1 || a.trusted[0].URIs[0].Scheme != scheme {
		return nil, fmt.Errorf("%s is of another program: it does not name a deployment", BundleFile)
	}
	a.Deployment = a.trusted[0].URIs[0].Host
	cross, err := readCertificates(filepath.Join(dir, crossFile))
	switch {
	case err == nil:
		a.cross = cross[0]
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	return a, nil
}

// Rotate begins to replace the authority's key. What is issued from then on is accepted by nodes that have either the old or the new
// BundleFile, because the old authority vouches for the new one, and nodes with the new file accept what the old one issued: the order in
// which nodes are given their files does not matter. Finish ends the old one.
func (a *Authority) Rotate(now time.Time) error {
	if a.cross != nil || len(a.trusted) > 1 {
		return ErrRotating
	}
	key, cert, err := a.newRoot(now)
	if err != nil {
		return err
	}
	old := a.trusted[0]
	template := *cert
	template.NotAfter = old.NotAfter
	template.AuthorityKeyId = old.SubjectKeyId
	der, err := x509.CreateCertificate(rand.Reader, &template, old, key.Public(), a.key)
	if err != nil {
		return fmt.Errorf("have the old authority vouch for the new one: %w", err)
	}
	if a.cross, err = x509.ParseCertificate(der); err != nil {
		return err
	}
	a.key, a.trusted = key, []*x509.Certificate{cert, old}
	return a.save()
}

// Finish ends a rotation: what the old authority issued is not accepted any more by nodes that have the new BundleFile.
func (a *Authority) Finish() error {
	if a.cross == nil && len(a.trusted) == 1 {
		return errors.New("no rotation is open")
	}
	a.cross, a.trusted = nil, a.trusted[:1]
	return a.save()
}

// Issue makes a certificate with its key, both PEM. hosts are DNS names and addresses to put in for other programs; nodes look at the name
// alone.
func (a *Authority) Issue(name Name, life time.Duration, now time.Time) (cert, key []byte, err error) {
	name.Deployment = a.Deployment
	if err := name.check(); err != nil {
		return nil, nil, err
	}
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: name.Region + "/" + name.Node, Organization: []string{"Shortline " + a.Deployment}},
		URIs: []*url.URL{name.URI()}, NotBefore: now.Add(-backdate), NotAfter: now.Add(life), BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	if end := a.trusted[0].NotAfter; template.NotAfter.After(end) {
		template.NotAfter = end
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.trusted[0], private.Public(), a.key)
	if err != nil {
		return nil, nil, fmt.Errorf("issue a certificate for %s: %w", name, err)
	}
	cert = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	if a.cross != nil {
		cert = append(cert, encode(a.cross)...)
	}
	key, err = encodeKey(private)
	return cert, key, err
}

// Trusted are the certificates that nodes are to trust, PEM: the content of BundleFile.
func (a *Authority) Trusted() []byte { return encode(a.trusted...) }

func (a *Authority) newRoot(now time.Time) (crypto.Signer, *x509.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "Shortline " + a.Deployment + " authority " + now.UTC().Format("2006-01-02 15:04:05")},
		URIs: []*url.URL{{Scheme: scheme, Host: a.Deployment}}, NotBefore: now.Add(-backdate), NotAfter: now.Add(AuthorityLife),
		BasicConstraintsValid: true, IsCA: true, MaxPathLen: 1, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, nil, fmt.Errorf("make an authority for %q: %w", a.Deployment, err)
	}
	cert, err := x509.ParseCertificate(der)
	return key, cert, err
}

// save writes the folder; a crash in between leaves a key that Open finds not to be that of the bundle.
func (a *Authority) save() error {
	key, err := encodeKey(a.key)
	if err != nil {
		return err
	}
	cross := filepath.Join(a.dir, crossFile)
	if a.cross == nil {
		if err := os.Remove(cross); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	} else if err := WriteFile(cross, encode(a.cross)); err != nil {
		return err
	}
	return errors.Join(WriteFile(filepath.Join(a.dir, keyFile), key), WriteFile(filepath.Join(a.dir, BundleFile), a.Trusted()))
}

// WriteFile writes a file of mode 0600, whole or not at all.
func WriteFile(path string, data []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

func serial() *big.Int {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never returns an error
	b[0] &= 0x7f
	return new(big.Int).SetBytes(b[:])
}

func encode(certs ...*x509.Certificate) []byte {
	var out []byte
	for _, c := range certs {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return out
}

func encodeKey(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// readCertificates reads a PEM file of one certificate or more.
func readCertificates(path string) ([]*x509.Certificate, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var certs []*x509.Certificate
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		certs = append(certs, c)
	}
	if len(certs) == 0 {
		return nil, fmt.Errorf("%s has no certificate in PEM form", path)
	}
	return certs, nil
}
