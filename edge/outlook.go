package edge

import (
	"context"
	"time"

	"github.com/maypok86/otter/v2"
	"golang.org/x/sync/errgroup"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/insight"
)

const (
	// maxOutlooks bounds the stores of which a node remembers what is usual; each takes some 900 bytes.
	maxOutlooks = 50_000
	// outlookAge is after how long an outlook is made anew, when it is asked for.
	outlookAge = 30 * time.Minute
	// maxWanted bounds the stores whose outlooks are wanted; more are forgotten, and asked for again by the next answer.
	maxWanted = 1024
	// outlookLoaders is how many stores' pasts are read at a time.
	outlookLoaders = 4
)

// outlooks remembers what is usual at the stores that people ask for. An answer never waits for one: what is missing is read
// from the database behind it and is there for the next.
type outlooks struct {
	past   Rollups
	now    func() time.Time
	cache  *otter.Cache[shortline.StoreID, *keptOutlook]
	wanted chan wantedOutlook
}

type keptOutlook struct {
	outlook *insight.Outlook // nil: the store has no past
	made    time.Time
}

type wantedOutlook struct {
	id  shortline.StoreID
	loc *time.Location
}

func newOutlooks(past Rollups, now func() time.Time) (*outlooks, error) {
	cache, err := otter.New(&otter.Options[shortline.StoreID, *keptOutlook]{MaximumSize: maxOutlooks})
	if err != nil {
		return nil, err
	}
	return &outlooks{past: past, now: now, cache: cache, wanted: make(chan wantedOutlook, maxWanted)}, nil
}

// get returns what is known of a store at once; nil: nothing yet.
func (o *outlooks) get(id shortline.StoreID, a *attrs, now time.Time) *insight.Outlook {
	kept, ok := o.cache.GetIfPresent(id)
	if ok && now.Sub(kept.made) < outlookAge {
		return kept.outlook
	}
	select {
	case o.wanted <- wantedOutlook{id, a.waitClock()}:
	default:
	}
	if ok {
		return kept.outlook
	}
	return nil
}

// load reads a store's past, unless that was done lately, and returns its outlook.
func (o *outlooks) load(ctx context.Context, w wantedOutlook) (*insight.Outlook, error) {
	now := o.now()
	if kept, ok := o.cache.GetIfPresent(w.id); ok && now.Sub(kept.made) < outlookAge {
		return kept.outlook, nil
	}
	rollups, err := o.past.Rollups(ctx, w.id, now.Add(-insightPast), now)
	if err != nil {
		return nil, err
	}
	kept := &keptOutlook{insight.NewModel(rollups, w.loc, now).Outlook(), now}
	o.cache.Set(w.id, kept)
	return kept.outlook, nil
}

// run reads the pasts that are wanted until ctx ends.
func (o *outlooks) run(ctx context.Context, limit time.Duration) error {
	var group errgroup.Group
	for range outlookLoaders {
		group.Go(func() error {
			for {
				select {
				case <-ctx.Done():
					return nil
				case w := <-o.wanted:
					read, cancel := context.WithTimeout(ctx, limit)
					_, err := o.load(read, w)
					cancel()
					if err != nil { // the database cannot be read: no use to ask it at full speed
						select {
						case <-ctx.Done():
						case <-time.After(time.Second):
						}
					}
				}
			}
		})
	}
	return group.Wait()
}
