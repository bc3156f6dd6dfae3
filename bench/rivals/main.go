// Command rivals serves the live updates of the bench with other libraries, for comparison: a hub as the examples of
// gorilla/websocket have it, and the centrifuge library as it comes. It is a module of its own, so that Shortline does not
// depend on them. It says "ready ADDRESS", and takes its rates at /control as the bench's own server does.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/centrifugal/centrifuge"
	"github.com/gorilla/websocket"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "rivals:", err)
		os.Exit(1)
	}
}

// publisher sends a message to all who follow a store.
type publisher interface {
	publish(store int, text []byte)
}

func run(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("rivals", flag.ContinueOnError)
	kind := f.String("kind", "gorilla", "gorilla or centrifuge")
	stores := f.Int("stores", 10_000, "how many stores")
	if err := f.Parse(args); err != nil {
		return err
	}
	mux := http.NewServeMux()
	var p publisher
	switch *kind {
	case "gorilla":
		h := &hub{topics: make([]topic, *stores)}
		mux.HandleFunc("/v1/live", h.serve)
		p = h
	case "centrifuge":
		node, err := centrifuge.New(centrifuge.Config{LogLevel: centrifuge.LogLevelError})
		if err != nil {
			return err
		}
		node.OnConnecting(func(context.Context, centrifuge.ConnectEvent) (centrifuge.ConnectReply, error) {
			return centrifuge.ConnectReply{Credentials: &centrifuge.Credentials{}}, nil
		})
		node.OnConnect(func(c *centrifuge.Client) {
			c.OnSubscribe(func(_ centrifuge.SubscribeEvent, done centrifuge.SubscribeCallback) {
				done(centrifuge.SubscribeReply{}, nil)
			})
		})
		if err := node.Run(); err != nil {
			return err
		}
		defer func() { _ = node.Shutdown(context.Background()) }()
		mux.Handle("/v1/live", centrifuge.NewWebsocketHandler(node, centrifuge.WebsocketConfig{ReadBufferSize: 512, WriteBufferSize: 512, UseWriteBufferPool: true}))
		p = channels{node}
	default:
		return fmt.Errorf("%q is neither gorilla nor centrifuge", *kind)
	}
	var rate, hot atomic.Int64
	mux.HandleFunc("/control", func(w http.ResponseWriter, r *http.Request) {
		for name, v := range map[string]*atomic.Int64{"rate": &rate, "hot": &hot} {
			if n, err := strconv.Atoi(r.FormValue(name)); err == nil {
				v.Store(int64(n))
			}
		}
		_ = json.NewEncoder(w).Encode(map[string]int{"goroutines": runtime.NumGoroutine()})
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: mux}
	var parts sync.WaitGroup
	parts.Go(func() { update(ctx, p, *stores, &rate, &hot) })
	parts.Go(func() { <-ctx.Done(); _ = server.Close() })
	fmt.Printf("ready %s\n", l.Addr())
	err = server.Serve(l)
	parts.Wait()
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// update publishes as often as it was asked to. The length of a queue is the time, in microseconds within the second.
func update(ctx context.Context, p publisher, stores int, rate, hot *atomic.Int64) {
	const tick = 5 * time.Millisecond
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	var owed, owedHot float64
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		owed += float64(rate.Load()) * tick.Seconds()
		owedHot += float64(hot.Load()) * tick.Seconds()
		for ; owed >= 1; owed-- {
			publish(p, 1+rand.IntN(stores-1))
		}
		for ; owedHot >= 1; owedHot-- {
			publish(p, 0)
		}
	}
}

func publish(p publisher, store int) {
	now := time.Now()
	p.publish(store, fmt.Appendf(nil, `{"event":"queue","id":"%d","length":%d,"wait_s":315,"wait_high_s":480,"updated_at":"%s"}`,
		store, now.UnixMicro()%1_000_000, now.UTC().Format("2006-01-02T15:04:05.000Z")))
}

// channels publishes to centrifuge's channels, one a store.
type channels struct{ node *centrifuge.Node }

func (c channels) publish(store int, text []byte) {
	_, _ = c.node.Publish(strconv.Itoa(store), text)
}

// hub is what the chat example of gorilla/websocket is, with topics: a goroutine that reads, one that writes, and a channel
// of messages for each client. Who does not keep up is cut off.
type hub struct {
	upgrader websocket.Upgrader
	topics   []topic
}

type topic struct {
	mu      sync.RWMutex
	clients map[*client]bool // guarded by mu
}

type client struct {
	conn *websocket.Conn
	send chan []byte
	done chan struct{}
	once sync.Once
}

func (c *client) end() { c.once.Do(func() { close(c.done); _ = c.conn.Close() }) }

func (h *hub) publish(store int, text []byte) {
	t := &h.topics[store]
	t.mu.RLock()
	defer t.mu.RUnlock()
	for c := range t.clients {
		select {
		case c.send <- text:
		default:
			c.end()
		}
	}
}

func (h *hub) serve(w http.ResponseWriter, r *http.Request) {
	conn, err := h.upgrader.Upgrade(w, r, nil)
	if err != nil {
		return
	}
	c := &client{conn: conn, send: make(chan []byte, 256), done: make(chan struct{})}
	defer c.end()
	var followed []*topic
	defer func() {
		for _, t := range followed {
			t.mu.Lock()
			delete(t.clients, c)
			t.mu.Unlock()
		}
	}()
	go c.write() // ends with the connection
	for {
		var m struct{ Stores []string }
		if err := conn.ReadJSON(&m); err != nil {
			return
		}
		for _, id := range m.Stores {
			n, err := strconv.Atoi(id)
			if err != nil || n < 0 || n >= len(h.topics) {
				return
			}
			t := &h.topics[n]
			t.mu.Lock()
			if t.clients == nil {
				t.clients = map[*client]bool{}
			}
			t.clients[c] = true
			t.mu.Unlock()
			followed = append(followed, t)
		}
		c.send <- []byte(`{"event":"subscribed","stores":[]}`)
	}
}

func (c *client) write() {
	ping := time.NewTicker(54 * time.Second)
	defer ping.Stop()
	defer c.end()
	for {
		var err error
		select {
		case <-c.done:
			return
		case text := <-c.send:
			_ = c.conn.SetWriteDeadline(time.Now().Add(10 * time.Second))
			err = c.conn.WriteMessage(websocket.TextMessage, text)
		case <-ping.C:
			_ = c.conn.SetWriteDeadline(time.Now().Add(10 * time.Second))
			err = c.conn.WriteMessage(websocket.PingMessage, nil)
		}
		if err != nil {
			return
		}
	}
}
