package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// flood is a node and clients of it that come from addresses of their own, by way of a proxy that the node trusts.
type flood struct {
	*process
	client *http.Client
}

func startFlood(t *testing.T, args ...string) *flood {
	p := start(t, filepath.Join(t.TempDir(), "data"), append(args, "--demo", "--trust-proxy", "127.0.0.0/8")...)
	f := &flood{p, &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 200}, Timeout: time.Minute}}
	t.Cleanup(f.client.CloseIdleConnections)
	return f
}

// ask searches for stores as a client of that address, with a key if there is one.
func (f *flood) ask(addr, key string) (*http.Response, error) {
	req, err := http.NewRequest("GET", f.api+"/v1/nearby?lat=40.7580&lng=-73.9855&radius=5km&limit=20", nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("X-Forwarded-For", addr)
	if key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	res, err := f.client.Do(req)
	if err != nil {
		return nil, err
	}
	_, err = io.Copy(io.Discard, res.Body)
	return res, errors.Join(err, res.Body.Close())
}

// One address, or one key, that sends as fast as it can gets what is due to it, and is told so in headers. Nobody else is refused anything.
func TestFlood(t *testing.T) {
	const rate, burst = 20, 200
	f := startFlood(t, "--rate-limit-address", fmt.Sprint(rate), "--rate-limit-key", fmt.Sprint(rate))
	for _, by := range []string{"address", "key"} {
		t.Run(by, func(t *testing.T) {
			key := ""
			if by == "key" {
				key = f.key
			}
			var calm atomic.Bool
			var granted, refused atomic.Int64
			var flooders, others sync.WaitGroup
			began := time.Now()
			for i := range 4 {
				flooders.Go(func() {
					for n := 0; !calm.Load() || refused.Load() < 10*burst; n++ {
						addr := "203.0.113.1"
						if key != "" { // a key is one, wherever it comes from
							addr = fmt.Sprintf("203.0.%d.%d", 114+i, n%250)
						}
						res, err := f.ask(addr, key)
						if err != nil {
							t.Error(err)
							return
						}
						switch res.StatusCode {
						case http.StatusOK:
							granted.Add(1)
						case http.StatusTooManyRequests:
							refused.Add(1)
							if policy, left := strings.Join(res.Header["Ratelimit-Policy"], ""), strings.Join(res.Header["Ratelimit"], ""); res.Header.Get("Retry-After") == "" ||
								policy != fmt.Sprintf("%q;q=%d;w=10", by, burst) || !strings.HasPrefix(left, fmt.Sprintf("%q;r=0;t=", by)) {
								t.Errorf("refused with %q %q %q", res.Header.Get("Retry-After"), policy, left)
								return
							}
						default:
							t.Errorf("the flooder got %s", res.Status)
							return
						}
					}
				})
			}
			for i := range 5 {
				others.Go(func() {
					for range 100 {
						res, err := f.ask(fmt.Sprintf("198.51.%d.%d", len(by), i), "")
						if err != nil || res.StatusCode != http.StatusOK {
							t.Errorf("somebody else got %v, %v", res, err)
							return
						}
					}
				})
			}
			others.Wait()
			calm.Store(true)
			flooders.Wait()
			if most := int64(burst + rate*time.Since(began).Seconds() + 1); granted.Load() > most || granted.Load() < burst {
				t.Errorf("the flooder was granted %d, want %d to %d", granted.Load(), burst, most)
			}
			t.Logf("granted %d, refused %d", granted.Load(), refused.Load())
		})
	}
	f.stop()
}

// TestFloodHurtsNobody measures what others wait for while one address sends ten times its limit, against a quiet time just before. It
// takes a minute, and a machine on which nothing else is going on.
func TestFloodHurtsNobody(t *testing.T) {
	if !longTests {
		t.Skip("a measurement: set SHORTLINE_TEST_LONG=1")
	}
	f := startFlood(t)
	const rounds, seconds, people, flooding = 3, 10, 400, 1000 // requests a second
	var quiet, flooded []time.Duration
	for range rounds {
		quiet = append(quiet, f.paced(t, people, seconds, func(i int) string { return fmt.Sprintf("198.51.100.%d", i%200) }, http.StatusOK)...)
		end := f.flood(t, flooding)
		flooded = append(flooded, f.paced(t, people, seconds, func(i int) string { return fmt.Sprintf("198.51.100.%d", i%200) }, http.StatusOK)...)
		if sent, refused := end(); sent < flooding*seconds*9/10 || refused < sent/2 {
			t.Errorf("there was no flood: %d requests, %d refused", sent, refused)
		}
	}
	slices.Sort(quiet)
	slices.Sort(flooded)
	at := func(d []time.Duration, q float64) time.Duration { return d[int(q*float64(len(d)-1))] }
	t.Logf("quiet: p50 %v, p99 %v; flooded: p50 %v, p99 %v; of %d requests each", at(quiet, 0.5), at(quiet, 0.99), at(flooded, 0.5), at(flooded, 0.99), len(quiet))
	if at(flooded, 0.99) > 2*at(quiet, 0.99) {
		t.Error("others wait more than twice as long")
	}
	f.stop()
}

// flood sends so many requests a second from one address until end is called. It writes them as they are and counts what comes back, so that
// it takes little from the machine that is measured.
func (f *flood) flood(t *testing.T, perSecond int) (end func() (sent, refused int)) {
	const conns = 10
	var requests, refusals atomic.Int64
	var parts sync.WaitGroup
	stop := make(chan struct{})
	for range conns {
		conn, err := net.Dial("tcp", strings.TrimPrefix(f.api, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		parts.Go(func() {
			answers := bufio.NewScanner(conn)
			for answers.Scan() {
				if bytes.Contains(answers.Bytes(), []byte("HTTP/1.1 429")) {
					refusals.Add(1)
				}
			}
		})
		parts.Go(func() {
			defer func() { _ = conn.Close() }()
			ticker := time.NewTicker(time.Second * conns / time.Duration(perSecond))
			defer ticker.Stop()
			for {
				select {
				case <-stop:
					return
				case <-ticker.C:
				}
				if _, err := io.WriteString(conn, "GET /v1/nearby?lat=40.7580&lng=-73.9855&radius=5km&limit=20 HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 203.0.113.1\r\n\r\n"); err != nil {
					t.Errorf("the flooder: %v", err)
					return
				}
				requests.Add(1)
			}
		})
	}
	return func() (int, int) {
		close(stop)
		parts.Wait()
		return int(requests.Load()), int(refusals.Load())
	}
}

// paced sends so many requests a second, each when it is due, and returns how long after that each was answered. Other statuses than
// those are errors.
func (f *flood) paced(t *testing.T, perSecond, seconds int, addr func(i int) string, statuses ...int) []time.Duration {
	took := make([]time.Duration, perSecond*seconds)
	var all sync.WaitGroup
	began := time.Now()
	for i := range took {
		due := began.Add(time.Duration(i) * time.Second / time.Duration(perSecond))
		time.Sleep(time.Until(due))
		all.Go(func() {
			res, err := f.ask(addr(i), "")
			took[i] = time.Since(due)
			if err != nil || !slices.Contains(statuses, res.StatusCode) {
				t.Errorf("%s got %v, %v", addr(i), res, err)
			}
		})
	}
	all.Wait()
	return took
}
