package edge

import (
	"encoding/json"
	"net/netip"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/gobwas/ws"

	"github.com/shortline/shortline"
)

// Close codes of RFC 6455 and what we mean by them.
const (
	closeNormal      = ws.StatusNormalClosure
	closeGoingAway   = ws.StatusGoingAway               // this node is stopping: connect to another one
	closeProtocol    = ws.StatusProtocolError           // what came is no WebSocket
	closeUnsupported = ws.StatusUnsupportedData         // a binary message
	closeInvalidText = ws.StatusInvalidFramePayloadData // text that is not UTF-8
	closePolicy      = ws.StatusPolicyViolation         // too many messages, or the key was revoked
	closeTooBig      = ws.StatusMessageTooBig
)

// Bounds of one connection.
const (
	maxLiveMessage  = 16 << 10         // bytes of one message from a client
	maxStoresAtOnce = 200              // stores named in one message
	messageBurst    = 10               // seconds' worth of messages that may come at once
	maxFlush        = 8 << 10          // bytes of queues in one write; what goes beyond waits for the next one
	messageTime     = 10 * time.Second // for a message to arrive in once it has begun
	closeLinger     = 2 * time.Second  // for the client to take the close frame and hang up
)

// Why a connection ended: the label reason.
const (
	endClient    = "client"    // it closed, or is gone
	endStalled   = "stalled"   // it took nothing for too long
	endSilent    = "silent"    // it gave no sign of life
	endProtocol  = "protocol"  // it does not speak WebSocket, or sends what is too large
	endFlood     = "flood"     // it sent too many messages
	endKey       = "key"       // its API key was revoked
	endDrained   = "drained"   // it was asked to go elsewhere, and did not
	endShutdown  = "shutdown"  // it was cut off at the end
	endHandshake = "handshake" // the answer to its request could not be sent
)

var endReasons = []string{endClient, endStalled, endSilent, endProtocol, endFlood, endKey, endDrained, endShutdown, endHandshake}

// liveConn is one connection. It is made for being many: everything that most of them do not need hangs on extra.
type liveConn struct {
	hub     *liveHub
	shard   *liveShard
	wire    liveWire
	address netip.Addr
	key     shortline.KeyID
	sse     bool

	seen  atomic.Int64 // when something came last, in nanoseconds since 1970
	began atomic.Int64 // when the message that is being read began; 0: none is

	// The rest is guarded by the shard's mu.
	follows  []follow
	extra    *liveExtra // nil: neither an area nor something to say
	at       int32      // place among the shard's conns
	dirty    int32      // follows that are
	queued   bool       // in the shard's queue
	writing  bool       // a goroutine writes what the kernel did not take at once
	ping     bool       // is to be sent
	closing  bool       // the last has been said
	ended    bool
	nextPing int64
	closeBy  int64  // when to hang up after the last was said; 0: not yet
	reason   string // why it is being closed
}

// follow is one store that a connection follows.
type follow struct {
	topic *liveTopic
	at    uint32 // place among the topic's followers of the shard
	flags followFlags
}

type followFlags uint8

const (
	followDirty  followFlags = 1 << iota // changed since it was last sent
	followByID                           // the client named it
	followByArea                         // it is in the client's area
)

// liveExtra is what only some connections need.
type liveExtra struct {
	area    *liveArea
	answers []liveAnswer
	taken   chan struct{} // closed when the answers have been taken; nil: nobody waits
}

// liveAnswer is something to say besides changes.
type liveAnswer struct {
	text  []byte              // JSON, sent as it is
	frame []byte              // a frame as it is
	ids   []shortline.StoreID // a snapshot of these is sent
	close ws.StatusCode       // nothing is said after it
	why   string
}

func (c *liveConn) more() *liveExtra {
	if c.extra == nil {
		c.extra = new(liveExtra)
	}
	return c.extra
}

// say puts answers into the mailbox.
func (c *liveConn) say(answers ...liveAnswer) {
	s := c.shard
	s.mu.Lock()
	c.sayLocked(answers...)
	s.mu.Unlock()
}

func (c *liveConn) sayLocked(answers ...liveAnswer) {
	if c.ended || c.closing {
		return
	}
	x := c.more()
	x.answers = append(x.answers, answers...)
	c.shard.enqueueLocked(c)
}

// close says why it ends, and hangs up once the client has had the time to read it.
func (c *liveConn) close(code ws.StatusCode, why, reason string) {
	s := c.shard
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.reason != "" {
		return
	}
	c.reason = reason
	c.sayLocked(liveAnswer{close: code, why: why})
}

// end hangs up at once. Only the first reason counts.
func (c *liveConn) end(reason string) {
	s := c.shard
	s.mu.Lock()
	if c.ended {
		s.mu.Unlock()
		return
	}
	c.ended = true
	if c.reason != "" {
		reason = c.reason
	}
	s.removeLocked(c)
	topics := make([]*liveTopic, len(c.follows))
	for i := range c.follows {
		topics[i] = c.follows[i].topic
		s.unfollowLocked(c, i)
	}
	c.follows, c.dirty = nil, 0
	var taken chan struct{}
	hadArea := false
	if x := c.extra; x != nil {
		taken, hadArea = x.taken, x.area != nil
		c.extra = nil
	}
	s.mu.Unlock()
	c.hub.drop(topics...)
	if hadArea {
		c.hub.countAreas(-1)
	}
	c.hub.leave(c)
	c.hub.metrics.ended(c, reason)
	_ = c.wire.close()
	if taken != nil {
		close(taken)
	}
}

func (h *liveHub) countAreas(by int) {
	h.mu.Lock()
	h.areas += by
	h.mu.Unlock()
}

// awaitTaken waits until what was said has been taken out of the mailbox, or the connection has ended. So a client that
// asks and does not read is not asked what more it wants.
func (c *liveConn) awaitTaken() {
	s := c.shard
	s.mu.Lock()
	if c.ended || c.extra == nil || len(c.extra.answers) == 0 {
		s.mu.Unlock()
		return
	}
	if c.extra.taken == nil {
		c.extra.taken = make(chan struct{})
	}
	taken := c.extra.taken
	s.mu.Unlock()
	<-taken
}

// subscribe follows stores by id, and sends how they are. It tells how many could not be followed because there would be too
// many; then none is.
func (c *liveConn) subscribe(ids []shortline.StoreID) (over int) {
	s := c.shard
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.ended {
		return 0
	}
	fresh := 0
	for _, id := range ids {
		if c.findLocked(id) < 0 {
			fresh++
		}
	}
	if most := c.hub.cfg.Stores; most > 0 && len(c.follows)+fresh > most {
		return len(c.follows) + fresh - most
	}
	c.follows = slices.Grow(c.follows, fresh)
	for _, id := range ids {
		s.followLocked(c, id, followByID)
	}
	c.sayLocked(liveAnswer{ids: ids})
	return 0
}

// findLocked returns the place of a store among the follows, or -1.
func (c *liveConn) findLocked(id shortline.StoreID) int {
	return slices.IndexFunc(c.follows, func(f follow) bool { return f.topic.id == id })
}

// unsubscribe gives up stores that were named; all of them where ids is nil.
func (c *liveConn) unsubscribe(ids []shortline.StoreID) {
	s := c.shard
	s.mu.Lock()
	defer s.mu.Unlock()
	if ids == nil {
		s.dropFlagLocked(c, followByID, func(*liveTopic) bool { return true })
		return
	}
	for _, id := range ids {
		s.dropFlagLocked(c, followByID, func(t *liveTopic) bool { return t.id == id })
	}
}

// appendSnapshot writes the stores with these ids as they are; those that do not exist are told apart.
func (c *liveConn) appendSnapshot(b []byte, ids []shortline.StoreID) []byte {
	b = append(b, `{"event":"subscribed","stores":[`...)
	var missing []shortline.StoreID
	first := true
	for _, id := range ids {
		i := c.findLocked(id)
		if i < 0 {
			continue // unsubscribed again meanwhile
		}
		rec, queue := c.follows[i].topic.read(c.hub.catalog)
		if rec == nil {
			missing = append(missing, id)
			continue
		}
		if !first {
			b = append(b, ',')
		}
		first = false
		b = append(append(append(b, `{"id":"`...), id...), `",`...)
		b = append(appendLiveQueue(b, queue, rec.attrs), '}')
	}
	b = append(b, ']')
	for i, id := range missing {
		if i == 0 {
			b = append(b, `,"missing":[`...)
		} else {
			b = append(b, ',')
		}
		b = append(append(append(b, '"'), id...), '"')
	}
	if len(missing) > 0 {
		b = append(b, ']')
	}
	return c.appendPosition(b)
}

// appendPosition ends a snapshot with the place in history that it stands for.
func (c *liveConn) appendPosition(b []byte) []byte {
	b = append(append(b, `,"region":"`...), c.hub.region...)
	return append(append(append(b, `","token":"`...), c.hub.token()...), `"}`...)
}

// sendReconnect asks the client to go elsewhere within the time.
func (c *liveConn) sendReconnect(within time.Duration) {
	s := c.shard
	s.mu.Lock()
	defer s.mu.Unlock()
	var regions []LiveRegion
	if c.hub.elsewhere != nil {
		if c.extra != nil && c.extra.area != nil {
			regions = c.hub.elsewhere.Elsewhere(&c.extra.area.at)
		} else {
			regions = c.hub.elsewhere.Elsewhere(nil)
		}
	}
	b := []byte(`{"event":"reconnect","regions":[`)
	for i, r := range regions {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(appendJSON(append(b, `{"name":`...), r.Name), `,"url":`...)
		b = append(appendJSON(b, r.URL), '}')
	}
	b = strconv.AppendInt(append(b, `],"within_s":`...), int64(within/time.Second), 10)
	c.sayLocked(liveAnswer{text: append(b, '}')})
}

// read returns what the client sends. Every byte is a sign of life, and the first one after a message begins another.
func (c *liveConn) read(b []byte) (int, error) {
	n, err := c.wire.read(b)
	if n > 0 {
		now := time.Now().UnixNano()
		c.seen.Store(now)
		c.began.CompareAndSwap(0, now)
	}
	return n, err
}

// discard throws away what still comes, until the client hangs up, or the sweep does for it, or it is too much.
func (c *liveConn) discard() {
	var b [512]byte
	for range 2048 {
		if _, err := c.wire.read(b[:]); err != nil {
			break
		}
	}
	c.end(endClient)
}

// refuse tells the client what is wrong with its message; the connection goes on.
func (c *liveConn) refuse(err error) {
	problem := asAPIError(err)
	if problem.kind.status >= 500 {
		c.hub.log.Debug("live message refused", "err", err)
	}
	text, err := json.Marshal(struct {
		Event string `json:"event"`
		Problem
	}{"error", problem.problem()})
	if err == nil { // it has nothing that cannot be written
		c.say(liveAnswer{text: text})
	}
}
