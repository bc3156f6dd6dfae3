package sqlite

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	sqlite3 "github.com/mattn/go-sqlite3"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/replication"
)

func mustOpen(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(context.Background(), Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func commitOne(t *testing.T, s *Store, items ...replication.Item) []replication.ItemResult {
	t.Helper()
	results, _, err := s.Commit(context.Background(), []replication.Write{{Items: items}})
	if err != nil {
		t.Fatal(err)
	}
	return results[0].Items
}

func putOf(id shortline.StoreID, name string) replication.Item {
	return replication.Item{Put: &shortline.Store{ID: id, Name: name}}
}

// contents reads all files of the folder but the lock.
func contents(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() == lockName || strings.HasSuffix(e.Name(), "-shm") { // the second is scratch space that SQLite makes anew
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if len(b) > 0 || !strings.HasSuffix(e.Name(), "-wal") {
			files[e.Name()] = b
		}
	}
	return files
}

func expectRefusal(t *testing.T, dir string, words ...string) {
	t.Helper()
	s, err := Open(context.Background(), Config{Dir: dir})
	if err == nil {
		_ = s.Close()
		t.Fatalf("Open(%s) succeeded, want a refusal that says %q", dir, words)
	}
	t.Log(err)
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("the error is %q, want %q in it", err, w)
		}
	}
}

func TestOpenMakesTheFolderForItsOwner(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "some where", "100% of? it#")
	s := mustOpen(t, dir)
	commitOne(t, s, putOf("a", "A"))
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%s: %v, %v", dir, info, err)
	}
	if _, err := os.Stat(filepath.Join(dir, dbName)); err != nil {
		t.Error(err)
	}
}

func TestOpenRefusesAFolderInUse(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir)
	expectRefusal(t, dir, dir, "in use by another shortline", fmt.Sprintf("pid %d", os.Getpid()), "--data")
	commitOne(t, s, putOf("a", "A")) // the first one goes on
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("a second Close: %v", err)
	}
	mustOpen(t, dir)
}

func TestOpenRefusesAndChangesNothing(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil func(t *testing.T, dir string)
		words []string
	}{
		{"a newer schema", func(t *testing.T, dir string) {
			alter(t, dir, "PRAGMA user_version=7", true)
		}, []string{"newer shortline (schema 7, this one knows 2)", "upgrade the binary", "nothing was changed"}},
		{"a newer schema that stands only in the log", func(t *testing.T, dir string) {
			alter(t, dir, "PRAGMA user_version=7", false)
		}, []string{"newer shortline (schema 7, this one knows 2)"}},
		{"a database of another program", func(t *testing.T, dir string) {
			alter(t, dir, "PRAGMA application_id=1", true)
		}, []string{"another program", "move it away"}},
		{"not a database", func(t *testing.T, dir string) {
			write(t, dir, dbName, bytes.Repeat([]byte("notes "), 1000))
		}, []string{"is not an SQLite database", "nothing was changed"}},
		{"a short file that is not a database", func(t *testing.T, dir string) {
			write(t, dir, dbName, []byte("x"))
		}, []string{"is not an SQLite database"}},
		{"a log without its file", func(t *testing.T, dir string) {
			write(t, dir, dbName+"-wal", []byte("log"))
			if err := os.Remove(filepath.Join(dir, dbName)); err != nil {
				t.Fatal(err)
			}
		}, []string{"is missing", "put the file back"}},
		{"a damaged schema", func(t *testing.T, dir string) {
			path := filepath.Join(dir, dbName)
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			copy(b[100:], bytes.Repeat([]byte{0xa5}, 3000))
			write(t, dir, dbName, b)
		}, []string{"damaged", ".recover"}},
		{"damaged pages", func(t *testing.T, dir string) {
			path := filepath.Join(dir, dbName)
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			for i := 4096; i < len(b); i++ {
				b[i] = 0xa5
			}
			write(t, dir, dbName, b)
		}, []string{"damaged", ".recover"}},
		{"a folder in its place", func(t *testing.T, dir string) {
			path := filepath.Join(dir, dbName)
			if err := errors.Join(os.Remove(path), os.Mkdir(path, 0o700), os.WriteFile(path+"/x", nil, 0o600)); err != nil {
				t.Fatal(err)
			}
		}, []string{"is not a file", "move it away"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			s := mustOpen(t, dir)
			commitOne(t, s, putOf("a", "A"))
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			c.spoil(t, dir)
			if c.name == "a folder in its place" {
				expectRefusal(t, dir, c.words...)
				return
			}
			before := contents(t, dir)
			expectRefusal(t, dir, c.words...)
			expectRefusal(t, dir, c.words...) // the lock was given back
			after := contents(t, dir)
			for name := range before {
				if !bytes.Equal(before[name], after[name]) {
					t.Errorf("%s was changed", name)
				}
			}
			if len(after) != len(before) {
				t.Errorf("there were %d files, and are %d", len(before), len(after))
			}
		})
	}
}

func write(t *testing.T, dir, name string, b []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// alter runs sql on the file; without fold, what it did is left in the log as by a process that was killed.
func alter(t *testing.T, dir, sql string, fold bool) {
	t.Helper()
	path := filepath.Join(dir, dbName)
	w, err := openWriter(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.exec(sql); err != nil {
		t.Fatal(err)
	}
	var kept map[string][]byte
	if !fold {
		kept = contents(t, dir)
	}
	if err := w.close(); err != nil {
		t.Fatal(err)
	}
	for name, b := range kept {
		write(t, dir, name, b)
	}
}

func TestOpenRefusesAFile(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "file", []byte("x"))
	expectRefusal(t, filepath.Join(dir, "file"), "is a file", "--data")
	expectRefusal(t, filepath.Join(dir, "file", "below"), "--data")
}

func TestOpenRefusesAFolderThatIsNotWritable(t *testing.T) {
	parent := t.TempDir()
	dir := filepath.Join(parent, "data")
	if err := os.Mkdir(dir, 0o500); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Chmod(parent, 0o755), os.Chmod(filepath.Dir(parent), 0o755)); err != nil {
		t.Fatal(err)
	}
	asNobody(t, func() {
		expectRefusal(t, dir, "not writable by user id", "chown", "--data")
		expectRefusal(t, filepath.Join(dir, "new"), "--data")
	})
}

func TestOpenRefusesFilesThatAreNotOurs(t *testing.T) {
	for _, mode := range []os.FileMode{0o444, 0o000} {
		dir := t.TempDir()
		s := mustOpen(t, dir)
		commitOne(t, s, putOf("a", "A"))
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		err := errors.Join(os.Chmod(filepath.Dir(dir), 0o755), os.Chmod(dir, 0o777), os.Chmod(filepath.Join(dir, lockName), 0o666), os.Chmod(filepath.Join(dir, dbName), mode))
		if err != nil {
			t.Fatal(err)
		}
		asNobody(t, func() { expectRefusal(t, dir, dbName, "chown -R") })
	}
}

func TestOpenGoesOnAfterAStartThatWasCutOff(t *testing.T) {
	for name, prepare := range map[string]func(t *testing.T, dir string){
		"an empty file": func(t *testing.T, dir string) { write(t, dir, dbName, nil) },
		"no table yet": func(t *testing.T, dir string) {
			w, err := openWriter(filepath.Join(dir, dbName))
			if err == nil {
				err = w.close()
			}
			if err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			prepare(t, dir)
			s := mustOpen(t, dir)
			commitOne(t, s, putOf("a", "A"))
		})
	}
}

func TestCommitSaysThatTheDiskIsFull(t *testing.T) {
	s := mustOpen(t, t.TempDir())
	commitOne(t, s, putOf("a", "A"))
	pages, err := s.w.value("PRAGMA page_count")
	if err != nil {
		t.Fatal(err)
	}
	limit := func(n int64) {
		t.Helper()
		if _, err := s.w.value(fmt.Sprintf("PRAGMA max_page_count=%d", n)); err != nil {
			t.Fatal(err)
		}
	}
	limit(pages.(int64))
	var items []replication.Item
	for i := range 1000 {
		items = append(items, putOf(benchID(i), strings.Repeat("full ", 30)))
	}
	_, _, err = s.Commit(context.Background(), []replication.Write{{Items: items}})
	if err == nil || !strings.Contains(err.Error(), "is full") || errors.Is(err, replication.ErrOutcomeUnknown) {
		t.Fatalf("Commit on a full disk: %v", err)
	}
	t.Log(err)
	if rows, err := s.Snapshot(context.Background(), "", 10); err != nil || len(rows) != 1 {
		t.Errorf("after that there are %d stores, %v", len(rows), err)
	}
	limit(1 << 30)
	commitOne(t, s, items...) // room was made
}

func TestCommitFailure(t *testing.T) {
	for _, c := range []struct {
		err     error
		unknown bool
	}{
		{sqlite3.Error{Code: sqlite3.ErrFull}, false},
		{sqlite3.Error{Code: sqlite3.ErrBusy}, false},
		{sqlite3.Error{Code: sqlite3.ErrIoErr, ExtendedCode: sqlite3.ErrIoErrFsync}, true},
		{sqlite3.Error{Code: sqlite3.ErrNomem}, true},
		{errors.New("anything else"), true},
	} {
		if got := errors.Is(commitFailure(c.err), replication.ErrOutcomeUnknown); got != c.unknown {
			t.Errorf("%v: the outcome is unknown: %v, want %v", c.err, got, c.unknown)
		}
	}
}

// TestReadsDoNotWaitForTheWriter: reads see the state before while a transaction is open.
func TestReadsDoNotWaitForTheWriter(t *testing.T) {
	s := mustOpen(t, t.TempDir())
	commitOne(t, s, putOf("a", "A"))
	err := s.w.transact(func() error {
		if err := s.w.exec("UPDATE stores SET rev = 99; UPDATE control SET last_xid = 99"); err != nil {
			return err
		}
		rows, err := s.Rows(context.Background(), []shortline.StoreID{"a"})
		if err != nil || len(rows) != 1 || rows[0].Rev != 1 {
			t.Errorf("rows while a transaction is open: %+v, %v", rows, err)
		}
		head, err := s.Head(context.Background())
		if err != nil || head.Horizon != 3 {
			t.Errorf("head while a transaction is open: %+v, %v", head, err)
		}
		return errors.New("roll back")
	})
	if err == nil {
		t.Fatal("the transaction committed")
	}
}

// TestLogIsBounded: a read that goes on for very long stops the log from being folded, and once it ends the log is cut.
func TestLogIsBounded(t *testing.T) {
	s := mustOpen(t, t.TempDir())
	commitOne(t, s, putOf("a", "A"), putOf("b", "B"))
	s.walNext = 1 << 20
	rows, err := s.readers.Query("SELECT id FROM stores")
	if err != nil || !rows.Next() {
		t.Fatal(err)
	}
	grow := func(round int) int64 {
		for i := range 10 {
			var items []replication.Item
			for j := range 500 {
				items = append(items, putOf(benchID(j), fmt.Sprintf("%d, %d %s", round, i, strings.Repeat("x", 150))))
			}
			commitOne(t, s, items...)
		}
		info, err := os.Stat(filepath.Join(s.dir, dbName+"-wal"))
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	if size := grow(0); size < 2<<20 {
		t.Fatalf("the log has %d bytes; the test writes too little", size)
	}
	if err := errors.Join(rows.Close(), s.w.truncateLog()); err != nil {
		t.Fatal(err)
	}
	s.walNext = 1 << 20
	if size := grow(1); size > 16<<20 {
		t.Errorf("the log has %d bytes", size)
	}
}

// TestPruneGivesSpaceBack: what pruned changes leave is used again or given back, and a large prune takes several transactions.
func TestPruneGivesSpaceBack(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	s, err := Open(context.Background(), Config{Dir: t.TempDir(), Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close() //nolint:errcheck // the test has ended
	for round := range 40 {
		items := make([]replication.Item, 1000)
		for i := range items {
			items[i] = putOf(benchID(i), fmt.Sprintf("%d %s", round, strings.Repeat("y", 180)))
		}
		commitOne(t, s, items...)
	}
	pages := func() int64 {
		n, err := s.w.value("PRAGMA page_count")
		if err != nil {
			t.Fatal(err)
		}
		return n.(int64)
	}
	full := pages()
	if err := s.Prune(context.Background(), now.Add(time.Hour), now); err != nil {
		t.Fatal(err)
	}
	if left := pages(); left > full/2 {
		t.Errorf("the file had %d pages, and after Prune %d", full, left)
	}
	if n, err := s.w.value("SELECT count(*) FROM changes"); err != nil || n != int64(0) {
		t.Errorf("%v changes are left, %v", n, err)
	}
	if v, err := s.w.value("PRAGMA integrity_check"); err != nil || v != "ok" {
		t.Errorf("integrity_check: %v, %v", v, err)
	}
}

func TestDamagedRowsAreNamed(t *testing.T) {
	ctx := context.Background()
	s := mustOpen(t, t.TempDir())
	commitOne(t, s, putOf("a", "A"), putOf("b", "B"))
	for _, c := range []struct {
		sql, words string
		read       func() error
	}{
		{"UPDATE changes SET kind = 99 WHERE xid = 2 AND id = 2", "change (2, 2): its kind is 99", func() error { _, err := s.Changes(ctx, replication.Cursor{}, 10); return err }},
		{"UPDATE stores SET body = '{' WHERE id = 'b'", "store b", func() error { _, err := s.Snapshot(ctx, "", 10); return err }},
		{"UPDATE stores SET body = (SELECT body FROM stores WHERE id = 'a') WHERE id = 'b'", `store b: its body is that of store "a"`,
			func() error { _, err := s.Rows(ctx, []shortline.StoreID{"b"}); return err }},
	} {
		if err := s.w.exec(c.sql); err != nil {
			t.Fatal(err)
		}
		if err := c.read(); err == nil || !strings.Contains(err.Error(), c.words) {
			t.Errorf("after %s: %v, want %q in it", c.sql, err, c.words)
		}
	}
}

// asNobody runs f as a user that does not own what the test made. Root bypasses all rights, so its thread changes its user.
func asNobody(t *testing.T, f func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		f()
		return
	}
	if runtime.GOOS != "linux" {
		t.Skip("SKIPPED, NOT TESTED: as root on a system without setfsuid")
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := syscall.Setfsuid(65534); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := syscall.Setfsuid(0); err != nil {
			t.Fatal(err)
		}
	}()
	f()
}

// A folder of the first schema is brought forward with what is in it.
func TestOpenMigratesAnOldFolder(t *testing.T) {
	dir := t.TempDir()
	all := migrations
	migrations = all[:1]
	defer func() { migrations = all }()
	conn, err := openConn(filepath.Join(dir, dbName), url.Values{"mode": {"rwc"}})
	if err != nil {
		t.Fatal(err)
	}
	w := &writer{conn: conn, stmts: map[string]stmt{}}
	if err := w.migrate(0, time.Now()); err != nil {
		t.Fatal(err)
	}
	for _, sql := range []string{
		`INSERT INTO stores VALUES (1, 'a', 3, 0, 0, '{"id":"a","name":"A","lat":1,"lng":2}')`,
		"INSERT INTO queues VALUES (1, 7, 4, 1000, 0, 1, 4, 16, 4, 4)",
		"INSERT INTO changes (xid, id, epoch, kind, rev, at, subject, length, updated_at) VALUES (2, 1, 1, 3, 7, 1000, 'a', 4, 1000)",
		"UPDATE control SET next_store = 2, last_xid = 2",
	} {
		if err := w.exec(sql); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.close(); err != nil {
		t.Fatal(err)
	}
	migrations = all
	s := mustOpen(t, dir)
	page, err := s.Changes(t.Context(), replication.Cursor{XID: 1, ID: 1}, 10)
	if err != nil || len(page.Changes) != 1 || page.Changes[0].Queue.Length != 4 || page.Changes[0].Queue.LearnedS != 0 {
		t.Fatalf("the change is %+v, %v", page, err)
	}
	three := 3
	res := commitOne(t, s, replication.Item{Queue: &shortline.QueueUpdate{ID: "a", Length: &three}})
	if q := res[0].Queue; q == nil || q.Queue.Rev != 8 || q.Queue.Length != 3 {
		t.Errorf("an update makes %+v", res[0])
	}
}
