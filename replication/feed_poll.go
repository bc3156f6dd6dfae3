package replication

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Lagger is a Source that can tell how much of the log its database has received and not replayed yet. A database that
// follows none need not be one.
type Lagger interface {
	Lag(ctx context.Context) (bytes uint64, err error)
}

// Run takes a snapshot and follows until ctx ends, then returns nil. It never gives up: while the database cannot be read
// it goes on trying, and what is in service stays there and grows older.
func (f *Feed) Run(ctx context.Context) error {
	f.began = time.Now()
	var measuring sync.WaitGroup
	if source, ok := f.source.(Lagger); ok {
		measuring.Go(func() { f.measure(ctx, source) })
	}
	defer measuring.Wait()

	backoff := time.Duration(0)
	for ctx.Err() == nil {
		began := time.Now()
		err := f.follow(ctx)
		if ctx.Err() != nil {
			break
		}
		if time.Since(began) > settled {
			backoff = 0
		}
		f.fallBack(ctx)
		var resync *resyncError
		if errors.As(err, &resync) {
			f.resyncs.WithLabelValues(resync.kind).Inc()
			f.note(err.Error())
			f.cfg.Log.Warn("all is read anew from the database; what is in service stays until then", "err", err)
		} else {
			f.fail(err, backoff == 0, "the feed stopped; memory stays as it is until the database can be read")
		}
		backoff = min(max(2*backoff, 100*time.Millisecond), 5*time.Second)
		nap := backoff
		if f.fallbackPending() { // be there when the database's time is over
			nap = min(nap, max(f.cfg.FallbackAfter-time.Since(f.began), 0))
		}
		sleep(ctx, nap)
	}
	return nil
}

// settled is how long a view must have been followed to count as good: one that is given up sooner is followed by the next
// after a growing pause, so that a database that makes no sense is not read in full all the time.
const settled = 30 * time.Second

// resyncError says that memory cannot be brought up to date from where it is. kind is a label of a metric.
type resyncError struct {
	kind string
	err  error
}

const (
	resyncPruned  = "pruned"  // changes that memory lacks are gone
	resyncHistory = "history" // memory may hold what is in no history any more
)

func (e *resyncError) Error() string { return e.err.Error() }
func (e *resyncError) Unwrap() error { return e.err }

// tail is a view on its way behind the database.
type tail struct {
	feed    *Feed
	view    View
	cursor  Cursor
	history history
	// begun is the history as the snapshot saw it. A view that is not in service yet is not worth finding out whether it
	// outlives an epoch.
	begun     history
	installed bool
	shows     Token // what memory shows, once installed
	next      mark
	asOf      time.Time // of memory, once installed
	active    time.Time // when something came last
	held      time.Time // since when nothing is taken over; zero: it is
}

// follow builds a new view from a snapshot, installs it when it has caught up, and tails until something fails.
func (f *Feed) follow(ctx context.Context) error {
	t, err := f.snapshot(ctx)
	if err != nil {
		return fmt.Errorf("read the snapshot: %w", err)
	}
	for retry := time.Duration(0); ; {
		at := time.Now() // before the read: what is newer than this may be missing from it
		f.polls.Inc()
		page, err := f.page(ctx, t.cursor)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, ErrPruned):
			return &resyncError{kind: resyncPruned, err: fmt.Errorf("follow the changes: %w", err)}
		case err != nil:
			// The place in the feed is still good: go on from it, without another snapshot.
			f.fallBack(ctx)
			f.fail(err, false, "the feed cannot read changes; memory stays as it is until it can")
			retry = min(max(2*retry, 50*time.Millisecond), 2*time.Second)
			sleep(ctx, retry)
			continue
		}
		retry = 0
		wait, err := t.take(ctx, page, at)
		if err != nil {
			return err
		}
		if wait == 0 {
			continue
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-f.poke:
			t.active = time.Now()
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// holdPoll is the wait between polls while it is not known whether what comes may be taken over.
const holdPoll = 20 * time.Millisecond

// take applies a page that was asked for at a time, and returns how long to wait for the next one.
func (t *tail) take(ctx context.Context, page Page, at time.Time) (wait time.Duration, err error) {
	f := t.feed
	f.headLSN.Store(page.Head.LSN)
	v, reason := t.history.judge(page.Head, lineageNow(f.cfg.Lineage))
	switch {
	case v == verdictResync || v == verdictFollow && !t.installed && !t.history.same(t.begun):
		if reason == "" {
			reason = errHistoryMoved.Error()
		}
		return 0, &resyncError{kind: resyncHistory, err: errors.New(reason)}
	case v != verdictFollow:
		return holdPoll, t.hold(ctx, v, reason)
	}
	t.held = time.Time{}
	if n := len(page.Changes); n > 0 {
		last := page.Changes[n-1]
		f.compareClocks(last.At, at)
		if t.shows = (Token{Epoch: last.Epoch, XID: last.XID, LSN: page.Head.LSN}); t.installed {
			f.cover(page.Head.end(), t.shows)
		}
		applied := f.traced.applying(ctx, page.Changes)
		t.view.Apply(page.Changes)
		applied()
		f.changes.Add(float64(n))
		t.cursor = Cursor{XID: last.XID, ID: last.ID}
		t.active = time.Now()
	}
	if page.More {
		return 0, nil
	}
	if t.cursor.XID < page.Head.Horizon {
		t.cursor = Cursor{XID: page.Head.Horizon}
	}
	t.advance(page.Head, at)
	return f.cfg.pace(time.Since(t.active)), nil
}

// maxAhead is how far a change may be dated into the future of this node's clock without a word.
const maxAhead = time.Second

// compareClocks says so when changes begin to be dated into this node's future, by the clock of the node that wrote them. It
// is the only clock of another node that is seen here, and it tells in one direction only; that node sees the other one.
func (f *Feed) compareClocks(dated, now time.Time) {
	ahead := dated.Sub(now)
	if off := ahead > maxAhead; off != f.dated && (off || ahead < maxAhead/2) {
		f.dated = off
		if off {
			f.cfg.Log.Warn("the clock of the node that writes is ahead of this node's: ages are off by that; let all nodes follow the same time servers (chrony, systemd-timesyncd)",
				"ahead_seconds", ahead.Seconds())
		} else {
			f.cfg.Log.Info("the clocks of the node that writes and of this node agree again")
		}
	}
}

// hold takes nothing over. Where an epoch forked is known soon after it has begun; if not, or if the database stays on the
// wrong side of a fork, something has to be done.
func (t *tail) hold(ctx context.Context, v verdict, reason string) error {
	f := t.feed
	switch {
	case t.held.IsZero():
		t.held = time.Now()
	case time.Since(t.held) < f.cfg.LineageWait:
	case v == verdictWait: // a snapshot is of the database's epoch, wherever that began
		return &resyncError{kind: resyncHistory, err: errors.New(reason)}
	default:
		f.fallBack(ctx)
		f.fail(errors.New(reason), false, "the feed takes nothing from the database; memory stays as it is")
	}
	return nil
}

// advance moves the applied position to the end of what the head covers.
func (t *tail) advance(head Head, at time.Time) {
	f := t.feed
	if head.Horizon >= t.next.xmax {
		if !t.installed {
			t.shows = head.end() // of the snapshot's rows it is not known which changes made them
			f.cover(t.shows, t.shows)
			f.target.Install(t.view)
			t.installed = true
			f.local.Store(nil)
		}
		t.asOf, t.next = t.next.at, mark{xmax: head.XMax, at: at}
		if head.Horizon >= t.next.xmax { // no transaction is open
			t.asOf = at
		}
	}
	if !t.installed {
		if f.failure.Load() != nil {
			f.note("all has been read, and a transaction that was open meanwhile still is")
		}
		return
	}
	f.advanceTo(head.end(), t.shows, t.asOf)
	if f.failure.Swap(nil) != nil {
		f.cfg.Log.Info("the feed follows again")
	}
}

// pace is how long to wait for the next poll after nothing has come for a while: MinPoll for a second, twice that for a
// minute, and after that a six thousandth of the while.
func (c *FeedConfig) pace(silence time.Duration) time.Duration {
	if silence < time.Second {
		return min(c.MinPoll, c.MaxPoll)
	}
	return min(max(silence/6000, 2*c.MinPoll), c.MaxPoll)
}

func (f *Feed) page(ctx context.Context, after Cursor) (Page, error) {
	ctx, cancel := context.WithTimeout(ctx, f.readTimeout())
	defer cancel()
	return f.source.Changes(ctx, after, f.cfg.Chunk)
}

// measure keeps the lag in bytes, beside the polls so that it never holds them up.
func (f *Feed) measure(ctx context.Context, source Lagger) {
	for ctx.Err() == nil {
		reading, cancel := context.WithTimeout(ctx, f.cfg.ReadTimeout)
		bytes, err := source.Lag(reading)
		cancel()
		if err != nil { // the feed itself reports a database that cannot be read
			f.unreplayed.Store(-1)
		} else {
			f.unreplayed.Store(int64(min(bytes, 1<<62)))
		}
		sleep(ctx, time.Second)
	}
}

// lagBytes is from memory to the newest log position that the local database has heard of, or -1.
func (f *Feed) lagBytes() float64 {
	a, head, unreplayed := f.applied.Load(), f.headLSN.Load(), f.unreplayed.Load()
	if a == nil || unreplayed < 0 {
		return -1
	}
	return float64(head-min(a.Token.LSN, head)) + float64(unreplayed)
}

// fail sets what Failure tells. It logs the first error of a run of them, and where again is set also this one.
func (f *Feed) fail(err error, again bool, consequence string) {
	if first := f.note(err.Error()); first || again {
		f.cfg.Log.Error(consequence, "err", err)
	}
}

func (f *Feed) note(text string) (first bool) {
	if local := f.local.Load(); local != nil {
		text = fmt.Sprintf("running from the local snapshot of %s: %s", local.At.UTC().Format(time.RFC3339), text)
	}
	return f.failure.Swap(&text) == nil
}

// sleep waits for d or the end of ctx.
func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
