package peer

import (
	"errors"
	"strconv"
	"testing"
	"time"
)

func TestReplayGuard(t *testing.T) {
	var g replayGuard
	now := time.Now()
	seen := map[uint64]bool{}
	for _, c := range []uint64{5, 4, 6, 5, 1, 100, 64, 65, 63, 64, 8191, 8192, 8193, 8000, 8000, 100, 100_000, 8193, 100_000 - replayWindow, 100_000 - replayWindow + 1, 0} {
		tooOld := seen[100_000] && c <= 100_000-replayWindow
		if err := g.admit("s", c, now); (err == nil) != (!seen[c] && !tooOld) {
			t.Errorf("counter %d: %v", c, err)
		}
		seen[c] = true
	}
	for i := 1; i < maxReplaySenders; i++ {
		if err := g.admit(strconv.Itoa(i), 1, now); err != nil {
			t.Fatal(err)
		}
	}
	if err := g.admit("one more", 1, now); !errors.Is(err, errManySenders) {
		t.Errorf("one sender too many: %v", err)
	}
	if err := g.admit("one more", 1, now.Add(replayMemory+1)); err != nil || len(g.senders) != 1 {
		t.Errorf("when the others are forgotten: %v, %d senders", err, len(g.senders))
	}
}
