package planet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

const (
	// inFlight bounds the bytes on their way in one direction of a connection, but for three chunks at its ends. Over a delay of 125 ms it allows 134 MB/s.
	// When it is reached, nothing more is read from the sender, whom TCP then slows down.
	inFlight = 16 << 20
	// chunkSize is the most that is read at a time.
	chunkSize = 64 << 10

	proxyDialTimeout = 5 * time.Second
)

// Proxy puts a distance between a TCP server and its clients: every byte arrives one delay after it was sent, in order,
// and a new connection costs a round trip before its first byte, as a handshake over the distance does. The client's
// connect returns before that, as the kernel answers it; nothing that it reads or writes gets ahead of time.
//
// It can cut the distance in two ways; see Cut and Blackhole. Its methods may be called from several goroutines.
type Proxy struct {
	target string
	ln     net.Listener
	ctx    context.Context // ends with Close
	stop   context.CancelFunc
	wg     sync.WaitGroup

	mu    sync.Mutex
	delay time.Duration      // guarded by mu
	cut   bool               // guarded by mu
	open  chan struct{}      // guarded by mu: closed unless blackholed
	pairs map[*pair]struct{} // guarded by mu
}

// StartProxy listens on a free port of loopback and forwards to target. delay is one way: half a round trip. The caller
// closes the proxy.
func StartProxy(target string, delay time.Duration) (*Proxy, error) {
	var err error
	for range 10 {
		ports, portErr := freePorts(1)
		if portErr != nil {
			return nil, fmt.Errorf("start the proxy of %s: %w", target, portErr)
		}
		var ln net.Listener
		if ln, err = net.Listen("tcp", address(ports[0])); err == nil {
			p := newProxy(target, delay)
			p.ln = ln
			p.wg.Go(p.accept)
			return p, nil
		}
	}
	return nil, fmt.Errorf("start the proxy of %s: %w", target, err)
}

func newProxy(target string, delay time.Duration) *Proxy {
	p := &Proxy{target: target, delay: delay, open: make(chan struct{}), pairs: map[*pair]struct{}{}}
	p.ctx, p.stop = context.WithCancel(context.Background())
	close(p.open)
	return p
}

// Addr is where the proxy listens.
func (p *Proxy) Addr() string { return p.ln.Addr().String() }

// SetDelay changes the one-way delay of what is sent from now on. Order is kept.
func (p *Proxy) SetDelay(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = d
}

// Cut resets all connections at once, and new ones as they come, until Heal.
func (p *Proxy) Cut() {
	p.mu.Lock()
	p.cut = true
	pairs := p.pairs
	p.pairs = map[*pair]struct{}{}
	p.unblock()
	p.mu.Unlock()
	for c := range pairs {
		c.reset()
	}
}

// Blackhole lets nothing through any more, data, closes and resets alike, until Heal or Cut; connections stay open and
// nobody is told. What was on its way is late, not lost, as TCP would send it again. New connections wait in the kernel's
// backlog.
func (p *Proxy) Blackhole() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = false
	select {
	case <-p.open:
		p.open = make(chan struct{})
	default:
	}
}

// Heal ends Cut and Blackhole.
func (p *Proxy) Heal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = false
	p.unblock()
}

// unblock needs mu.
func (p *Proxy) unblock() {
	select {
	case <-p.open:
	default:
		close(p.open)
	}
}

// Close resets all connections, stops listening and waits until all goroutines have ended.
func (p *Proxy) Close() error {
	p.stop()
	err := p.ln.Close()
	p.Cut()
	p.wg.Wait()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func (p *Proxy) accept() {
	for {
		if !p.pass(p.ctx.Done()) {
			return
		}
		conn, err := p.ln.Accept()
		switch {
		case err == nil:
			p.wg.Go(func() { p.serve(conn) })
		case p.ctx.Err() != nil:
			return
		default: // too many open files, most likely
			select {
			case <-time.After(10 * time.Millisecond):
			case <-p.ctx.Done():
			}
		}
	}
}

// pass blocks while the proxy is a black hole. It is false if done was closed.
func (p *Proxy) pass(done <-chan struct{}) bool {
	for {
		p.mu.Lock()
		open := p.open
		p.mu.Unlock()
		select {
		case <-done:
			return false
		case <-open:
		}
		// It may be a black hole again by now.
		p.mu.Lock()
		same := open == p.open
		p.mu.Unlock()
		if same {
			return true
		}
	}
}

// wait blocks for d. It is false if done was closed.
func wait(d time.Duration, done <-chan struct{}) bool {
	if d <= 0 {
		return true
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-done:
		return false
	}
}

func (p *Proxy) currentDelay() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.delay
}

// serve brings a client that was accepted to the target.
func (p *Proxy) serve(client net.Conn) {
	c := &pair{client: client, done: make(chan struct{})}
	if !p.enlist(c) {
		c.reset()
		return
	}
	defer p.delist(c)
	if !wait(2*p.currentDelay(), c.done) || !p.pass(c.done) {
		return
	}
	ctx, cancel := context.WithTimeout(p.ctx, proxyDialTimeout)
	defer cancel()
	target, err := (&net.Dialer{}).DialContext(ctx, "tcp", p.target)
	if err != nil || !c.connected(target) {
		c.reset()
		return
	}
	p.relay(c)
}

// enlist is false while connections are cut.
func (p *Proxy) enlist(c *pair) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cut || p.ctx.Err() != nil {
		return false
	}
	p.pairs[c] = struct{}{}
	return true
}

func (p *Proxy) delist(c *pair) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.pairs, c)
}

// relay carries bytes both ways until both have ended or the pair is reset.
func (p *Proxy) relay(c *pair) {
	var wg sync.WaitGroup
	for _, way := range [][2]net.Conn{{c.client, c.target}, {c.target, c.client}} {
		l := newLine()
		wg.Go(func() { p.read(way[0], l, c.done) })
		wg.Go(func() { p.write(way[1], l, c) })
	}
	wg.Wait()
	c.close()
}

// read fills the line from the sender until that has no more, or is gone.
func (p *Proxy) read(from net.Conn, l *line, done <-chan struct{}) {
	buf := make([]byte, chunkSize)
	for {
		n, err := from.Read(buf)
		due := time.Now().Add(p.currentDelay())
		if n > 0 && !l.push(chunk{due: due, data: append([]byte(nil), buf[:n]...)}, done) {
			return
		}
		if err != nil {
			l.push(chunk{due: due, end: err}, done)
			return
		}
	}
}

// write empties the line to the receiver. If that is gone, the other direction will tell the sender; what it still sends is
// dropped.
func (p *Proxy) write(to net.Conn, l *line, c *pair) {
	gone := false
	for {
		next, ok := l.pop(c.done)
		if !ok || !wait(time.Until(next.due), c.done) || !p.pass(c.done) {
			return
		}
		switch {
		case errors.Is(next.end, io.EOF):
			if half, ok := to.(interface{ CloseWrite() error }); ok {
				_ = half.CloseWrite()
			} else {
				_ = to.Close()
			}
			return
		case next.end != nil:
			c.reset()
			return
		case !gone:
			_, err := to.Write(next.data)
			gone = err != nil
		}
	}
}

// pair is a client's connection and the one to the target that goes with it.
type pair struct {
	client net.Conn
	done   chan struct{} // closed by reset

	mu     sync.Mutex
	target net.Conn // guarded by mu until relay
	closed bool     // guarded by mu
}

// connected takes the connection to the target; it is false, and closes it, if the pair was reset meanwhile.
func (c *pair) connected(target net.Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		_ = target.Close()
		return false
	}
	c.target = target
	return true
}

// reset ends both connections with a TCP reset.
func (c *pair) reset() { c.shut(true) }

// close ends both connections in peace.
func (c *pair) close() { c.shut(false) }

func (c *pair) shut(reset bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	c.closed = true
	close(c.done)
	for _, conn := range []net.Conn{c.client, c.target} {
		if conn == nil {
			continue
		}
		if tcp, ok := conn.(*net.TCPConn); ok && reset {
			_ = tcp.SetLinger(0)
		}
		_ = conn.Close()
	}
}

// chunk is what was read at a time, or the end.
type chunk struct {
	due  time.Time
	data []byte
	end  error
}

// line is a queue of chunks on their way, of at most inFlight bytes and a chunk. One goroutine pushes, one pops.
type line struct {
	mu     sync.Mutex
	chunks []chunk // guarded by mu
	bytes  int     // guarded by mu
	filled chan struct{}
	room   chan struct{}
}

func newLine() *line { return &line{filled: make(chan struct{}, 1), room: make(chan struct{}, 1)} }

// push blocks while the line is full. It is false if done was closed.
func (l *line) push(c chunk, done <-chan struct{}) bool {
	for {
		l.mu.Lock()
		if l.bytes < inFlight {
			l.chunks = append(l.chunks, c)
			l.bytes += len(c.data) + chunkCost
			l.mu.Unlock()
			signal(l.filled)
			return true
		}
		l.mu.Unlock()
		select {
		case <-l.room:
		case <-done:
			return false
		}
	}
}

// chunkCost is counted for each chunk, so that single bytes cannot fill the memory either.
const chunkCost = 64

// pop blocks while the line is empty. It is false if done was closed.
func (l *line) pop(done <-chan struct{}) (chunk, bool) {
	for {
		l.mu.Lock()
		if len(l.chunks) > 0 {
			c := l.chunks[0]
			l.chunks[0] = chunk{}
			l.chunks = l.chunks[1:]
			l.bytes -= len(c.data) + chunkCost
			l.mu.Unlock()
			signal(l.room)
			return c, true
		}
		l.mu.Unlock()
		select {
		case <-l.filled:
		case <-done:
			return chunk{}, false
		}
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
