package control

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/shortline/shortline/internal/pki"
	"github.com/shortline/shortline/regions"
)

// maxStrangers bounds the connections that have not said yet what they are; more are closed at once.
const maxStrangers = 128

// port is the control port: connections between voters and signed calls arrive at one address, told apart by their first
// bytes, so that a voter has one address in everybody's flags.
type port struct {
	identity *pki.Identity // nil: no TLS
	// answer does the rest of a voter's handshake; region is that of its certificate, "" without TLS.
	answer  func(conn net.Conn, region regions.ID) error
	streams chan net.Conn // voters' connections, to be taken by whoever runs raft
	calls   *queue
	refused func(remote net.Addr, err error)
}

// run hands out connections until ctx ends, and joins what it started. It closes l.
func (p *port) run(ctx context.Context, l net.Listener) error {
	var all sync.WaitGroup
	defer all.Wait()
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	defer p.calls.Close()
	strangers := make(chan struct{}, maxStrangers)
	for {
		conn, err := l.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				_ = conn.Close()
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			return err
		case err != nil: // out of files, mostly
			select {
			case <-ctx.Done():
			case <-time.After(50 * time.Millisecond):
			}
			continue
		}
		select {
		case strangers <- struct{}{}:
		default:
			_ = conn.Close()
			continue
		}
		all.Go(func() {
			err := p.sort(ctx, conn)
			<-strangers
			if err != nil {
				_ = conn.Close()
				p.refused(conn.RemoteAddr(), err)
			}
		})
	}
}

// sort finds out what a connection is for and passes it on.
func (p *port) sort(ctx context.Context, conn net.Conn) error {
	if err := conn.SetDeadline(time.Now().Add(handshakeTimeout)); err != nil {
		return err
	}
	peeked := &peekedConn{Conn: conn, r: bufio.NewReader(conn)}
	first, err := peeked.r.Peek(1)
	if err != nil {
		return err
	}
	var region regions.ID
	if p.identity != nil {
		if first[0] != 0x16 { // the first byte of TLS
			return errors.New("it came without TLS; give every node --cluster-tls-ca, --cluster-tls-cert and --cluster-tls-key")
		}
		secure := tls.Server(peeked, p.identity.Server("h2"))
		if err := secure.HandshakeContext(ctx); err != nil {
			return fmt.Errorf("TLS: %w", err)
		}
		name, err := pki.NameOf(secure.ConnectionState().PeerCertificates[0])
		if err != nil {
			return err
		}
		region = regions.ID(name.Region)
		peeked = &peekedConn{Conn: secure, r: bufio.NewReader(secure)}
	}
	begin, err := peeked.r.Peek(len(magic))
	if err != nil {
		return err
	}
	if string(begin) != magic {
		if err := conn.SetDeadline(time.Time{}); err != nil {
			return err
		}
		return p.calls.put(ctx, peeked)
	}
	_, _ = peeked.r.Discard(len(magic)) // it was peeked at
	if err := p.answer(peeked, region); err != nil {
		return err
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return err
	}
	select {
	case p.streams <- peeked:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(handshakeTimeout):
		return errors.New("this voter is not up yet")
	}
}

// peekedConn gives what was read ahead first.
type peekedConn struct {
	net.Conn
	r *bufio.Reader
}

func (c *peekedConn) Read(b []byte) (int, error) { return c.r.Read(b) }

// queue is a listener of connections that somebody else accepted.
type queue struct {
	conns chan net.Conn
	once  sync.Once
	done  chan struct{}
	addr  net.Addr
}

func newQueue(addr net.Addr) *queue {
	return &queue{conns: make(chan net.Conn), done: make(chan struct{}), addr: addr}
}

func (q *queue) put(ctx context.Context, conn net.Conn) error {
	select {
	case q.conns <- conn:
		return nil
	case <-q.done:
		return net.ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Accept is part of net.Listener.
func (q *queue) Accept() (net.Conn, error) {
	select {
	case conn := <-q.conns:
		return conn, nil
	case <-q.done:
		return nil, net.ErrClosed
	}
}

// Close is part of net.Listener.
func (q *queue) Close() error {
	q.once.Do(func() { close(q.done) })
	return nil
}

// Addr is part of net.Listener.
func (q *queue) Addr() net.Addr { return q.addr }
