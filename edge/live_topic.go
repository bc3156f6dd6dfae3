package edge

import (
	"strconv"
	"sync/atomic"
	"time"

	"github.com/gobwas/ws"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/geo"
)

// liveChanges is what one call of the feed changed.
type liveChanges struct {
	stores []shortline.StoreID // whose queue or record changed
	moves  []storeMove
}

// storeMove is a store that came, went, or is elsewhere now.
type storeMove struct {
	from, to geo.Point
	was, is  bool
}

func (c *liveChanges) add(before, after *record) {
	c.stores = append(c.stores, after.id)
	m := storeMove{from: geo.Point{Lat: before.lat, Lng: before.lng}, to: geo.Point{Lat: after.lat, Lng: after.lng}, was: before.attrs != nil, is: after.attrs != nil}
	if m.was != m.is || m.is && m.from != m.to {
		c.moves = append(c.moves, m)
	}
}

func (c *liveChanges) reset() {
	if cap(c.stores) > 4096 {
		*c = liveChanges{}
	}
	c.stores, c.moves = c.stores[:0], c.moves[:0]
}

// liveTopic is a store that somebody follows, whether it exists or not.
type liveTopic struct {
	id        shortline.StoreID
	place     atomic.Pointer[livePlace] // nil: to be looked up
	frame     atomic.Pointer[liveFrame]
	refs      int          // how often it is followed; guarded by the hub's mu
	pending   bool         // in the hub's pending; guarded by the hub's mu
	followers [][]follower // by shard; guarded by that shard's mu
}

// livePlace is where a state keeps a store. It means nothing for another state.
type livePlace struct {
	state *state
	slot  *slot
}

// follower is one connection that follows a topic, and the place of the topic among its follows.
type follower struct {
	conn *liveConn
	at   uint32
}

// liveFrame is a message about a store, encoded once for all who follow it.
type liveFrame struct {
	record *record // nil: there is no such store
	queue  liveQueue
	text   []byte // JSON, a part of socket
	socket []byte // as a WebSocket frame
}

// current returns the message that says how the store is now. It is made anew only if the store has changed since.
func (t *liveTopic) current(c *Catalog) *liveFrame {
	rec, queue := t.read(c)
	if f := t.frame.Load(); f != nil && f.record == rec && f.queue == queue {
		return f
	}
	f := newLiveFrame(t.id, rec, queue)
	t.frame.Store(f)
	return f
}

// read returns how the store is; the record is nil where there is no such store.
func (t *liveTopic) read(c *Catalog) (*record, liveQueue) {
	st := c.current.Load()
	at := t.place.Load()
	if at == nil || at.state != st {
		if st == nil {
			return nil, liveQueue{}
		}
		ref, ok := st.lookup(t.id)
		if !ok {
			return nil, liveQueue{}
		}
		at = &livePlace{st, st.slot(ref)}
		t.place.Store(at)
	}
	rec, queue := at.slot.record.Load(), at.slot.live()
	if rec.attrs == nil {
		return nil, liveQueue{}
	}
	return rec, queue
}

func newLiveFrame(id shortline.StoreID, rec *record, queue liveQueue) *liveFrame {
	b := make([]byte, 0, 192)
	b = append(b, 0, 0, 0, 0) // for the header
	if rec == nil {
		b = append(b, `{"event":"removed","id":"`...)
		b = append(append(b, id...), `"}`...)
	} else {
		b = append(b, `{"event":"queue","id":"`...)
		b = append(append(b, id...), `",`...)
		b = append(appendLiveQueue(b, queue, rec.attrs), '}')
	}
	socket := b[4-putTextHeader(b[:4], len(b)-4):]
	return &liveFrame{record: rec, queue: queue, text: b[4:], socket: socket}
}

// appendLiveQueue writes the members of a queue; all are null for a store that never reported.
func appendLiveQueue(b []byte, q liveQueue, a *attrs) []byte {
	if !q.known() {
		return append(b, `"length":null,"wait_s":null,"wait_high_s":null,"updated_at":null`...)
	}
	wait, high := q.wait(a)
	b = strconv.AppendInt(append(b, `"length":`...), int64(q.length()), 10)
	b = strconv.AppendInt(append(b, `,"wait_s":`...), int64(wait), 10)
	b = strconv.AppendInt(append(b, `,"wait_high_s":`...), int64(high), 10)
	b = q.updatedAt().AppendFormat(append(b, `,"updated_at":"`...), time.RFC3339Nano)
	return append(b, '"')
}

// putTextHeader writes the header of a short unmasked text message to the end of b, and returns its length.
func putTextHeader(b []byte, length int) int {
	if length < 126 {
		b[len(b)-2], b[len(b)-1] = 0x80|byte(ws.OpText), byte(length)
		return 2
	}
	b[len(b)-4], b[len(b)-3], b[len(b)-2], b[len(b)-1] = 0x80|byte(ws.OpText), 126, byte(length>>8), byte(length)
	return 4
}

// topic returns the topic of a store, once more followed.
func (h *liveHub) topic(id shortline.StoreID) *liveTopic {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := h.topics[id]
	if t == nil {
		t = &liveTopic{id: id, followers: make([][]follower, len(h.shards))}
		h.topics[id] = t
	}
	t.refs++
	return t
}

// drop gives topics up that were followed once each.
func (h *liveHub) drop(topics ...*liveTopic) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, t := range topics {
		if t.refs--; t.refs == 0 {
			delete(h.topics, t.id)
		}
	}
}
