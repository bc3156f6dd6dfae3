package postgres

import (
	"fmt"
	"slices"
	"testing"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/replication"
)

// Parts of a snapshot are about equal once the database has been analyzed; before, there is one.
func TestSplits(t *testing.T) {
	p := sharedServer(t)
	name := newDatabase(t, p)
	s := openStore(t, Config{Write: p.DSN(owner, name)}, mutantNone)
	var items []replication.Item
	for i := range 1000 {
		items = append(items, put(shortline.StoreID(fmt.Sprintf("s.%c_%03d", "Zaz9"[i%4], i)), "x"))
	}
	commitAll(t, s, items...)
	if got, err := s.Splits(deadline(t), 4); err != nil || len(got) != 0 {
		t.Errorf("before ANALYZE Splits = %q, %v", got, err)
	}
	exec(t, connect(t, p, name), "ANALYZE shortline.stores")
	got, err := s.Splits(deadline(t), 4)
	check(t, err)
	if len(got) != 3 || !slices.IsSorted(got) {
		t.Fatalf("Splits = %q, want 3 in byte order", got)
	}
	counts := make([]int, 4)
	for _, it := range items {
		part, found := slices.BinarySearch(got, it.Put.ID)
		_ = found // the id itself ends the part before
		counts[part]++
	}
	for _, n := range counts {
		if n < 200 || n > 300 {
			t.Errorf("the parts have %v of 1000 stores", counts)
			break
		}
	}
}
