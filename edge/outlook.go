package edge

import (
	"context"
	"math"
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
	// outlookPause is what a loader waits after each: whatever people ask for, no more than 200 pasts a second are read.
	outlookPause = outlookLoaders * 5 * time.Millisecond
	// usualPatience is how long a store goes without what is usual before it is looked for again.
	usualPatience = 30 * time.Second
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
	// Whose outlook it is, where its slot is to be told; else nil.
	slot   *slot
	record *record
}

func (w *wantedOutlook) tell(kept *keptOutlook, now time.Time) {
	if w.slot != nil {
		tell(w.slot, w.record, kept.usual(now, w.loc))
	}
}

// usual is what answers say of a store's usual length, in one word: until when they may say it (seconds since 1970, in the
// upper half), and the length in tenths plus one, or 0 where it is not known. Each slot has one, because an answer that looked
// up the outlook of each store would spend more on that than on finding the stores.
type usual uint64

func packUsual(until time.Time, length float64, known bool) usual {
	u := usual(max(0, until.Unix())) << 32
	if known {
		u |= usual(min(math.Round(length*10), math.MaxUint32-1)) + 1
	}
	return u
}

func (u usual) holds(now time.Time) bool { return int64(u>>32) > now.Unix() }

func (u usual) length() (length float64, known bool) {
	tenths := uint32(u)
	return float64(int64(tenths)-1) / 10, tenths != 0
}

// usual is what is to be said until the hour is over in the store's time zone, or the outlook too old.
func (k *keptOutlook) usual(now time.Time, loc *time.Location) usual {
	_, offset := now.In(loc).Zone()
	into := (now.Unix() + int64(offset)) % 3600
	until := now.Add(time.Duration(3600-into) * time.Second)
	if old := k.made.Add(outlookAge); old.Before(until) {
		until = old
	}
	length, known := k.outlook.Usual(now)
	return packUsual(until, length, known)
}

func newOutlooks(past Rollups, now func() time.Time) (*outlooks, error) {
	cache, err := otter.New(&otter.Options[shortline.StoreID, *keptOutlook]{MaximumSize: maxOutlooks})
	if err != nil {
		return nil, err
	}
	return &outlooks{past: past, now: now, cache: cache, wanted: make(chan wantedOutlook, maxWanted)}, nil
}

// usual returns what is usual at a store at this hour, as far as that is known at once. What is not is asked for.
func (o *outlooks) usual(sl *slot, rec *record, now time.Time) usual {
	if u := usual(sl.usual.Load()); u.holds(now) {
		return u
	}
	return o.renew(sl, rec, now)
}

// renew is usual for a slot that does not say it, or says that of another hour.
func (o *outlooks) renew(sl *slot, rec *record, now time.Time) usual {
	u := packUsual(now.Add(usualPatience), 0, false)
	loc := rec.attrs.waitClock()
	kept, ok := o.cache.GetIfPresent(rec.id)
	fresh := ok && now.Sub(kept.made) < outlookAge
	if fresh {
		u = kept.usual(now, loc)
	} else if ok {
		length, known := kept.outlook.Usual(now)
		u = packUsual(now.Add(usualPatience), length, known)
	}
	tell(sl, rec, u)
	if !fresh { // after that, so that what is found stays
		select {
		case o.wanted <- wantedOutlook{rec.id, loc, sl, rec}:
		default:
		}
	}
	return u
}

// tell notes in a slot what is usual, unless the slot has another record by now, whose clock may differ.
func tell(sl *slot, rec *record, u usual) {
	sl.usual.Store(uint64(u))
	if sl.record.Load() != rec {
		sl.usual.Store(0)
	}
}

// load reads a store's past, unless that was done lately, and returns its outlook. If w has a slot, it is told.
func (o *outlooks) load(ctx context.Context, w wantedOutlook) (*insight.Outlook, error) {
	now := o.now()
	if kept, ok := o.cache.GetIfPresent(w.id); ok && now.Sub(kept.made) < outlookAge {
		w.tell(kept, now)
		return kept.outlook, nil
	}
	rollups, err := o.past.Rollups(ctx, w.id, now.Add(-insightPast), now)
	if err != nil {
		return nil, err
	}
	kept := &keptOutlook{insight.NewModel(rollups, w.loc, now).Outlook(), now}
	o.cache.Set(w.id, kept)
	w.tell(kept, now)
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
					pause := outlookPause
					if err != nil { // the database cannot be read: no use to ask it at full speed
						pause = time.Second
					}
					select {
					case <-ctx.Done():
					case <-time.After(pause):
					}
				}
			}
		})
	}
	return group.Wait()
}
