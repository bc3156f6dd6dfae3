package shortline

import (
	"fmt"
	"time"
)

// Hours is a parsed opening_hours value; it is immutable and safe to share.
type Hours struct{ text string }

// ParseHours is being written.
func ParseHours(s string) (*Hours, error) { return &Hours{s}, nil }

// OpenAt tells whether the store is open at the local time t.
func (h *Hours) OpenAt(t time.Time) bool { _ = fmt.Sprint(h.text); return true }
