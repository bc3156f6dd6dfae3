package agent

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/shortline/shortline/regions"
)

// exportChunk is how many transactions are read at a time.
const exportChunk = 1000

// export writes what was committed past the fork to a file, and keeps its name. The server runs and nobody writes to it.
//
// Which transactions these are is told by the log itself: those whose commit lies past the fork. Numbers of transactions would not
// do, for one that began before the fork may have ended after it, and the other server gives the numbers of the rest anew.
func (a *Agent) export(ctx context.Context, j *job, me self, fork regions.LSN, u upstream) error {
	if me.lineage == nil && me.epoch == 0 {
		return a.note(func(r *rejoin) { r.Saved = true }) // no tables of ours
	}
	mine, err := a.ownHistory(me.timeline)
	if err != nil {
		return err
	}
	if fork = commonEnd(mine, me, u, fork); fork == 0 {
		return a.note(func(r *rejoin) { r.Saved = true }) // both are on the first timeline, of which a system has one
	}
	if err := a.replayed(ctx, me.position); err != nil {
		return err
	}
	xids, err := a.commitsPast(ctx, mine, me, fork)
	if err != nil {
		return err
	}
	if len(xids) == 0 {
		return a.note(func(r *rejoin) { r.Saved = true })
	}
	dir := filepath.Join(a.cfg.Dir, "lost")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	now := time.Now().UTC()
	name := filepath.Join(dir, fmt.Sprintf("%s-epoch-%d-%s.ndjson", a.cfg.Region, me.epoch, now.Format("20060102T150405Z")))
	header := LostHeader{Format: LostFormat, About: lostAbout, Region: a.cfg.Region, System: u.system, Primary: a.mem().get().Rejoin.Primary, Epoch: me.epoch, Fork: fork, End: me.position, Written: now}
	lost, err := a.writeLost(ctx, name, header, xids, func(done int) { j.step("export", int64(done), int64(len(xids))) })
	if err != nil {
		_ = os.Remove(name + ".new")
		return err
	}
	if lost == 0 {
		_ = os.Remove(name)
		name = ""
	}
	a.metrics.lost.Add(float64(lost))
	j.saved(name, lost)
	a.cfg.Log.Warn("writes that only this server had are saved", "file", name, "changes", lost, "transactions", len(xids), "fork", fork, "end", me.position)
	return a.note(func(r *rejoin) { r.Saved, r.Exported, r.Lost = true, name, lost })
}

// commonEnd is where this server's history and the other's part. Where both look the same to the end, this server's own
// timeline is another one that has the same number.
func commonEnd(mine history, me self, u upstream, told regions.LSN) regions.LSN {
	theirs := append(slices.Clone(u.history), ended{u.timeline, ^regions.LSN(0)})
	var last regions.LSN
	for i, m := range append(slices.Clone(mine), ended{me.timeline, me.position}) {
		if i >= len(theirs) || theirs[i].timeline != m.timeline {
			return last
		}
		if theirs[i].end < m.end {
			return theirs[i].end
		}
		if i < len(mine) && theirs[i].end > m.end {
			return m.end
		}
		if i < len(mine) {
			last = m.end
		}
	}
	if told > last && told <= me.position {
		return told
	}
	return last
}

// replayed waits until a standby has replayed its log up to the position.
func (a *Agent) replayed(ctx context.Context, position regions.LSN) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	return poll(ctx, "the log is replayed", 50*time.Millisecond, func(ctx context.Context) (done bool, err error) {
		// The last record may be there in part only, and never be replayed: a moment without progress is the end.
		var before, after regions.LSN
		var standby bool
		const sql = "SELECT pg_is_in_recovery(), (coalesce(pg_last_wal_replay_lsn(), '0/0') - '0/0')::int8"
		if err := a.ask(ctx, sql, nil, &standby, &before); err != nil || !standby || before >= position {
			return err == nil, err
		}
		time.Sleep(300 * time.Millisecond)
		err = a.ask(ctx, sql, nil, &standby, &after)
		return err == nil && (after >= position || after == before), err
	})
}

var commitLine = regexp.MustCompile(`tx:\s+(\d+), lsn: ([0-9A-F]+/[0-9A-F]+), .*desc: COMMIT`)

// commitsPast reads the transactions that were committed past the fork, in that order, from the log's files.
func (a *Agent) commitsPast(ctx context.Context, mine history, me self, fork regions.LSN) (xids []uint64, err error) {
	var next uint64
	if err := a.ask(ctx, "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::int8", nil, &next); err != nil {
		return nil, err
	}
	var segment uint64
	if err := a.ask(ctx, "SELECT setting::int8 FROM pg_settings WHERE name = 'wal_segment_size'", nil, &segment); err != nil {
		return nil, err
	}
	begin := regions.LSN(0)
	for _, part := range append(slices.Clone(mine), ended{me.timeline, me.position}) {
		from := max(begin, fork)
		begin = part.end
		if part.end <= fork || from >= part.end {
			continue
		}
		cmd := a.tools.command("pg_waldump", "--path="+filepath.Join(a.cfg.Data, "pg_wal"), "--rmgr=Transaction",
			fmt.Sprintf("--timeline=%d", part.timeline), "--start="+from.String(), "--end="+part.end.String(),
			// Named, for else it learns the size of a segment from any file there is, and some are made ahead and empty.
			segmentName(part.timeline, from, segment), segmentName(part.timeline, part.end-1, segment))
		out, err := a.tools.run(ctx, cmd, nil)
		var last regions.LSN
		for line := range strings.Lines(out) {
			m := commitLine.FindStringSubmatch(line)
			if m == nil {
				continue
			}
			short, _ := strconv.ParseUint(m[1], 10, 32)
			last, _ = regions.ParseLSN(m[2])
			xids = append(xids, fullXID(short, next))
		}
		// The log may end within a record; that what came before could be read is all there is.
		if err != nil && (ctx.Err() != nil || !endOfLog(err)) {
			return nil, fmt.Errorf("read the log from %s to %s (up to %s): %w", from, part.end, last, err)
		}
	}
	return xids, nil
}

// segmentName is the file of the log that holds a position.
func segmentName(timeline uint32, at regions.LSN, size uint64) string {
	number, perID := uint64(at)/size, 0x100000000/size
	return fmt.Sprintf("%08X%08X%08X", timeline, number/perID, number%perID)
}

// endOfLog tells whether pg_waldump stopped where the log does.
func endOfLog(err error) bool {
	text := err.Error()
	return strings.Contains(text, "error in WAL record at") || strings.Contains(text, "invalid record length") || strings.Contains(text, "could not find a valid record")
}

// fullXID completes the 32 bits that the log has of a transaction's number; next is the one that comes next.
func fullXID(short, next uint64) uint64 {
	full := next&^0xffffffff | short
	if full > next && full >= 1<<32 {
		full -= 1 << 32
	}
	return full
}

// writeLost writes the file; it is on disk under its name when the error is nil.
func (a *Agent) writeLost(ctx context.Context, name string, h LostHeader, xids []uint64, progress func(int)) (lost int, err error) {
	f, err := os.OpenFile(name+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return 0, err
	}
	defer func() { _ = f.Close() }()
	w := bufio.NewWriterSize(f, 256<<10)
	lines := json.NewEncoder(w)
	lines.SetEscapeHTML(false)
	if err := lines.Encode(h); err != nil {
		return 0, err
	}
	conn, err := a.connect(ctx)
	if err != nil {
		return 0, err
	}
	defer conn.done()
	end := LostEnd{End: true}
	for at := 0; at < len(xids); at += exportChunk {
		chunk := xids[at:min(at+exportChunk, len(xids))]
		txs, err := readTransactions(ctx, conn.Conn, chunk)
		if err != nil {
			return 0, err
		}
		for _, xid := range chunk {
			tx := txs[xid]
			if tx == nil || len(tx.Changes) == 0 {
				end.Others++
				continue
			}
			end.Transactions++
			end.Changes += len(tx.Changes)
			if err := lines.Encode(tx); err != nil {
				return 0, err
			}
		}
		progress(at + len(chunk))
	}
	err = errors.Join(lines.Encode(end), w.Flush(), f.Sync())
	if err == nil {
		err = os.Rename(name+".new", name)
	}
	if err == nil {
		err = syncFolder(filepath.Dir(name))
	}
	return end.Changes, err
}

// readTransactions reads what some transactions have changed.
func readTransactions(ctx context.Context, conn *pgx.Conn, xids []uint64) (map[uint64]*LostTransaction, error) {
	long, short := make([]string, len(xids)), make([]string, len(xids))
	full := map[string]uint64{}
	for i, x := range xids {
		long[i], short[i] = strconv.FormatUint(x, 10), strconv.FormatUint(x&0xffffffff, 10)
		full[short[i]] = x
	}
	all := map[uint64]*LostTransaction{}
	rows, err := conn.Query(ctx, `SELECT xid::text::int8, epoch, committed_at, kind, rev, subject, length, observed_at, hash, coalesce(body, '')
		FROM shortline.changes WHERE xid = ANY($1::text[]::xid8[]) ORDER BY xid, id`, long)
	if err != nil {
		return nil, err
	}
	var xid, epoch, rev uint64
	var at time.Time
	var kind int
	var length *int
	var observed *time.Time
	var hash []byte
	var subject, body string
	_, err = pgx.ForEachRow(rows, []any{&xid, &epoch, &at, &kind, &rev, &subject, &length, &observed, &hash, &body}, func() error {
		name, known := kindNames[kind]
		if !known {
			return nil // the beginning of an epoch
		}
		tx := all[xid]
		if tx == nil {
			tx = &LostTransaction{XID: xid, Epoch: epoch, At: at.UTC()}
			all[xid] = tx
		}
		c := LostChange{Kind: name, ID: subject, Rev: rev, Length: length, Hash: bytes.Clone(hash)}
		if observed != nil {
			t := observed.UTC()
			c.ObservedAt = &t
		}
		if body != "" {
			c.Body = json.RawMessage(body)
		}
		tx.Changes = append(tx.Changes, c)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the changes: %w", err)
	}
	return all, readRequests(ctx, conn, short, full, all)
}

// kindNames are the kinds of changes as the table numbers them.
var kindNames = map[int]string{1: "store", 2: "store-deleted", 3: "queue", 4: "key"}

// readRequests adds the idempotency keys: their rows were made by the transactions.
func readRequests(ctx context.Context, conn *pgx.Conn, short []string, full map[string]uint64, all map[uint64]*LostTransaction) error {
	var since *time.Time
	for _, tx := range all {
		if since == nil || tx.At.Before(*since) {
			since = &tx.At
		}
	}
	if since == nil {
		return nil
	}
	rows, err := conn.Query(ctx, `SELECT xmin::text, scope, key, body_hash, answer, expires FROM shortline.idempotency
		WHERE at >= $2::timestamptz - interval '1 minute' AND xmin::text = ANY($1)`, short, *since)
	if err != nil {
		return err
	}
	var xmin, answer string
	var scope, key, hash []byte
	var expires time.Time
	_, err = pgx.ForEachRow(rows, []any{&xmin, &scope, &key, &hash, &answer, &expires}, func() error {
		if tx := all[full[xmin]]; tx != nil {
			r := LostRequest{Scope: string(scope), Key: string(key), BodyHash: bytes.Clone(hash), Expires: expires.UTC()}
			r.By, _, _ = strings.Cut(r.Scope, " ")
			var err error
			if r.Changes, err = cameOf(tx.Changes, r.Scope, answer); err != nil {
				return fmt.Errorf("the answer of idempotency key %q: %w", r.Key, err)
			}
			tx.Requests = append(tx.Requests, r)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read the idempotency keys: %w", err)
	}
	for _, tx := range all {
		slices.SortFunc(tx.Requests, func(a, b LostRequest) int {
			return strings.Compare(a.Scope+"\x00"+a.Key, b.Scope+"\x00"+b.Key)
		})
	}
	return nil
}

// cameOf finds the changes that came of a request by its answer, one for each item; nil where an item has none. The answer does
// not name stores, so revs, values and the path have to tell.
func cameOf(changes []LostChange, scope, answer string) ([]int, error) {
	var items []struct {
		Rev   uint64 `json:"rev"`
		Queue *struct {
			Queue struct {
				Length    int
				UpdatedAt time.Time
				Rev       uint64
			} `json:"queue"`
			Applied bool `json:"applied"`
		} `json:"queue"`
	}
	if err := json.Unmarshal([]byte(answer), &items); err != nil {
		return nil, err
	}
	var found []int
	for _, it := range items {
		fits := func(c LostChange) bool { return c.Kind != "queue" && it.Rev != 0 && c.Rev == it.Rev }
		if q := it.Queue; q != nil {
			fits = func(c LostChange) bool {
				return q.Applied && c.Kind == "queue" && c.Rev == q.Queue.Rev && c.Length != nil && *c.Length == q.Queue.Length &&
					c.ObservedAt != nil && c.ObservedAt.Equal(q.Queue.UpdatedAt)
			}
		}
		best := -1
		for i, c := range changes {
			if !fits(c) || slices.Contains(found, i) {
				continue
			}
			named := strings.Contains(scope, "/stores/"+c.ID+"/") || strings.HasSuffix(scope, "/stores/"+c.ID)
			if best < 0 || named {
				best = i
			}
			if named {
				break
			}
		}
		if best < 0 {
			return nil, nil
		}
		found = append(found, best)
	}
	return found, nil
}
