package replication

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/shortline/shortline"
)

// Fallback loads rows and keys that were kept from an earlier life of the node into a new view, and says what they are. It
// does not call Built. After an error the view is thrown away.
type Fallback func(ctx context.Context, to View) (SnapshotInfo, error)

// snapshot reads all rows and keys into a new view. The changes after its cursor, taken before the first chunk, make the
// view whole once the horizon has reached the mark, taken after the last chunk.
func (f *Feed) snapshot(ctx context.Context) (*tail, error) {
	start := time.Now()
	f.snapshots.Inc()
	s, err := beginScan(ctx, scanConfig{source: f.source, chunk: f.cfg.Chunk, timeout: f.readTimeout(), lineage: f.cfg.Lineage, readers: f.cfg.Readers})
	if err != nil {
		return nil, err
	}
	view := f.target.Begin()
	err = s.read(ctx,
		func(rows []Row) error { view.Load(rows); return nil },
		func(keys []shortline.Key) error { view.LoadKeys(keys); return nil },
		view.Built)
	if err != nil {
		return nil, err
	}
	f.cfg.Log.Info("snapshot loaded", "stores", s.rows, "keys", s.keys, "seconds", time.Since(start).Seconds())
	return &tail{
		feed: f, view: view, history: s.history, begun: s.history, next: s.whole, active: time.Now(),
		// Changes of the horizon itself are yet to come, and their ids are greater than 0.
		cursor: Cursor{XID: s.start.Horizon},
	}, nil
}

// readTimeout is shorter while there is a fallback to go to, so that a database that only hangs does not keep the node from
// it.
func (f *Feed) readTimeout() time.Duration {
	if f.fallbackPending() {
		return min(f.cfg.ReadTimeout, f.cfg.FallbackAfter)
	}
	return f.cfg.ReadTimeout
}

func (f *Feed) fallbackPending() bool {
	return f.cfg.Fallback != nil && !f.triedFallback && f.applied.Load() == nil
}

// fallBack puts what the fallback holds in service, if nothing is yet and the database has had its time. It tries once: a
// file that cannot be used today cannot be used in a second either.
func (f *Feed) fallBack(ctx context.Context) {
	if !f.fallbackPending() || time.Since(f.began) < f.cfg.FallbackAfter {
		return
	}
	f.triedFallback = true
	view := f.target.Begin()
	info, err := f.cfg.Fallback(ctx, view)
	if err == nil && f.cfg.Lineage != nil {
		h := history{known: info.Known, lsn: info.LSN}
		if reason := h.adopt(f.cfg.Lineage()); reason != "" {
			err = fmt.Errorf("the local snapshot may hold writes that were lost: %s", reason)
		}
	}
	if err != nil {
		if ctx.Err() == nil {
			f.cfg.Log.Error("there is no local snapshot to start from; the node waits for the database", "err", err)
		}
		return
	}
	view.Built()
	f.cover(info.Token, info.Token)
	f.target.Install(view)
	f.local.Store(&info)
	f.advanceTo(info.Token, info.Token, info.At)
	f.cfg.Log.Warn("the database cannot be read; the node answers from its local snapshot", "stores", info.Rows, "as_of", info.At,
		"age_seconds", time.Since(info.At).Seconds())
}

// scanConfig says how to read a snapshot; timeout bounds one read. So many readers read parts of it at once (1). With gentle
// set, a reader rests after each chunk for as long as reading it took.
type scanConfig struct {
	source  Source
	chunk   int
	timeout time.Duration
	lineage func() Lineage
	readers int
	gentle  bool
}

func (c scanConfig) lineageNow() *Lineage { return lineageNow(c.lineage) }

func lineageNow(fn func() Lineage) *Lineage {
	if fn == nil {
		return nil
	}
	l := fn()
	return &l
}

// scan is one reading of all rows and keys, in chunks, while others write. What it has read at its end holds at least all
// that had been committed at, the moment before it began.
type scan struct {
	scanConfig
	at         time.Time
	start      Head
	rows, keys int
	looking    chan struct{} // full while one of the readers looks, to whom history and whole belong then
	history    history
	whole      mark // set by read
}

// mark is a moment before the database's XMax was read: memory holds all that was committed by then once the horizon has
// reached xmax.
type mark struct {
	xmax uint64
	at   time.Time
}

// errHistoryMoved says that a scan began in one history and went on in another; only a new one helps.
var errHistoryMoved = errors.New("the history changed while the snapshot was read")

func beginScan(ctx context.Context, cfg scanConfig) (*scan, error) {
	s := &scan{scanConfig: cfg, at: time.Now(), looking: make(chan struct{}, 1)}
	var err error
	if s.start, err = s.head(ctx); err != nil {
		return nil, err
	}
	h, v, reason := beginHistory(s.start, cfg.lineageNow())
	if v != verdictFollow {
		return nil, errors.New(reason)
	}
	s.history = h
	return s, nil
}

// read hands over the rows and the keys, calls built, and sets the mark. Rows come in the order of their ids where there is
// one reader; the calls never overlap.
func (s *scan) read(ctx context.Context, load func([]Row) error, loadKeys func([]shortline.Key) error, built func()) error {
	splits, err := s.splits(ctx)
	if err != nil {
		return err
	}
	if err := s.parts(ctx, splits, load); err != nil {
		return err
	}
	keys, err := s.allKeys(ctx)
	if err != nil {
		return err
	}
	s.keys = len(keys)
	if err := loadKeys(keys); err != nil {
		return err
	}
	built()
	s.whole.at = time.Now()
	return s.look(ctx)
}

// splits are the ids after which the parts begin; the first one is "".
func (s *scan) splits(ctx context.Context) ([]shortline.StoreID, error) {
	splits := []shortline.StoreID{""}
	source, ok := s.source.(Splitter)
	if !ok || s.readers < 2 {
		return splits, nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	more, err := source.Splits(ctx, s.readers)
	return append(splits, more...), err
}

// chunk is what a reader has read; last of its part.
type chunk struct {
	rows []Row
	last bool
}

// parts reads the parts that begin after the ids, all at once, and takes what comes.
func (s *scan) parts(ctx context.Context, splits []shortline.StoreID, load func([]Row) error) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	readers, alive := errgroup.WithContext(ctx)
	chunks := make(chan chunk)
	for i, from := range splits {
		until := shortline.StoreID("")
		if i+1 < len(splits) {
			until = splits[i+1]
		}
		readers.Go(func() error { return s.part(alive, from, until, chunks) })
	}
	for left := len(splits); left > 0; {
		select {
		case c := <-chunks:
			s.rows += len(c.rows)
			if err := load(c.rows); err != nil {
				stop()
				_ = readers.Wait() // they end because of err
				return err
			}
			if c.last {
				left--
			}
		case <-alive.Done():
			return cmp.Or(readers.Wait(), ctx.Err())
		}
	}
	return readers.Wait()
}

// part reads the rows with ids after from and up to until ("": all).
func (s *scan) part(ctx context.Context, from, until shortline.StoreID, to chan<- chunk) error {
	for c, after := (chunk{}), from; !c.last; {
		began := time.Now()
		rows, err := s.rowsAfter(ctx, after)
		if err != nil {
			return err
		}
		took := time.Since(began)
		// One look after each chunk and not one at the end: the database may be rewound halfway, and then the position that
		// it had while the chunk was read is known to nobody else.
		if err := s.look(ctx); err != nil {
			return err
		}
		if c = (chunk{rows: rows, last: len(rows) < s.chunk}); !c.last {
			after = rows[len(rows)-1].Store.ID
		}
		if past := slices.IndexFunc(rows, func(r Row) bool { return until != "" && r.Store.ID > until }); past >= 0 {
			c = chunk{rows: rows[:past], last: true}
		}
		select {
		case to <- c:
		case <-ctx.Done():
			return ctx.Err()
		}
		if s.gentle && !c.last {
			sleep(ctx, took)
		}
	}
	return nil
}

// look reads how far the database is and checks that it is still the one that the scan began with. Readers take turns: what is
// read later must not be judged earlier.
func (s *scan) look(ctx context.Context) error {
	select {
	case s.looking <- struct{}{}:
		defer func() { <-s.looking }()
	case <-ctx.Done():
		return ctx.Err()
	}
	head, err := s.head(ctx)
	if err != nil {
		return err
	}
	before := s.history
	v, reason := s.history.judge(head, s.lineageNow())
	if v != verdictFollow {
		return fmt.Errorf("%w: %s", errHistoryMoved, reason)
	}
	if !s.history.same(before) {
		return fmt.Errorf("%w: from epoch %d to %d", errHistoryMoved, before.known, s.history.known)
	}
	s.whole.xmax = head.XMax
	return nil
}

func (s *scan) head(ctx context.Context) (Head, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	return s.source.Head(ctx)
}

func (s *scan) rowsAfter(ctx context.Context, after shortline.StoreID) ([]Row, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	return s.source.Snapshot(ctx, after, s.chunk)
}

func (s *scan) allKeys(ctx context.Context) ([]shortline.Key, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	return s.source.Keys(ctx)
}
