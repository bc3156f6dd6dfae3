package replication_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/replication"
)

// library is a Source of rows that stay as they are, and a View that keeps what it is given.
type library struct {
	rows []replication.Row
	keys []shortline.Key
	head replication.Head
}

func (s *library) Load(rows []replication.Row)                    { s.rows = append(s.rows, rows...) }
func (s *library) LoadKeys(keys []shortline.Key)                  { s.keys = append(s.keys, keys...) }
func (*library) Built()                                           { panic("Built is not the reader's") }
func (*library) Apply([]shortline.Change)                         { panic("Apply of a snapshot") }
func (s *library) Head(context.Context) (replication.Head, error) { return s.head, nil }
func (s *library) Keys(context.Context) ([]shortline.Key, error)  { return s.keys, nil }
func (s *library) Snapshot(_ context.Context, after shortline.StoreID, limit int) ([]replication.Row, error) {
	from := 0
	if after != "" {
		_, _ = fmt.Sscanf(string(after), "s%d", &from)
		from++
	}
	return s.rows[from:min(from+limit, len(s.rows))], nil
}
func (*library) Changes(context.Context, replication.Cursor, int) (replication.Page, error) {
	panic("a snapshot reads no changes")
}

func fullLibrary(n int) *library {
	s := &library{head: replication.Head{Epoch: 3, Horizon: 1000, XMax: 1005, LSN: 77777}}
	at := time.UnixMilli(1_700_000_000_123).UTC()
	for i := range n {
		id := shortline.StoreID(fmt.Sprintf("s%06d", i))
		row := replication.Row{Rev: uint64(i + 1), Store: shortline.Store{ID: id, Name: "Größe \"M\" & <Söhne>\u2028", Brand: "B", Lat: 52.5 + float64(i)/1e7, Lng: -13.4,
			Address: &shortline.Address{Street: "1 Main St", City: "Springfield"}, Timezone: "Europe/Berlin", Hours: "Mo-Fr 09:00-17:00",
			Tags: []string{"a", "b"}, Phone: "+1", ServiceS: 42.5}}
		switch i % 4 {
		case 0:
			row.Queue, row.QueueRev = &shortline.Queue{Length: i, UpdatedAt: at, Rev: uint64(i + 5)}, uint64(i+5)
		case 1: // the queue is gone
			row.QueueRev = 9
		case 2:
			row.Store, row.Deleted, row.QueueRev = shortline.Store{ID: id}, true, 3
		}
		s.rows = append(s.rows, row)
	}
	revoked := at.Add(time.Hour)
	s.keys = []shortline.Key{
		{ID: "k1", Name: "one", Scopes: []shortline.Scope{shortline.ScopeAdmin}, Hash: [32]byte{1, 2, 3}, CreatedAt: at, Rev: 4},
		{ID: "k2", Name: "two", Scopes: []shortline.Scope{shortline.ScopeQueueWrite}, Stores: []shortline.StoreID{"s1"}, Hash: [32]byte{9}, CreatedAt: at, RevokedAt: &revoked, Rev: 5},
	}
	return s
}

func TestSnapshotFileRoundTrip(t *testing.T) {
	for _, n := range []int{0, 1, 100_000} {
		path := filepath.Join(t.TempDir(), "snapshot")
		source := fullLibrary(n)
		before := time.Now()
		saved, err := replication.SaveSnapshot(t.Context(), source, path, replication.SaveConfig{Deployment: "here"})
		if err != nil {
			t.Fatal(err)
		}
		var got library
		info, err := replication.FileFallback(path, "here")(t.Context(), &got)
		if err != nil {
			t.Fatal(err)
		}
		if !info.At.Equal(saved.At) || info.At.Before(before.Truncate(0)) {
			t.Errorf("the file is of %v, saved from %v on at %v", info.At, before, saved.At)
		}
		saved.At, info.At = time.Time{}, time.Time{}
		want := replication.SnapshotInfo{Deployment: "here", Token: replication.Token{Epoch: 3, XID: 999, LSN: 77777}, LSN: 77777, Rows: n, Keys: 2}
		if saved != want || info != want {
			t.Errorf("saved %+v and read %+v, want %+v", saved, info, want)
		}
		if len(got.rows) != len(source.rows) || !reflect.DeepEqual(got.keys, source.keys) {
			t.Fatalf("%d rows and the keys %+v", len(got.rows), got.keys)
		}
		for i := range got.rows {
			if !reflect.DeepEqual(got.rows[i], source.rows[i]) {
				t.Fatalf("row %d is %+v, want %+v", i, got.rows[i], source.rows[i])
			}
		}
		stat, err := os.Stat(path)
		if err != nil || stat.Mode().Perm() != 0o600 {
			t.Errorf("the file's mode is %v, %v", stat.Mode(), err)
		}
		t.Logf("%d rows are %d bytes", n, stat.Size())
	}
}

// Whatever happens to a file, it is read as it was written or not at all.
func TestSnapshotFileDamaged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "snapshot")
	if _, err := replication.SaveSnapshot(t.Context(), fullLibrary(10), path, replication.SaveConfig{Deployment: "here"}); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	read := func(b []byte) error {
		_, err := replication.ReadSnapshot(t.Context(), bytes.NewReader(b), "here", &library{})
		return err
	}
	if err := read(whole); err != nil {
		t.Fatal(err)
	}
	for i := range whole {
		if err := read(whole[:i]); !errors.Is(err, replication.ErrSnapshotDamaged) {
			t.Fatalf("cut off at %d of %d: %v", i, len(whole), err)
		}
		flipped := bytes.Clone(whole)
		flipped[i] ^= 0x10
		if err := read(flipped); !errors.Is(err, replication.ErrSnapshotDamaged) && !errors.Is(err, replication.ErrSnapshotVersion) {
			t.Fatalf("a bit flipped at %d of %d: %v", i, len(whole), err)
		}
	}
	if err := read(append(bytes.Clone(whole), 0)); !errors.Is(err, replication.ErrSnapshotDamaged) {
		t.Errorf("with something after it: %v", err)
	}
	newer := bytes.Clone(whole)
	newer[bytes.IndexByte(newer, '\n')+1]++
	if err := read(newer); !errors.Is(err, replication.ErrSnapshotVersion) {
		t.Errorf("of a newer version: %v", err)
	}
	_, err = replication.FileFallback(path, "there")(t.Context(), &library{})
	if !errors.Is(err, replication.ErrSnapshotForeign) || !strings.Contains(err.Error(), path) || strings.Contains(err.Error(), "\n") {
		t.Errorf("of another deployment: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := replication.FileFallback(path, "here")(ctx, &library{}); !errors.Is(err, context.Canceled) {
		t.Errorf("after the context's end: %v", err)
	}
}

// A save that fails leaves the former file and nothing else.
func TestSnapshotFileStaysWhenASaveFails(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "snapshot")
	db := newDatabase()
	db.begin().put("s", "old").key("k", "old").commit()
	save := func() error {
		_, err := replication.SaveSnapshot(t.Context(), db, path, replication.SaveConfig{Lineage: db.Lineage})
		return err
	}
	if err := save(); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	away := errors.New("away")
	for _, read := range []string{"head", "snapshot", "keys"} {
		db.breakReads(read, away)
		if err := save(); !errors.Is(err, away) {
			t.Errorf("%s cannot be read: %v", read, err)
		}
	}
	db.breakReads("", nil)
	db.setLineage(replication.Lineage{Epoch: 2, Fork: 1}) // the database holds what was lost
	if err := save(); err == nil {
		t.Error("a database on the wrong side of a fork was saved")
	}
	after, err := os.ReadFile(path)
	if entries, _ := os.ReadDir(dir); err != nil || !bytes.Equal(before, after) || len(entries) != 1 {
		t.Errorf("the file has changed: %v, %v", err, entries)
	}
}

// down makes all reads fail, or hang.
func (db *database) down(hang bool) {
	db.setBefore(func(ctx context.Context, _ string) error {
		if hang {
			<-ctx.Done()
			return ctx.Err()
		}
		return errors.New("no route to host")
	})
}

func TestFeedStartsFromTheLocalSnapshot(t *testing.T) {
	for _, hang := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			db := newDatabase()
			inFile := db.begin().put("s", "in the file").put("d", "in the file").queue("s", 3).key("k", "in the file").commit()
			path := filepath.Join(t.TempDir(), "snapshot")
			saved, err := replication.SaveSnapshot(t.Context(), db, path, replication.SaveConfig{Deployment: "here"})
			if err != nil {
				t.Fatal(err)
			}
			newer := db.begin().put("s", "newer").remove("d").commit()
			time.Sleep(time.Hour)
			db.down(hang)
			registry := prometheus.NewRegistry()
			f := startFeed(t, db, replication.FeedConfig{Fallback: replication.FileFallback(path, "here"), Registerer: registry})
			time.Sleep(4 * time.Second)
			synctest.Wait()
			if f.Applied() != nil {
				t.Error("the database had no time to answer")
			}
			time.Sleep(2 * time.Second)
			f.expect("s", "in the file", 3)
			f.expect("d", "in the file", -1)
			a := f.Applied()
			if !a.At.Equal(saved.At) || !a.Satisfies(inFile) || a.Satisfies(newer) {
				t.Errorf("Applied = %+v, the file is %+v", a, saved)
			}
			if reason := f.Failure(); !strings.Contains(reason, "local snapshot of "+saved.At.UTC().Format(time.RFC3339)) {
				t.Errorf("Failure = %q", reason)
			}
			if age := gathered(t, registry, "shortline_feed_lag_seconds"); age < 3600 {
				t.Errorf("the lag is said to be %v s", age)
			}
			time.Sleep(time.Minute)
			f.expect("s", "in the file", 3)
			if n := gathered(t, registry, "shortline_feed_local_snapshot"); n != 1 {
				t.Errorf("shortline_feed_local_snapshot = %v", n)
			}
			waiting := async(func() error { return f.Wait(t.Context(), newer) })
			blocked(t, waiting, "the file is older")
			db.setBefore(nil)
			if err := <-waiting; err != nil {
				t.Fatal(err)
			}
			f.expect("s", "newer", 3)
			f.expect("d", "", -1)
			if n := gathered(t, registry, "shortline_feed_local_snapshot"); n != 0 || f.Failure() != "" {
				t.Errorf("shortline_feed_local_snapshot = %v, Failure %q after the database has answered", n, f.Failure())
			}
		})
	}
}

// A snapshot whose changes cannot be read is not in service either.
func TestFeedFallsBackFromASnapshotWithoutChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := newDatabase()
		db.begin().put("s", "in the file").commit()
		path := filepath.Join(t.TempDir(), "snapshot")
		if _, err := replication.SaveSnapshot(t.Context(), db, path, replication.SaveConfig{}); err != nil {
			t.Fatal(err)
		}
		token := db.begin().put("s", "newer").commit()
		db.breakReads("changes", errors.New("away"))
		f := startFeed(t, db, replication.FeedConfig{Fallback: replication.FileFallback(path, "")})
		time.Sleep(10 * time.Second)
		f.expect("s", "in the file", -1)
		if reason := f.Failure(); !strings.Contains(reason, "local snapshot") || !strings.HasSuffix(reason, "away") {
			t.Errorf("Failure = %q", reason)
		}
		db.breakReads("", nil)
		if err := f.Wait(t.Context(), token); err != nil {
			t.Fatal(err)
		}
		f.expect("s", "newer", -1)
	})
}

// What cannot be trusted is not served, and the node waits for the database as if there were no file.
func TestFeedRefusesALocalSnapshot(t *testing.T) {
	for name, spoil := range map[string]func(t *testing.T, path string, db *database){
		"missing":              func(t *testing.T, path string, _ *database) { must(t, os.Remove(path)) },
		"cut off":              func(t *testing.T, path string, _ *database) { must(t, os.Truncate(path, 100)) },
		"of what was lost":     func(_ *testing.T, _ string, db *database) { db.setLineage(replication.Lineage{Epoch: 2, Fork: 5}) },
		"older than two forks": func(_ *testing.T, _ string, db *database) { db.setLineage(replication.Lineage{Epoch: 3, Fork: 500}) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				db := newDatabase()
				token := db.begin().put("s", "in the file").commit()
				path := filepath.Join(t.TempDir(), "snapshot")
				if _, err := replication.SaveSnapshot(t.Context(), db, path, replication.SaveConfig{Lineage: db.Lineage}); err != nil {
					t.Fatal(err)
				}
				spoil(t, path, db)
				db.down(false)
				f := startFeed(t, db, replication.FeedConfig{Lineage: db.Lineage, Fallback: replication.FileFallback(path, "")})
				time.Sleep(time.Minute)
				synctest.Wait()
				if f.Applied() != nil || f.node.inService() != nil || strings.Contains(f.Failure(), "running from") {
					t.Errorf("Applied = %+v, Failure %q", f.Applied(), f.Failure())
				}
				db.setLineage(replication.Lineage{})
				db.setBefore(nil)
				if err := f.Wait(t.Context(), token); err != nil {
					t.Fatal(err)
				}
				f.expect("s", "in the file", -1)
			})
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestSnapshotKeeper(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := newDatabase()
		path := filepath.Join(t.TempDir(), "snapshot")
		registry := prometheus.NewRegistry()
		k := replication.NewSnapshotKeeper(db, replication.SnapshotKeeperConfig{Path: path, Registerer: registry})
		ctx, stop := context.WithCancel(t.Context())
		done := async(func() error { return k.Run(ctx) })
		holds := func(want replication.Token) {
			t.Helper()
			info, err := replication.FileFallback(path, "")(t.Context(), &library{})
			if err != nil || info.Token.XID != want.XID {
				t.Errorf("the file is of %+v, want %+v: %v", info.Token, want, err)
			}
		}
		first := db.begin().put("s", "1").commit()
		time.Sleep(61 * time.Second)
		holds(first)
		second := db.begin().put("s", "2").commit()
		time.Sleep(17 * time.Minute)
		holds(second)
		db.down(false)
		time.Sleep(17 * time.Minute)
		holds(second)
		if n := gathered(t, registry, "shortline_local_snapshot_failures_total"); n < 1 {
			t.Errorf("%v failures counted", n)
		}
		db.setBefore(nil)
		last := db.begin().put("s", "3").commit()
		stop()
		if err := returned(t, done); err != nil {
			t.Error(err)
		}
		holds(last)
	})
}
