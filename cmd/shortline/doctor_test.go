package main

import (
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shortline/shortline/replication/postgres"
	"github.com/shortline/shortline/replication/rediscache"
)

func TestDoctorJudges(t *testing.T) {
	sound := postgres.Facts{Addr: "db:5432", Version: 150008, Schema: 2, WantSchema: 2, Settings: map[string]string{"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on",
		"wal_level": "replica", "hot_standby": "on", "wal_log_hints": "on", "max_connections": "100", "superuser_reserved_connections": "3", "shared_buffers": "8GB"}}
	pg := func(change func(*postgres.Facts)) func(*findings) {
		return func(f *findings) {
			facts := sound
			facts.Settings = map[string]string{}
			for k, v := range sound.Settings {
				facts.Settings[k] = v
			}
			change(&facts)
			judgePostgres(f, "postgres", facts, 10)
		}
	}
	redis := func(r rediscache.Facts) func(*findings) { return func(f *findings) { judgeRedis(f, "r:6379", r) } }
	now := time.Now()
	for _, tc := range []struct {
		name  string
		judge func(*findings)
		want  verdict
		says  string // a part of what the worst says or advises
	}{
		{"sound PostgreSQL", pg(func(*postgres.Facts) {}), fine, ""},
		{"old PostgreSQL", pg(func(f *postgres.Facts) { f.Version = 140010 }), fail, "upgrade to PostgreSQL 15"},
		{"fsync off", pg(func(f *postgres.Facts) { f.Settings["fsync"] = "off" }), fail, "ALTER SYSTEM SET fsync = on"},
		{"commits that do not wait", pg(func(f *postgres.Facts) { f.Settings["synchronous_commit"] = "local" }), fail, "synchronous_commit is local"},
		{"remote_apply is as good", pg(func(f *postgres.Facts) { f.Settings["synchronous_commit"] = "remote_apply" }), fine, ""},
		{"no rewind", pg(func(f *postgres.Facts) { f.Settings["wal_log_hints"], f.Settings["data_checksums"] = "off", "off" }), warn, "wal_log_hints"},
		{"few connections", pg(func(f *postgres.Facts) { f.Settings["max_connections"] = "20" }), warn, "--postgres-conns"},
		{"open transaction", pg(func(f *postgres.Facts) { f.OldestWrite = time.Minute }), warn, "pg_terminate_backend"},
		{"stale slot", pg(func(f *postgres.Facts) { f.Slots = map[string]int64{"eu": 2 << 30} }), warn, "pg_drop_replication_slot('eu')"},
		{"newer schema", pg(func(f *postgres.Facts) { f.Schema = 9 }), fail, "newer program"},
		{"clock a second off", pg(func(f *postgres.Facts) { f.Ahead = -time.Second }), warn, "chrony"},
		{"clock a minute off", pg(func(f *postgres.Facts) { f.Ahead = time.Minute }), fail, "1m0s"},
		{"sound Redis", redis(rediscache.Facts{Version: "7.0.15", Cluster: true, State: "ok", MaxMemory: "1000", Policy: "allkeys-lru"}), fine, ""},
		{"Redis without a limit", redis(rediscache.Facts{Cluster: true, State: "ok", MaxMemory: "0", Policy: "noeviction"}), warn, "maxmemory is not set"},
		{"Redis that forgets nothing", redis(rediscache.Facts{Cluster: true, State: "ok", MaxMemory: "1000", Policy: "noeviction"}), warn, "noeviction"},
		{"cluster with a hole", redis(rediscache.Facts{Cluster: true, State: "fail", MaxMemory: "1000", Policy: "allkeys-lru"}), warn, "redis-cli --cluster check"},
		{"no Redis Cluster", redis(rediscache.Facts{Fault: errors.New("it is not in cluster mode")}), fail, "cluster mode"},
		{"few files", func(f *findings) { judgeFiles(f, files{hard: 1024}) }, fail, "LimitNOFILE"},
		{"some files", func(f *findings) { judgeFiles(f, files{hard: 20_000}) }, warn, "16000 live"},
		{"enough files", func(f *findings) { judgeFiles(f, files{hard: 1 << 20}) }, fine, ""},
		{"short queue", func(f *findings) { judgeKernel(f, []kernelLimit{{"net.core.somaxconn", 128, 1024, ""}}) }, warn, "sysctl -w net.core.somaxconn=1024"},
		{"certificate that ended", func(f *findings) { judgeEnd(f, "c", "n", now.Add(-time.Hour), now) }, fail, "put a new one"},
		{"certificate that ends", func(f *findings) { judgeEnd(f, "c", "n", now.Add(24*time.Hour), now) }, warn, "1 days"},
		{"new certificate", func(f *findings) { judgeEnd(f, "c", "n", now.Add(90*24*time.Hour), now) }, fine, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var f findings
			tc.judge(&f)
			var text strings.Builder
			for _, one := range f {
				if one.Verdict == tc.want {
					text.WriteString(one.Detail + " → " + one.Fix + "\n")
				}
				if one.Verdict != fine && one.Fix == "" {
					t.Errorf("%v has no remedy", one)
				}
			}
			if f.worst() != tc.want || !strings.Contains(text.String(), tc.says) {
				t.Errorf("%+v; want %s with %q", f, tc.want, tc.says)
			}
		})
	}
}

func TestConfigCheck(t *testing.T) {
	t.Chdir(t.TempDir())
	write := func(name, text string, mode os.FileMode) {
		if err := os.WriteFile(name, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	write("good.yaml", "listen: 127.0.0.1:0\nregion: eu-west\n", 0o600)
	write("unknown.yaml", "listne: 127.0.0.1:0\nregion: eu west\n", 0o600)
	write("open.yaml", "cluster-key: 0123456789abcdef0123\n", 0o644)
	write("contrary.yaml", "forward-to: [127.0.0.1:1]\ndns-zone: example.org\n", 0o600)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		args string
		env  map[string]string
		code int
		says string
	}{
		{"config check", nil, 0, "OK    settings"},
		{"config check --config good.yaml", nil, 0, "2 are not as by default"},
		{"config check", map[string]string{"SHORTLINE_CONFIG": "good.yaml"}, 0, "2 are not as by default"},
		{"config check --config unknown.yaml", nil, 1, `did you mean "listen"?`},
		{"config check --config nosuch.yaml", nil, 1, "no such file"},
		{"config check --config contrary.yaml", nil, 1, "FAIL  settings: --dns-listen and --dns-zone go together"},
		{"config check --config contrary.yaml", nil, 1, "FAIL  settings: --cluster-listen and --forward-to need --cluster-key"},
		{"config check --config open.yaml", nil, 0, "chmod 600 open.yaml"},
		{"config check", map[string]string{"SHORTLINE_SIMULATE_RATE": "x"}, 1, "SHORTLINE_SIMULATE_RATE"},
		{"config check serve -- --details-cache 1MiB", nil, 1, "less than 32MiB"},
		{"config check serve -- --nosuch", nil, 1, "unknown flag: --nosuch"},
		{"config check -- --postgres postgres://w:secret@" + gone + "/x", nil, 0, "WARN  reach --postgres: " + gone + " does not answer"},
		{"config check -- --postgres postgres://w:secret@" + gone + "/x", nil, 0, "set SHORTLINE_POSTGRES instead"},
		{"config check -- --redis " + api(t), nil, 0, "answers"},
		{"config check db -- --db-peer x", nil, 1, "--db-peer"},
		{"config check db -- --db-driver exec", map[string]string{"SHORTLINE_CLUSTER_KEY": "0123456789abcdef"}, 1, "--db-driver exec needs --db-command"},
		{"config check planet", nil, 2, "is not serve or db"},
		{"config check -o xml", nil, 2, "xml"},
		{"doctor -- --data nosuch/folder", nil, 0, "disk --data"},
		{"doctor -- --data /proc/1/nosuch", nil, 1, "cannot be written"},
	} {
		t.Run(tc.args, func(t *testing.T) {
			got := shell(t, tc.env, "", strings.Fields(tc.args)...)
			if got.code != tc.code || !strings.Contains(got.stdout+got.stderr, tc.says) {
				t.Errorf("exit code %d, want %d with %q:\n%s%s", got.code, tc.code, tc.says, got.stdout, got.stderr)
			}
			if strings.Contains(got.stdout+got.stderr, "secret@") {
				t.Errorf("a password is shown:\n%s", got.stdout)
			}
		})
	}
}

// api is an address that answers.
func api(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l.Addr().String()
}

func TestStrayVariables(t *testing.T) {
	a := &app{getenv: func(string) string { return "" }, environ: func() []string {
		return []string{"SHORTLINE_LISTNE=:80", "SHORTLINE_LISTEN=:80", "SHORTLINE_TEST_LONG=1", "PATH=/bin"}
	}}
	found := a.strayVariables(newRootCommand(a))
	if len(found) != 1 || !strings.Contains(found[0].Detail, "SHORTLINE_LISTNE") || found[0].Fix != "did you mean SHORTLINE_LISTEN?" {
		t.Errorf("%+v", found)
	}
}

// testDoctor lets the doctor look at a region's servers. Those of a test's planet have fsync off, which it must find; with
// that set right it finds no fault.
func (w *world) testDoctor(told) {
	r := w.Region(w.Primary())
	ctx := w.deadline()
	set := func(value string) {
		for _, sql := range []string{"ALTER SYSTEM SET fsync = " + value, "SELECT pg_reload_conf()"} {
			_, err := r.Postgres.Rows(ctx, "postgres", sql)
			w.check(err)
		}
		w.eventually("fsync is "+value, func() bool {
			rows, err := r.Postgres.Rows(ctx, "postgres", "SHOW fsync")
			return err == nil && rows[0][0] == value
		})
	}
	look := func() (found findings) {
		got := shell(w.T, map[string]string{"SHORTLINE_POSTGRES": r.Postgres.DSN("shortline_writer", "shortline")}, "", "doctor", "-o", "json", "--admin-server", r.Nodes[0].Admin(), "--",
			"--listen", "127.0.0.1:0", "--admin-listen", strings.TrimPrefix(r.Nodes[0].Admin(), "http://"), "--data", filepath.Join(w.TempDir(), "data"), "--redis", strings.Join(r.Redis.Addrs(), ","), "--deployment", "planet")
		var answer struct {
			Verdict  verdict
			Findings findings
		}
		if err := json.Unmarshal([]byte(got.stdout), &answer); err != nil {
			w.Fatalf("%v: %s%s", err, got.stdout, got.stderr)
		}
		if answer.Verdict != answer.Findings.worst() || (got.code == 1) != (answer.Verdict == fail) {
			w.Errorf("exit code %d with %s", got.code, answer.Verdict)
		}
		return answer.Findings
	}
	said := func(f findings) string {
		var b strings.Builder
		for _, one := range f {
			b.WriteString(string(one.Verdict) + " " + one.Check + ": " + one.Detail + "\n")
		}
		return b.String()
	}
	set("off")
	if f := look(); f.count(fail) != 1 || !strings.Contains(said(f), "fsync is off") {
		w.Errorf("with fsync off:\n%s", said(f))
	}
	set("on")
	f := look()
	for _, part := range []string{"PostgreSQL 1", "a primary with", "cluster state ok", "a node of Shortline runs at"} {
		if f.count(fail) > 0 || !strings.Contains(said(f), part) {
			w.Errorf("with fsync on, looking for %q:\n%s", part, said(f))
		}
	}
}
