package edge

import (
	"errors"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

// countedConn counts the changes of deadlines that reach the connection below.
type countedConn struct {
	net.Conn
	reads, writes int
}

func (c *countedConn) SetReadDeadline(t time.Time) error { c.reads++; return c.Conn.SetReadDeadline(t) }
func (c *countedConn) SetWriteDeadline(t time.Time) error {
	c.writes++
	return c.Conn.SetWriteDeadline(t)
}

// TestLazyDeadlines holds a lazyConn against what any net.Conn does, in both directions: calls wait until the deadline that
// was asked for last, to the moment. The connections in turns are a bare one, which shows that the test asks for the right
// thing, and lazy ones.
func TestLazyDeadlines(t *testing.T) {
	type direction struct {
		call func(net.Conn) error
		set  func(net.Conn, time.Time) error
	}
	read := direction{func(c net.Conn) error { _, err := c.Read(make([]byte, 1)); return err }, net.Conn.SetReadDeadline}
	write := direction{func(c net.Conn) error { _, err := c.Write(make([]byte, 1)); return err }, net.Conn.SetWriteDeadline}
	past := -time.Hour
	for _, test := range []struct {
		name   string
		before []time.Duration // deadlines set one after the other, from the start; 0: none
		during []time.Duration // then while the call waits, a second after each other
		want   time.Duration   // when the call ends
	}{
		{"one", []time.Duration{3 * time.Second}, nil, 3 * time.Second},
		{"moved later before", []time.Duration{3 * time.Second, 9 * time.Second}, nil, 9 * time.Second},
		{"moved earlier before", []time.Duration{9 * time.Second, 3 * time.Second}, nil, 3 * time.Second},
		{"taken back before", []time.Duration{3 * time.Second, 0, 20 * time.Second}, nil, 20 * time.Second},
		{"past before", []time.Duration{past}, nil, 0},
		{"past and taken back", []time.Duration{past, 5 * time.Second}, nil, 5 * time.Second},
		{"moved later during", []time.Duration{3 * time.Second}, []time.Duration{9 * time.Second}, 9 * time.Second},
		{"moved earlier during", []time.Duration{9 * time.Second}, []time.Duration{3 * time.Second}, 3 * time.Second},
		{"set during", []time.Duration{0}, []time.Duration{5 * time.Second}, 5 * time.Second},
		{"aborted", []time.Duration{9 * time.Second}, []time.Duration{past}, time.Second},
		{"aborted without one", nil, []time.Duration{past}, time.Second},
		{"to and fro", []time.Duration{3 * time.Second}, []time.Duration{30 * time.Second, 6 * time.Second, 40 * time.Second}, 40 * time.Second},
	} {
		for name, d := range map[string]direction{"read": read, "write": write} {
			for _, kind := range []string{"bare", "lazy", "direct"} {
				t.Run(test.name+"/"+name+"/"+kind, func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						a, b := net.Pipe()
						defer a.Close()
						defer b.Close()
						c := a
						if kind != "bare" {
							c = &lazyConn{Conn: a}
						}
						if kind == "direct" {
							_ = c.SetDeadline(time.Time{})
						}
						for round := range 3 { // the later ones begin with what the former ones left below
							start := time.Now()
							set := func(after time.Duration) {
								at := start.Add(after)
								if after == 0 {
									at = time.Time{}
								}
								if err := d.set(c, at); err != nil {
									t.Error(err)
								}
							}
							set(0)
							for _, after := range test.before {
								set(after)
							}
							done := make(chan error, 1)
							go func() { done <- d.call(c) }()
							for _, after := range test.during {
								time.Sleep(time.Second)
								set(after)
							}
							if err := <-done; !errors.Is(err, os.ErrDeadlineExceeded) {
								t.Fatalf("round %d: %v", round, err)
							}
							if took := time.Since(start); took != test.want {
								t.Fatalf("round %d: stopped after %v, not %v", round, took, test.want)
							}
						}
					})
				})
			}
		}
	}
}

// TestLazyDeadlinesAreLazy counts what a busy connection, used as net/http uses it, changes below.
func TestLazyDeadlinesAreLazy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		defer b.Close()
		below := &countedConn{Conn: a}
		c := &lazyConn{Conn: below}
		defer c.Close()
		echoed := make(chan error, 1)
		go func() {
			buf := make([]byte, 1)
			for {
				if _, err := b.Read(buf); err != nil {
					echoed <- nil
					return
				}
				if _, err := b.Write(buf); err != nil {
					echoed <- err
					return
				}
			}
		}()
		const seconds = 600
		buf := make([]byte, 1)
		for range 10 * seconds {
			_ = c.SetWriteDeadline(time.Now().Add(60 * time.Second))
			if n, err := c.Write(buf); n != 1 || err != nil {
				t.Fatal(n, err)
			}
			_ = c.SetWriteDeadline(time.Time{})
			for _, after := range []time.Duration{30 * time.Second, 120 * time.Second} {
				_ = c.SetReadDeadline(time.Now().Add(after))
			}
			if n, err := c.Read(buf); n != 1 || err != nil {
				t.Fatal(n, err)
			}
			_ = c.SetReadDeadline(time.Now().Add(30 * time.Second))
			time.Sleep(100 * time.Millisecond)
		}
		if below.reads > seconds/10 || below.writes > seconds/10 {
			t.Errorf("%d changes of the read deadline and %d of the write deadline in %d s", below.reads, below.writes, seconds)
		}
		_ = c.Close()
		if err := <-echoed; err != nil {
			t.Error(err)
		}
	})
}
