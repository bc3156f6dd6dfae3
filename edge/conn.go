package edge

import (
	"errors"
	"net"
	"os"
	"sync"
	"time"
)

// lazyListener gives the server connections whose deadlines cost nothing as long as nobody waits.
type lazyListener struct{ net.Listener }

func (l lazyListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &lazyConn{Conn: c}, nil
}

// lazyConn is a connection that moves a deadline only when it has to.
//
// net/http sets eight deadlines a request, nearly all of them to a later time than the one before, and each is a change of
// a timer that is shared with the network poller. Here such a change is only noted. The deadline of the connection below may
// be earlier than the one noted, never later: if it passes, the call that it stopped looks at the note, sets it, and goes
// on. So a busy connection changes a timer once in half a minute.
//
// Deadlines hold as for any net.Conn. Once SetDeadline was called, as net/http does before it hands a connection to a
// handler that hijacks it, every later change is made at once: from then on the handler may use the connection below.
type lazyConn struct {
	net.Conn
	read, write lazyDeadline
}

// lazyDeadline is the deadline of one direction.
type lazyDeadline struct {
	mu     sync.Mutex
	noted  time.Time // what was asked for; zero: none. Guarded by mu, as is what follows
	set    time.Time // what the connection below has
	active int       // calls that may wait below
	direct bool      // changes are made at once
}

// change notes t, and sets it where a call that is under way would otherwise wait for too long.
func (d *lazyDeadline) change(t time.Time, set func(time.Time) error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.noted = t
	if !d.direct && (d.active == 0 || !d.late()) {
		return nil
	}
	d.set = t
	return set(t)
}

// late tells whether the connection below would stop a call too late.
func (d *lazyDeadline) late() bool {
	return !d.noted.IsZero() && (d.set.IsZero() || d.noted.Before(d.set))
}

// begin is called before a call that may wait. It sees to it that the call is not stopped too late.
func (d *lazyDeadline) begin(set func(time.Time) error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.late() {
		if passed(d.noted) { // as an aborted read: not worth a change below
			return os.ErrDeadlineExceeded
		}
		d.set = d.noted
		if err := set(d.set); err != nil {
			return err
		}
	}
	d.active++
	return nil
}

// end is called after it with its error, and tells whether it was stopped too early and is to go on.
func (d *lazyDeadline) end(err error, set func(time.Time) error) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.active--
	if err == nil || d.direct || !errors.Is(err, os.ErrDeadlineExceeded) || passed(d.noted) {
		return false
	}
	d.set = d.noted
	return set(d.set) == nil
}

func passed(t time.Time) bool { return !t.IsZero() && time.Until(t) <= 0 }

func (c *lazyConn) Read(p []byte) (int, error) {
	for {
		if err := c.read.begin(c.Conn.SetReadDeadline); err != nil {
			return 0, err
		}
		n, err := c.Conn.Read(p)
		if !c.read.end(err, c.Conn.SetReadDeadline) {
			return n, err
		}
		if n > 0 {
			return n, nil
		}
	}
}

func (c *lazyConn) Write(p []byte) (int, error) {
	written := 0
	for {
		if err := c.write.begin(c.Conn.SetWriteDeadline); err != nil {
			return written, err
		}
		n, err := c.Conn.Write(p[written:])
		written += n
		if !c.write.end(err, c.Conn.SetWriteDeadline) {
			return written, err
		}
	}
}

func (c *lazyConn) SetReadDeadline(t time.Time) error {
	return c.read.change(t, c.Conn.SetReadDeadline)
}

func (c *lazyConn) SetWriteDeadline(t time.Time) error {
	return c.write.change(t, c.Conn.SetWriteDeadline)
}

func (c *lazyConn) SetDeadline(t time.Time) error {
	for _, d := range []*lazyDeadline{&c.read, &c.write} {
		d.mu.Lock()
		d.direct = true
		d.mu.Unlock()
	}
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// CloseWrite shuts the writing side down; net/http does so before it closes a connection whose client may still be sending.
func (c *lazyConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}
