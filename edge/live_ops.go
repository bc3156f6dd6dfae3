package edge

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/geo"
	"github.com/shortline/shortline/replication"
)

// liveMessage is what a client may send.
type liveMessage struct {
	Op     string          `json:"op"`
	Stores *[]string       `json:"stores"`
	Lat    *float64        `json:"lat"`
	Lng    *float64        `json:"lng"`
	Radius json.RawMessage `json:"radius"` // metres, or a text with a unit
	Limit  *int            `json:"limit"`
	Token  string          `json:"token"`
}

// liveOrder is a message understood.
type liveOrder struct {
	op      string
	ids     []shortline.StoreID // nil: none named
	area    bool
	at      geo.Point
	radius  geo.Metres
	limit   int
	token   replication.Token
	hasMark bool
}

// parseLive reads a message of a client.
func parseLive(payload []byte) (liveOrder, error) {
	var m liveMessage
	if len(bytes.TrimSpace(payload)) == 0 {
		return liveOrder{}, malformed("body", "is empty; a JSON object such as {\"op\":\"ping\"} is required")
	}
	if err := decode(payload, &m); err != nil {
		return liveOrder{}, err
	}
	o := liveOrder{op: m.Op, area: m.Lat != nil || m.Lng != nil, radius: defaultRadius, limit: defaultLimit}
	switch m.Op {
	case "subscribe", "unsubscribe":
	case "ping":
		if m.Stores != nil || o.area {
			return o, malformed("op", "ping takes no other member")
		}
		return o, nil
	case "":
		return o, malformed("op", "is required: subscribe, unsubscribe or ping")
	default:
		return o, malformed("op", "%q is not one of subscribe, unsubscribe, ping", clip(m.Op))
	}
	if m.Stores != nil {
		if err := o.setStores(*m.Stores); err != nil {
			return o, err
		}
	}
	if err := o.setArea(&m); err != nil {
		return o, err
	}
	if m.Op == "subscribe" && o.ids == nil && !o.area {
		return o, malformed("stores", "is required, or lat and lng: what is to be followed")
	}
	if m.Token != "" {
		var err error
		if o.token, err = replication.ParseToken(m.Token); err != nil {
			return o, malformed("token", "%v", err)
		}
		o.hasMark = true
	}
	return o, nil
}

func (o *liveOrder) setStores(names []string) error {
	if len(names) > maxStoresAtOnce {
		return invalid("stores", "has %d entries; at most %d fit into one message, send several", len(names), maxStoresAtOnce)
	}
	o.ids = make([]shortline.StoreID, 0, len(names))
	for i, name := range names {
		id, err := shortline.ParseStoreID(name)
		if err != nil {
			return invalid(fmt.Sprintf("stores[%d]", i), "%v", err)
		}
		if !slices.Contains(o.ids, id) {
			o.ids = append(o.ids, id)
		}
	}
	return nil
}

func (o *liveOrder) setArea(m *liveMessage) error {
	if !o.area {
		if m.Radius != nil || m.Limit != nil {
			return malformed("lat", "is required beside radius and limit, and so is lng")
		}
		return nil
	}
	if m.Lat == nil {
		return malformed("lat", "is required beside lng")
	}
	if m.Lng == nil {
		return malformed("lng", "is required beside lat")
	}
	o.at = geo.Point{Lat: *m.Lat, Lng: *m.Lng}
	if err := shortline.CheckCoordinates("lat", o.at.Lat, "lng", o.at.Lng); err != nil {
		return err
	}
	if text := string(m.Radius); text != "" && text != "null" {
		if text[0] == '"' {
			if err := json.Unmarshal(m.Radius, &text); err != nil {
				return malformed("radius", "cannot be read: %v", err)
			}
		}
		var err error
		if o.radius, err = parseRadius(text); err != nil {
			return err
		}
	}
	if m.Limit != nil {
		o.limit = *m.Limit
	}
	if o.limit < 1 || o.limit > maxLimit {
		return invalid("limit", "%d is not between 1 and %d", o.limit, maxLimit)
	}
	return nil
}

// obey does what a message asks for.
func (c *liveConn) obey(payload []byte) error {
	o, err := parseLive(payload)
	if err != nil {
		return err
	}
	switch o.op {
	case "ping":
		c.say(liveAnswer{text: []byte(`{"event":"pong"}`)})
		return nil
	case "unsubscribe":
		if o.ids != nil || !o.area {
			c.unsubscribe(o.ids)
		}
		if o.area || o.ids == nil {
			c.unsubscribeArea()
		}
		c.say(liveAnswer{text: []byte(`{"event":"unsubscribed"}`)})
		return nil
	}
	if o.hasMark {
		c.hub.catchUp(o.token)
	}
	return c.follow(&o)
}

// follow subscribes to what the order names.
func (c *liveConn) follow(o *liveOrder) error {
	if o.ids != nil {
		if over := c.subscribe(o.ids); over > 0 {
			return invalid("stores", "are %d more than the %d that one connection may follow", over, c.hub.cfg.Stores)
		}
	}
	if o.area {
		if over := c.subscribeArea(o.at, o.radius, o.limit); over > 0 {
			return invalid("limit", "makes %d stores more than the %d that one connection may follow", over, c.hub.cfg.Stores)
		}
	}
	return nil
}
