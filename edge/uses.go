package edge

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/replication"
)

const (
	// useStep is how exactly it is kept when a key was used: the hour. So a key makes a write an hour, however many requests and nodes it has.
	useStep = time.Hour
	// maxUses is how many go into one write.
	maxUses = 500
)

// keyUses gathers which API keys were used, and has them kept with the keys. Nothing of it is on the path of a request but a look at the
// key, and a lock the first time in an hour. It has an entry a key at most. Uses that a node has not
// written when it stops are forgotten with it.
type keyUses struct {
	mu sync.Mutex
	at map[shortline.KeyID]time.Time // guarded by mu; the hours that are not kept yet
}

// note takes a use of a key, as the feed has it.
func (u *keyUses) note(key *shortline.Key, now time.Time) {
	hour := now.UTC().Truncate(useStep)
	if key.LastUsedAt != nil && !key.LastUsedAt.Before(hour) {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.at == nil {
		u.at = map[shortline.KeyID]time.Time{}
	}
	u.at[key.ID] = hour
}

// run writes now and then until ctx ends.
func (u *keyUses) run(ctx context.Context, every time.Duration, w Writer, log *slog.Logger) error {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			if err := u.write(ctx, w); err != nil && ctx.Err() == nil {
				log.Debug("when API keys were used could not be kept; it will be tried again", "err", err)
			}
		}
	}
}

// write has the uses kept. Those that were not stay, to be tried again.
func (u *keyUses) write(ctx context.Context, w Writer) error {
	u.mu.Lock()
	at := u.at
	u.at = nil
	u.mu.Unlock()
	for ids := range slices.Chunk(slices.Sorted(maps.Keys(at)), maxUses) {
		var write replication.Write
		for _, id := range ids {
			write.Items = append(write.Items, replication.Item{Use: &shortline.KeyUse{ID: id, At: at[id]}})
		}
		if _, _, err := w.Submit(ctx, write); err != nil {
			u.mu.Lock()
			defer u.mu.Unlock()
			for id, hour := range u.at { // noted meanwhile
				at[id] = hour
			}
			u.at = at // what was written of it changes nothing the second time
			return err
		}
	}
	return nil
}
