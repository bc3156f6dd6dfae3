package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/shortline/shortline/replication"
	"github.com/shortline/shortline/replication/postgres"
	"github.com/shortline/shortline/replication/sqlite"
)

// storeSettings say where a node keeps stores, queues and keys: in PostgreSQL where its DSN is given, else in a file.
type storeSettings struct {
	data     string
	postgres string // DSN of the primary
	replica  string // DSN of the local standby
	owner    string // DSN of the role that owns the schema
	conns    int
	commits  int // write transactions under way at once at most
	// localSnapshot says to keep a file to start from while PostgreSQL is down.
	localSnapshot bool
}

func (s *storeSettings) validate() error {
	var faults []error
	if s.data == "" {
		faults = append(faults, errors.New("--data is empty; name a folder"))
	}
	if s.postgres == "" && (s.replica != "" || s.owner != "") {
		faults = append(faults, errors.New("--postgres-replica and --postgres-owner need --postgres, the DSN of the primary"))
	}
	if s.conns < 1 || s.conns > 1000 {
		faults = append(faults, fmt.Errorf("--postgres-conns %d is not between 1 and 1000", s.conns))
	}
	if s.commits < 1 || s.commits > 64 {
		faults = append(faults, fmt.Errorf("--commits-in-flight %d is not between 1 and 64", s.commits))
	}
	return errors.Join(faults...)
}

// openTime is for how long a node of several regions waits, at its first start, for its database to become what it has to be.
const openTime = time.Minute

// openPatiently is open; where there are several regions it is tried for a while: a standby has nothing in it before the
// primary's node has made the schema.
func (s *serveSettings) openPatiently(ctx context.Context, control wiring, log *slog.Logger) (store replication.Store, inFlight int, err error) {
	for end := time.Now().Add(openTime); ; {
		store, inFlight, err = s.open(ctx, control, log)
		if err == nil || control.plane == nil || time.Now().After(end) || ctx.Err() != nil {
			return store, inFlight, err
		}
		log.Debug("the database is not ready for this node yet", "err", err)
		select {
		case <-ctx.Done():
		case <-time.After(250 * time.Millisecond):
		}
	}
}

// open opens the database; inFlight is how many commits it takes at once.
func (s *storeSettings) open(ctx context.Context, control wiring, log *slog.Logger) (store replication.Store, inFlight int, err error) {
	if s.postgres == "" {
		store, err := sqlite.Open(ctx, sqlite.Config{Dir: s.data, Log: log})
		return store, 1, err
	}
	if err := os.MkdirAll(s.data, 0o700); err != nil {
		return nil, 0, fmt.Errorf("make the data folder: %w; name another with --data", err)
	}
	pg, err := postgres.Open(ctx, postgres.Config{
		Write: s.postgres, Read: s.replica, Owner: s.owner, WriteConns: s.conns, ReadConns: s.conns, Gate: control.gate,
		Roams: control.ownDatabase, Patient: s.seenBefore(), Log: log})
	if err != nil {
		return nil, 0, err
	}
	return pg, min(s.commits, s.conns), nil
}

// poll is the feed's wait between polls; 0: as it is made. All that is written to an embedded database is written by this node,
// which tells the feed.
func (s *storeSettings) poll() time.Duration {
	if s.postgres == "" {
		return 250 * time.Millisecond
	}
	return 0
}

// seenBefore tells whether the node has reached its database before. Only then it may start without it: a first start finds
// out whether everything is right.
func (s *storeSettings) seenBefore() bool {
	_, err := os.Stat(filepath.Join(s.data, deploymentFile))
	return err == nil
}
