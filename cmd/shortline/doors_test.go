package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shortline/shortline/internal/peer"
	"github.com/shortline/shortline/internal/pki"
	"github.com/shortline/shortline/internal/planet"
	"github.com/shortline/shortline/regions"
	"github.com/shortline/shortline/regions/gossip"
)

// loadIdentity loads a certificate, whatever the deployment in it.
func loadIdentity(t *testing.T, f pki.Files, deployment string) *pki.Identity {
	t.Helper()
	id, err := pki.Load(f, deployment, "", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// strangerOf makes a certificate of another authority, for somebody who trusts that of the planet.
func strangerOf(t *testing.T, trusted string) *pki.Identity {
	t.Helper()
	dir := t.TempDir()
	ca, err := pki.Init(filepath.Join(dir, "ca"), "planet", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	cert, key, err := ca.Issue(pki.Name{Region: "us-east", Node: "us-east-1"}, time.Hour, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := os.ReadFile(trusted)
	if err != nil {
		t.Fatal(err)
	}
	f := pki.Files{CA: filepath.Join(dir, "ca.pem"), Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem")}
	for path, text := range map[string][]byte{f.CA: append(theirs, ca.Trusted()...), f.Cert: cert, f.Key: key} {
		if err := pki.WriteFile(path, text); err != nil {
			t.Fatal(err)
		}
	}
	return loadIdentity(t, f, "planet")
}

// internalDoors tries every listener that is for other nodes of the deployment, as somebody who has some of what it takes, and as one who
// has all of it: only the last is answered.
func internalDoors(w *world) {
	t := w.T
	region := w.Regions()[0]
	node := region.Nodes[0]
	ours, err := w.Identity(region.ID, "visitor")
	if err != nil {
		t.Fatal(err)
	}
	member, stranger := loadIdentity(t, ours, "planet"), strangerOf(t, ours.CA)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, door := range []struct {
		name, addr, path string
		question         any
	}{
		{"cluster-listen", node.Internal()["cluster-listen"], "/internal/v1/head", struct{}{}},
		{"control-listen", node.Internal()["control-listen"], "/internal/v1/control/probe", map[string]string{"cluster": "planet"}},
		{"agent-listen", region.Postgres.Agent(), "/peer/v1/database/status", struct{}{}},
	} {
		call := func(key string, id *pki.Identity) error {
			c, err := peer.NewClient(peer.Keys{key}, id)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			return c.Call(ctx, door.addr, door.path, door.question, nil)
		}
		if err := call(w.ClusterKey(), member); err != nil {
			t.Errorf("%s: a node of the deployment: %v", door.name, err)
		}
		var why *peer.Refusal
		if err := call("another key of some length", member); !errors.As(err, &why) || why.Kind != peer.Unauthorized {
			t.Errorf("%s: the certificate without the key: %v", door.name, err)
		}
		for name, id := range map[string]*pki.Identity{"no TLS": nil, "another authority's certificate": stranger} {
			if err := call(w.ClusterKey(), id); err == nil || errors.As(err, &why) {
				t.Errorf("%s: %s: %v", door.name, name, err)
			}
		}
	}
	for name, refused := range map[string]func(*gossip.Config){
		"no key":             func(c *gossip.Config) { c.Keys = nil },
		"another key":        func(c *gossip.Config) { c.Keys = []string{"another key of some length"} },
		"another deployment": func(c *gossip.Config) { c.Cluster = "planets" },
		"all of it":          nil,
	} {
		cfg := gossip.Config{Cluster: "planet", Listen: "127.0.0.1:0", Seeds: []string{node.Internal()["gossip-listen"]}, Keys: []string{w.ClusterKey()}, Region: "moon",
			Name: "visitor/" + name, Rejoin: 200 * time.Millisecond, Status: func() regions.NodeStatus { return regions.NodeStatus{} }, Log: slog.New(slog.DiscardHandler)}
		if refused != nil {
			refused(&cfg)
		}
		g, err := gossip.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		visit, leave := context.WithCancel(ctx)
		done := make(chan error, 1)
		go func() { done <- g.Run(visit) }()
		seen := func() bool { return g.View().Place(region.ID) != nil }
		if refused == nil {
			w.eventually("a node with all of it is let in", seen)
		} else {
			for end := time.Now().Add(2 * time.Second); time.Now().Before(end) && !t.Failed(); time.Sleep(50 * time.Millisecond) {
				if seen() {
					t.Errorf("gossip: somebody with %s was let in", name)
				}
			}
		}
		leave()
		if err := <-done; err != nil {
			t.Errorf("gossip: %v", err)
		}
	}
}

// secretsStayHidden looks for the planet's secrets wherever somebody else may look: in what all its parts print, in the command lines and
// in the metrics.
func secretsStayHidden(w *world) {
	secrets := map[string]string{}
	for i, s := range w.Secrets() {
		if len(s) < 10 {
			w.Fatalf("secret %d is no secret", i)
		}
		secrets[fmt.Sprintf("secret %d", i)] = s
	}
	look := func(where, text string) {
		for name, s := range secrets {
			if strings.Contains(text, s) {
				w.Errorf("%s shows %s", where, name)
			}
		}
	}
	// A switchover makes PostgreSQL say what it is set to.
	var answer map[string]any
	_, err := w.client(w.Nodes()[0], nil).AdminPost(w.deadline(), "switchover", map[string]any{"to": "eu-west", "reason": "a test"}, &answer)
	w.check(err)
	w.eventually("the other region is the primary", func() bool { return w.Primary() == "eu-west" && w.durable() && w.follows("us-east") })
	if !strings.Contains(w.out.String(), "primary_conninfo") {
		w.Error("PostgreSQL did not say where it replicates from: the test cannot fail")
	}
	look("the output", w.out.String())
	logs := 0
	w.check(filepath.WalkDir(w.Dir(), func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && (strings.HasSuffix(path, ".log") || strings.HasSuffix(path, ".auto.conf") || strings.HasSuffix(path, "agent.json")) {
			logs++
			text, _ := os.ReadFile(path)
			look(path, string(text))
		}
		return nil
	}))
	if logs < 4 {
		w.Errorf("only %d logs and settings were found: the test looks in the wrong place", logs)
	}
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil || len(lines) == 0 {
		w.Skip("there is no /proc here")
	}
	seen := 0
	for _, path := range lines {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it ended
		}
		if bytes.Contains(text, []byte(w.Dir())) {
			seen++
		}
		look(path, string(text))
	}
	if seen < 5 {
		w.Errorf("only %d processes of the planet were found: the test looks in the wrong place", seen)
	}
	for _, n := range w.Nodes() {
		for _, path := range []string{"/metrics", "/readyz", "/debug/pprof/cmdline"} {
			_, text := w.fetch(n.Admin() + path)
			look(path, text)
		}
	}
}

func (w *world) fetch(url string) (status int, text string) {
	w.Helper()
	res, err := w.http.Get(url)
	if err != nil {
		w.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	var b bytes.Buffer
	if _, err := b.ReadFrom(res.Body); err != nil {
		w.Fatal(err)
	}
	return res.StatusCode, b.String()
}

func TestPlanetDoors(t *testing.T) {
	w := startWorld(t, 3, planet.Options{Regions: []regions.ID{"us-east", "eu-west"}, Nodes: 1})
	t.Run("outsiders get nowhere", func(t *testing.T) { internalDoors(w.part(t)) })
	t.Run("secrets stay hidden", func(t *testing.T) { secretsStayHidden(w.part(t)) })
}

func TestInternalListenersAreNotLeftOpen(t *testing.T) {
	region := []string{"serve", "--region", "us", "--region-point", "1,2", "--control-voters", "us=127.0.0.1:1", "--cluster-key", "0123456789abcdef", "--cluster-listen", "127.0.0.1:0", "--postgres", "postgres://x"}
	for want, args := range map[string][]string{
		"--cluster-listen :8082":        {"serve", "--cluster-listen", ":8082", "--cluster-key", "0123456789abcdef"},
		"--cluster-listen [::]:8082":    {"serve", "--cluster-listen", "[::]:8082", "--cluster-key", "0123456789abcdef"},
		"--cluster-listen 10.1.0.5":     {"serve", "--cluster-listen", "10.1.0.5:8082", "--cluster-key", "0123456789abcdef"},
		"--control-listen 10.1.0.5":     append(region[:len(region):len(region)], "--control-listen", "10.1.0.5:8083"),
		"--gossip-listen :7946":         {"serve", "--region", "us-east", "--gossip-listen", ":7946"},
		"--agent-listen 10.1.0.5":       {"db", "--agent-listen", "10.1.0.5:8083", "--cluster-key", "0123456789abcdef"},
		"--cluster-tls-cert and":        {"serve", "--cluster-tls-ca", "x"},
		"--gossip-key-file":             {"serve", "--region", "us-east", "--gossip-listen", "127.0.0.1:0", "--gossip-key-file", "nosuch"},
		"--gossip-key and --gossip-key": {"serve", "--region", "us-east", "--gossip-listen", "127.0.0.1:0", "--gossip-key-file", "nosuch", "--gossip-key", "0123456789abcdef"},
	} {
		err := run(context.Background(), args, func(string) string { return "" }, strings.NewReader(""), new(bytes.Buffer), new(bytes.Buffer))
		var usage *usageError
		if !errors.As(err, &usage) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q", args, err, want)
		}
	}
	s := identitySettings{insecure: true}
	if err := s.refuseOpen("cluster-listen", ":8082", false, needsTLS); err != nil {
		t.Errorf("--insecure: %v", err)
	}
	if s.insecure = false; s.refuseOpen("cluster-listen", ":8082", true, needsTLS) != nil || s.refuseOpen("cluster-listen", "localhost:1", false, needsTLS) != nil {
		t.Error("a listener that is secured, or of this machine alone, was refused")
	}
}

func TestCACommand(t *testing.T) {
	t.Chdir(t.TempDir())
	ca := func(args ...string) ran {
		return shell(t, nil, "", append([]string{"ca"}, args...)...)
	}
	for _, step := range []struct {
		args string
		code int
		says string
	}{
		{"issue us-east/node-1", 1, "make one with: shortline ca init"},
		{"init --deployment shop", 0, "shortline-ca/ca.pem"},
		{"init", 1, "rotate it"},
		{"issue us-east", 2, "no name such as us-east/node-1"},
		{"issue us-east/../x", 2, "no name such as"},
		{"issue us-east/node-1 --days 0", 2, "--days 0"},
		{"issue us-east/node-1 eu-west/db --out certs", 0, "--cluster-tls-cert certs/us-east-node-1.pem --cluster-tls-key certs/us-east-node-1.key"},
		{"rotate --finish", 1, "no rotation is open"},
		{"rotate", 0, "rotate --finish"},
		{"rotate", 1, "a rotation is open"},
		{"issue us-east/node-1 --out certs", 0, "certs/us-east-node-1.pem"},
		{"rotate --finish", 0, "copy ca.pem"},
	} {
		got := ca(strings.Fields(step.args)...)
		if got.code != step.code || !strings.Contains(got.stdout+got.stderr, step.says) {
			t.Errorf("ca %s: %d, %s%s; want %d with %q", step.args, got.code, got.stdout, got.stderr, step.code, step.says)
		}
		for _, path := range []string{"shortline-ca/ca.key", "certs/us-east-node-1.key"} {
			if info, err := os.Stat(path); err == nil && info.Mode().Perm() != 0o600 {
				t.Errorf("%s: mode %v", path, info.Mode())
			}
		}
	}
	// The certificate of the first authority is refused by whoever trusts the second alone; the newer one is not.
	f := pki.Files{CA: "shortline-ca/ca.pem", Cert: "certs/us-east-node-1.pem", Key: "certs/us-east-node-1.key"}
	loadIdentity(t, f, "shop")
	if _, err := pki.Load(pki.Files{CA: f.CA, Cert: "certs/eu-west-db.pem", Key: "certs/eu-west-db.key"}, "shop", "", slog.New(slog.DiscardHandler)); err == nil {
		t.Error("a certificate of the authority that ended is accepted")
	}
}

// Two nodes with different keys do not find each other, and do once the file of one has the key of the other.
func TestGossipKeysAreReadAgain(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	seed := l.Addr().String()
	_ = l.Close()
	dir := t.TempDir()
	one, two := filepath.Join(dir, "one"), filepath.Join(dir, "two")
	write := func(path string, keys ...string) {
		if err := os.WriteFile(path, []byte("# keys\n"+strings.Join(keys, "\n")+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(one, "the first key of all")
	write(two, "the second key of all")
	args := func(name, listen, keys string) []string {
		return []string{"--region", "us-east", "--node-name", name, "--gossip-listen", listen, "--join", seed, "--gossip-key-file", keys}
	}
	a := start(t, filepath.Join(dir, "a"), args("a", seed, one)...)
	b := start(t, filepath.Join(dir, "b"), args("b", "127.0.0.1:0", two)...)
	nodes := func(p *process) int {
		var answer struct {
			Regions []struct {
				Nodes []struct{ Name string } `json:"nodes"`
			} `json:"regions"`
		}
		if status, text := p.do("GET", "/v1/regions", "", ""); status != 200 || json.Unmarshal(text, &answer) != nil {
			t.Fatalf("%d %s", status, text)
		}
		n := 0
		for _, r := range answer.Regions {
			n += len(r.Nodes)
		}
		return n
	}
	if nodes(a) != 1 || nodes(b) != 1 {
		t.Fatal("nodes with different keys have found each other")
	}
	write(two, "the second key of all", "the first key of all")
	write(one, "the second key of all")
	for end := time.Now().Add(time.Minute); nodes(a) != 2 || nodes(b) != 2; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("they do not find each other; a:\n%s\nb:\n%s", a.stderr, b.stderr)
		}
	}
	a.stop()
	b.stop()
}
