package agent

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/regions"
	"github.com/shortline/shortline/replication"
	"github.com/shortline/shortline/replication/postgres"
)

// store opens the store of a region's server for writing.
func (w *world) store(id regions.ID) *postgres.Store {
	w.t.Helper()
	s, err := postgres.Open(deadline(w.t), postgres.Config{Write: w.dsn(id, "shortline_writer"), Owner: w.dsn(id, "shortline_owner")})
	check(w.t, err)
	w.t.Cleanup(func() { _ = s.Close() })
	return s
}

func put(id string) replication.Item {
	return replication.Item{Put: &shortline.Store{ID: shortline.StoreID(id), Name: "store " + id, Lat: 52.5, Lng: 13.4}}
}

func delta(id string, n int) replication.Item {
	return replication.Item{Queue: &shortline.QueueUpdate{ID: shortline.StoreID(id), Delta: &n}}
}

func keyed(key, path string, items ...replication.Item) replication.Write {
	return replication.Write{Items: items, Idempotency: &replication.Idempotency{Scope: "till4 POST " + path, Key: key, BodyHash: sha256.Sum256([]byte(key)), TTL: time.Hour}}
}

// diverge makes b the primary of epoch 2 while a, that has not heard of it, commits more. It returns the promotion.
func diverge(w *world, more func(*postgres.Store)) regions.Promotion {
	w.t.Helper()
	a, b := w.ids[0], w.ids[1]
	ctx := deadline(w.t)
	s := w.store(a)
	_, _, err := s.Commit(ctx, []replication.Write{{Items: []replication.Item{put("s1"), put("s2"), delta("s1", 3)}}})
	check(w.t, err)
	position := w.await(a, "primary", isPrimary).Position
	w.await(b, "caught up", func(s regions.DatabaseStatus) bool { return s.Position >= position })
	_, err = w.all[b].Detach(ctx, w.order(2, 1))
	check(w.t, err)
	more(s)
	p, err := w.all[b].Promote(ctx, w.order(2, 1), 2)
	check(w.t, err)
	return p
}

// lostAt reads the one file of lost writes of a region.
func (w *world) lostAt(id regions.ID) (h LostHeader, txs []LostTransaction) {
	w.t.Helper()
	files, _ := filepath.Glob(filepath.Join(w.cfg[id].Dir, "lost", "*"))
	if len(files) != 1 {
		w.t.Fatalf("files of lost writes: %v", files)
	}
	f, err := os.Open(files[0])
	check(w.t, err)
	defer func() { _ = f.Close() }()
	h, ends, err := ReadLost(f, func(_ int, tx LostTransaction) error { txs = append(txs, tx); return nil })
	check(w.t, err)
	if !ends {
		w.t.Error("the file of lost writes has no end")
	}
	return h, txs
}

// What only the old primary had is in a file before it is rewound, and nothing else is.
func TestLostWritesAreSaved(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2)
	w.startAll()
	a, b := w.ids[0], w.ids[1]
	p := diverge(w, func(s *postgres.Store) {
		for i, write := range []replication.Write{
			keyed("k1", "/v1/stores/s1/queue", delta("s1", 4)),
			keyed("k2", "/v1/queues", delta("s2", 5), delta("s1", 1)),
			keyed("k3", "/v1/queues", delta("s2", 5), delta("nowhere", 1)),
			{Items: []replication.Item{put("s3")}},
		} {
			_, _, err := s.Commit(context.Background(), []replication.Write{write})
			if err != nil {
				t.Fatal(i, err)
			}
		}
		w.exec(a, "INSERT INTO public.t VALUES (1)") // not of ours
	})
	_, err := w.all[a].Follow(deadline(t), w.order(2, 1), b, p.Fork)
	check(t, err)
	s := w.await(a, "streaming from b", func(s regions.DatabaseStatus) bool { return streams(s) && s.Upstream == b })
	if s.Timeline != 2 {
		t.Errorf("status after the rejoin: %+v", s)
	}
	h, txs := w.lostAt(a)
	if h.Region != a || h.Primary != b || h.Epoch != 1 || h.Fork != p.Fork || len(txs) != 4 {
		t.Fatalf("%+v, %d transactions", h, len(txs))
	}
	var got strings.Builder
	for _, tx := range txs {
		for _, c := range tx.Changes {
			fmt.Fprintf(&got, "%s %s rev %d", c.Kind, c.ID, c.Rev)
			if c.Length != nil {
				fmt.Fprintf(&got, " length %d", *c.Length)
			}
			got.WriteString("; ")
		}
		for _, r := range tx.Requests {
			fmt.Fprintf(&got, "%s by %s %v; ", r.Key, r.By, r.Changes)
		}
	}
	const want = "queue s1 rev 2 length 7; k1 by till4 [0]; queue s2 rev 1 length 5; queue s1 rev 3 length 8; k2 by till4 [0 1]; queue s2 rev 2 length 10; k3 by till4 []; store s3 rev 1; "
	if got.String() != want {
		t.Errorf("saved:\n%s\nwant:\n%s", got.String(), want)
	}
	if n := w.query(a, "SELECT count(*) FROM shortline.changes WHERE subject = 's3'"); n != "0" {
		t.Errorf("the old primary still has what was lost")
	}
}

// The mutant of TestLostWritesAreSaved.
func TestMutantLosesWrites(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2)
	c := w.cfg[w.ids[0]]
	c.mutant = mutantNoExport
	w.cfg[w.ids[0]] = c
	w.startAll()
	a, b := w.ids[0], w.ids[1]
	p := diverge(w, func(s *postgres.Store) {
		_, _, err := s.Commit(context.Background(), []replication.Write{{Items: []replication.Item{put("s3")}}})
		check(t, err)
	})
	_, err := w.all[a].Follow(deadline(t), w.order(2, 1), b, p.Fork)
	check(t, err)
	w.await(a, "streaming from b", func(s regions.DatabaseStatus) bool { return streams(s) && s.Upstream == b })
	if files, _ := filepath.Glob(filepath.Join(w.cfg[a].Dir, "lost", "*")); len(files) != 0 {
		t.Error("the mutant saved lost writes")
	}
}
