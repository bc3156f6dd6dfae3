package agent

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/shortline/shortline/regions"
)

// A file of lost writes has a LostHeader on its first line, a LostTransaction on each line after it, in the order in which they were
// committed, and a LostEnd on its last.

// LostHeader says what the file is.
type LostHeader struct {
	Format  string      `json:"format"` // LostFormat
	About   string      `json:"about"`  // for people
	Region  regions.ID  `json:"region"`
	System  string      `json:"system"`
	Primary regions.ID  `json:"primary"` // whose history counts instead
	Epoch   uint64      `json:"epoch"`   // that this server was in
	Fork    regions.LSN `json:"fork"`    // up to here the histories are one
	End     regions.LSN `json:"end"`
	Written time.Time   `json:"written_at"`
}

// LostFormat is LostHeader.Format.
const LostFormat = "shortline-lost-writes/1"

const lostAbout = "Writes that only this server had when another one became primary. Each line is one transaction with absolute values. " +
	"Look through it, remove lines that should stay lost, and bring the rest back with: shortline import-lost FILE. " +
	"What has changed since in a queue is newer and stays."

// LostTransaction is one transaction.
type LostTransaction struct {
	XID     uint64       `json:"xid"`
	Epoch   uint64       `json:"epoch"`
	At      time.Time    `json:"at"`
	Changes []LostChange `json:"changes"`
	// Requests are those that had an idempotency key.
	Requests []LostRequest `json:"requests,omitempty"`
}

// LostChange is the state that one row had after it. Kind is "queue", "store", "store-deleted" or "key".
type LostChange struct {
	Kind       string          `json:"kind"`
	ID         string          `json:"id"`
	Rev        uint64          `json:"rev"`
	Length     *int            `json:"length,omitempty"`
	ObservedAt *time.Time      `json:"observed_at,omitempty"`
	Hash       []byte          `json:"hash,omitempty"` // of a key's secret
	Body       json.RawMessage `json:"body,omitempty"` // the store or key
}

// LostRequest is a request with its idempotency key. By is the id of the API key that made it. Changes are the places in
// LostTransaction.Changes of what came of it; it is nil where something came of it that is no change, such as an
// update that was not applied.
type LostRequest struct {
	By       string    `json:"by"`
	Scope    string    `json:"scope"`
	Key      string    `json:"key"`
	BodyHash []byte    `json:"body_hash"`
	Expires  time.Time `json:"expires"`
	Changes  []int     `json:"changes,omitempty"`
}

// LostEnd tells that the file is whole.
type LostEnd struct {
	End          bool   `json:"end"`
	Transactions int    `json:"transactions"`
	Changes      int    `json:"total_changes"`
	Others       int    `json:"other_transactions"` // that wrote nothing of Shortline's
	Note         string `json:"note,omitempty"`
}

// maxLostLine bounds a line that is read: an import commits a thousand stores of 32 KiB at most.
const maxLostLine = 64 << 20

// ReadLost reads a file of lost writes and hands over each transaction with the number of its line, until one returns an error.
// Lines that people removed are not missed; ends says whether the last line is there.
func ReadLost(r io.Reader, each func(line int, tx LostTransaction) error) (h LostHeader, ends bool, err error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 64<<10), maxLostLine)
	for n := 1; lines.Scan(); n++ {
		text := lines.Bytes()
		if len(text) == 0 {
			continue
		}
		if h.Format == "" {
			if err := json.Unmarshal(text, &h); err != nil || h.Format != LostFormat {
				return h, false, fmt.Errorf("line %d: not a file of lost writes of this version (%s)", n, LostFormat)
			}
			continue
		}
		var line struct {
			LostTransaction
			End bool `json:"end"`
		}
		if err := json.Unmarshal(text, &line); err != nil {
			return h, false, fmt.Errorf("line %d: %w", n, err)
		}
		if line.End {
			ends = true
			continue
		}
		if err := each(n, line.LostTransaction); err != nil {
			return h, ends, fmt.Errorf("line %d: %w", n, err)
		}
	}
	if err := lines.Err(); err != nil {
		return h, ends, err
	}
	if h.Format == "" {
		return h, false, fmt.Errorf("the file is empty")
	}
	return h, ends, nil
}
