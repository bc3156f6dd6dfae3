package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

// oldestServer is the oldest version that has all that is used, as server_version_num.
const oldestServer = 150000

// server is what a server tells of itself.
type server struct {
	version  int
	recovery bool
	sync     string // synchronous_commit of this role
}

func ask(ctx context.Context, of side, pool *pgxpool.Pool) (s server, err error) {
	err = pool.QueryRow(ctx, "SELECT current_setting('server_version_num')::int, pg_is_in_recovery(), current_setting('synchronous_commit')").
		Scan(&s.version, &s.recovery, &s.sync)
	if err != nil {
		return s, explain(fmt.Sprintf("ask the %s what it is", of), err)
	}
	return s, s.tooOld(of)
}

// tooOld refuses a server that lacks what is used.
func (s server) tooOld(of side) error {
	if s.version < oldestServer {
		return fmt.Errorf("the %s runs PostgreSQL %d: upgrade it to %d or newer", of, s.version/10000, oldestServer/10000)
	}
	return nil
}

// checkPrimary checks where writes go, and migrates a schema that is missing or older.
func (s *Store) checkPrimary(ctx context.Context) error {
	var is server
	var version int64
	err := s.step(ctx, func(ctx context.Context) (err error) {
		if err := ping(ctx, primary, s.writes); err != nil {
			return err
		}
		if is, err = ask(ctx, primary, s.writes); err != nil {
			return err
		}
		if err := s.judge(is); err != nil {
			return err
		}
		version, err = readVersion(ctx, s.writes)
		return err
	})
	switch {
	case err != nil:
		return err
	case version > schemaVersion():
		return newerError(version)
	case version < schemaVersion() && is.recovery:
		return behindError{version}
	case version < schemaVersion():
		if err := migrate(ctx, s.cfg.Owner, s.cfg); err != nil {
			return err
		}
	}
	s.cfg.Log.Info("database opened", "schema", schemaVersion(), "before", version, "standby", is.recovery)
	return s.step(ctx, func(ctx context.Context) error {
		s.compareClocks(ctx, primary, s.writes)
		return checkRights(ctx, primary, s.writes)
	})
}

// judge refuses a server for writes that cannot keep what is promised.
func (s *Store) judge(is server) error {
	switch {
	case is.recovery && !s.cfg.Roams:
		return errors.New("the DSN for writes points to a standby: let it point to the primary")
	case s.cfg.Quorum && is.sync != "on" && is.sync != "remote_apply":
		return fmt.Errorf("synchronous_commit is %s, which does not wait for a standby's disk: set it to on for the role of the DSN for writes (ALTER ROLE … SET synchronous_commit = on)", is.sync)
	case is.sync == "off":
		s.cfg.Log.Warn("synchronous_commit is off: a crash of the server loses acknowledged writes")
	}
	return nil
}

// behindError says that a standby has not got the schema of the primary yet.
type behindError struct{ version int64 }

func (e behindError) Error() string {
	return fmt.Sprintf("the replica has schema %d, this program knows %d: check that it streams from the primary, that both DSNs name the same database, and that a node at the primary has migrated it", e.version, schemaVersion())
}

// checkReplica checks where reads go, and waits until it has the schema, for a standby may be behind.
func (s *Store) checkReplica(ctx context.Context) error {
	if err := ping(ctx, replica, s.reads); err != nil {
		return err
	}
	if _, err := ask(ctx, replica, s.reads); err != nil {
		return err
	}
	for {
		version, err := readVersion(ctx, s.reads)
		switch {
		case err != nil:
			return err
		case version > schemaVersion():
			return newerError(version)
		case version == schemaVersion():
			return s.checkSame(ctx)
		}
		select {
		case <-ctx.Done():
			return behindError{version}
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// checkSame refuses a replica of another primary.
func (s *Store) checkSame(ctx context.Context) error {
	if err := checkRights(ctx, replica, s.reads); err != nil {
		return err
	}
	if s.cfg.Read != s.cfg.Write {
		s.compareClocks(ctx, replica, s.reads)
	}
	if s.fault(primary) != nil { // it cannot be compared with what does not answer
		return nil
	}
	var ids [2]string
	for i, pool := range []*pgxpool.Pool{s.writes, s.reads} {
		if err := pool.QueryRow(ctx, "SELECT deployment::text FROM control").Scan(&ids[i]); err != nil {
			return explain("read the control row", err)
		}
	}
	if ids[0] != ids[1] {
		return fmt.Errorf("the DSNs for writes and reads point to different deployments (%s and %s): let both name the same database, or build the replica anew", ids[0], ids[1])
	}
	return nil
}

// rights lists what each role must be allowed to do, by table.
var rights = map[side]map[string][]string{
	primary: {
		"control": {"SELECT", "UPDATE"}, "epochs": {"SELECT"}, "stores": {"SELECT", "INSERT", "UPDATE"}, "queues": {"SELECT", "INSERT", "UPDATE"},
		"rollups": {"SELECT", "INSERT", "UPDATE"}, "keys": {"SELECT", "INSERT", "UPDATE"},
		"changes": {"SELECT", "INSERT", "DELETE"}, "idempotency": {"SELECT", "INSERT", "DELETE"},
	},
	replica: {"control": {"SELECT"}, "epochs": {"SELECT"}, "stores": {"SELECT"}, "queues": {"SELECT"}, "rollups": {"SELECT"}, "keys": {"SELECT"}, "changes": {"SELECT"}},
}

func checkRights(ctx context.Context, of side, pool *pgxpool.Pool) error {
	var tables, privileges []string
	for table, all := range rights[of] {
		for _, p := range all {
			tables, privileges = append(tables, schema+"."+table), append(privileges, p)
		}
	}
	var role string
	var missing []string
	err := pool.QueryRow(ctx, `SELECT current_user, coalesce(array_agg(p || ' on ' || t) FILTER (WHERE NOT has_table_privilege(t, p)), '{}')
		FROM unnest($1::text[], $2::text[]) AS u(t, p)`, tables, privileges).Scan(&role, &missing)
	if err != nil {
		return explain("look up the rights on the "+string(of), err)
	}
	if len(missing) > 0 {
		slices.Sort(missing)
		return fmt.Errorf("role %s of the %s lacks rights (%s): see grants.sql", role, of, strings.Join(missing, ", "))
	}
	return nil
}
