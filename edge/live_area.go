package edge

import (
	"slices"
	"strconv"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/geo"
)

// liveArea is a place whose nearest stores a connection follows, whichever they are at the moment.
type liveArea struct {
	at      geo.Point
	radius  geo.Metres
	limit   int
	bound   geo.Metres // a store farther away than this cannot change the set by coming
	members []areaMember
	dirty   bool // to be looked at anew
	sent    bool
}

type areaMember struct {
	id       shortline.StoreID
	distance geo.Metres
}

// touched tells whether one of the moves may have changed the stores of the area, or how far away they are.
func (a *liveArea) touched(moves []storeMove) bool {
	const slack = 1 // metre, for the rounding of distances
	for i := range moves {
		m := &moves[i]
		if m.was && geo.Distance(a.at, m.from) <= a.bound+slack || m.is && geo.Distance(a.at, m.to) <= a.bound+slack {
			return true
		}
	}
	return false
}

// search returns the stores of the area as they are.
func (a *liveArea) search(st *state) []areaMember {
	found := make([]areaMember, 0, a.limit)
	a.bound = a.radius
	if st == nil {
		return found
	}
	st.index.Nearby(a.at, geo.Search{Within: a.radius}, func(hit geo.Hit) bool {
		if rec := st.record(hit.Ref); rec.attrs != nil {
			found = append(found, areaMember{rec.id, hit.Distance})
		}
		return len(found) < a.limit
	})
	if len(found) == a.limit {
		a.bound = found[a.limit-1].distance
	}
	return found
}

// refreshLocked looks the area up anew. If it has other stores than what the client was told, the connection follows those,
// and they are written to b.
func (s *liveShard) refreshLocked(c *liveConn, b []byte) []byte {
	a := c.extra.area
	a.dirty = false
	now := a.search(s.hub.catalog.current.Load())
	if a.sent && slices.Equal(now, a.members) {
		return b
	}
	gone := map[shortline.StoreID]bool{}
	for _, m := range a.members {
		gone[m.id] = true
	}
	for _, m := range now {
		delete(gone, m.id)
	}
	if len(gone) > 0 {
		s.dropFlagLocked(c, followByArea, func(t *liveTopic) bool { return gone[t.id] })
	}
	for _, m := range now {
		s.followLocked(c, m.id, followByArea)
		c.cleanLocked(c.findLocked(m.id)) // what is sent now is as new as what is in the mailbox
	}
	a.members, a.sent = now, true
	return c.appendMessage(b, c.appendArea)
}

// appendArea writes the stores of the area, nearest first.
func (c *liveConn) appendArea(b []byte) []byte {
	a := c.extra.area
	b = append(b, `{"event":"subscribed","area":{"lat":`...)
	b = strconv.AppendFloat(b, a.at.Lat, 'f', -1, 64)
	b = strconv.AppendFloat(append(b, `,"lng":`...), a.at.Lng, 'f', -1, 64)
	b = appendMilli(append(b, `,"radius":`...), float64(a.radius))
	b = strconv.AppendInt(append(b, `,"limit":`...), int64(a.limit), 10)
	b = append(b, `},"stores":[`...)
	first := true
	for _, m := range a.members {
		rec, queue := c.follows[c.findLocked(m.id)].topic.read(c.hub.catalog)
		if rec == nil { // deleted since the search; the area is looked at again
			continue
		}
		if !first {
			b = append(b, ',')
		}
		first = false
		b = append(append(append(b, `{"id":"`...), m.id...), `","lat":`...)
		b = strconv.AppendFloat(b, rec.lat, 'f', -1, 64)
		b = strconv.AppendFloat(append(b, `,"lng":`...), rec.lng, 'f', -1, 64)
		b = append(appendMilli(append(b, `,"distance_m":`...), float64(m.distance)), ',')
		b = append(appendLiveQueue(b, queue, rec.attrs), '}')
	}
	return c.appendPosition(append(b, ']'))
}

// subscribeArea follows the nearest stores of a place, instead of those of the place before. It tells how many stores would
// be too many; then nothing changes.
func (c *liveConn) subscribeArea(at geo.Point, radius geo.Metres, limit int) (over int) {
	s := c.shard
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.ended {
		return 0
	}
	named := 0
	for i := range c.follows {
		if c.follows[i].flags&followByID != 0 {
			named++
		}
	}
	if most := c.hub.cfg.Stores; most > 0 && named+limit > most {
		return named + limit - most
	}
	x := c.more()
	area := &liveArea{at: at, radius: radius, limit: limit, bound: radius, dirty: true}
	if x.area != nil {
		area.members = x.area.members
	} else {
		c.hub.countAreas(1) // before the search: what comes between is published
	}
	x.area = area
	s.enqueueLocked(c)
	return 0
}

// unsubscribeArea gives up the stores that are followed because they are near.
func (c *liveConn) unsubscribeArea() {
	s := c.shard
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.extra == nil || c.extra.area == nil {
		return
	}
	c.extra.area = nil
	c.hub.countAreas(-1)
	s.dropFlagLocked(c, followByArea, func(*liveTopic) bool { return true })
}
