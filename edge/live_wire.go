package edge

import (
	"context"
	"io"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"
)

// liveWire is the way to one client. One goroutine reads; one at a time writes.
type liveWire interface {
	read(b []byte) (int, error)
	// try writes as much of b as goes without waiting.
	try(w *rawWriter, b []byte) (int, error)
	// finish writes all of b, and is os.ErrDeadlineExceeded where the client does not take it in time.
	finish(b []byte, deadline time.Time) error
	closeWrite()
	close() error
}

// sendBuffer is how many bytes the kernel keeps for a client that does not read; it takes about twice as much memory.
// Without a bound, such clients pin megabytes each. What clients send needs none: whoever does not read is not read from, and
// a receive buffer made smaller than the window that was promised makes the kernel drop what it then has no room for.
const sendBuffer = 16 << 10

// unsentBuffer is how much of that may wait for the client to have room: what is on its way to one that reads, however far
// away, may be more, but behind one that does not read little piles up here.
const unsentBuffer = 4 << 10

// tcpWire writes past net.Conn, which would park a goroutine for each client that is slow.
type tcpWire struct {
	conn  *net.TCPConn
	raw   syscall.RawConn
	early []byte // came together with the request
}

func newTCPWire(conn *net.TCPConn, early []byte) (*tcpWire, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	_ = conn.SetWriteBuffer(sendBuffer) // it works without, only not for as many
	limitUnsent(raw, unsentBuffer)
	return &tcpWire{conn, raw, early}, nil
}

func (t *tcpWire) read(b []byte) (int, error) {
	if len(t.early) > 0 {
		n := copy(b, t.early)
		if t.early = t.early[n:]; len(t.early) == 0 {
			t.early = nil
		}
		return n, nil
	}
	return t.conn.Read(b)
}

func (t *tcpWire) try(w *rawWriter, b []byte) (int, error) { return w.write(t.raw, b) }

func (t *tcpWire) finish(b []byte, deadline time.Time) error { return finish(t.conn, b, deadline) }
func (t *tcpWire) closeWrite()                               { _ = t.conn.CloseWrite() }
func (t *tcpWire) close() error                              { return t.conn.Close() }

// finish writes with a deadline, which is not left behind: it would fail the next write.
func finish(conn net.Conn, b []byte, deadline time.Time) error {
	if err := conn.SetWriteDeadline(deadline); err != nil {
		return err
	}
	if _, err := conn.Write(b); err != nil {
		return err
	}
	return conn.SetWriteDeadline(time.Time{})
}

// connWire goes through the connection: where this node itself ends TLS, bytes must not pass it by.
type connWire struct {
	net.Conn
	early []byte
}

func (t *connWire) read(b []byte) (int, error) {
	if len(t.early) > 0 {
		n := copy(b, t.early)
		t.early = t.early[n:]
		return n, nil
	}
	return t.Read(b)
}

// try leaves everything to finish: no write on such a connection can be told not to wait.
func (t *connWire) try(*rawWriter, []byte) (int, error) { return 0, nil }

func (t *connWire) finish(b []byte, deadline time.Time) error { return finish(t.Conn, b, deadline) }

func (t *connWire) closeWrite() {
	if half, ok := t.Conn.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
}

func (t *connWire) close() error { return t.Close() }

// answerWire is an answer that goes on, over HTTP/2, where there is no connection to be had. The handler must not return
// before the wire is closed.
type answerWire struct {
	w      io.Writer
	rc     *http.ResponseController
	gone   context.Context // ends when the client goes, or the wire is closed
	closed context.CancelFunc

	mu      sync.Mutex
	stopped bool // the handler returns, w must not be touched any more; guarded by mu
}

func (t *answerWire) read([]byte) (int, error) {
	<-t.gone.Done()
	return 0, io.EOF
}

func (t *answerWire) try(*rawWriter, []byte) (int, error) { return 0, nil }

func (t *answerWire) finish(b []byte, deadline time.Time) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stopped {
		return net.ErrClosed
	}
	if err := t.rc.SetWriteDeadline(deadline); err != nil {
		return err
	}
	if _, err := t.w.Write(b); err != nil {
		return err
	}
	if err := t.rc.Flush(); err != nil {
		return err
	}
	return t.rc.SetWriteDeadline(time.Time{})
}

// stop returns when nothing is written any more; what waits for a client that does not read is given up.
func (t *answerWire) stop() {
	_ = t.rc.SetWriteDeadline(time.Now())
	t.mu.Lock()
	defer t.mu.Unlock()
	t.stopped = true
}

func (t *answerWire) closeWrite() { t.closed() }

func (t *answerWire) close() error {
	t.closed()
	return nil
}
