package main

import (
	"cmp"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/shortline/shortline/internal/peer"
	"github.com/shortline/shortline/internal/pki"
	"github.com/shortline/shortline/replication/postgres"
	"github.com/shortline/shortline/replication/rediscache"
)

// judgeClock tells how far two clocks are apart. Nodes refuse each other's requests beyond peer.Skew.
func judgeClock(found *findings, whose string, ahead, exact time.Duration) {
	v, off := fine, ahead.Abs()
	switch {
	case off > peer.Skew+exact:
		v = fail
	case off > 500*time.Millisecond+exact:
		v = warn
	}
	found.add("clock", v, "let chrony or systemd-timesyncd set both clocks", "it differs from %s by %v (known to %v)", whose, off.Round(time.Millisecond), exact)
}

// judgePostgres tells what of a server's settings endangers data or speed.
func judgePostgres(found *findings, setting string, f postgres.Facts, conns int) {
	name := setting + " " + f.Addr
	role := "primary"
	if f.Standby {
		role = "standby"
	}
	v := fine
	if f.Version < 150000 {
		v = fail
	}
	found.add(name, v, "upgrade to PostgreSQL 15 or newer", "PostgreSQL %d.%d, a %s with %d connections", f.Version/10000, f.Version%10000, role, f.Conns)
	judgeClock(found, "that of PostgreSQL at "+f.Addr, f.Ahead, time.Millisecond)
	for _, s := range []struct {
		name, want string
		v          verdict
		why        string
	}{
		{"fsync", "on", fail, "a crash of the machine loses or damages data"},
		{"full_page_writes", "on", fail, "a crash of the machine damages pages"},
		{"synchronous_commit", "on remote_apply", fail, "commits are acknowledged before they are durable"},
		{"wal_level", "replica logical", fail, "no standby can follow"},
		{"hot_standby", "on", fail, "a standby answers no reads"},
	} {
		if have := f.Settings[s.name]; have != "" && !slices.Contains(strings.Fields(s.want), have) {
			want, _, _ := strings.Cut(s.want, " ")
			found.add(name, s.v, fmt.Sprintf("ALTER SYSTEM SET %s = %s, then reload or restart", s.name, want), "%s is %s: %s", s.name, have, s.why)
		}
	}
	if f.Settings["wal_log_hints"] == "off" && f.Settings["data_checksums"] == "off" {
		found.add(name, warn, "set wal_log_hints = on, or pg_checksums --enable", "neither wal_log_hints nor checksums: an old primary cannot be rewound and is copied anew")
	}
	most, _ := strconv.Atoi(f.Settings["max_connections"])
	kept, _ := strconv.Atoi(f.Settings["superuser_reserved_connections"])
	if most > 0 && most-kept < 2*conns {
		found.add(name, warn, "raise max_connections, or lower --postgres-conns", "max_connections is %d, and this node alone wants up to %d for writes and as many for reads", most, conns)
	}
	if f.Settings["shared_buffers"] == "128MB" {
		found.add(name, warn, "set shared_buffers to a quarter of the memory", "shared_buffers is 128MB, PostgreSQL's default")
	}
	if f.OldestWrite > 10*time.Second {
		found.add(name, warn, "SELECT pid, query FROM pg_stat_activity WHERE backend_xid IS NOT NULL ORDER BY xact_start; then pg_terminate_backend(pid)",
			"a transaction has been writing for %v: until it ends, no node sees what was committed since", f.OldestWrite.Round(time.Second))
	}
	for slot, held := range f.Slots {
		if held > 1<<30 {
			found.add(name, warn, "bring that region's database back, or drop the slot if the region is gone: SELECT pg_drop_replication_slot('"+slot+"')",
				"the slot %s is used by nobody and holds back %d MiB of log", slot, held>>20)
		}
	}
	switch {
	case f.Schema == 0:
		found.add(name, warn, "the first node with --postgres-owner creates it", "there is no schema of Shortline, or this role may not see it")
	case f.Schema > f.WantSchema:
		found.add(name, fail, "use the newer program", "its schema has version %d, and this program knows %d", f.Schema, f.WantSchema)
	case f.Schema < f.WantSchema:
		found.add(name, warn, "the first node of this version upgrades it", "its schema has version %d, and this program has %d", f.Schema, f.WantSchema)
	}
}

func judgeRedis(found *findings, addr string, f rediscache.Facts) {
	name := "redis " + addr
	if f.Fault != nil {
		found.add(name, fail, "correct --redis", "%v", f.Fault)
		return
	}
	v := fine
	if f.State != "ok" {
		v = warn
	}
	found.add(name, v, "redis-cli --cluster check "+addr, "Redis %s, cluster state %s", f.Version, f.State)
	switch {
	case f.MaxMemory == "0":
		found.add(name, warn, "CONFIG SET maxmemory 2gb, and maxmemory-policy allkeys-lfu", "maxmemory is not set: it may take all memory of the machine")
	case !strings.HasPrefix(f.Policy, "allkeys-"):
		found.add(name, warn, "CONFIG SET maxmemory-policy allkeys-lfu", "maxmemory-policy is %s: when it is full nothing new is cached", f.Policy)
	}
}

// certificates looks at the files of TLS in the settings.
func (s *subject) certificates(found *findings, now time.Time) {
	id, deployment, region := s.serve.identity, s.serve.deployment, s.serve.edge.Region
	if s.name == "db" {
		id, deployment, region = s.db.identity, s.db.deployment, s.db.region
	}
	if id.on() {
		loaded, err := pki.Load(pki.Files{CA: id.ca, Cert: id.cert, Key: id.key}, deployment, region, slog.New(slog.DiscardHandler))
		if err != nil {
			found.add("certificate between nodes", fail, "issue one with: shortline ca issue", "%v", err)
		} else {
			judgeEnd(found, "certificate between nodes", loaded.Name().String(), loaded.Expires(), now)
		}
	}
	if s.name != "serve" {
		return
	}
	for _, c := range []struct{ use, flag, cert, key string }{
		{"certificate for clients", "tls", s.serve.publicTLS.cert, s.serve.publicTLS.key}, {"certificate for Redis", "redis-tls", s.serve.redis.cert, s.serve.redis.key},
	} {
		if c.cert == "" {
			continue
		}
		cert, err := firstCertificate(c.cert)
		if err == nil {
			_, err = pki.LoadServerPair(c.cert, c.key, slog.New(slog.DiscardHandler))
		}
		if err != nil {
			found.add(c.use, fail, fmt.Sprintf("correct --%s-cert and --%[1]s-key", c.flag), "%v", err)
			continue
		}
		judgeEnd(found, c.use, cmp.Or(strings.Join(cert.DNSNames, ", "), cert.Subject.String()), cert.NotAfter, now)
	}
}

func firstCertificate(path string) (*x509.Certificate, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New(path + " has no certificate")
	}
	return x509.ParseCertificate(block.Bytes)
}

func judgeEnd(found *findings, check, name string, end, now time.Time) {
	left := end.Sub(now)
	v := fine
	switch {
	case left <= 0:
		v = fail
	case left < 14*24*time.Hour:
		v = warn
	}
	found.add(check, v, "put a new one over the file; it is taken up without a restart", "%s, until %s (%d days)", name, end.UTC().Format(time.DateOnly), int(left.Hours()/24))
}

// names resolves the names in the settings.
func (s *subject) names(ctx context.Context, found *findings) {
	names := map[string]string{}
	for _, f := range s.addresses() {
		if host, _, err := net.SplitHostPort(f.addr); err == nil && host != "" && net.ParseIP(host) == nil {
			names[host] = f.setting
		}
	}
	if s.name == "serve" {
		for _, d := range s.serve.publicTLS.domains {
			names[d] = "acme-domain"
		}
		if zone := s.serve.dns.Zone; zone != "" {
			names[zone] = "dns-zone"
		}
	}
	ctx, cancel := context.WithTimeout(ctx, lookWithin)
	defer cancel()
	for name, setting := range names {
		addrs, err := net.DefaultResolver.LookupHost(ctx, name)
		if err != nil {
			found.add("name --"+setting, warn, "add it to DNS; a zone of --dns-zone has to be delegated to its nodes", "%s: %v", name, err)
			continue
		}
		found.add("name --"+setting, fine, "", "%s is %s", name, strings.Join(addrs, ", "))
	}
}
