package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/regions/agent"
	"github.com/shortline/shortline/replication"
	"github.com/shortline/shortline/replication/sqlite"
)

// lostExample is a transaction in which a client set one queue with a key and another without one.
func lostExample(at time.Time) agent.LostTransaction {
	seven, two := 7, 2
	hash := sha256.Sum256([]byte("body"))
	return agent.LostTransaction{XID: 800, Epoch: 3, At: at,
		Changes: []agent.LostChange{
			{Kind: "queue", ID: "s1", Rev: 4, Length: &seven, ObservedAt: &at},
			{Kind: "queue", ID: "s2", Rev: 9, Length: &two, ObservedAt: &at},
			{Kind: "store", ID: "s3", Rev: 1, Body: json.RawMessage(`{"id":"s3","name":"Third","lat":1,"lng":2}`)},
		},
		Requests: []agent.LostRequest{{By: "till4", Scope: "till4 POST /v1/stores/s1/queue", Key: "k1", BodyHash: hash[:], Expires: at.Add(time.Hour), Changes: []int{0}}},
	}
}

func everything(agent.LostChange) bool { return true }

// Lost writes are applied once, whether the client repeats its request before or after, and newer ones stay.
func TestImportLost(t *testing.T) {
	ctx := context.Background()
	at := time.Now().UTC().Add(-time.Minute).Truncate(time.Millisecond)
	for _, test := range []struct {
		name   string
		before []replication.Write
		want   lostCounts
		length int // of s1
	}{
		{"nothing since", nil, lostCounts{restored: 3}, 7},
		{"the client has repeated it", []replication.Write{{Items: []replication.Item{queueOf("s1", 8, at.Add(time.Second))}, Idempotency: &replication.Idempotency{
			Scope: "till4 POST /v1/stores/s1/queue", Key: "k1", BodyHash: sha256.Sum256([]byte("body")), TTL: time.Hour}}}, lostCounts{restored: 2, settled: 1}, 8},
		{"it was reported since", []replication.Write{{Items: []replication.Item{queueOf("s1", 1, at.Add(time.Second))}}}, lostCounts{restored: 2, older: 1}, 1},
		{"a store is gone", []replication.Write{{Items: []replication.Item{{Delete: "s2"}}}}, lostCounts{restored: 2, gone: 1}, 7},
	} {
		t.Run(test.name, func(t *testing.T) {
			store, err := sqlite.Open(ctx, sqlite.Config{Dir: t.TempDir()})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = store.Close() }()
			commit := func(w replication.Write) replication.Result {
				t.Helper()
				res, _, err := store.Commit(ctx, []replication.Write{w})
				if err != nil {
					t.Fatal(err)
				}
				return res[0]
			}
			for _, id := range []shortline.StoreID{"s1", "s2"} {
				commit(replication.Write{Items: []replication.Item{{Put: &shortline.Store{ID: id, Name: string(id), Lat: 1, Lng: 2}}}})
			}
			for _, w := range test.before {
				commit(w)
			}
			replay := func() (n lostCounts) {
				t.Helper()
				writes, left, err := lostWrites(lostExample(at), everything)
				if err != nil || left != 0 {
					t.Fatal(left, err)
				}
				for _, w := range writes {
					if err := n.count(commit(w), w); err != nil {
						t.Fatal(err)
					}
				}
				return n
			}
			if got := replay(); got != test.want {
				t.Errorf("%+v, want %+v", got, test.want)
			}
			if got := replay(); got.restored != 0 {
				t.Errorf("a second import: %+v", got)
			}
			res := commit(replication.Write{Items: []replication.Item{{Queue: &shortline.QueueUpdate{ID: "s1", Delta: new(int)}}}})
			if got := res.Items[0].Queue.Queue.Length; got != test.length {
				t.Errorf("the queue has %d, want %d", got, test.length)
			}
		})
	}
}

func queueOf(id shortline.StoreID, n int, at time.Time) replication.Item {
	return replication.Item{Queue: &shortline.QueueUpdate{ID: id, Length: &n, ObservedAt: at}}
}

// A request of which a part is left out goes without its key: the answer to it would be short.
func TestLostWritesWithoutAPart(t *testing.T) {
	tx := lostExample(time.Now())
	tx.Requests[0].Changes = []int{0, 2}
	writes, left, err := lostWrites(tx, func(c agent.LostChange) bool { return c.Kind == "queue" })
	if err != nil || left != 1 || len(writes) != 2 || writes[0].Idempotency.Scope != "import-lost" {
		t.Errorf("%+v, %d, %v", writes, left, err)
	}
}

func TestImportLostDryRun(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lost.ndjson")
	var file bytes.Buffer
	lines := json.NewEncoder(&file)
	_ = lines.Encode(agent.LostHeader{Format: agent.LostFormat, Region: "us-east", Epoch: 3, Fork: 255})
	_ = lines.Encode(lostExample(time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)))
	_ = lines.Encode(agent.LostEnd{End: true, Transactions: 1, Changes: 3})
	if err := os.WriteFile(path, file.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	none := func(string) string { return "" }
	if err := run(context.Background(), []string{"import-lost", path, "--dry-run", "--only", "queues"}, none, strings.NewReader(""), &out, &errs); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"till4", "2026-11-23T09:00:00Z", "2 changes of us-east in epoch 3 past 0/FF would be imported, 1 left out"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in:\n%s", want, out.String())
		}
	}
	if err := run(context.Background(), []string{"import-lost", path}, none, strings.NewReader(""), &out, &errs); err == nil || !strings.Contains(err.Error(), "--forward-to") {
		t.Errorf("without nodes: %v", err)
	}
	if err := os.WriteFile(path, []byte("{}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := run(context.Background(), []string{"import-lost", path, "--dry-run"}, none, strings.NewReader(""), &out, &errs); err == nil || !strings.Contains(err.Error(), "not a file of lost writes") {
		t.Errorf("another file: %v", err)
	}
}
