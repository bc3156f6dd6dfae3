package pki

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var quiet = slog.New(slog.DiscardHandler)

func authority(t *testing.T, deployment string) *Authority {
	t.Helper()
	a, err := Init(filepath.Join(t.TempDir(), "ca"), deployment, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// files issues a certificate and writes it where a node would have it.
func files(t *testing.T, a *Authority, region, node string, at time.Time) Files {
	t.Helper()
	f := Files{CA: filepath.Join(t.TempDir(), "ca.pem")}
	f.Cert, f.Key = f.CA+".cert", f.CA+".key"
	reissue(t, a, f, region, node, at)
	return f
}

func reissue(t *testing.T, a *Authority, f Files, region, node string, at time.Time) {
	t.Helper()
	cert, key, err := a.Issue(Name{Region: region, Node: node}, 24*time.Hour, at)
	for path, text := range map[string][]byte{f.CA: a.Trusted(), f.Cert: cert, f.Key: key} {
		err = errors.Join(err, WriteFile(path, text))
	}
	if err != nil {
		t.Fatal(err)
	}
}

func identity(t *testing.T, f Files, deployment string) *Identity {
	t.Helper()
	i, err := Load(f, deployment, "", quiet)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// meet lets two ends shake hands and say a byte each way; in TLS 1.3 a refused certificate shows to the client only then.
func meet(client, server *tls.Config) (clientErr, serverErr error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err, err
	}
	defer func() { _ = l.Close() }()
	a, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		return err, err
	}
	b, err := l.Accept()
	if err != nil {
		return err, err
	}
	deadline := time.Now().Add(10 * time.Second)
	_, _ = a.SetDeadline(deadline), b.SetDeadline(deadline)
	done := make(chan error, 1)
	go func() {
		defer func() { _ = b.Close() }()
		s := tls.Server(b, server)
		var one [1]byte
		_, err := s.Read(one[:])
		if err == nil {
			_, err = s.Write(one[:])
		}
		done <- err
	}()
	c := tls.Client(a, client)
	_, clientErr = c.Write([]byte{1})
	if clientErr == nil {
		_, clientErr = c.Read(make([]byte, 1))
	}
	_ = a.Close()
	return clientErr, <-done
}

func TestOnlyMembersMeet(t *testing.T) {
	ours, others := authority(t, "Shop"), authority(t, "shop")
	now := time.Now()
	good := identity(t, files(t, ours, "us", "n1", now), "shop")
	if c, s := meet(identity(t, files(t, ours, "eu", "n2", now), "SHOP").Client("us"), good.Server("h2")); c != nil || s != nil {
		t.Fatal(c, s)
	}
	bare := func(certs ...tls.Certificate) *tls.Config {
		return &tls.Config{InsecureSkipVerify: true, Certificates: certs}
	}
	stranger := files(t, others, "us", "n1", now)
	strange, err := tls.LoadX509KeyPair(stranger.Cert, stranger.Key)
	if err != nil {
		t.Fatal(err)
	}
	old := files(t, ours, "us", "n3", now.Add(-48*time.Hour))
	expired, err := tls.LoadX509KeyPair(old.Cert, old.Key)
	if err != nil {
		t.Fatal(err)
	}
	nameless := func() tls.Certificate { // of our authority, for something else: as a company's own authority may issue
		cert, key, err := ours.Issue(Name{Region: "us", Node: "x"}, time.Hour, now)
		if err != nil {
			t.Fatal(err)
		}
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			t.Fatal(err)
		}
		template := *pair.Leaf
		template.URIs = nil
		der, err := x509.CreateCertificate(nil, &template, ours.trusted[0], pair.Leaf.PublicKey, ours.key)
		if err != nil {
			t.Fatal(err)
		}
		pair.Certificate = [][]byte{der}
		return pair
	}
	elsewhere := files(t, ours, "us", "n1", now)
	for name, test := range map[string]struct {
		client, server *tls.Config
		says           string
	}{
		"no certificate":             {client: bare(), server: good.Server("h2"), says: "client didn't provide a certificate"},
		"of another authority":       {client: bare(strange), server: good.Server("h2"), says: "unknown authority"},
		"out of its time":            {client: bare(expired), server: good.Server("h2"), says: "expired"},
		"no name of a node":          {client: bare(nameless()), server: good.Server("h2"), says: "spiffe://"},
		"TLS 1.2":                    {client: &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12}, server: good.Server("h2"), says: "version"},
		"a server of other":          {client: good.Client(""), server: &tls.Config{Certificates: []tls.Certificate{strange}}, says: "unknown authority"},
		"a server of another region": {client: good.Client("ap"), server: good.Server("h2"), says: "of the region us, not of ap"},
		"another deployment's name": {client: (&Identity{"shop2", identity(t, elsewhere, "shop").files}).Client(""), server: good.Server("h2"),
			says: "of the deployment shop, not of shop2"},
		"another deployment's name at the server": {client: good.Client(""), server: (&Identity{"shop2", good.files}).Server("h2"), says: "of the deployment shop, not of shop2"},
	} {
		c, s := meet(test.client, test.server)
		if c == nil {
			t.Errorf("%s: it got in", name)
		}
		if err := errors.Join(c, s); err == nil || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: %v, want %q", name, err, test.says)
		}
	}
}

func TestLoadRefuses(t *testing.T) {
	ours := authority(t, "shop")
	good := files(t, ours, "us", "n1", time.Now())
	other := files(t, authority(t, "shop"), "us", "n1", time.Now())
	for name, test := range map[string]struct {
		files              Files
		deployment, region string
		says               string
	}{
		"another region":      {good, "shop", "eu", "of the region us, not of eu"},
		"another deployment":  {good, "shopping", "us", "not of shopping"},
		"another authority":   {Files{other.CA, good.Cert, good.Key}, "shop", "us", "unknown authority"},
		"another key":         {Files{good.CA, good.Cert, other.Key}, "shop", "us", "does not match"},
		"an expired one":      {files(t, ours, "us", "n1", time.Now().Add(-48*time.Hour)), "shop", "us", "expired"},
		"a file that is none": {Files{good.Key, good.Cert, good.Key}, "shop", "us", "no certificate in PEM form"},
		"a file that is not":  {Files{good.CA, good.Cert + "x", good.Key}, "shop", "us", "no such file"},
	} {
		if _, err := Load(test.files, test.deployment, test.region, quiet); err == nil || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: %v, want %q", name, err, test.says)
		}
	}
}

// now makes the next handshake look at the files.
func (i *Identity) now() *Identity { i.files.looked.Store(0); return i }

// A rotation is a sequence of states of two nodes' files, and in each of them the nodes must reach each other, in whatever order they
// got theirs.
func TestRotation(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ca")
	if _, err := Init(dir, "shop", time.Now()); err != nil {
		t.Fatal(err)
	}
	open := func() *Authority {
		a, err := Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	one, two := files(t, open(), "us", "n1", time.Now()), files(t, open(), "eu", "n2", time.Now())
	a, b := identity(t, one, "shop"), identity(t, two, "shop")
	reach := func(when string) {
		t.Helper()
		for _, pair := range [][2]*Identity{{a, b}, {b, a}} {
			if c, s := meet(pair[0].now().Client(""), pair[1].now().Server("h2")); c != nil || s != nil {
				t.Fatalf("%s: %v, %v", when, c, s)
			}
		}
	}
	reach("before")
	if err := open().Rotate(time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := open().Rotate(time.Now()); !errors.Is(err, ErrRotating) {
		t.Fatal(err)
	}
	bundle := open().Trusted()
	reissue(t, open(), one, "us", "n1", time.Now())
	if a.now(); a.Name().Node != "n1" || len(a.files.current.Load().cert.Certificate) != 2 {
		t.Fatal("the new certificate was not read")
	}
	reach("one node has a new certificate, the other neither that nor the new authority")
	if err := WriteFile(one.CA, bundle[:bytes.Index(bundle, []byte("-----END CERTIFICATE-----"))+26]); err != nil {
		t.Fatal(err)
	}
	if c, _ := meet(b.now().Client(""), a.now().Server("h2")); c == nil {
		t.Fatal("the old certificate was taken by a node that trusts the new authority alone: the test cannot fail")
	}
	if err := WriteFile(one.CA, bundle); err != nil {
		t.Fatal(err)
	}
	reach("one node has all, the other nothing")
	if err := WriteFile(two.CA, bundle); err != nil {
		t.Fatal(err)
	}
	reach("both trust both")
	reissue(t, open(), two, "eu", "n2", time.Now())
	reach("both have new certificates")
	if err := open().Finish(); err != nil {
		t.Fatal(err)
	}
	if err := open().Finish(); err == nil {
		t.Fatal("finished twice")
	}
	if err := WriteFile(one.CA, open().Trusted()); err != nil {
		t.Fatal(err)
	}
	reach("one has dropped the old authority")
	reissue(t, open(), one, "us", "n1", time.Now())
	if a.now(); a.Name().Node != "n1" || len(a.files.current.Load().cert.Certificate) != 1 {
		t.Fatal("after the rotation the old authority still vouches")
	}
	reach("after")
}

func TestFilesThatCannotBeReadLeaveTheOldInForce(t *testing.T) {
	ours := authority(t, "shop")
	f := files(t, ours, "us", "n1", time.Now())
	i := identity(t, f, "shop")
	before := i.Expires()
	if err := os.WriteFile(f.Cert, []byte("half a fi"), 0o600); err != nil {
		t.Fatal(err)
	}
	if c, s := meet(i.now().Client(""), i.Server("h2")); c != nil || s != nil {
		t.Fatal(c, s)
	}
	reissue(t, ours, f, "us", "n1", time.Now().Add(time.Minute))
	if i.now(); !i.Expires().After(before) {
		t.Error("the mended file was not read")
	}
}

func TestSecretsAreForTheOwnerAlone(t *testing.T) {
	a := authority(t, "shop")
	if err := a.Rotate(time.Now()); err != nil {
		t.Fatal(err)
	}
	f := files(t, a, "us", "n1", time.Now())
	for _, path := range []string{filepath.Join(a.dir, keyFile), filepath.Join(a.dir, BundleFile), filepath.Join(a.dir, crossFile), f.Key} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
	if _, err := Init(a.dir, "shop", time.Now()); err == nil {
		t.Error("an authority was made over another")
	}
	text, _ := os.ReadFile(f.Cert)
	block, _ := pem.Decode(text)
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil || c.IsCA || c.URIs[0].String() != "spiffe://shop/us/n1" {
		t.Error(c, err)
	}
}
