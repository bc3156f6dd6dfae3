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
			crashOnce(t, rand.New(rand.NewPCG(s, s)))
		})
	}
}

// crashOnce kills the writer after a random number of acknowledgements. Those already on their way to us count as well:
// they were printed after their commit.
func crashOnce(t *testing.T, rng *rand.Rand) {
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
	killAt := 1 + rng.IntN(crashWrites/crashBatch)
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
	type change struct {
		xid    uint64
		length int
	}
	feed := map[shortline.StoreID]map[uint64]change{} // by store and rev of its queue
	last := map[shortline.StoreID]shortline.Queue{}
	inFeed := 0
	for _, c := range page.Changes {
		if c.Kind != shortline.QueueSet {
			continue
		}
		id := shortline.StoreID(c.Subject)
		if feed[id] == nil {
			feed[id] = map[uint64]change{}
		}
		if c.Rev != last[id].Rev+1 {
			t.Errorf("store %s: rev %d follows rev %d in the feed", id, c.Rev, last[id].Rev)
		}
		feed[id][c.Rev], last[id] = change{c.XID, c.Queue.Length}, *c.Queue
		inFeed++
	}
	for _, ack := range acks {
		f := strings.Fields(ack)
		if len(f) != 4+crashBatch || f[0] != "ack" {
			t.Fatalf("the writer said %q", ack)
		}
		first, xid := number(t, f[1]), number(t, f[3])
		if xid >= page.Head.Horizon {
			t.Errorf("acknowledged transaction %d is not below the horizon %d", xid, page.Head.Horizon)
		}
		for i, rev := range f[4:] {
			n := int(first) + i
			if got := feed[crashID(n)][number(t, rev)]; got != (change{xid, n}) {
				t.Fatalf("acknowledged write %d (store %s, rev %s, transaction %d) is %+v in the feed", n, crashID(n), rev, xid, got)
			}
		}
	}
	// Whole transactions or nothing: the number of writes is one of groups, and at most one of them was not acknowledged in time.
	if inFeed%crashBatch != 0 || inFeed < len(acks)*crashBatch || inFeed > (len(acks)+1)*crashBatch {
		t.Errorf("%d writes are in the feed after %d acknowledged groups of %d", inFeed, len(acks), crashBatch)
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
	checkAnswersAfterCrash(t, s, inFeed)
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

func number(t *testing.T, s string) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
