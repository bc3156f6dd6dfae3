package edge

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/replication"
)

type usesWriter struct {
	failAfter int // writes
	writes    []replication.Write
}

func (w *usesWriter) Submit(_ context.Context, write replication.Write) (replication.Result, replication.Token, error) {
	if w.failAfter == 0 {
		return replication.Result{}, replication.Token{}, errors.New("no primary")
	}
	w.failAfter--
	w.writes = append(w.writes, write)
	return replication.Result{}, replication.Token{}, nil
}

// Uses that could not be written stay, and come in writes of bounded size; what is known already is not noted.
func TestKeyUsesAreTriedAgain(t *testing.T) {
	var u keyUses
	now := time.Date(2026, 11, 23, 9, 59, 0, 0, time.UTC)
	hour := now.Truncate(time.Hour)
	const many = 2*maxUses + 1
	for i := range many {
		u.note(&shortline.Key{ID: shortline.KeyID(fmt.Sprint(i))}, now)
	}
	u.note(&shortline.Key{ID: "known", LastUsedAt: &hour}, now)
	w := &usesWriter{failAfter: 1}
	if err := u.write(t.Context(), w); err == nil {
		t.Fatal("a failure is not told")
	}
	u.note(&shortline.Key{ID: "0"}, now.Add(time.Hour)) // newer than what is to be tried again
	w.failAfter = 10
	if err := u.write(t.Context(), w); err != nil {
		t.Fatal(err)
	}
	got := map[shortline.KeyID]time.Time{}
	for _, write := range w.writes {
		if len(write.Items) > maxUses {
			t.Errorf("a write of %d items", len(write.Items))
		}
		for _, it := range write.Items {
			got[it.Use.ID] = it.Use.At
		}
	}
	if len(got) != many || !got["0"].Equal(hour.Add(time.Hour)) || !got["1"].Equal(hour) {
		t.Errorf("%d keys were written, want %d; %v %v", len(got), many, got["0"], got["1"])
	}
	if err := u.write(t.Context(), w); err != nil || len(w.writes) != 4 {
		t.Errorf("%d writes, %v: it writes again what is written", len(w.writes), err)
	}
}
