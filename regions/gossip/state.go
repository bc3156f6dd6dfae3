package gossip

import (
	"encoding/json"
	"fmt"
	"math"
	"net/netip"
	"strings"
	"time"
	"unicode"

	"github.com/hashicorp/serf/coordinate"

	"github.com/shortline/shortline/geo"
	"github.com/shortline/shortline/regions"
)

// Bounds of what is believed of others.
const (
	maxName      = 128
	maxText      = 200
	maxReason    = 120
	maxAddrs     = 4
	maxStatus    = 1150 // bytes of one message: it has to fit into a packet of 1,400 with what goes around it
	maxNodes     = 4096
	maxSync      = 8 << 20
	stateVersion = 1
)

// message is what a node tells of itself, as it is sent. A newer one of the same node has a greater (Born, Seq).
type message struct {
	Version int    `json:"v"`
	Born    int64  `json:"b"` // Unix nanoseconds of the node's start, or later
	Seq     uint64 `json:"q"`

	Name     string         `json:"n"`
	Region   regions.ID     `json:"r"`
	Lat      float64        `json:"la"`
	Lng      float64        `json:"lo"`
	Health   regions.Health `json:"h"`
	Reason   string         `json:"why,omitempty"`
	API      string         `json:"api,omitempty"`
	Cluster  string         `json:"cl,omitempty"`
	Admin    string         `json:"ad,omitempty"`
	Addrs    []netip.Addr   `json:"ip,omitempty"`
	Build    string         `json:"bld,omitempty"`
	Load     float64        `json:"ld,omitempty"`
	Capacity float64        `json:"cap,omitempty"`
	Spill    float64        `json:"sp,omitempty"`
	Writes   bool           `json:"w,omitempty"`
	LagMS    int64          `json:"lag,omitempty"`
	Epoch    uint64         `json:"ep,omitempty"`
	Position regions.LSN    `json:"pos,omitempty"`

	Vec    []float32 `json:"c,omitempty"` // network coordinate
	Height float32   `json:"ch,omitempty"`
	Adjust float32   `json:"ca,omitempty"`
	Error  float32   `json:"ce,omitempty"`
}

// newer tells whether m replaces o.
func (m *message) newer(o *message) bool {
	return m.Born > o.Born || m.Born == o.Born && m.Seq > o.Seq
}

// sameNews tells whether nothing has changed that others should know at once.
func (m *message) sameNews(o *message) bool {
	return m.Health == o.Health && m.API == o.API && m.Cluster == o.Cluster && m.Admin == o.Admin && m.Writes == o.Writes && m.Epoch == o.Epoch &&
		m.Lat == o.Lat && m.Lng == o.Lng && math.Abs(m.Spill-o.Spill) < 0.02 && (m.LagMS > 2000) == (o.LagMS > 2000)
}

func newMessage(s regions.NodeStatus, c *coordinate.Coordinate) *message {
	m := &message{
		Version: stateVersion, Name: s.Name, Region: s.Region, Lat: s.Point.Lat, Lng: s.Point.Lng, Health: s.Health, Reason: clip(s.Reason, maxReason),
		API: s.API, Cluster: s.Cluster, Admin: s.Admin, Addrs: s.Addrs, Build: clip(s.Version, 40), Load: round(s.Load), Capacity: round(s.Capacity),
		Spill: math.Round(s.Spill*10_000) / 10_000, Writes: s.Writes, LagMS: s.Lag.Milliseconds(), Epoch: s.Epoch, Position: s.Position,
	}
	if c != nil {
		m.Vec = make([]float32, len(c.Vec))
		for i, x := range c.Vec {
			m.Vec[i] = float32(x)
		}
		m.Height, m.Adjust, m.Error = float32(c.Height), float32(c.Adjustment), float32(c.Error)
	}
	return m
}

func round(x float64) float64 { return math.Round(x*10) / 10 }

func clip(s string, n int) string {
	if len(s) > n {
		s = s[:n]
	}
	return strings.ToValidUTF8(s, "")
}

func (m *message) encode() ([]byte, error) {
	b, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode the status of %s: %w", m.Name, err)
	}
	if len(b) > maxStatus {
		return nil, fmt.Errorf("the status of %s has %d bytes, more than fit into a packet; use shorter addresses and names", m.Name, len(b))
	}
	return b, nil
}

// decodeMessage reads and checks what another node sent. Members that are not known are of a later version.
func decodeMessage(b []byte) (*message, error) {
	m := new(message)
	if len(b) > maxStatus {
		return nil, fmt.Errorf("a status of %d bytes", len(b))
	}
	if err := json.Unmarshal(b, m); err != nil {
		return nil, fmt.Errorf("a status that cannot be read: %w", err)
	}
	return m, m.check()
}

func (m *message) check() error {
	if m.Version < 1 {
		return fmt.Errorf("a status of version %d", m.Version)
	}
	if m.Name == "" || len(m.Name) > maxName || !printable(m.Name) {
		return fmt.Errorf("a status with the node's name %q", clip(m.Name, 40))
	}
	if _, err := regions.ParseID(string(m.Region)); err != nil {
		return fmt.Errorf("the status of %s: %w", m.Name, err)
	}
	if !(geo.Point{Lat: m.Lat, Lng: m.Lng}).Valid() {
		return fmt.Errorf("the status of %s has the point %v,%v", m.Name, m.Lat, m.Lng)
	}
	for _, s := range []string{m.API, m.Cluster, m.Admin, m.Build, m.Reason, string(m.Health)} {
		if len(s) > maxText || !printable(s) {
			return fmt.Errorf("the status of %s has the text %q", m.Name, clip(s, 40))
		}
	}
	for _, x := range []float64{m.Load, m.Capacity, m.Spill} {
		if !(x >= 0 && x < 1e12) {
			return fmt.Errorf("the status of %s has the number %v", m.Name, x)
		}
	}
	if len(m.Addrs) > maxAddrs || m.LagMS < 0 || m.Spill > 1 || m.Born <= 0 {
		return fmt.Errorf("the status of %s is out of bounds", m.Name)
	}
	if len(m.Vec) > 0 && !m.coordinate().IsValid() || len(m.Vec) > 16 {
		return fmt.Errorf("the status of %s has a coordinate that is none", m.Name)
	}
	return nil
}

func printable(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) || r == unicode.ReplacementChar }) < 0
}

func (m *message) status() regions.NodeStatus {
	return regions.NodeStatus{
		Name: m.Name, Region: m.Region, Point: geo.Point{Lat: m.Lat, Lng: m.Lng}, Health: m.Health, Reason: m.Reason,
		API: m.API, Cluster: m.Cluster, Admin: m.Admin, Addrs: m.Addrs, Version: m.Build, Load: m.Load, Capacity: m.Capacity, Spill: m.Spill,
		Writes: m.Writes, Lag: time.Duration(min(m.LagMS, 1e12)) * time.Millisecond, Epoch: m.Epoch, Position: m.Position,
	}
}

// coordinate is nil where the message has none.
func (m *message) coordinate() *coordinate.Coordinate {
	if len(m.Vec) == 0 {
		return nil
	}
	c := &coordinate.Coordinate{Vec: make([]float64, len(m.Vec)), Height: float64(m.Height), Adjustment: float64(m.Adjust), Error: float64(m.Error)}
	for i, x := range m.Vec {
		c.Vec[i] = float64(x)
	}
	return c
}
