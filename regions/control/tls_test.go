package control

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shortline/shortline/internal/peer"
	"github.com/shortline/shortline/internal/pki"
	"github.com/shortline/shortline/regions"
)

// issuer makes identities of one authority.
type issuer struct {
	t   *testing.T
	ca  *pki.Authority
	dir string
}

func newIssuer(t *testing.T, deployment string) *issuer {
	t.Helper()
	dir := t.TempDir()
	ca, err := pki.Init(filepath.Join(dir, "ca"), deployment, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return &issuer{t, ca, dir}
}

func (i *issuer) identity(deployment string, region regions.ID) *pki.Identity {
	i.t.Helper()
	cert, key, err := i.ca.Issue(pki.Name{Region: string(region), Node: "node"}, time.Hour, time.Now())
	base := filepath.Join(i.dir, string(region))
	f := pki.Files{CA: base + ".ca", Cert: base + ".pem", Key: base + ".key"}
	for path, text := range map[string][]byte{f.CA: i.ca.Trusted(), f.Cert: cert, f.Key: key} {
		err = errors.Join(err, pki.WriteFile(path, text))
	}
	if err != nil {
		i.t.Fatal(err)
	}
	id, err := pki.Load(f, deployment, "", slog.New(slog.DiscardHandler))
	if err != nil {
		i.t.Fatal(err)
	}
	return id
}

// Voters with certificates agree, and somebody who has the cluster key and the name of the cluster, but not the certificate of the voter
// whom it claims to be, is told nothing.
func TestVotersOverTLS(t *testing.T) {
	ours, theirs := newIssuer(t, "test"), newIssuer(t, "test")
	w := newWorld(t, "a", "b", "c")
	w.tweak = func(c *Config) { c.Identity = ours.identity("test", c.Region) }
	for _, id := range []regions.ID{"a", "b", "c"} {
		w.start(string(id), id)
	}
	w.start("follower", "b")
	w.set("follower", bootstrap("a", "a", "b", "c"))
	w.set("b", remark("over TLS"))
	w.allKnow("over TLS", "a", "b", "c", "follower")

	hi := hello{Cluster: "test", ClusterID: "test-1", Incarnation: 1, From: "b", To: "a"}
	raftAs := func(cfg *tls.Config) (verdict, error) {
		conn, err := net.Dial("tcp", w.addrs["a"])
		if err != nil {
			t.Fatal(err)
		}
		if cfg != nil {
			conn = tls.Client(conn, cfg)
		}
		defer func() { _ = conn.Close() }()
		return call(conn, peer.Keys{testKey}, hi)
	}
	if v, err := raftAs(ours.identity("test", "b").Client("a")); err != nil || v.Why != "" {
		t.Fatalf("a voter: %+v, %v", v, err)
	}
	if v, err := raftAs(ours.identity("test", "c").Client("a")); err != nil || !strings.Contains(v.Why, "of c, not of b") {
		t.Errorf("another region's certificate: %+v, %v", v, err)
	}
	for name, cfg := range map[string]*tls.Config{
		"no TLS":            nil,
		"no certificate":    {InsecureSkipVerify: true},
		"another authority": withoutVerifying(theirs.identity("test", "b").Client("a")),
	} {
		if v, err := raftAs(cfg); err == nil {
			t.Errorf("raft with %s: %+v", name, v)
		}
	}
	if _, err := raftAs(theirs.identity("test", "b").Client("a")); err == nil || !strings.Contains(err.Error(), "unknown authority") {
		t.Errorf("a voter of another authority was not found out by the caller: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for name, id := range map[string]*pki.Identity{"no TLS": nil, "another authority": theirs.identity("test", "b"), "ours": ours.identity("test", "b")} {
		c, err := peer.NewClient(peer.Keys{testKey}, id)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		var p probe
		if err := c.Call(ctx, w.addrs["a"], pathProbe, probing{asked: asked{Cluster: "test"}, From: "b"}, &p); (err == nil) != (name == "ours") {
			t.Errorf("a call with %s: %+v, %v", name, p, err)
		}
	}
}

// withoutVerifying makes a client that goes on with a server that it should not trust.
func withoutVerifying(c *tls.Config) *tls.Config {
	c = c.Clone()
	c.VerifyConnection = nil
	return c
}
