package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// The process "bench failover-load" writes and reads at a steady rate, whatever becomes of the service: a request that waits does
// not keep the next one from being sent. It takes commands from stdin, a line of JSON each, and answers each with one.

// steadyCommand is a command to the generator.
type steadyCommand struct {
	// Nodes are where requests go from now on, in turns.
	Nodes []string `json:"nodes,omitempty"`
	// Tell asks for what happened since the last time. Settle ends the load before, and waits for what is under way.
	Tell   bool `json:"tell,omitempty"`
	Settle bool `json:"settle,omitempty"`
}

// steadyReport is what happened since the last one.
type steadyReport struct {
	Writes, Reads                        int
	FailedWrites                         int
	FailedReads                          int
	Faults                               []string      // the first few, and what they were
	Pause                                time.Duration // the longest time between two acknowledgements of writes
	Slowest                              time.Duration // the longest that one write took
	SlowestRead                          time.Duration
	Skipped                              int            // requests that were not sent, because too many were under way
	Acked                                map[string]int // by store, since the start
	Unsure                               map[string]int // by store, since the start: writes that failed, or whose outcome nobody told
	WriteP50, ReadP50, WriteP99, ReadP99 time.Duration
}

// steadyLoad is the generator.
type steadyLoad struct {
	http   *http.Client
	key    string
	stores []string
	nodes  atomic.Pointer[[]string]
	turn   atomic.Uint64
	under  atomic.Int64
	run    string // makes the idempotency keys its own

	mu     sync.Mutex
	now    steadyReport     // guarded by mu
	acked  map[string]int   // guarded by mu
	unsure map[string]int   // guarded by mu
	last   time.Time        // guarded by mu: of the last acknowledgement
	writes []time.Duration  // guarded by mu
	reads  []time.Duration  // guarded by mu
	seen   []map[string]int // guarded by mu: of each session, the greatest length of a store
	tokens []string         // guarded by mu: of each session
	busy   []bool           // guarded by mu: a session asks one thing at a time
}

// maxUnder bounds the requests under way: writes are held for up to 10 s.
const maxUnder = 8000

// sessions is how many clients read with tokens; every other read is one of theirs.
const sessions = 20

// generateSteady is the process.
func generateSteady(ctx context.Context, args []string, stdin io.Reader, stdout io.Writer) error {
	f := flag.NewFlagSet("failover-load", flag.ContinueOnError)
	writes := f.Int("writes", 500, "a second")
	reads := f.Int("reads", 2000, "a second")
	stores := f.String("stores", "", "ids, with commas")
	run := f.String("run", "", "name of the run")
	if err := f.Parse(args); err != nil {
		return err
	}
	l := &steadyLoad{key: os.Getenv("SHORTLINE_KEY"), stores: strings.Split(*stores, ","), run: *run, acked: map[string]int{}, unsure: map[string]int{},
		tokens: make([]string, sessions), busy: make([]bool, sessions),
		http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 512, IdleConnTimeout: time.Minute, DisableCompression: true,
			DialContext: (&net.Dialer{Timeout: 2 * time.Second}).DialContext}}}
	for range sessions {
		l.seen = append(l.seen, map[string]int{})
	}
	commands := json.NewDecoder(bufio.NewReader(stdin))
	answers := json.NewEncoder(stdout)
	var c steadyCommand
	if err := commands.Decode(&c); err != nil {
		return fmt.Errorf("read the first command: %w", err)
	}
	l.nodes.Store(&c.Nodes)
	l.last = time.Now()
	ctx, stop := context.WithCancel(ctx)
	var all sync.WaitGroup
	defer all.Wait()
	defer stop()
	all.Go(func() { l.pace(ctx, *writes, l.write) })
	all.Go(func() { l.pace(ctx, *reads, l.read) })
	for {
		var c steadyCommand
		if err := commands.Decode(&c); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("read a command: %w", err)
		}
		if c.Nodes != nil {
			l.nodes.Store(&c.Nodes)
		}
		if !c.Tell {
			continue
		}
		if c.Settle {
			stop()
			all.Wait()
		}
		if err := answers.Encode(l.tell()); err != nil {
			return err
		}
	}
}

// pace calls do so many times a second, each in a goroutine of its own; late ones are made up for.
func (l *steadyLoad) pace(ctx context.Context, rate int, do func(n uint64)) {
	if rate == 0 {
		return
	}
	const step = 5 * time.Millisecond
	ticker := time.NewTicker(step)
	defer ticker.Stop()
	var sent uint64
	var all sync.WaitGroup
	defer all.Wait()
	for began := time.Now(); ; {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		for due := uint64(time.Since(began).Seconds() * float64(rate)); sent < due; sent++ {
			n := sent
			if l.under.Load() >= maxUnder {
				l.mu.Lock()
				l.now.Skipped++
				l.mu.Unlock()
				continue
			}
			l.under.Add(1)
			all.Go(func() {
				defer l.under.Add(-1)
				do(n)
			})
		}
	}
}

func (l *steadyLoad) node() string {
	nodes := *l.nodes.Load()
	return nodes[int(l.turn.Add(1)%uint64(len(nodes)))]
}

// write adds one to a queue, with a key of its own: a write that is lost and one that is applied twice both show in the sum. It is
// tried again elsewhere where the node itself is gone, as any client does, and counts as failed only after that.
func (l *steadyLoad) write(n uint64) {
	id := l.stores[n%uint64(len(l.stores))]
	began := time.Now()
	var err error
	for attempt := range 3 {
		var gone bool
		if err, gone = l.post(id, fmt.Sprintf("%s-%d", l.run, n)); !gone {
			break
		}
		time.Sleep(time.Duration(attempt+1) * 50 * time.Millisecond)
	}
	took := time.Since(began)
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.now.FailedWrites++
		l.unsure[id]++
		l.fault("write", err)
		return
	}
	l.now.Writes++
	l.acked[id]++
	now := time.Now()
	l.now.Pause, l.last = max(l.now.Pause, now.Sub(l.last)), now
	l.now.Slowest = max(l.now.Slowest, took)
	l.writes = append(l.writes, took)
}

func (l *steadyLoad) post(id, key string) (err error, gone bool) {
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, l.node()+"/v1/stores/"+id+"/queue", bytes.NewReader([]byte(`{"delta":1}`)))
	if err != nil {
		return err, false
	}
	req.Header.Set("Authorization", "Bearer "+l.key)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Idempotency-Key", key)
	res, err := l.http.Do(req)
	if err != nil {
		return err, refusedOrReset(err)
	}
	return answered(res, nil), false
}

// refusedOrReset tells whether a node's process is gone.
func refusedOrReset(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, io.EOF)
}

// answered reads an answer, and the error that it stands for.
func answered(res *http.Response, into any) error {
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %.200s", res.Status, body)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(body, into)
}

// read asks for a queue, every other time as a session, which must not go back.
func (l *steadyLoad) read(n uint64) {
	id := l.stores[rand.IntN(len(l.stores))]
	session, before := -1, 0
	var token string
	if k := int(n/2) % sessions; n%2 == 0 {
		l.mu.Lock()
		if !l.busy[k] {
			session, l.busy[k], token, before = k, true, l.tokens[k], l.seen[k][id]
		}
		l.mu.Unlock()
	}
	began := time.Now()
	var err error
	var res *http.Response
	var q struct {
		Length int `json:"length"`
	}
	for range 3 {
		ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
		var req *http.Request
		if req, err = http.NewRequestWithContext(ctx, http.MethodGet, l.node()+"/v1/stores/"+id+"/queue", nil); err == nil {
			if token != "" {
				req.Header.Set("Shortline-Token", token)
			}
			if res, err = l.http.Do(req); err == nil {
				err = answered(res, &q)
			}
		}
		cancel()
		if err == nil || !refusedOrReset(err) {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	took := time.Since(began)
	l.mu.Lock()
	defer l.mu.Unlock()
	if session >= 0 {
		l.busy[session] = false
	}
	if err == nil && session >= 0 && q.Length < before {
		err = fmt.Errorf("a session went back: %s was %d and is %d", id, before, q.Length)
	}
	if err != nil {
		l.now.FailedReads++
		l.fault("read", err)
		return
	}
	if session >= 0 {
		l.seen[session][id] = max(l.seen[session][id], q.Length)
		l.tokens[session] = res.Header.Get("Shortline-Token")
	}
	l.now.Reads++
	l.now.SlowestRead = max(l.now.SlowestRead, took)
	l.reads = append(l.reads, took)
}

// fault keeps the first few; mu is held.
func (l *steadyLoad) fault(what string, err error) {
	if len(l.now.Faults) < 5 {
		l.now.Faults = append(l.now.Faults, what+": "+err.Error())
	}
}

// tell is what happened since it was called last.
func (l *steadyLoad) tell() steadyReport {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.now
	r.Pause = max(r.Pause, time.Since(l.last)) // it may not be over
	r.WriteP50, r.WriteP99 = twoQuantiles(l.writes)
	r.ReadP50, r.ReadP99 = twoQuantiles(l.reads)
	r.Acked, r.Unsure = maps.Clone(l.acked), maps.Clone(l.unsure)
	l.now, l.writes, l.reads = steadyReport{}, nil, nil
	return r
}

func twoQuantiles(all []time.Duration) (p50, p99 time.Duration) {
	if len(all) == 0 {
		return 0, 0
	}
	slices.Sort(all)
	return all[len(all)/2], all[len(all)*99/100]
}
