package sqlite

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/replication"
)

// The crash test kills a real process amid its writes, at a random acknowledgement, and looks for every write that it had
// acknowledged. SHORTLINE_CRASH_RUNS says how often (3), SHORTLINE_CRASH_SEED repeats one (logged with each run).
const (
	crashDirEnv  = "SHORTLINE_CRASH_DIR" // in the child: be the writer
	crashRunsEnv = "SHORTLINE_CRASH_RUNS"
	crashSeedEnv = "SHORTLINE_CRASH_SEED"

	crashWrites = 10_000
	crashBatch  = 50
	crashStores = 400
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDirEnv); dir != "" {
		if err := crashWriter(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func crashID(i int) shortline.StoreID { return storeName(i % crashStores) }

func storeName(i int) shortline.StoreID { return shortline.StoreID(fmt.Sprintf("crash-%04d", i)) }

// crashWriter commits numbered queue writes in groups and says of each group, once Commit has returned, what it was told:
// "ack FIRST EPOCH XID REV…", with the rev of each queue. It does not end by itself, but with its standard input.
func crashWriter(dir string) error {
	ctx := context.Background()
	s, err := Open(ctx, Config{Dir: dir})
	if err != nil {
		return err
	}
	var items []replication.Item
	for i := range crashStores {
		items = append(items, replication.Item{Put: &shortline.Store{ID: storeName(i), Name: "Crash"}})
	}
	if _, _, err := s.Commit(ctx, []replication.Write{{Items: items}}); err != nil {
		return err
	}
	for first := 0; first < crashWrites; first += crashBatch {
		writes := make([]replication.Write, crashBatch)
		for i := range writes {
			n := first + i
			writes[i].Items = []replication.Item{{Queue: &shortline.QueueUpdate{ID: crashID(n), Length: &n}}}
			writes[i].Idempotency = &replication.Idempotency{Scope: "crash", Key: strconv.Itoa(n), TTL: 1e12}
		}
		results, token, err := s.Commit(ctx, writes)
		if err != nil {
			return err
		}
		line := fmt.Sprintf("ack %d %d %d", first, token.Epoch, token.XID)
		for _, res := range results {
			line += " " + strconv.FormatUint(res.Items[0].Queue.Queue.Rev, 10)
		}
		if _, err := fmt.Println(line); err != nil {
			return err
		}
	}
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

func TestCrashKeepsAcknowledgedWrites(t *testing.T) {
	runs := 3
	if v := os.Getenv(crashRunsEnv); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 {
			t.Fatalf("%s=%q is not a number of runs", crashRunsEnv, v)
		}
		runs = n
	}
	seed := rand.Uint64()
	if v := os.Getenv(crashSeedEnv); v != "" {
		n, err := strconv.ParseUint(v, 10, 64)
		if err != nil {
			t.Fatalf("%s=%q is not a seed", crashSeedEnv, v)
		}
		seed = n
	}
	for i := range runs {
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			s := seed + uint64(i)
			t.Logf("%s=%d", crashSeedEnv, s)
			killAt := 1 + rand.New(rand.NewPCG(s, s)).IntN(crashWrites/crashBatch)
			if i == 0 {
				killAt = crashWrites / crashBatch // once with every write acknowledged
			}
			crashOnce(t, killAt)
		})
	}
}

// crashOnce kills the writer after that many acknowledgements. Those already on their way to us count as well: they were
// printed after their commit.
func crashOnce(t *testing.T, killAt int) {
	dir := t.TempDir()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), crashDirEnv+"="+dir)
	cmd.Stderr = os.Stderr
	if _, err := cmd.StdinPipe(); err != nil { // open until the writer is dead
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var acks []string
	sc := bufio.NewScanner(out)
	for sc.Scan() {
		acks = append(acks, sc.Text())
		if len(acks) == killAt {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("the writer ended by itself: %v", err)
	}
	t.Logf("killed at acknowledgement %d of %d, %d had been sent: %d writes", killAt, crashWrites/crashBatch, len(acks), len(acks)*crashBatch)
	checkAfterCrash(t, dir, acks)
}

func checkAfterCrash(t *testing.T, dir string, acks []string) {
	ctx := context.Background()
	s, err := Open(ctx, Config{Dir: dir})
	if err != nil {
		t.Fatalf("open after the crash: %v", err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	if v, err := s.w.value("PRAGMA integrity_check"); err != nil || v != "ok" {
		t.Errorf("integrity_check: %v, %v", v, err)
	}
	page, err := s.Changes(ctx, replication.Cursor{}, 10*crashWrites)
	if err != nil || page.More {
		t.Fatalf("changes: %v, more: %v", err, page.More)
	}
	last, err := checkFeed(page, acks)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(acks); n > 0 { // the check itself is checked: it misses a write that was never made
		forged := strings.Replace(acks[n-1], " ", " 1", 1)
		if _, err := checkFeed(page, append(acks[:n-1:n-1], forged)); err == nil {
			t.Errorf("an acknowledgement of what was never written was believed: %s", forged)
		}
	}
	rows, err := s.Snapshot(ctx, "", 2*crashStores)
	if err != nil || len(rows) != crashStores {
		t.Fatalf("%d stores, %v", len(rows), err)
	}
	for _, row := range rows {
		want, ok := last[row.Store.ID]
		if ok != (row.Queue != nil) || ok && *row.Queue != want {
			t.Errorf("store %s: the feed ends with %+v, its row is %+v", row.Store.ID, want, row.Queue)
		}
	}
	committed := 0
	for _, c := range page.Changes {
		if c.Kind == shortline.QueueSet {
			committed++
		}
	}
	checkAnswersAfterCrash(t, s, committed)
}

// checkFeed looks for every acknowledged write in the feed, and returns the queues that the feed ends with.
func checkFeed(page replication.Page, acks []string) (last map[shortline.StoreID]shortline.Queue, err error) {
	type place struct {
		store shortline.StoreID
		rev   uint64
	}
	type change struct {
		xid    uint64
		length int
	}
	feed := map[place]change{}
	last = map[shortline.StoreID]shortline.Queue{}
	for _, c := range page.Changes {
		if c.Kind != shortline.QueueSet {
			continue
		}
		id := shortline.StoreID(c.Subject)
		if c.Rev != last[id].Rev+1 {
			return nil, fmt.Errorf("store %s: rev %d follows rev %d in the feed", id, c.Rev, last[id].Rev)
		}
		feed[place{id, c.Rev}], last[id] = change{c.XID, c.Queue.Length}, *c.Queue
	}
	for _, ack := range acks {
		var first, epoch int
		var xid uint64
		if _, err := fmt.Sscanf(ack, "ack %d %d %d", &first, &epoch, &xid); err != nil {
			return nil, fmt.Errorf("the writer said %q: %w", ack, err)
		}
		if xid >= page.Head.Horizon {
			return nil, fmt.Errorf("acknowledged transaction %d is not below the horizon %d", xid, page.Head.Horizon)
		}
		for i, text := range strings.Fields(ack)[4:] {
			rev, err := strconv.ParseUint(text, 10, 64)
			if err != nil {
				return nil, fmt.Errorf("the writer said %q: %w", ack, err)
			}
			n := first + i
			if got := feed[place{crashID(n), rev}]; got != (change{xid, n}) {
				return nil, fmt.Errorf("acknowledged write %d (store %s, rev %d, transaction %d) is %+v in the feed", n, crashID(n), rev, xid, got)
			}
		}
	}
	// Whole transactions or nothing; at most one of them was not acknowledged in time.
	if len(feed)%crashBatch != 0 || len(feed) < len(acks)*crashBatch || len(feed) > (len(acks)+1)*crashBatch {
		return nil, fmt.Errorf("%d writes are in the feed after %d acknowledged groups of %d", len(feed), len(acks), crashBatch)
	}
	return last, nil
}

// checkAnswersAfterCrash sends the last write that was committed and the first that was not, as a client would.
func checkAnswersAfterCrash(t *testing.T, s *Store, committed int) {
	for n := committed - 1; n <= committed; n++ {
		results, _, err := s.Commit(context.Background(), []replication.Write{{
			Items:       []replication.Item{{Queue: &shortline.QueueUpdate{ID: crashID(n), Length: &n}}},
			Idempotency: &replication.Idempotency{Scope: "crash", Key: strconv.Itoa(n), TTL: 1e12},
		}})
		if err != nil || results[0].Replayed != (n < committed) {
			t.Errorf("write %d of %d again: %+v, %v", n, committed, results, err)
		}
	}
}
