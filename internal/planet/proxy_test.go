package planet

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"
)

// startRelay makes a relay between two pipes, which take no time themselves. It is for use in a bubble.
func startRelay(t *testing.T, delay time.Duration) (client, target net.Conn, p *Proxy, end func()) {
	t.Helper()
	client, near := net.Pipe()
	far, target := net.Pipe()
	p = newProxy("", delay)
	c := &pair{client: near, target: far, done: make(chan struct{})}
	p.pairs[c] = struct{}{}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		p.relay(c)
	}()
	return client, target, p, func() {
		_ = client.Close()
		_ = target.Close()
		<-ended
	}
}

func TestProxyDelaysExactly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const delay = 123 * time.Millisecond
		client, target, p, end := startRelay(t, delay)
		defer end()
		// One chunk each 10 ms; each arrives one delay after it was sent, also those behind it.
		began := time.Now()
		go func() {
			for i := range byte(20) {
				_, _ = client.Write([]byte{i})
				time.Sleep(10 * time.Millisecond)
			}
		}()
		for i := range byte(20) {
			var b [1]byte
			if _, err := io.ReadFull(target, b[:]); err != nil || b[0] != i {
				t.Fatalf("byte %d is %d, %v", i, b[0], err)
			}
			if at := time.Since(began); at != time.Duration(i)*10*time.Millisecond+delay {
				t.Errorf("byte %d came after %v", i, at)
			}
		}
		// The other way too, and a shorter delay takes over in order.
		time.Sleep(time.Second)
		began = time.Now()
		_, _ = target.Write([]byte("a"))
		synctest.Wait()
		p.SetDelay(time.Millisecond)
		_, _ = target.Write([]byte("b"))
		var two [2]byte
		if _, err := io.ReadFull(client, two[:]); err != nil || string(two[:]) != "ab" || time.Since(began) != delay {
			t.Errorf("%q after %v, %v", two, time.Since(began), err)
		}
	})
}

// A sender gets rid of as much as inFlight at once, so that the delay does not limit the bandwidth, and of no more.
func TestProxyBuffersUpToItsBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const delay = 100 * time.Millisecond
		client, target, _, end := startRelay(t, delay)
		defer end()
		const size = 3 * inFlight
		sent := make([]byte, size)
		_, _ = rand.Read(sent)
		began := time.Now()
		taken := 0
		go func() {
			for rest := sent; len(rest) > 0; rest = rest[chunkSize:] {
				_, _ = client.Write(rest[:chunkSize])
				taken += chunkSize
			}
		}()
		synctest.Wait()
		if taken > inFlight+3*chunkSize || taken < inFlight*9/10 {
			t.Errorf("%d bytes taken before the first arrived", taken)
		}
		got := make([]byte, size)
		if _, err := io.ReadFull(target, got); err != nil || !bytes.Equal(got, sent) {
			t.Errorf("other bytes came, %v", err)
		}
		if took := time.Since(began); took > 4*delay {
			t.Errorf("%d bytes took %v", size, took)
		}
	})
}

func TestProxyBlackholeHoldsEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, target, p, end := startRelay(t, 10*time.Millisecond)
		defer end()
		_, _ = client.Write([]byte("on its way"))
		p.Blackhole()
		_, _ = client.Write([]byte(", and more"))
		_ = client.Close()
		_ = target.SetReadDeadline(time.Now().Add(time.Hour))
		buf := make([]byte, 100)
		if n, err := target.Read(buf); n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%q came through, %v", buf[:n], err)
		}
		_ = target.SetReadDeadline(time.Time{})
		p.Heal()
		if all, err := io.ReadAll(target); string(all) != "on its way, and more" || err != nil {
			t.Errorf("got %q, %v", all, err)
		}
	})
}

// startEcho sends back what it gets, and closes when the client has.
func startEcho(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	var g errgroup.Group
	g.Go(func() error {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return nil
			}
			g.Go(func() error {
				defer conn.Close()
				_, _ = io.Copy(conn, conn)
				return nil
			})
		}
	})
	t.Cleanup(func() { _ = ln.Close(); _ = g.Wait() })
	return ln.Addr().String()
}

func startProxy(t *testing.T, target string, delay time.Duration) *Proxy {
	t.Helper()
	p, err := StartProxy(target, delay)
	check(t, err)
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// dial connects with a deadline on everything.
func dial(t *testing.T, addr string) *net.TCPConn {
	t.Helper()
	conn, err := net.DialTimeout("tcp", addr, long)
	check(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	check(t, conn.SetDeadline(time.Now().Add(long)))
	return conn.(*net.TCPConn)
}

func echoes(conn net.Conn, text string) error {
	if _, err := io.WriteString(conn, text); err != nil {
		return err
	}
	got := make([]byte, len(text))
	if _, err := io.ReadFull(conn, got); err != nil {
		return err
	}
	if string(got) != text {
		return fmt.Errorf("sent %q, got %q", text, got)
	}
	return nil
}

func TestProxyOverTCP(t *testing.T) {
	t.Parallel()
	const delay = 20 * time.Millisecond
	p := startProxy(t, startEcho(t), delay)

	// A first answer takes two round trips, the next one: never less.
	began := time.Now()
	conn := dial(t, p.Addr())
	check(t, echoes(conn, "first"))
	if took := time.Since(began); took < 4*delay {
		t.Errorf("connecting and an answer took %v", took)
	}
	began = time.Now()
	check(t, echoes(conn, "second"))
	if took := time.Since(began); took < 2*delay {
		t.Errorf("an answer took %v", took)
	}

	// Many at once, in order, with half-closes.
	var g errgroup.Group
	for i := range 200 {
		conn := dial(t, p.Addr())
		g.Go(func() error {
			sent := bytes.Repeat([]byte{byte(i), byte(i >> 8), 3}, 10_000)
			var w errgroup.Group
			w.Go(func() error {
				if _, err := conn.Write(sent); err != nil {
					return err
				}
				return conn.CloseWrite()
			})
			got, err := io.ReadAll(conn)
			if err == nil && !bytes.Equal(got, sent) {
				err = fmt.Errorf("connection %d got %d other bytes", i, len(got))
			}
			return errors.Join(err, w.Wait())
		})
	}
	check(t, g.Wait())
}

func TestProxyCutAndHeal(t *testing.T) {
	t.Parallel()
	p := startProxy(t, startEcho(t), time.Millisecond)
	old := dial(t, p.Addr())
	check(t, echoes(old, "a"))

	p.Cut()
	if _, err := old.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a cut connection ends in %v", err)
	}
	resetsNew(t, p)

	p.Heal()
	check(t, echoes(dial(t, p.Addr()), "b"))

	p.Blackhole()
	p.Blackhole()
	conn := dial(t, p.Addr()) // the kernel takes it
	p.Heal()
	check(t, echoes(conn, "c"))

	p.Blackhole()
	p.Cut()
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a connection in a black hole that is cut ends in %v", err)
	}
	p.Heal()
	check(t, echoes(dial(t, p.Addr()), "d"))
}

// resetsNew checks that a new connection is reset, be it before the client has noticed that it stands.
func resetsNew(t *testing.T, p *Proxy) {
	t.Helper()
	conn, err := net.DialTimeout("tcp", p.Addr(), long)
	if err == nil {
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(long))
		_, err = conn.Read(make([]byte, 1))
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a new connection ends in %v", err)
	}
}

func TestProxyToNobody(t *testing.T) {
	t.Parallel()
	ports, err := freePorts(1)
	check(t, err)
	p := startProxy(t, address(ports[0]), 0)
	resetsNew(t, p)
	p.Blackhole()
	held := dial(t, p.Addr())
	check(t, p.Close())
	check(t, p.Close())
	if err := echoes(held, "x"); err == nil {
		t.Error("a closed proxy echoes")
	}
}

// A reset is passed on as a reset, either way.
func TestProxyPassesResets(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	defer ln.Close()
	p := startProxy(t, ln.Addr().String(), time.Millisecond)
	for _, fromClient := range []bool{true, false} {
		client := dial(t, p.Addr())
		accepted, err := ln.Accept()
		check(t, err)
		defer accepted.Close()
		check(t, accepted.SetDeadline(time.Now().Add(long)))
		from, to := client, net.Conn(accepted)
		if !fromClient {
			from, to = accepted.(*net.TCPConn), client
		}
		check(t, from.SetLinger(0))
		check(t, from.Close())
		if _, err := to.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("from the client %v: ended in %v", fromClient, err)
		}
	}
}
