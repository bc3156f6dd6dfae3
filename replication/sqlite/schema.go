package sqlite

import (
	"bytes"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/shortline/shortline"
)

// applicationID marks the file as ours ("shln"), for us and for file(1).
const applicationID = 0x73686c6e

// migrations bring a file from version i to i+1. They are never changed once released; add to the end.
//
// Times are milliseconds since 1970 UTC, hours are hours since 1970 UTC. Other tables speak of a store by its number, no,
// which is smaller than its id and lives as long as its row: for good, as a tombstone in the end.
var migrations = []string{`
CREATE TABLE control (
	one        INTEGER PRIMARY KEY CHECK (one = 1),
	epoch      INTEGER NOT NULL,
	last_xid   INTEGER NOT NULL, -- of the last committed transaction that has changes
	next_store INTEGER NOT NULL, -- the next stores.no
	pruned_xid INTEGER NOT NULL, -- the last change that was pruned; 0, 0: none
	pruned_id  INTEGER NOT NULL,
	created_at INTEGER NOT NULL
) STRICT;
CREATE TABLE stores (
	no        INTEGER PRIMARY KEY,
	id        TEXT NOT NULL UNIQUE,
	rev       INTEGER NOT NULL,
	deleted   INTEGER NOT NULL, -- 1: a tombstone, which keeps rev
	service_s REAL NOT NULL,    -- as in body, for answers to queue updates
	body      TEXT NOT NULL     -- the store as JSON, '' for a tombstone
) STRICT;
CREATE TABLE queues (
	store      INTEGER PRIMARY KEY,
	rev        INTEGER NOT NULL,
	length     INTEGER, -- NULL: a tombstone
	updated_at INTEGER,
	-- The rollup of the newest hour stands here, so that an update of a queue touches one page and not two.
	hour       INTEGER NOT NULL,
	samples    INTEGER NOT NULL,
	sum        INTEGER NOT NULL,
	sumsq      INTEGER NOT NULL,
	min        INTEGER NOT NULL,
	max        INTEGER NOT NULL
) STRICT;
CREATE TABLE rollups ( -- of all hours but the newest
	store   INTEGER NOT NULL,
	hour    INTEGER NOT NULL,
	samples INTEGER NOT NULL,
	sum     INTEGER NOT NULL,
	sumsq   INTEGER NOT NULL,
	min     INTEGER NOT NULL,
	max     INTEGER NOT NULL,
	PRIMARY KEY (store, hour)
) STRICT, WITHOUT ROWID;
CREATE TABLE changes (
	xid        INTEGER NOT NULL,
	id         INTEGER NOT NULL,
	epoch      INTEGER NOT NULL,
	kind       INTEGER NOT NULL, -- shortline.ChangeKind
	rev        INTEGER NOT NULL,
	at         INTEGER NOT NULL,
	subject    TEXT NOT NULL,
	length     INTEGER, -- QueueSet
	updated_at INTEGER, -- QueueSet
	queue_rev  INTEGER, -- StoreDeleted of a store that ever had a queue: the rev of the queue's tombstone
	hash       BLOB,    -- KeyPut
	body       TEXT,    -- StorePut, KeyPut: JSON
	PRIMARY KEY (xid, id)
) STRICT, WITHOUT ROWID;
CREATE TABLE idempotency (
	scope     TEXT NOT NULL,
	key       TEXT NOT NULL,
	body_hash BLOB NOT NULL,
	answer    TEXT NOT NULL, -- the items of the result as JSON
	at        INTEGER NOT NULL,
	expires   INTEGER NOT NULL,
	PRIMARY KEY (scope, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_expires ON idempotency (expires);
CREATE TABLE keys (
	id   TEXT PRIMARY KEY,
	rev  INTEGER NOT NULL,
	hash BLOB NOT NULL,
	body TEXT NOT NULL -- the key as JSON, which has no hash
) STRICT, WITHOUT ROWID;
`, `
-- What the reports of a line tell of its pace (shortline.Flow), and in the feed what is learned from it.
ALTER TABLE queues ADD COLUMN served INTEGER NOT NULL DEFAULT 0;
ALTER TABLE queues ADD COLUMN busy_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE changes ADD COLUMN learned_s REAL; -- QueueSet; NULL: not known
`}

// inspect tells the schema version of the file, 0 where it is yet to be made, without changing anything. What it refuses
// it names with the remedy.
func inspect(path string) (version int, err error) {
	dir := filepath.Dir(path)
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) || err == nil && info.Mode().IsRegular() && info.Size() == 0:
		// SQLite would throw away a log without its file.
		if log, err := os.Stat(path + "-wal"); err == nil && log.Size() > 0 {
			return 0, fmt.Errorf("%s is missing or empty, but its log %s-wal is there: put the file back beside its log, or move the log away to start anew; nothing was changed", path, dbName)
		}
		return 0, nil
	case err != nil:
		return 0, err
	case !info.Mode().IsRegular():
		return 0, fmt.Errorf("%s is not a file: move it away or pass another --data", path)
	}
	if err := checkMagic(path); err != nil {
		return 0, err
	}
	app, version, tables, err := identify(path)
	switch {
	case err != nil:
		return 0, err
	case app == 0 && version == 0 && tables == 0:
		return 0, nil // a start that was cut off before the first table
	case app != applicationID || version < 1:
		return 0, fmt.Errorf("%s is a database of another program: move it away or pass another --data; nothing was changed", path)
	case version > len(migrations):
		return 0, fmt.Errorf("data folder %s was written by a newer shortline (schema %d, this one knows %d): upgrade the binary or pass another --data; nothing was changed", dir, version, len(migrations))
	}
	return version, nil
}

func checkMagic(path string) error {
	const magic = "SQLite format 3\x00"
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // it was only read
	head := make([]byte, len(magic))
	if _, err := io.ReadFull(f, head); err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	if !bytes.Equal(head, []byte(magic)) {
		return fmt.Errorf("%s is not an SQLite database: it is damaged at its start or something else; restore a backup, move it away or pass another --data; nothing was changed", path)
	}
	return nil
}

// identify reads the file's marks through a connection that cannot write, so that the log counts but is not folded in.
func identify(path string) (app, version, tables int, err error) {
	mode := "ro"
	if log, err := os.Stat(path + "-journal"); err == nil && log.Size() > 0 {
		mode = "rw" // the very first start was cut off; its journal must be rolled back before anything can be read
	}
	conn, err := openConn(path, url.Values{"mode": {mode}})
	if err != nil {
		return 0, 0, 0, err
	}
	w := &writer{conn: conn, stmts: map[string]stmt{}}
	for _, q := range []struct {
		sql string
		to  *int
	}{
		{"PRAGMA application_id", &app}, {"PRAGMA user_version", &version}, {"SELECT count(*) FROM sqlite_schema", &tables},
	} {
		v, err := w.value(q.sql)
		if err != nil {
			return 0, 0, 0, errors.Join(err, w.close())
		}
		n, ok := v.(int64)
		if !ok {
			return 0, 0, 0, errors.Join(fmt.Errorf("%s answered %v", q.sql, v), w.close())
		}
		*q.to = int(n)
	}
	if app == applicationID && version <= len(migrations) {
		_, err = w.value("SELECT epoch FROM control") // damage is best found while nothing can be written
	}
	return app, version, tables, errors.Join(err, w.close())
}

// migrate brings the file from version to the newest, one transaction a step, so that a step that fails changes nothing.
func (w *writer) migrate(version int, now time.Time) error {
	for ; version < len(migrations); version++ {
		err := w.transact(func() error {
			if err := w.exec(migrations[version]); err != nil {
				return err
			}
			if version == 0 {
				if err := w.begin(now); err != nil {
					return err
				}
			}
			// Both are part of the transaction.
			return w.exec(fmt.Sprintf("PRAGMA application_id=%d; PRAGMA user_version=%d", applicationID, version+1))
		})
		if err != nil {
			return fmt.Errorf("migrate from schema %d to %d, which left the file as it was: %w", version, version+1, err)
		}
	}
	return nil
}

// begin writes the control row and the change with which epoch 1 begins.
func (w *writer) begin(now time.Time) error {
	const epoch, xid = int64(1), int64(1)
	at := now.UnixMilli()
	args := func(values ...driver.Value) []driver.NamedValue { w.add(values...); return w.take() }
	if err := w.query("INSERT INTO control VALUES (1, ?, ?, 1, 0, 0, ?)", args(epoch, xid, at), nil); err != nil {
		return err
	}
	return w.query("INSERT INTO changes (xid, id, epoch, kind, rev, at, subject) VALUES (?, 1, ?, ?, ?, ?, '')",
		args(xid, epoch, int64(shortline.EpochBegun), epoch, at), nil)
}
