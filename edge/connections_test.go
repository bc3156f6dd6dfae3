package edge_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shortline/shortline/edge"
)

// open opens a connection to the public port and sends what is given.
func (n *testNode) open(t testing.TB, text string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", n.api[strings.Index(n.api, "//")+2:])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	return conn
}

const get = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"

// answered tells the status of the next answer, or the error where the connection ends instead.
func answered(conn net.Conn) (int, error) {
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return 0, err
	}
	_, _ = io.Copy(io.Discard, res.Body)
	return res.StatusCode, res.Body.Close()
}

// connections waits until the metric of open connections is there.
func (n *testNode) connections(t testing.TB, want int) {
	t.Helper()
	line := fmt.Sprintf("\nshortline_http_connections %d\n", want)
	for end := time.Now().Add(patience); !strings.Contains(string(n.get(t, n.admin+"/metrics").body), line); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not %d connections: %s", want, n.get(t, n.admin+"/metrics").body)
		}
	}
}

// Connections that are idle, or that never say anything, cost little and keep nobody away.
func TestIdleConnections(t *testing.T) {
	many := 400
	if os.Getenv("SHORTLINE_TEST_LONG") == "1" {
		many = 10_000 // with both ends in this process it needs some 20,000 files
	}
	n := newTestNode(t, func(s *nodeSetup) { s.edge.Connections = -1 })
	n.connections(t, 0)
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for i := range many {
		conn := n.open(t, []string{"", "GET / HT", get}[i%3])
		if i%3 == 2 {
			if status, err := answered(conn); err != nil || status != 200 {
				t.Fatal(status, err)
			}
		}
	}
	n.connections(t, many)
	runtime.GC()
	runtime.ReadMemStats(&after)
	t.Logf("%d connections: %.1f KiB each, both ends, without the kernel's", many, float64(after.HeapInuse+after.StackInuse-before.HeapInuse-before.StackInuse)/1024/float64(many))
	n.get(t, "/v1/nearby?lat=0&lng=0").want(t, 200)
}

func TestConnectionsAreBounded(t *testing.T) {
	var mu sync.Mutex
	from := netip.MustParseAddr("203.0.113.7")
	n := newTestNode(t, func(s *nodeSetup) {
		s.edge.Connections, s.edge.ConnectionsPerAddress = 5, 3
		s.from = func() netip.Addr { mu.Lock(); defer mu.Unlock(); return from }
	})
	use := func() net.Conn {
		t.Helper()
		conn := n.open(t, get)
		if status, err := answered(conn); err != nil || status != 200 {
			t.Fatal(status, err)
		}
		return conn
	}
	refused := func(what string) {
		t.Helper()
		if status, err := answered(n.open(t, get)); err == nil {
			t.Errorf("%s was answered %d", what, status)
		}
	}
	first := use()
	use()
	use()
	refused("the fourth of one address")
	mu.Lock()
	from = netip.MustParseAddr("203.0.113.8")
	mu.Unlock()
	use()
	use()
	refused("the sixth of all")
	_ = first.Close()
	n.connections(t, 4)
	use()
	metrics := string(n.get(t, n.admin+"/metrics").body)
	for _, line := range []string{`shortline_http_connections_refused_total{limit="address"} 1`, `shortline_http_connections_refused_total{limit="total"} 1`} {
		if !strings.Contains(metrics, line) {
			t.Errorf("the metrics have no %s", line)
		}
	}
}

// Whoever sends a request a byte at a time, headers or body, is cut off, and others are answered meanwhile.
func TestSlowRequestsAreCutOff(t *testing.T) {
	n := newTestNode(t, func(s *nodeSetup) {
		s.edge = edge.Config{DetailsBytes: 32 << 20, Version: "test", HeaderTimeout: 300 * time.Millisecond, BodyTimeout: 600 * time.Millisecond}
	})
	for name, test := range map[string]struct{ begin, rest string }{
		"headers": {"GET /v1/nearby?lat=0&lng=0 HTTP/1.1\r\nHost: x\r\n", strings.Repeat("X-Slow: loris\r\n", 1000)},
		"a body": {"POST /v1/stores/s1/queue HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + n.key + "\r\nContent-Type: application/json\r\nContent-Length: 10000\r\n\r\n",
			strings.Repeat(" ", 9000)},
	} {
		conn, rest := n.open(t, test.begin), test.rest
		cut := make(chan error, 1)
		go func() {
			for i := range len(rest) {
				if _, err := io.WriteString(conn, rest[i:i+1]); err != nil {
					cut <- err
					return
				}
				time.Sleep(10 * time.Millisecond)
			}
			cut <- errors.New("all of it was taken")
		}()
		for done := false; !done; {
			select {
			case err := <-cut:
				if strings.Contains(err.Error(), "all of it") {
					t.Errorf("slow %s: %v", name, err)
				}
				done = true
			default:
				n.get(t, "/healthz").want(t, 200)
			}
		}
	}
}

func TestOversizedHeadersAreRefused(t *testing.T) {
	n := newTestNode(t)
	conn := n.open(t, "")
	_, _ = io.WriteString(conn, "GET /healthz HTTP/1.1\r\nHost: x\r\nX-Big: "+strings.Repeat("x", 64<<10)+"\r\n\r\n") // it may be cut off while it is sent
	if status, err := answered(conn); err == nil && status != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("64 KiB of headers: %d", status)
	}
	n.get(t, "/healthz").want(t, 200)
}
