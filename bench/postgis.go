package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/geo"
)

// nearestSQL asks as PostGIS's manual advises: the bound and the order both come from the GiST index. The order is by the
// sphere in any case; the last argument of ST_DWithin chooses between the ellipsoid and the sphere for the bound.
const nearestSQL = `SELECT id, geog <-> ST_SetSRID(ST_MakePoint($1, $2), 4326)::geography AS distance FROM stores
WHERE ST_DWithin(geog, ST_SetSRID(ST_MakePoint($1, $2), 4326)::geography, $3, %t)
ORDER BY geog <-> ST_SetSRID(ST_MakePoint($1, $2), 4326)::geography LIMIT $4`

type postgis struct {
	process *process
	conn    *pgx.Conn
	backend int
	dir     string
}

// startPostGIS makes a database of its own in a temporary folder, on a Unix socket only, as the user postgres where this
// program is run by root, because PostgreSQL refuses root.
func startPostGIS(ctx context.Context, b *bench) (_ engine, err error) {
	initdb, err := found("initdb", "/usr/lib/postgresql/*/bin/initdb", "/usr/pgsql-*/bin/initdb")
	if err != nil {
		return nil, err
	}
	e := &postgis{}
	defer func() {
		if err != nil {
			e.stop()
		}
	}()
	owner, err := e.folder()
	if err != nil {
		return nil, err
	}
	data := filepath.Join(e.dir, "data")
	if out, err := commandAs(owner, initdb, "-D", data, "-U", "bench", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initdb: %w\n%s", err, out)
	}
	cmd := commandAs(owner, filepath.Join(filepath.Dir(initdb), "postgres"), "-D", data, "-k", e.dir, "-c", "listen_addresses=",
		"-c", "shared_buffers=1GB", "-c", "maintenance_work_mem=512MB", "-c", "fsync=off", "-c", "max_wal_size=8GB",
		"-c", "jit=off", "-c", "max_parallel_workers_per_gather=0", "-c", "random_page_cost=1.1", "-c", "autovacuum=off")
	if e.process, err = start(ctx, syscall.SIGINT, cmd); err != nil {
		return nil, err
	}
	err = e.process.await(ctx, time.Minute, func() (err error) {
		e.conn, err = pgx.Connect(ctx, "host="+e.dir+" user=bench database=postgres")
		return err
	})
	if err != nil {
		return nil, err
	}
	return e, e.load(ctx, b)
}

// folder makes the folder of the database and tells whom it belongs to; nil is the user of this process.
func (e *postgis) folder() (*syscall.Credential, error) {
	dir, err := os.MkdirTemp("", "shortline-bench-pg-")
	if err != nil {
		return nil, err
	}
	e.dir = dir
	if os.Geteuid() != 0 {
		return nil, nil
	}
	account, err := user.Lookup("postgres")
	if err != nil {
		return nil, &skipped{why: "PostgreSQL does not run as root, and there is no user postgres"}
	}
	uid, errUID := strconv.ParseUint(account.Uid, 10, 32)
	gid, errGID := strconv.ParseUint(account.Gid, 10, 32)
	if err := errors.Join(errUID, errGID); err != nil {
		return nil, fmt.Errorf("the user postgres: %w", err)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, os.Chown(dir, int(uid), int(gid))
}

func (e *postgis) load(ctx context.Context, b *bench) error {
	if _, err := e.conn.Exec(ctx, "CREATE EXTENSION postgis"); err != nil {
		return &skipped{why: fmt.Sprintf("PostGIS is not installed beside this PostgreSQL (%v)", err)}
	}
	if _, err := e.conn.Exec(ctx, "CREATE UNLOGGED TABLE places (id text, lng float8, lat float8)"); err != nil {
		return fmt.Errorf("load PostGIS: %w", err)
	}
	points := b.data.points
	_, err := e.conn.CopyFrom(ctx, pgx.Identifier{"places"}, []string{"id", "lng", "lat"}, pgx.CopyFromSlice(len(points), func(i int) ([]any, error) {
		return []any{string(storeID(i)), points[i].Lng, points[i].Lat}, nil
	}))
	if err != nil {
		return fmt.Errorf("load PostGIS: %w", err)
	}
	for _, sql := range []string{
		"CREATE TABLE stores AS SELECT id, ST_SetSRID(ST_MakePoint(lng, lat), 4326)::geography AS geog FROM places",
		"DROP TABLE places",
		"CREATE INDEX ON stores USING gist (geog)",
		"VACUUM ANALYZE stores",
	} {
		if _, err := e.conn.Exec(ctx, sql); err != nil {
			return fmt.Errorf("load PostGIS: %s: %w", sql, err)
		}
	}
	var postgres, lib string
	if err := e.conn.QueryRow(ctx, "SELECT pg_backend_pid(), current_setting('server_version'), postgis_lib_version()").Scan(&e.backend, &postgres, &lib); err != nil {
		return fmt.Errorf("ask PostgreSQL for its version: %w", err)
	}
	b.machine.add("PostgreSQL " + postgres + " with PostGIS " + lib)
	return nil
}

func (e *postgis) variants() []variant {
	by := func(ellipsoid bool) func(context.Context, []question) ([][]answer, error) {
		sql := fmt.Sprintf(nearestSQL, ellipsoid)
		return func(ctx context.Context, qs []question) ([][]answer, error) { return e.ask(ctx, sql, qs) }
	}
	return []variant{{"PostGIS KNN, sphere", by(false)}, {"PostGIS KNN, ellipsoid (its default)", by(true)}}
}

// ask prepares the statement once.
func (e *postgis) ask(ctx context.Context, sql string, qs []question) ([][]answer, error) {
	batch := new(pgx.Batch)
	for _, q := range qs {
		batch.Queue(sql, q.at.Lng, q.at.Lat, float64(q.within), q.k)
	}
	results := e.conn.SendBatch(ctx, batch)
	out := make([][]answer, len(qs))
	for i := range qs {
		rows, err := results.Query()
		if err != nil {
			return nil, errors.Join(fmt.Errorf("ask PostGIS: %w", err), results.Close())
		}
		for rows.Next() {
			var id string
			var distance float64
			if err := rows.Scan(&id, &distance); err != nil {
				return nil, errors.Join(fmt.Errorf("ask PostGIS: %w", err), results.Close())
			}
			n, _ := storeNumber(shortline.StoreID(id))
			out[i] = append(out[i], answer{geo.Ref(n), geo.Metres(distance)})
		}
		if err := rows.Err(); err != nil {
			return nil, errors.Join(fmt.Errorf("ask PostGIS: %w", err), results.Close())
		}
	}
	return out, results.Close()
}

// pid is the process that serves the one connection. The others (checkpointer, writer) have nothing to do while it reads.
func (e *postgis) pid() int { return e.backend }

func (e *postgis) stop() {
	if e.conn != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		_ = e.conn.Close(ctx)
		cancel()
	}
	if e.process != nil {
		e.process.stop()
	}
	if e.dir != "" {
		_ = os.RemoveAll(e.dir)
	}
}
