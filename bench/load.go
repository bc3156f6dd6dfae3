package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"
)

// load is what a load generator saw.
type load struct {
	requests int
	took     time.Duration
	failed   int // no answer, or not a good one
	p50, p99 time.Duration
}

// loadLine is how either generator tells its result.
const loadLine = "LOAD requests=%d took_us=%d failed=%d p50_us=%d p99_us=%d"

// script asks queries from a file in random order and prints a loadLine.
const script = `
local requests = {}
function init(args)
  for line in io.lines(args[1]) do requests[#requests + 1] = wrk.format("GET", line) end
  math.randomseed(tonumber(args[2]))
end
function request() return requests[math.random(#requests)] end
function done(summary, latency, _)
  local e = summary.errors
  io.write(string.format("LOAD requests=%d took_us=%d failed=%d p50_us=%d p99_us=%d\n", summary.requests, summary.duration,
    e.connect + e.read + e.write + e.status + e.timeout, latency:percentile(50), latency:percentile(99)))
end
`

// generator makes load from a process of its own: wrk if there is one, else this program.
type generator struct {
	wrk         string // path; empty: none
	script      string // file
	connections int
}

func (g *generator) name() string {
	if g.wrk == "" {
		return "the generator built into this program, for want of wrk"
	}
	return strings.Join(strings.Fields(firstLine(g.wrk, "-v"))[:2], " ")
}

// run asks the server for a while, with the queries of a file in random order.
func (g *generator) run(ctx context.Context, addr, urls string, d time.Duration, seed int) (load, error) {
	var cmd *exec.Cmd
	if g.wrk != "" {
		seconds := (d + time.Second - 1) / time.Second // it knows no fractions
		cmd = exec.CommandContext(ctx, g.wrk, "-t1", fmt.Sprintf("-c%d", g.connections), fmt.Sprintf("-d%ds", seconds),
			"-s", g.script, "http://"+addr, "--", urls, fmt.Sprint(seed))
	} else {
		self, err := os.Executable()
		if err != nil {
			return load{}, err
		}
		cmd = exec.CommandContext(ctx, self, "load", "-addr", addr, "-urls", urls, "-connections", fmt.Sprint(g.connections), "-for", d.String(), "-seed", fmt.Sprint(seed))
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return load{}, fmt.Errorf("%s: %w\n%s", cmd.Args[0], err, out)
	}
	return parseLoad(out)
}

func parseLoad(out []byte) (load, error) {
	at := bytes.Index(out, []byte("LOAD "))
	if at < 0 {
		return load{}, fmt.Errorf("the load generator told no result:\n%s", out)
	}
	var l load
	var took, p50, p99 int64
	if _, err := fmt.Sscanf(string(out[at:]), loadLine, &l.requests, &took, &l.failed, &p50, &p99); err != nil {
		return load{}, fmt.Errorf("read the load generator's result: %w\n%s", err, out)
	}
	l.took, l.p50, l.p99 = time.Duration(took)*time.Microsecond, time.Duration(p50)*time.Microsecond, time.Duration(p99)*time.Microsecond
	if l.requests == 0 || l.failed > 0 {
		return l, fmt.Errorf("%d requests, of which %d failed", l.requests, l.failed)
	}
	return l, nil
}

// generateLoad is the process "bench load".
func generateLoad(ctx context.Context, args []string, stdout io.Writer) error {
	f := flag.NewFlagSet("load", flag.ContinueOnError)
	addr := f.String("addr", "", "server")
	file := f.String("urls", "", "file with a path a line")
	connections := f.Int("connections", 32, "how many")
	duration := f.Duration("for", time.Second, "how long")
	seed := f.Uint64("seed", 1, "of the order")
	if err := f.Parse(args); err != nil {
		return err
	}
	text, err := os.ReadFile(*file)
	if err != nil {
		return err
	}
	paths := strings.Fields(string(text))
	ctx, cancel := context.WithTimeout(ctx, *duration)
	defer cancel()
	var mu sync.Mutex
	var all []time.Duration
	var faults error
	var wg sync.WaitGroup
	began := time.Now()
	for c := range *connections {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(*seed, uint64(c)))
			took, err := one(ctx, *addr, paths, r)
			mu.Lock()
			defer mu.Unlock()
			all, faults = append(all, took...), errors.Join(faults, err)
		})
	}
	wg.Wait()
	if faults != nil || len(all) == 0 {
		return fmt.Errorf("%d requests: %w", len(all), faults)
	}
	slices.Sort(all)
	_, err = fmt.Fprintf(stdout, loadLine+"\n", len(all), time.Since(began).Microseconds(), 0, all[len(all)/2].Microseconds(), all[len(all)*99/100].Microseconds())
	return err
}

// one asks over one connection until ctx ends and returns how long each answer took.
func one(ctx context.Context, addr string, paths []string, r *rand.Rand) ([]time.Duration, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	in := bufio.NewReader(conn)
	var took []time.Duration
	var request []byte
	for ctx.Err() == nil {
		request = fmt.Appendf(request[:0], "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", paths[r.IntN(len(paths))], addr)
		start := time.Now()
		if _, err := conn.Write(request); err != nil {
			return took, err
		}
		res, err := http.ReadResponse(in, nil)
		if err != nil {
			return took, err
		}
		if _, err := io.Copy(io.Discard, res.Body); err != nil {
			return took, err
		}
		if res.StatusCode != http.StatusOK {
			return took, errors.New(res.Status)
		}
		took = append(took, time.Since(start))
	}
	return took, nil
}
