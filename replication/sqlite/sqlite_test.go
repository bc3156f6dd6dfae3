package sqlite

import (
	"context"
	"testing"
	"time"

	"github.com/shortline/shortline/replication"
	"github.com/shortline/shortline/replication/storetest"
)

// harness opens a store in a folder of its own, with one safeguard switched off.
func harness(m mutant) storetest.Maker {
	return func(t testing.TB) storetest.Harness {
		dir := t.TempDir()
		return storetest.Harness{Open: func(now func() time.Time) (replication.Store, error) {
			s, err := Open(context.Background(), Config{Dir: dir, Now: now})
			if err != nil {
				return nil, err
			}
			s.mutant = m
			return s, nil
		}}
	}
}

func TestContract(t *testing.T) { storetest.Run(t, harness(mutantNone)) }

func TestContractCatchesMutants(t *testing.T) {
	for _, c := range []struct {
		name   string
		mutant mutant
		check  string
	}{
		{"rev starts again after a delete", mutantRevRestarts, "Stores"},
		{"a tail then misses what came back", mutantRevRestarts, "SnapshotThenTail"},
		{"idempotency keys are forgotten", mutantForgetsKeys, "Idempotency"},
		{"revoked keys come back", mutantRevivesKeys, "Keys"},
		{"a delete leaves the queue", mutantGhostQueue, "QueueTombstones"},
		{"updates are not folded", mutantUnfolded, "Folding"},
		{"updates that are folded do not count", mutantFoldsFlow, "Flow"},
		{"the overlap brings a queue back", mutantGhostQueue, "SnapshotOverlap"},
		{"a page hides that there is more", mutantHidesMore, "ChangesPaged"},
		{"the feed is cut without a word", mutantPrunesInSilence, "Prune"},
		{"a reader misses what was cut", mutantPrunesInSilence, "PruneKeepsPromises"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if caught, words := storetest.Catches(t, c.check, harness(c.mutant)); caught {
				t.Logf("%s says: %s", c.check, words)
			} else {
				t.Errorf("%s passes with a safeguard switched off", c.check)
			}
		})
	}
}
