package agent

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/shortline/shortline/regions"
)

//go:embed grants.sql
var grants string

// Grants is the SQL that makes the two roles of the agent with the least rights that they need; see the file for how to run it.
func Grants() string { return grants }

// controlData is what pg_controldata tells of a data folder.
type controlData struct {
	system   string
	state    string // "shut down", "in production", …
	timeline uint32
}

func (a *Agent) control(ctx context.Context) (c controlData, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	out, err := a.tools.run(ctx, a.tools.command("pg_controldata", "-D", a.cfg.Data), nil)
	if err != nil {
		return c, fmt.Errorf("the folder %s has no database that can be read: %w", a.cfg.Data, err)
	}
	for line := range strings.Lines(out) {
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch strings.TrimSpace(name) {
		case "Database system identifier":
			c.system = value
		case "Database cluster state":
			c.state = value
		case "Latest checkpoint's TimeLineID":
			c.timeline = uint32(lastNumber(value, 0))
		}
	}
	return c, nil
}

// create makes a new database in the empty data folder. It is made beside it and moved there once it is complete, so that a
// crash leaves nothing half made.
func (a *Agent) create(ctx context.Context) (err error) {
	fresh := a.cfg.Data + ".new"
	if err := os.RemoveAll(fresh); err != nil {
		return err
	}
	if err := a.tools.folder(fresh); err != nil {
		return err
	}
	a.cfg.Log.Info("making a new database", "data", a.cfg.Data)
	cmd := a.tools.command("initdb", a.unsynced([]string{"-D", fresh, "-U", superuser, "--encoding=UTF8", "--locale=C", "--data-checksums",
		"--auth-local=trust", "--auth-host=scram-sha-256", "--no-instructions"})...)
	if _, err := a.tools.run(ctx, cmd, nil); err != nil {
		return err
	}
	data := a.cfg.Data
	a.cfg.Data = fresh
	defer func() { a.cfg.Data = data }()
	if err := a.writeData("pg_hba.conf", access); err != nil {
		return err
	}
	if err := a.start(true); err != nil {
		return err
	}
	err = a.populate(ctx)
	err = errors.Join(err, a.stop(ctx, a.cfg.StopTimeout))
	a.server.Store(nil)
	if err != nil {
		return fmt.Errorf("make a new database: %w", err)
	}
	c, err := a.control(ctx)
	if err != nil {
		return err
	}
	if err := os.Remove(data); err != nil && !os.IsNotExist(err) {
		return err
	}
	if err := os.Rename(fresh, data); err != nil {
		return err
	}
	if err := syncFolder(filepath.Dir(data)); err != nil {
		return err
	}
	a.fresh = true
	return a.mem().update(func(r *remembered) { r.System, r.Role, r.Confirmed = c.system, regions.RolePrimary, true })
}

// populate makes the database and the roles, as the superuser.
func (a *Agent) populate(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	const options = " options='-c default_transaction_read_only=off -c synchronous_commit=local'" // it is started so that nothing can be written
	asSuper := func(database, sql string) error {
		conn, err := dial(ctx, a.localDSN(superuser, database)+options)
		if err != nil {
			return err
		}
		defer hangUp(conn)
		_, err = conn.PgConn().Exec(ctx, sql).ReadAll()
		return err
	}
	err := poll(ctx, "the new server takes SQL", 20*time.Millisecond, func(context.Context) (bool, error) {
		if !a.server.Load().running() {
			return false, fmt.Errorf("it ended: %s", a.lastLog())
		}
		return asSuper(superuser, "SELECT 1") == nil, nil
	})
	if err != nil {
		return err
	}
	if err := asSuper(superuser, "CREATE DATABASE "+quoteIdentifier(a.cfg.Database)); err != nil {
		return err
	}
	if err := asSuper(a.cfg.Database, a.cfg.Init.SQL); err != nil {
		return fmt.Errorf("run the given SQL: %w", err)
	}
	password := fmt.Sprintf("\nALTER ROLE %s PASSWORD %s;", RoleReplicator, quoteLiteral(a.cfg.Password))
	if err := asSuper(a.cfg.Database, grants+password); err != nil {
		return fmt.Errorf("make the agent's roles: %w", err)
	}
	return nil
}

func quoteIdentifier(s string) string { return `"` + strings.ReplaceAll(s, `"`, `""`) + `"` }
