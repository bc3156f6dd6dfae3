package postgres

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Advisory locks of the database. The first is held shared by every commit and exclusively by whoever changes the epoch.
const (
	lockEpoch   int64 = 0x73686c6e<<32 | 1
	lockMigrate int64 = 0x73686c6e<<32 | 2
	lockPrune   int64 = 0x73686c6e<<32 | 3
)

// migrateTimeout bounds a migration: one that rewrites a large table takes minutes.
const migrateTimeout = time.Hour

// schemaVersion is the version that this program knows: the number of the last migration.
func schemaVersion() int64 {
	files, err := fs.Glob(migrations, "migrations/*.sql")
	if err != nil || len(files) == 0 {
		return 0
	}
	number, _, _ := strings.Cut(path.Base(slices.Max(files)), "_")
	n, _ := strconv.ParseInt(number, 10, 64) // a test looks at the names
	return n
}

// newerError says that the database is of a later version than this program.
func newerError(version int64) error {
	return fmt.Errorf("the database was written by a newer shortline (schema %d, this one knows %d): upgrade the binary or use another database; nothing was changed", version, schemaVersion())
}

// Migrate brings the schema to the version that this program knows, as the role of the DSN, which has to be its owner.
// Several may do so at once: one works, the others wait. A migration that fails leaves the schema as it was before it.
func Migrate(ctx context.Context, dsn string) error {
	return migrate(ctx, dsn, Config{}.withDefaults())
}

func migrate(ctx context.Context, dsn string, cfg Config) error {
	pc, err := parse("primary for its owner", dsn, cfg)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, migrateTimeout)
	defer cancel()
	// The lock is a session's, and this session does nothing else, so that it ends with this process.
	conn, err := pgx.ConnectConfig(ctx, pc.ConnConfig.Copy())
	if err != nil {
		return explain("connect to the primary as its owner", err)
	}
	defer hangUp(conn)
	if _, err := conn.Exec(ctx, "SELECT pg_advisory_lock($1)", lockMigrate); err != nil {
		return explain("wait for the migration of another node", err)
	}
	version, err := readVersion(ctx, conn)
	switch {
	case err != nil:
		return err
	case version > schemaVersion():
		return newerError(version)
	case version == schemaVersion():
		return nil
	}
	if version == 0 {
		if err := ensureSchema(ctx, conn); err != nil {
			return explain("make the schema", err)
		}
	}
	cc := pc.ConnConfig.Copy()
	cc.RuntimeParams["shortline.now"] = cfg.Now().UTC().Format(time.RFC3339Nano) // for migrations that date something
	if err := up(ctx, cc, cfg.Log); err != nil {
		return explain(fmt.Sprintf("migrate from schema %d to %d", version, schemaVersion()), err)
	}
	return nil
}

// ensureSchema asks before it creates: CREATE SCHEMA IF NOT EXISTS wants rights on the database also where it exists.
func ensureSchema(ctx context.Context, conn *pgx.Conn) error {
	var there bool
	err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)", schema).Scan(&there)
	if err == nil && !there {
		_, err = conn.Exec(ctx, "CREATE SCHEMA "+schema)
	}
	return err
}

func up(ctx context.Context, cc *pgx.ConnConfig, log *slog.Logger) error {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	db := stdlib.OpenDB(*cc)
	p, err := goose.NewProvider(goose.DialectPostgres, db, files, goose.WithTableName(schema+".migrations"), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return errors.Join(err, db.Close())
	}
	results, err := p.Up(ctx)
	for _, r := range results {
		log.Info("schema migrated", "version", r.Source.Version, "took", r.Duration)
	}
	return errors.Join(err, p.Close())
}

// querier is what a pool and a connection have in common.
type querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// readVersion tells the version of the schema, 0 where there is none.
func readVersion(ctx context.Context, q querier) (version int64, err error) {
	var there bool
	err = q.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = 'migrations')", schema).Scan(&there)
	if err == nil && there {
		err = q.QueryRow(ctx, "SELECT coalesce(max(version_id), 0) FROM "+schema+".migrations WHERE is_applied").Scan(&version)
	}
	if err != nil {
		return 0, explain("read the version of the schema", err)
	}
	return version, nil
}

// hangUp closes a connection, also to a server that does not answer.
func hangUp(conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = conn.Close(ctx) // its locks end with it in any case
}
