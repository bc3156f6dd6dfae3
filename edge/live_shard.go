package edge

import (
	"bytes"
	"context"
	"errors"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/gobwas/ws"

	"github.com/shortline/shortline"
)

// liveShard owns a part of the connections: one goroutine takes what is in their mailboxes and writes it.
type liveShard struct {
	hub    *liveHub
	number int
	wake   chan struct{} // one element: there is something in the queue

	mu    sync.Mutex
	conns []*liveConn // guarded by mu
	queue []*liveConn // with something to say; each once; guarded by mu
}

// flushBatch is how many mailboxes are emptied under one lock.
const flushBatch = 64

// letter is what was in one mailbox.
type letter struct {
	conn     *liveConn
	shared   []byte // one frame that others get too; nil: from and to are a part of the arena
	from, to int
	last     bool // the close frame is in it
}

// run writes until ctx ends.
func (s *liveShard) run(ctx context.Context) {
	var letters []letter
	var arena []byte
	writer := newRawWriter()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		}
		for more := true; more && ctx.Err() == nil; {
			letters, arena, more = s.collect(letters[:0], arena[:0])
			for i := range letters {
				l := &letters[i]
				text := l.shared
				if text == nil {
					text = arena[l.from:l.to]
				}
				s.deliver(writer, l.conn, text, l.last)
				l.conn = nil
			}
			if cap(arena) > 1<<20 { // after a wave of snapshots
				arena = nil
			}
		}
	}
}

// collect empties some mailboxes, and tells whether there are more.
func (s *liveShard) collect(letters []letter, arena []byte) (_ []letter, _ []byte, more bool) {
	var frames, writes int
	s.mu.Lock()
	n, end := 0, min(len(s.queue), flushBatch) // nobody gets two letters: the first may be cut short
	for n < end {
		c := s.queue[n]
		n++
		c.queued = false
		if c.ended || c.writing || c.closing {
			continue
		}
		l := letter{conn: c, from: len(arena)}
		var said int
		l.shared, arena, said, l.last = s.emptyLocked(c, arena)
		l.to = len(arena)
		if l.shared == nil && l.from == l.to && !l.last {
			continue
		}
		frames += said
		writes++
		letters = append(letters, l)
		if c.dirty > 0 || c.extra != nil && len(c.extra.answers) > 0 { // more than goes into one letter
			c.queued = true
			s.queue = append(s.queue, c)
		}
	}
	rest := copy(s.queue, s.queue[n:])
	clear(s.queue[rest:])
	s.queue = s.queue[:rest]
	more = rest > 0
	s.mu.Unlock()
	s.hub.metrics.messages.Add(float64(frames))
	s.hub.metrics.writes.Add(float64(writes))
	return letters, arena, more
}

// emptyLocked takes what is in a mailbox: one shared frame, or something written to the arena.
func (s *liveShard) emptyLocked(c *liveConn, arena []byte) (shared, _ []byte, frames int, last bool) {
	if c.ping {
		c.ping = false
		if c.sse {
			arena = append(arena, ": ping\n\n"...)
		} else {
			arena = append(arena, pingFrame...)
		}
	}
	if c.extra != nil {
		if arena, frames, last = s.answerLocked(c, arena); last {
			c.closing = true
			return nil, arena, frames, true
		}
	}
	if c.dirty == 0 {
		return nil, arena, frames, false
	}
	only := c.dirty == 1 && frames == 0 && !c.sse
	written := 0
	for i := range c.follows {
		f := &c.follows[i]
		if f.flags&followDirty == 0 {
			continue
		}
		f.flags &^= followDirty
		c.dirty--
		frame := f.topic.current(s.hub.catalog)
		frames++
		if only && len(arena) == 0 {
			return frame.socket, arena, frames, false
		}
		if c.sse {
			arena = appendEvent(arena, frame.text, s.hub.token())
		} else {
			arena = append(arena, frame.socket...)
		}
		if written += len(frame.text); written > maxFlush || c.dirty == 0 {
			break
		}
	}
	return nil, arena, frames, false
}

// answerLocked writes answers: all of them, or as many as fit.
func (s *liveShard) answerLocked(c *liveConn, b []byte) (_ []byte, frames int, last bool) {
	x := c.extra
	if x.area != nil && x.area.dirty {
		before := len(b)
		if b = s.refreshLocked(c, b); len(b) > before {
			frames++
		}
	}
	done := 0
	for start := len(b); done < len(x.answers) && len(b)-start < maxFlush && !last; done++ {
		a := &x.answers[done]
		switch {
		case a.frame != nil:
			b = append(b, a.frame...)
		case a.close != 0:
			if !c.sse {
				b = appendCloseFrame(b, a.close, a.why)
			}
			last = true
		case a.text != nil:
			b = c.appendMessage(b, func(b []byte) []byte { return append(b, a.text...) })
			frames++
		case a.ids != nil:
			for _, id := range a.ids { // the snapshot is as new as what is in the mailbox
				if i := c.findLocked(id); i >= 0 {
					c.cleanLocked(i)
				}
			}
			b = c.appendMessage(b, func(b []byte) []byte { return c.appendSnapshot(b, a.ids) })
			frames++
		}
	}
	x.answers = slices.Delete(x.answers, 0, done)
	if len(x.answers) == 0 {
		x.answers = nil
		if x.taken != nil {
			close(x.taken)
			x.taken = nil
		}
		if x.area == nil {
			c.extra = nil
		}
	}
	return b, frames, last
}

func (c *liveConn) cleanLocked(i int) {
	if f := &c.follows[i]; f.flags&followDirty != 0 {
		f.flags &^= followDirty
		c.dirty--
	}
}

// appendMessage writes one message in the form of the connection.
func (c *liveConn) appendMessage(b []byte, text func([]byte) []byte) []byte {
	if c.sse {
		return appendEvent(b, text(nil), c.hub.token())
	}
	const room = 10 // of the longest header
	start := len(b)
	b = text(append(b, make([]byte, room)...))
	length := len(b) - start - room
	var header [room]byte
	n := putHeader(header[:], length)
	copy(b[start:], header[:n])
	copy(b[start+n:], b[start+room:])
	return b[:start+n+length]
}

// appendEvent writes a message as a server-sent event, which is named as the message is.
func appendEvent(b, text []byte, token string) []byte {
	name, _, _ := bytes.Cut(text[len(`{"event":"`):], []byte(`"`))
	b = append(append(b, "event: "...), name...)
	if token != "" {
		b = append(append(b, "\nid: "...), token...)
	}
	b = append(append(b, "\ndata: "...), text...)
	return append(b, "\n\n"...)
}

// putHeader writes the header of an unmasked text message of any length, and returns its length.
func putHeader(b []byte, length int) int {
	b[0] = 0x80 | byte(ws.OpText)
	switch {
	case length < 126:
		b[1] = byte(length)
		return 2
	case length < 1<<16:
		b[1], b[2], b[3] = 126, byte(length>>8), byte(length)
		return 4
	}
	b[1] = 127
	for i := range 8 {
		b[2+i] = byte(length >> (56 - 8*i))
	}
	return 10
}

var pingFrame = []byte{0x80 | byte(ws.OpPing), 0}

func appendCloseFrame(b []byte, code ws.StatusCode, why string) []byte {
	why = why[:min(len(why), 120)]
	b = append(b, 0x80|byte(ws.OpClose), byte(2+len(why)), byte(code>>8), byte(code))
	return append(b, why...)
}

// deliver writes one letter. What the kernel does not take at once, a goroutine of its own writes, with a deadline.
func (s *liveShard) deliver(writer *rawWriter, c *liveConn, text []byte, last bool) {
	n, err := c.wire.try(writer, text)
	switch {
	case err != nil:
		c.end(endClient)
		return
	case n == len(text):
		if last {
			s.saidLast(c)
		}
		return
	}
	rest := slices.Clone(text[n:])
	s.mu.Lock()
	if c.ended {
		s.mu.Unlock()
		return
	}
	c.writing = true
	s.mu.Unlock()
	s.hub.metrics.stalled.Add(1)
	s.hub.talks.Go(func() {
		err := c.wire.finish(rest, time.Now().Add(s.hub.cfg.StallAfter))
		s.hub.metrics.stalled.Add(-1)
		s.finished(c, err, last)
	})
}

// finished is told that what a goroutine had to write is written.
func (s *liveShard) finished(c *liveConn, err error, last bool) {
	if err != nil {
		reason := endClient
		if errors.Is(err, os.ErrDeadlineExceeded) {
			reason = endStalled
		}
		c.end(reason)
		return
	}
	if last {
		s.saidLast(c)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c.writing = false
	if c.dirty > 0 || c.ping || c.extra != nil && (len(c.extra.answers) > 0 || c.extra.area != nil && c.extra.area.dirty) {
		s.enqueueLocked(c)
	}
}

// saidLast hangs up. A client that was the first to say so knows; any other one gets some time to read why.
func (s *liveShard) saidLast(c *liveConn) {
	s.mu.Lock()
	known := c.reason == endClient
	c.closeBy = time.Now().Add(closeLinger).UnixNano()
	s.mu.Unlock()
	if known {
		c.end(endClient)
		return
	}
	c.wire.closeWrite()
}

func (s *liveShard) enqueueLocked(c *liveConn) {
	if c.queued || c.writing || c.ended || c.closing {
		return
	}
	c.queued = true
	s.queue = append(s.queue, c)
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// mark puts changes into the mailboxes of those who follow the stores.
func (s *liveShard) mark(topics []*liveTopic, moves []storeMove, all bool) {
	var coalesced int
	s.mu.Lock()
	for _, t := range topics {
		for _, f := range t.followers[s.number] {
			c := f.conn
			fl := &c.follows[f.at].flags
			if *fl&followDirty != 0 {
				coalesced++
				continue
			}
			*fl |= followDirty
			c.dirty++
			s.enqueueLocked(c)
		}
	}
	if all || len(moves) > 0 {
		for _, c := range s.conns {
			if x := c.extra; x != nil && x.area != nil && !x.area.dirty && (all || x.area.touched(moves)) {
				x.area.dirty = true
				s.enqueueLocked(c)
			}
		}
	}
	s.mu.Unlock()
	if coalesced > 0 {
		s.hub.metrics.coalesced.Add(float64(coalesced))
	}
}

// add takes a connection in.
func (s *liveShard) add(c *liveConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.at = int32(len(s.conns))
	s.conns = append(s.conns, c)
}

func (s *liveShard) removeLocked(c *liveConn) {
	last := s.conns[len(s.conns)-1]
	s.conns[c.at] = last
	last.at = c.at
	s.conns[len(s.conns)-1] = nil
	s.conns = s.conns[:len(s.conns)-1]
}

// all returns the connections that there are.
func (s *liveShard) all() []*liveConn {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.conns)
}

// followLocked lets a connection follow a store for one more reason.
func (s *liveShard) followLocked(c *liveConn, id shortline.StoreID, why followFlags) {
	if i := c.findLocked(id); i >= 0 {
		c.follows[i].flags |= why
		return
	}
	t := s.hub.topic(id)
	list := t.followers[s.number]
	t.followers[s.number] = append(list, follower{c, uint32(len(c.follows))})
	c.follows = append(c.follows, follow{topic: t, at: uint32(len(list)), flags: why})
}

// unfollowLocked takes a connection off a topic's list; its own list stays as it is.
func (s *liveShard) unfollowLocked(c *liveConn, i int) {
	f := &c.follows[i]
	list := f.topic.followers[s.number]
	last := list[len(list)-1]
	list[f.at] = last
	last.conn.follows[last.at].at = f.at
	list[len(list)-1] = follower{}
	f.topic.followers[s.number] = list[:len(list)-1]
}

// dropFlagLocked takes a reason from the follows that match, and gives up those for which there is no other.
func (s *liveShard) dropFlagLocked(c *liveConn, why followFlags, match func(*liveTopic) bool) {
	var gone []*liveTopic
	for i := 0; i < len(c.follows); {
		f := &c.follows[i]
		if f.flags&why == 0 || !match(f.topic) {
			i++
			continue
		}
		if f.flags &^= why; f.flags&(followByID|followByArea) != 0 {
			i++
			continue
		}
		c.cleanLocked(i)
		gone = append(gone, f.topic)
		s.unfollowLocked(c, i)
		last := len(c.follows) - 1
		if i != last {
			c.follows[i] = c.follows[last]
			moved := &c.follows[i]
			moved.topic.followers[s.number][moved.at].at = uint32(i)
		}
		c.follows[last] = follow{}
		c.follows = c.follows[:last]
	}
	s.hub.drop(gone...)
}

// sweep looks after every connection once.
func (s *liveShard) sweep(now time.Time) {
	at := now.UnixNano()
	every := int64(s.hub.cfg.PingEvery)
	type verdict struct {
		conn   *liveConn
		reason string
	}
	var over []verdict
	var revoked []*liveConn
	s.mu.Lock()
	for _, c := range s.conns {
		began := c.began.Load()
		switch {
		case c.closeBy != 0 && at > c.closeBy:
			over = append(over, verdict{c, endClient})
		case began != 0 && at-began > int64(messageTime):
			over = append(over, verdict{c, endSilent})
		case !c.sse && at-c.seen.Load() > 2*every+every/2:
			over = append(over, verdict{c, endSilent})
		case at >= c.nextPing:
			c.nextPing = at + every
			c.ping = true
			s.enqueueLocked(c)
			if c.key != "" && s.hub.keyRevoked(c.key) {
				revoked = append(revoked, c)
			}
		}
	}
	s.mu.Unlock()
	for _, v := range over {
		v.conn.end(v.reason)
	}
	for _, c := range revoked {
		c.refuse(unauthorized("this API key was revoked; make another with: shortline keys create"))
		c.close(closePolicy, "the API key was revoked", endKey)
	}
}

// keyRevoked tells whether a key that was good is no longer.
func (h *liveHub) keyRevoked(id shortline.KeyID) bool {
	st := h.catalog.current.Load()
	if st == nil {
		return false
	}
	key := st.key(id)
	return key == nil || key.Ended(time.Now())
}
