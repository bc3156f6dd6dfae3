package postgres

import (
	"context"
	"errors"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/shortline/shortline/internal/planet"
	"github.com/shortline/shortline/replication"
)

func run(t *testing.T, s *Store) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		check(t, <-done)
	})
}

// A patient store opens without its servers, holds writes off, and is whole once they are there.
func TestPatience(t *testing.T) {
	p := startServer(t, planet.PostgresConfig{Name: "patient", NoFsync: true})
	dsn := p.DSN(owner, newDatabase(t, p))
	check(t, Migrate(deadline(t), dsn))
	p.Kill()
	if _, err := Open(deadline(t), Config{Write: dsn}); err == nil {
		t.Fatal("an impatient store opens without a server")
	}
	s := openStore(t, Config{Write: dsn, Patient: true}, mutantNone)
	run(t, s)
	if _, _, err := s.Commit(deadline(t), write(put("x", "X"))); !errors.Is(err, replication.ErrNotPrimary) || errors.Is(err, replication.ErrOutcomeUnknown) {
		t.Errorf("Commit: %v", err)
	}
	if _, err := s.Head(deadline(t)); err == nil {
		t.Error("there is a head without a server")
	}
	check(t, p.Restart(deadline(t)))
	eventually(t, "the store is whole", func() bool {
		_, _, err := s.Commit(context.Background(), write(put("x", "X")))
		return err == nil && s.fault(replica) == nil
	})
	if h := head(t, s); h.Epoch != 1 {
		t.Errorf("the head is %+v", h)
	}
	// What will not be over by itself is refused also by a patient one.
	for name, dsn := range map[string]string{
		"wrong password": strings.Replace(dsn, ":"+url.QueryEscape(p.Password())+"@", ":wrong@", 1),
		"no database":    strings.Replace(dsn, "/test", "/nowhere", 1),
	} {
		if s, err := Open(deadline(t), Config{Write: dsn, Patient: true}); err == nil {
			check(t, s.Close())
			t.Errorf("%s: a patient store opens", name)
		}
	}
}

// A node of a region that is not the primary starts while the primary does not answer.
func TestPatientWithoutPrimary(t *testing.T) {
	p := sharedServer(t)
	dsn := p.DSN(owner, newDatabase(t, p))
	check(t, Migrate(deadline(t), dsn))
	l, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and says nothing
	check(t, err)
	defer l.Close()
	u, err := url.Parse(dsn)
	check(t, err)
	u.Host = l.Addr().String()
	s := openStore(t, Config{Write: u.String(), Read: dsn, Patient: true, ConnectTimeout: 300 * time.Millisecond}, mutantNone)
	if h := head(t, s); h.Epoch != 1 {
		t.Errorf("the head is %+v", h)
	}
}

// The region's own server is a standby at first; once it is promoted it takes writes without anything else being done.
func TestRoams(t *testing.T) {
	p := startServer(t, planet.PostgresConfig{Name: "roams", NoFsync: true})
	name := newDatabase(t, p)
	check(t, Migrate(deadline(t), p.DSN(owner, name)))
	standby, err := p.Standby(deadline(t), "roams-standby", planet.PostgresConfig{NoFsync: true})
	check(t, err)
	t.Cleanup(func() { check(t, standby.Stop()) })
	if _, err := Open(deadline(t), Config{Write: standby.DSN(owner, name)}); err == nil || !strings.Contains(err.Error(), "standby") {
		t.Errorf("a store that does not roam opens on a standby: %v", err)
	}
	s := openStore(t, Config{Write: standby.DSN(owner, name), Roams: true, Patient: true}, mutantNone)
	if _, _, err := s.Commit(context.Background(), write(put("x", "X"))); !errors.Is(err, replication.ErrNotPrimary) {
		t.Errorf("on a standby: %v", err)
	}
	admin := connect(t, standby, name)
	exec(t, admin, "SELECT pg_promote(true)")
	token, err := BeginEpoch(deadline(t), standby.DSN(owner, name), Epoch{Number: 2, Fork: 1})
	check(t, err)
	if _, after := commitAll(t, s, put("x", "X")); !token.Less(after) || after.Epoch != 2 {
		t.Errorf("after the promotion a commit has %+v, the epoch began with %+v", after, token)
	}
}

func TestTooOld(t *testing.T) {
	if err := (server{version: 140011}).tooOld(primary); err == nil || err.Error() != "the primary runs PostgreSQL 14: upgrade it to 15 or newer" {
		t.Error(err)
	}
	if err := (server{version: 150000}).tooOld(replica); err != nil {
		t.Error(err)
	}
}
