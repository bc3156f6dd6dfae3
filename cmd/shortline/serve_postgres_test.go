package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shortline/shortline/internal/planet"
)

// startDatabase starts a primary and one standby, with a database that the role shortline owns.
func startDatabase(t *testing.T) (primary, standby *planet.Postgres) {
	t.Helper()
	planet.Need(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	primary, err := planet.StartPostgres(ctx, planet.PostgresConfig{Name: "primary", NoFsync: true, Roles: []string{"shortline"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = primary.Stop() })
	if err := primary.Exec(ctx, "postgres", "CREATE DATABASE shortline OWNER shortline"); err != nil {
		t.Fatal(err)
	}
	standby, err = primary.Standby(ctx, "standby", planet.PostgresConfig{NoFsync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = standby.Stop() })
	return primary, standby
}

// freeAddr is an address on loopback that nobody listens on.
func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// startBeside starts a node on a database that another node has made keys in.
func startBeside(t *testing.T, other *process, args ...string) *process {
	t.Helper()
	data := filepath.Join(t.TempDir(), "data")
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(data, adminKeyFile), []byte(other.key+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return start(t, data, args...)
}

// ask sends a request with the token of an earlier answer and returns status, body and token.
func (p *process) ask(method, path, body, token string) (int, string, string) {
	p.t.Helper()
	req, err := http.NewRequest(method, p.api+path, strings.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+p.key)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if token != "" {
		req.Header.Set("Shortline-Token", token)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		p.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Fatalf("%s %s: %v", method, path, err)
	}
	return resp.StatusCode, string(text), resp.Header.Get("Shortline-Token")
}

// Two regions: one commits; the other forwards its writes there, reads from a standby and caches details in Redis over TLS. Each
// sees what was written at the other, with a token at once, and both go on answering while database and Redis are down.
func TestServeOnPostgres(t *testing.T) {
	primary, standby := startDatabase(t)
	t.Setenv("SHORTLINE_POSTGRES", primary.DSN("shortline", "shortline"))
	t.Setenv("SHORTLINE_CLUSTER_KEY", "a secret of the test's own")
	trusted := authorityFiles(t, t.TempDir(), "redis")
	starting, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	redis, err := planet.StartRedis(starting, planet.RedisConfig{Masters: 3, TLS: &trusted})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = redis.Stop() })
	cluster := freeAddr(t)
	here := start(t, filepath.Join(t.TempDir(), "data"), "--region", "here", "--cluster-listen", cluster)
	there := startBeside(t, here, "--region", "there", "--postgres-replica", standby.DSN("shortline", "shortline"),
		"--forward-to", cluster, "--redis", redis.TLSAddrs()[0], "--redis-tls", "--redis-tls-ca", trusted.CA, "--redis-tls-cert", trusted.Cert, "--redis-tls-key", trusted.Key)
	there.stores(20) // through the primary region

	var token string
	for i := range 50 { // back and forth
		writer, reader := here, there
		if i%2 == 1 {
			writer, reader = there, here
		}
		status, body, wrote := writer.ask("POST", "/v1/stores/s3/queue", fmt.Sprintf(`{"length":%d}`, i), token)
		if status != 200 || wrote == "" {
			t.Fatalf("write %d: %d %s", i, status, body)
		}
		status, body, token = reader.ask("GET", "/v1/stores/s3/queue", "", wrote)
		var q struct{ Length int }
		if err := json.Unmarshal([]byte(body), &q); err != nil || status != 200 || q.Length != i {
			t.Fatalf("the other node, asked with the token of write %d, answers %d %s", i, status, body)
		}
	}
	if status, body, _ := here.ask("DELETE", "/v1/stores/s7", "", ""); status >= 300 {
		t.Fatalf("delete: %d %s", status, body)
	}

	const nearby = "/v1/nearby?lat=52&lng=13.4&radius=50km&limit=100"
	for _, p := range []*process{here, there} {
		if status, body, _ := p.ask("GET", nearby, "", ""); status != 200 || strings.Count(body, `"name":"Store `) < 19 {
			t.Errorf("nearby answers %d %s", status, body)
		}
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		values, err := redis.Values(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(values) >= 19 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("Redis has %d values; the node said:\n%s", len(values), there.stderr)
		}
		there.ask("GET", nearby, "", "")
	}
	primary.Kill()
	standby.Kill()
	for i := range redis.Nodes() {
		redis.Kill(i)
	}
	for _, p := range []*process{here, there} {
		if status, body, _ := p.ask("GET", nearby, "", ""); status != 200 || strings.Count(body, `"distance_m"`) < 19 {
			t.Errorf("with the database down nearby answers %d %s", status, body)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if status, body, _ := there.ask("POST", "/v1/stores/s3/queue", `{"length":76}`, ""); status != 503 && status != 504 {
		t.Errorf("a write without a database is answered with %d %s", status, body)
	}
	if err := primary.Restart(ctx); err != nil {
		t.Fatal(err)
	}
	if err := standby.Restart(ctx); err != nil {
		t.Fatal(err)
	}
	for { // the pools find out by themselves that their connections are gone
		status, body, wrote := there.ask("POST", "/v1/stores/s3/queue", `{"length":77}`, "")
		if status == 200 {
			token = wrote
			break
		}
		if ctx.Err() != nil {
			t.Fatalf("a write after the restart: %d %s", status, body)
		}
	}
	for {
		status, body, _ := there.ask("GET", "/v1/stores/s3/queue", "", token)
		if status == 200 && strings.Contains(body, `"length":77`) {
			break
		}
		if ctx.Err() != nil || status == 200 {
			t.Fatalf("a read after the restart: %d %s", status, body)
		}
	}
	there.stop()
	here.stop()
}

// A node starts from its local snapshot while the database is down, holds a write, and does it once the database is there.
func TestServeStartsWithoutItsDatabase(t *testing.T) {
	primary, _ := startDatabase(t)
	t.Setenv("SHORTLINE_POSTGRES", primary.DSN("shortline", "shortline"))
	data := filepath.Join(t.TempDir(), "data")
	first := start(t, data)
	first.stores(20)
	first.stop() // saves
	primary.Kill()
	p := start(t, data, "--write-hold", "60s")
	if status, body, _ := p.ask("GET", "/v1/nearby?lat=52&lng=13.4&radius=50km&limit=100", "", ""); status != 200 || strings.Count(body, `"distance_m"`) < 19 {
		t.Errorf("from the local snapshot nearby answers %d %s", status, body)
	}
	held := make(chan string, 1)
	go func() {
		status, body, _ := p.ask("POST", "/v1/stores/s3/queue", `{"length":42}`, "")
		held <- fmt.Sprint(status, " ", body)
	}()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := primary.Restart(ctx); err != nil {
		t.Fatal(err)
	}
	if answer := <-held; !strings.HasPrefix(answer, "200 ") || !strings.Contains(answer, `"length":42`) {
		t.Errorf("the write that was held: %s", answer)
	}
	p.stop()
}

func TestServeRefusesABadDatabase(t *testing.T) {
	primary, standby := startDatabase(t)
	dsn := primary.DSN("shortline", "shortline")
	for name, c := range map[string]struct {
		args  []string
		words string
	}{
		"wrong password":      {[]string{"--postgres", strings.Replace(dsn, ":"+primary.Password()+"@", ":wrong-password@", 1)}, "password"},
		"no DSN":              {[]string{"--postgres", "localhost:5432/x"}, "postgres://"},
		"a standby":           {[]string{"--postgres", standby.DSN("shortline", "shortline")}, "standby"},
		"replica without one": {[]string{"--postgres-replica", dsn}, "--postgres"},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := command(t, append([]string{"serve", "--data", filepath.Join(t.TempDir(), "data"), "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"}, c.args...)...)
			out, err := cmd.CombinedOutput()
			text := strings.TrimSpace(string(out))
			if err == nil || !strings.Contains(text, c.words) || strings.Contains(text, "wrong-password") || strings.Contains(text, primary.Password()) {
				t.Errorf("%v:\n%s\nwant a failure with %q in it and no password", err, text, c.words)
			}
		})
	}
}
