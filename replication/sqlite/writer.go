package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"
	"time"

	sqlite3 "github.com/mattn/go-sqlite3"
)

// writer is the one connection that writes. It speaks to the driver directly, because at 500 updates a commit the
// pooling and conversions of database/sql cost as much as SQLite itself. It is used by one goroutine at a time.
type writer struct {
	conn  *sqlite3.SQLiteConn
	stmts map[string]stmt
	args  []driver.NamedValue // reused between statements
}

type stmt interface {
	driver.Stmt
	driver.StmtQueryContext
}

// dsn is the file as a URI, so that folders may have any name.
func dsn(path string, params url.Values) string {
	u := url.URL{Scheme: "file", Path: path, RawQuery: params.Encode()}
	return u.String()
}

func openConn(path string, params url.Values) (*sqlite3.SQLiteConn, error) {
	params.Set("_busy_timeout", strconv.FormatInt(busyTimeout.Milliseconds(), 10))
	params.Set("_mutex", "no") // every connection is used by one goroutine at a time
	conn, err := (&sqlite3.SQLiteDriver{}).Open(dsn(path, params))
	if err != nil {
		return nil, err
	}
	c, ok := conn.(*sqlite3.SQLiteConn)
	if !ok {
		return nil, fmt.Errorf("the SQLite driver returned a %T", conn)
	}
	return c, nil
}

func openWriter(path string) (*writer, error) {
	conn, err := openConn(path, url.Values{"mode": {"rwc"}, "_sync": {"FULL"}})
	if err != nil {
		return nil, err
	}
	w := &writer{conn: conn, stmts: map[string]stmt{}}
	if err := w.configure(); err != nil {
		return nil, errors.Join(err, w.close())
	}
	return w, nil
}

// configure sets what a connection is to be, and reads back what durability rests on.
func (w *writer) configure() error {
	for _, p := range []string{
		"auto_vacuum=INCREMENTAL", // takes effect in a new file only
		fmt.Sprintf("cache_size=-%d", writerCacheKiB),
		fmt.Sprintf("wal_autocheckpoint=%d", checkpointPages),
		fmt.Sprintf("journal_size_limit=%d", walLimit),
		"temp_store=MEMORY",
		"trusted_schema=OFF",
	} {
		if err := w.exec("PRAGMA " + p); err != nil {
			return err
		}
	}
	mode, err := w.value("PRAGMA journal_mode=WAL")
	if err != nil {
		return err
	}
	if mode != "wal" {
		return fmt.Errorf("the file system has no shared memory for SQLite's log (journal mode %v): put the data folder on a local disk", mode)
	}
	if sync, err := w.value("PRAGMA synchronous"); err != nil || sync != int64(2) {
		return errors.Join(fmt.Errorf("synchronous is %v and not FULL", sync), err)
	}
	// A file that may only be read would open all the same.
	return w.transact(func() error { return w.exec("PRAGMA user_version") })
}

func (w *writer) close() error {
	var errs []error
	for _, st := range w.stmts {
		errs = append(errs, st.Close())
	}
	return errors.Join(append(errs, w.conn.Close())...)
}

// exec runs SQL that takes and gives nothing.
func (w *writer) exec(sql string) error {
	_, err := w.conn.ExecContext(context.Background(), sql, nil)
	return err
}

// value returns the first column of the first row, nil where there is none.
func (w *writer) value(sql string) (v driver.Value, err error) {
	err = w.query(sql, nil, func(row []driver.Value) error {
		if v == nil {
			v = row[0]
		}
		return nil
	})
	return v, err
}

// query runs the statement, which is prepared once, to its end. each may be nil; its row is valid until it returns.
// There is no context in here: a statement that is interrupted rolls back what came before it.
func (w *writer) query(sql string, args []driver.NamedValue, each func(row []driver.Value) error) error {
	st, ok := w.stmts[sql]
	if !ok {
		prepared, err := w.conn.Prepare(sql)
		if err != nil {
			return err
		}
		if st, ok = prepared.(stmt); !ok {
			return fmt.Errorf("the SQLite driver returned a %T", prepared)
		}
		w.stmts[sql] = st
	}
	for i := range args {
		args[i].Ordinal = i + 1
	}
	rows, err := st.QueryContext(context.Background(), args)
	if err != nil {
		return err
	}
	if err := eachRow(rows, each); err != nil {
		return errors.Join(err, rows.Close())
	}
	return rows.Close()
}

func eachRow(rows driver.Rows, each func([]driver.Value) error) error {
	row := make([]driver.Value, len(rows.Columns()))
	for {
		err := rows.Next(row)
		if err == io.EOF {
			return nil
		}
		if err == nil && each != nil {
			err = each(row)
		}
		if err != nil {
			return err
		}
	}
}

// bulk is a statement around a list of rows, "head VALUES (?,…),(?,…) tail". It is prepared for a few numbers of rows, so
// that hundreds of rows take a handful of calls.
type bulk struct {
	head, tail string
	cols       int
}

var bulkSizes = [...]int{256, 32, 4, 1}

func (b bulk) sql(rows int) string {
	row := "(" + strings.TrimSuffix(strings.Repeat("?,", b.cols), ",") + ")"
	return b.head + " VALUES " + strings.TrimSuffix(strings.Repeat(row+",", rows), ",") + " " + b.tail
}

// bulk runs b over all of args, which are rows of b.cols values.
func (w *writer) bulk(b *preparedBulk, args []driver.NamedValue, each func(row []driver.Value) error) error {
	for i, size := range bulkSizes {
		for n := size * b.cols; len(args) >= n; args = args[n:] {
			if err := w.query(b.sqls[i], args[:n], each); err != nil {
				return err
			}
		}
	}
	return nil
}

// preparedBulk has the texts of a bulk for each of bulkSizes, made once.
type preparedBulk struct {
	bulk
	sqls [len(bulkSizes)]string
}

func newBulk(cols int, head, tail string) *preparedBulk {
	b := &preparedBulk{bulk: bulk{head: head, tail: tail, cols: cols}}
	for i, n := range bulkSizes {
		b.sqls[i] = b.sql(n)
	}
	return b
}

// add appends values to w.args, for query or bulk; take hands them over.
func (w *writer) add(values ...driver.Value) {
	for _, v := range values {
		w.args = append(w.args, driver.NamedValue{Value: v})
	}
}

func (w *writer) take() []driver.NamedValue {
	args := w.args
	w.args = w.args[:0]
	return args
}

// transact runs f in one transaction. An error that does not wrap ErrOutcomeUnknown means that nothing was committed.
func (w *writer) transact(f func() error) error {
	if err := w.exec("BEGIN IMMEDIATE"); err != nil {
		return err
	}
	err := f()
	if err == nil {
		if err = w.exec("COMMIT"); err == nil {
			return nil
		}
		err = commitFailure(err)
	}
	w.args = w.args[:0]
	// SQLite has rolled back by itself after the graver errors.
	if !w.conn.AutoCommit() {
		if back := w.exec("ROLLBACK"); back != nil {
			err = errors.Join(err, fmt.Errorf("roll back: %w", back))
		}
	}
	return err
}

// truncateLog copies the whole log into the file and empties it, waiting for readers only briefly.
func (w *writer) truncateLog() error {
	if err := w.busyTimeout(100 * time.Millisecond); err != nil {
		return err
	}
	busy, err := w.value("PRAGMA wal_checkpoint(TRUNCATE)")
	if err == nil && busy != int64(0) {
		err = errors.New("readers did not end in time")
	}
	return errors.Join(err, w.busyTimeout(busyTimeout))
}

func (w *writer) busyTimeout(d time.Duration) error {
	return w.exec("PRAGMA busy_timeout=" + strconv.FormatInt(d.Milliseconds(), 10))
}
