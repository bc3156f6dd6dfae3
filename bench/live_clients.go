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
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/gobwas/ws"
)

// liveClients are many connections in one process. They speak the protocol of what is measured.
type liveClients struct {
	addr       string
	centrifuge bool
	numbers    bool // stores are called by their number
	stores     int

	counting    atomic.Bool
	messages    atomic.Int64
	ages        [20_001]atomic.Int64 // of messages, by 50 µs
	subscribed  atomic.Int64
	lost, moved atomic.Int64
	gate        chan struct{} // stalled ones read once it is closed
	talks       sync.WaitGroup
	all         []*liveClient
}

const ageStep = 50 // µs

// liveClient is one of them, which may change its connection.
type liveClient struct {
	owner  *liveClients
	follow []int
	mu     sync.Mutex
	last   []int64  // lengths, by place in follow; guarded by mu
	conn   net.Conn // in use; guarded by mu
}

// liveReport is what the clients found between begin and end.
type liveReport struct {
	Messages, Subscribed, Lost, Moved int64
	Ages                              []int64 // counts by ageStep
	Wrong, Checked                    int
}

// clientsLive keeps connections open and obeys the lines on stdin: begin, end, read, values URL. It answers each with JSON.
func clientsLive(ctx context.Context, args []string, stdin io.Reader, stdout io.Writer) error {
	f := flag.NewFlagSet("live-clients", flag.ContinueOnError)
	c := &liveClients{gate: make(chan struct{})}
	f.StringVar(&c.addr, "addr", "", "address of the server")
	f.BoolVar(&c.centrifuge, "centrifuge", false, "speak centrifuge's protocol")
	f.BoolVar(&c.numbers, "numbers", false, "call stores by their number")
	f.IntVar(&c.stores, "stores", 10_000, "how many stores there are")
	n := f.Int("n", 1000, "how many connections")
	each := f.Int("follow", 5, "stores that each follows")
	hot := f.Int("hot", 0, "how many of them follow the first store too")
	stall := f.Bool("stall", false, "do not read until told to")
	if err := f.Parse(args); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer c.talks.Wait()
	defer cancel()
	if !*stall {
		close(c.gate)
	}
	dial := make(chan struct{}, 64) // at a time
	for i := range *n {
		cl := &liveClient{owner: c}
		for len(cl.follow) < *each {
			if store := 1 + rand.IntN(c.stores-1); !slices.Contains(cl.follow, store) {
				cl.follow = append(cl.follow, store)
			}
		}
		if i < *hot {
			cl.follow[0] = 0
		}
		cl.last = make([]int64, len(cl.follow))
		c.all = append(c.all, cl)
		dial <- struct{}{}
		c.talks.Go(func() { cl.run(ctx, c.addr, func() { <-dial }) })
	}
	for !*stall && c.subscribed.Load() < int64(*n) {
		if c.lost.Load() > 0 {
			return errors.New("connections are lost while they are opened")
		}
		time.Sleep(10 * time.Millisecond)
	}
	if _, err := fmt.Fprintf(stdout, "ready %d\n", *n); err != nil {
		return err
	}
	lines := bufio.NewScanner(stdin)
	for lines.Scan() {
		word, rest, _ := strings.Cut(lines.Text(), " ")
		var r liveReport
		switch word {
		case "begin":
			c.messages.Store(0)
			for i := range c.ages {
				c.ages[i].Store(0)
			}
			c.counting.Store(true)
		case "end":
			c.counting.Store(false)
			for i := range c.ages {
				r.Ages = append(r.Ages, c.ages[i].Load())
			}
		case "read":
			close(c.gate)
		case "values":
			var err error
			if r.Wrong, r.Checked, err = c.check(ctx, rest); err != nil {
				return err
			}
		}
		r.Messages, r.Subscribed, r.Lost, r.Moved = c.messages.Load(), c.subscribed.Load(), c.lost.Load(), c.moved.Load()
		text, err := json.Marshal(r)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(stdout, "%s\n", text); err != nil {
			return err
		}
	}
	return lines.Err()
}

// check holds what every client saw last against what the server has.
func (c *liveClients) check(ctx context.Context, url string) (wrong, checked int, err error) {
	text, err := get(ctx, url)
	if err != nil {
		return 0, 0, err
	}
	var want []int64
	if err := json.Unmarshal(text, &want); err != nil {
		return 0, 0, err
	}
	for _, cl := range c.all {
		cl.mu.Lock()
		for i, store := range cl.follow {
			if want[store] >= 0 {
				checked++
				if cl.last[i] != want[store] {
					wrong++
				}
			}
		}
		cl.mu.Unlock()
	}
	return wrong, checked, nil
}

func (cl *liveClient) id(store int) string {
	if cl.owner.numbers {
		return strconv.Itoa(store)
	}
	return string(storeID(store))
}

// run follows over one connection until it ends.
func (cl *liveClient) run(ctx context.Context, addr string, opened func()) {
	var once sync.Once
	open := func() { once.Do(opened) }
	defer open()
	receive := 0 // the kernel's choice
	select {
	case <-cl.owner.gate:
	default:
		receive = 4 << 10
	}
	conn, r, err := dialSocket(addr, receive)
	if err != nil {
		cl.owner.lost.Add(1)
		return
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	if err := cl.subscribe(conn); err != nil {
		cl.owner.lost.Add(1)
		return
	}
	open()
	<-cl.owner.gate
	buf := make([]byte, 0, 512)
	waiting := 1
	if cl.owner.centrifuge {
		waiting = len(cl.follow)
	}
	for {
		op, message, err := readFrame(r, buf)
		if err != nil {
			cl.mu.Lock()
			current := cl.conn == conn
			cl.mu.Unlock()
			if current && ctx.Err() == nil {
				cl.owner.lost.Add(1)
			}
			return
		}
		buf = message[:0]
		switch {
		case op == ws.OpPing:
			_ = ws.WriteFrame(conn, ws.MaskFrame(ws.NewPongFrame(message)))
			continue
		case op != ws.OpText:
			continue
		case cl.owner.centrifuge && string(message) == "{}":
			_ = ws.WriteFrame(conn, ws.MaskFrame(ws.NewTextFrame([]byte("{}"))))
			continue
		}
		if waiting > 0 {
			if cl.owner.centrifuge {
				waiting -= bytes.Count(message, []byte(`"subscribe":{`))
			} else if bytes.HasPrefix(message, []byte(`{"event":"subscribed"`)) {
				waiting--
			}
			if waiting == 0 {
				cl.arrived(conn)
			}
		}
		if bytes.HasPrefix(message, []byte(`{"event":"reconnect"`)) {
			cl.move(ctx, message)
			continue
		}
		cl.take(conn, message)
	}
}

// arrived is when a connection has its snapshot: the one before is not needed any more.
func (cl *liveClient) arrived(conn net.Conn) {
	cl.mu.Lock()
	before := cl.conn
	cl.conn = conn
	cl.mu.Unlock()
	cl.owner.subscribed.Add(1)
	if before != nil {
		cl.owner.moved.Add(1)
		_ = before.Close()
	}
}

// take notes the values of a message, and how old they are.
func (cl *liveClient) take(conn net.Conn, message []byte) {
	now := time.Now().UnixMicro()
	cl.mu.Lock()
	defer cl.mu.Unlock()
	for rest := message; ; {
		i := bytes.Index(rest, []byte(`"id":"`))
		if i < 0 {
			return
		}
		rest = rest[i+len(`"id":"`):]
		j := bytes.IndexByte(rest, '"')
		if j < 0 {
			return
		}
		id, tail := rest[:j], rest[j:]
		const key = `","length":`
		if !bytes.HasPrefix(tail, []byte(key)) {
			continue
		}
		var length int64
		for _, b := range tail[len(key):] {
			if b < '0' || b > '9' {
				break
			}
			length = length*10 + int64(b-'0')
		}
		if conn == cl.conn {
			for k, store := range cl.follow {
				if string(id) == cl.id(store) {
					cl.last[k] = length
				}
			}
		}
		if cl.owner.counting.Load() && bytes.Contains(message, []byte(`"event":"queue"`)) {
			age := (now - length) % 1_000_000
			if age < 0 {
				age += 1_000_000
			}
			cl.owner.messages.Add(1)
			cl.owner.ages[age/ageStep].Add(1)
		}
	}
}

// move opens another connection where the message says, some time within what it says.
func (cl *liveClient) move(ctx context.Context, message []byte) {
	var m struct {
		Regions []struct{ URL string }
		WithinS float64 `json:"within_s"`
	}
	if json.Unmarshal(message, &m) != nil || len(m.Regions) == 0 {
		return
	}
	wait := time.Duration(rand.Float64() * m.WithinS * float64(time.Second))
	cl.owner.talks.Go(func() {
		select {
		case <-ctx.Done():
		case <-time.After(wait):
			cl.run(ctx, strings.TrimPrefix(m.Regions[0].URL, "http://"), func() {})
		}
	})
}

func (cl *liveClient) subscribe(conn net.Conn) error {
	if cl.owner.centrifuge {
		text := `{"id":1,"connect":{}}`
		for i, store := range cl.follow {
			text += fmt.Sprintf("\n"+`{"id":%d,"subscribe":{"channel":"%d"}}`, i+2, store)
		}
		return ws.WriteFrame(conn, ws.MaskFrame(ws.NewTextFrame([]byte(text))))
	}
	var names []string
	for _, store := range cl.follow {
		names = append(names, strconv.Quote(cl.id(store)))
	}
	return ws.WriteFrame(conn, ws.MaskFrame(ws.NewTextFrame([]byte(`{"op":"subscribe","stores":[`+strings.Join(names, ",")+`]}`))))
}

// dialSocket opens a WebSocket; receive bounds what the kernel keeps for a client that does not read.
func dialSocket(addr string, receive int) (net.Conn, *bufio.Reader, error) {
	dialer := net.Dialer{Timeout: 30 * time.Second, Control: func(_, _ string, raw syscall.RawConn) (err error) {
		if receive > 0 {
			cerr := raw.Control(func(fd uintptr) { err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, receive) })
			err = errors.Join(err, cerr)
		}
		return err
	}}
	conn, err := dialer.Dial("tcp", addr)
	if err != nil {
		return nil, nil, err
	}
	request := "GET /v1/live HTTP/1.1\r\nHost: " + addr + "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
	if _, err = io.WriteString(conn, request); err == nil {
		r := bufio.NewReaderSize(conn, 512)
		var res *http.Response
		if res, err = http.ReadResponse(r, nil); err == nil {
			if res.StatusCode == http.StatusSwitchingProtocols {
				return conn, r, nil
			}
			err = errors.New(res.Status)
		}
	}
	_ = conn.Close()
	return nil, nil, err
}

// readFrame reads an unmasked frame into buf.
func readFrame(r *bufio.Reader, buf []byte) (ws.OpCode, []byte, error) {
	head, err := r.Peek(2)
	if err != nil {
		return 0, nil, err
	}
	op, length, size := ws.OpCode(head[0]&15), int(head[1]&127), 2
	if length == 126 || length == 127 {
		size = map[int]int{126: 4, 127: 10}[length]
		if head, err = r.Peek(size); err != nil {
			return 0, nil, err
		}
		length = 0
		for _, b := range head[2:size] {
			length = length<<8 | int(b)
		}
	}
	if _, err := r.Discard(size); err != nil {
		return 0, nil, err
	}
	if cap(buf) < length {
		buf = make([]byte, length)
	}
	buf = buf[:length]
	_, err = io.ReadFull(r, buf)
	return op, buf, err
}
