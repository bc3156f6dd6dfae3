package edge

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/internal/peer"
	"github.com/shortline/shortline/replication"
)

// What nodes say to each other, in JSON, a line a write in both directions. A sender names the version that it speaks and
// the lowest that its message needs. A field that is not known is refused from a node of the same version or an older one,
// where it can only be a mistake, and ignored from a newer one, which raises peer.Needs where ignoring would lose something.
const (
	peerWritesPath = "/internal/v1/writes"
	peerStatusPath = "/internal/v1/status"
)

// Limits of one request between nodes. The public API lets nothing through that does not fit into them.
const (
	maxPeerBytes      = 16 << 20
	maxPeerWrites     = 2000
	maxPeerItems      = 5000
	maxPeerWriteItems = 1000
	maxPeerScopeBytes = 1 << 10
	maxPeerTTL        = 7 * 24 * time.Hour
	maxPeerTimeout    = time.Minute
)

// wireWrite is one line of a request. Its timeout comes first on the line and is set anew for each attempt.
type wireWrite struct {
	// TimeoutMS is how long the caller still waits: relative, so that clocks need not agree.
	TimeoutMS int64      `json:"timeout_ms,omitempty"`
	Key       wireIdem   `json:"idempotency"`
	Items     []wireItem `json:"items"`
}

type wireIdem struct {
	Scope string `json:"scope"`
	Key   string `json:"key"`
	Hash  string `json:"hash"`
	TTLMS int64  `json:"ttl_ms"`
}

type wireItem struct {
	Queue  *wireUpdate       `json:"queue,omitempty"`
	Put    *shortline.Store  `json:"put,omitempty"`
	Delete shortline.StoreID `json:"delete,omitempty"`
	Key    *wireKey          `json:"key,omitempty"`
	Use    *wireUse          `json:"use,omitempty"` // since version 2
}

// wireUse is when an API key was used.
type wireUse struct {
	ID shortline.KeyID `json:"id"`
	At time.Time       `json:"at"`
}

type wireUpdate struct {
	ID         shortline.StoreID `json:"id"`
	Length     *int              `json:"length,omitempty"`
	Delta      *int              `json:"delta,omitempty"`
	ObservedAt *time.Time        `json:"observed_at,omitempty"`
}

// wireKey is an API key with the hash that shortline.Key never shows.
type wireKey struct {
	ID        shortline.KeyID     `json:"id"`
	Name      string              `json:"name"`
	Scopes    []shortline.Scope   `json:"scopes"`
	Stores    []shortline.StoreID `json:"stores,omitempty"`
	Hash      string              `json:"hash"`
	CreatedAt time.Time           `json:"created_at"`
	RevokedAt *time.Time          `json:"revoked_at,omitempty"`
	ExpiresAt *time.Time          `json:"expires_at,omitempty"`
}

// wireAnswer is one line of an answer: what became of the write of that place in the request. Lines come in any order, each
// as soon as it is known.
type wireAnswer struct {
	Write    int          `json:"write"`
	Error    peerError    `json:"error,omitempty"`
	Detail   string       `json:"detail,omitempty"`
	Token    string       `json:"token,omitempty"`
	At       time.Time    `json:"at,omitzero"`
	Replayed bool         `json:"replayed,omitempty"`
	Items    []wireResult `json:"items,omitempty"`
}

type wireResult struct {
	Status   replication.Status `json:"status"`
	Rev      uint64             `json:"rev,omitempty"`
	Queue    *wireQueueResult   `json:"queue,omitempty"`
	ServiceS float64            `json:"service_s,omitempty"`
}

type wireQueueResult struct {
	Length    int       `json:"length"`
	UpdatedAt time.Time `json:"updated_at,omitzero"`
	Rev       uint64    `json:"rev,omitempty"`
	Applied   bool      `json:"applied,omitempty"`
	Reason    string    `json:"reason,omitempty"`
	Clamped   bool      `json:"clamped,omitempty"`
}

// peerError says why a write, or a whole request, was not done. Of all but peerUnknown it is certain that nothing was written.
type peerError = peer.Kind

const (
	peerNotPrimary peerError = "not-primary"
	peerOverloaded           = peer.Overloaded
	peerClosed     peerError = "closed"
	peerExpired    peerError = "expired"   // the caller's time ran out first
	peerInvalid    peerError = "invalid"   // this one write is not acceptable
	peerMismatch   peerError = "mismatch"  // replication.ErrIdempotencyMismatch
	peerFailed               = peer.Failed // the store did not take it
	peerUnknown    peerError = "unknown"

	// Of whole requests.
	peerUnauthorized = peer.Unauthorized
	peerSkewed       = peer.Skewed
	peerReplayed     = peer.Replayed
	peerMalformed    = peer.Malformed
	peerTooLarge     = peer.TooLarge
	peerTooNew       = peer.TooNew
	peerLoop         = peer.Loop
)

// PeerStatus is the answer of a node to another that asks how it is.
type PeerStatus struct {
	Version int    `json:"version"`
	Region  string `json:"region"`
	Primary bool   `json:"primary"`
	Epoch   uint64 `json:"epoch"`
	// Token is what the node's memory has applied; empty before its first snapshot.
	Token string `json:"token,omitempty"`
}

// encodeWrite makes the line of a write, without its timeout.
func encodeWrite(w *replication.Write) ([]byte, error) {
	k := w.Idempotency
	out := wireWrite{Key: wireIdem{Scope: k.Scope, Key: k.Key, Hash: hex.EncodeToString(k.BodyHash[:]), TTLMS: k.TTL.Milliseconds()},
		Items: make([]wireItem, len(w.Items))}
	for i, item := range w.Items {
		it := &out.Items[i]
		it.Put, it.Delete = item.Put, item.Delete
		if u := item.Queue; u != nil {
			it.Queue = &wireUpdate{ID: u.ID, Length: u.Length, Delta: u.Delta}
			if !u.ObservedAt.IsZero() {
				at := u.ObservedAt.UTC()
				it.Queue.ObservedAt = &at
			}
		}
		if k := item.Key; k != nil {
			it.Key = &wireKey{ID: k.ID, Name: k.Name, Scopes: k.Scopes, Stores: k.Stores, Hash: hex.EncodeToString(k.Hash[:]),
				CreatedAt: k.CreatedAt, RevokedAt: k.RevokedAt, ExpiresAt: k.ExpiresAt}
		}
		if u := item.Use; u != nil {
			it.Use = &wireUse{u.ID, u.At.UTC()}
		}
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false) // it would make some texts six times as long
	if err := enc.Encode(&out); err != nil {
		return nil, fmt.Errorf("encode a write for another node: %w", err)
	}
	return b.Bytes(), nil
}

// appendLine appends the line of a write with the time that its caller still has.
func appendLine(b, line []byte, timeout time.Duration) []byte {
	b = fmt.Appendf(b, `{"timeout_ms":%d,`, max(timeout.Milliseconds(), 1))
	return append(b, line[1:]...)
}

// incoming is one write of a request, or what is wrong with it.
type incoming struct {
	write   replication.Write
	timeout time.Duration
	fault   error
}

var errTooMany = fmt.Errorf("more than %d writes or %d items in one request; send fewer at a time", maxPeerWrites, maxPeerItems)

// decodeWrites reads a request. What cannot be read at all makes the whole of it an error; a write that can be read and is
// not acceptable has a fault of its own. lenient ignores unknown fields.
func decodeWrites(body []byte, lenient bool) ([]incoming, error) {
	dec := json.NewDecoder(bytes.NewReader(body))
	if !lenient {
		dec.DisallowUnknownFields()
	}
	var writes []incoming
	items := 0
	for {
		var line *wireWrite
		if err := dec.Decode(&line); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, fmt.Errorf("write %d: %s", len(writes), strings.TrimPrefix(err.Error(), "json: "))
		}
		if line == nil {
			return nil, fmt.Errorf("write %d: is null; an object is required", len(writes))
		}
		if items += len(line.Items); items > maxPeerItems || len(writes) == maxPeerWrites {
			return nil, errTooMany
		}
		in := incoming{timeout: min(max(time.Duration(min(line.TimeoutMS, maxPeerTimeout.Milliseconds()))*time.Millisecond, 0), maxPeerTimeout)}
		in.write, in.fault = line.write()
		writes = append(writes, in)
	}
	if len(writes) == 0 {
		return nil, errors.New("the body is empty; a line of JSON for each write is required")
	}
	return writes, nil
}

// write checks a line as the public API checks what clients send.
func (w *wireWrite) write() (replication.Write, error) {
	var out replication.Write
	if n := len(w.Items); n < 1 || n > maxPeerWriteItems {
		return out, fmt.Errorf("items: has %d entries; 1 to %d are allowed", n, maxPeerWriteItems)
	}
	if w.TimeoutMS < 1 {
		return out, errors.New("timeout_ms: must be at least 1")
	}
	idem, err := w.Key.idempotency()
	if err != nil {
		return out, err
	}
	out.Idempotency, out.Items = idem, make([]replication.Item, len(w.Items))
	for i := range w.Items {
		if out.Items[i], err = w.Items[i].item(); err != nil {
			return replication.Write{}, fmt.Errorf("items[%d]: %w", i, err)
		}
	}
	return out, nil
}

func (k *wireIdem) idempotency() (*replication.Idempotency, error) {
	out := &replication.Idempotency{Scope: k.Scope, Key: k.Key, TTL: time.Duration(k.TTLMS) * time.Millisecond}
	switch {
	case k.Scope == "" || len(k.Scope) > maxPeerScopeBytes:
		return nil, fmt.Errorf("idempotency.scope: is %d bytes long; 1 to %d are allowed", len(k.Scope), maxPeerScopeBytes)
	case k.Key == "" || len(k.Key) > 255 || strings.IndexFunc(k.Key, notIDRune) >= 0:
		return nil, errors.New("idempotency.key: must be 1 to 255 printable ASCII characters without blanks")
	case k.TTLMS < 1 || k.TTLMS > maxPeerTTL.Milliseconds():
		return nil, fmt.Errorf("idempotency.ttl_ms: %d is not between 1 and %d", k.TTLMS, maxPeerTTL.Milliseconds())
	}
	if err := decodeHash(&out.BodyHash, k.Hash); err != nil {
		return nil, fmt.Errorf("idempotency.hash: %w", err)
	}
	return out, nil
}

func decodeHash(to *[32]byte, text string) error {
	if len(text) != hex.EncodedLen(len(to)) {
		return fmt.Errorf("is %d characters long, not %d", len(text), hex.EncodedLen(len(to)))
	}
	if _, err := hex.Decode(to[:], []byte(text)); err != nil {
		return errors.New("is not hexadecimal")
	}
	return nil
}

func (it *wireItem) item() (replication.Item, error) {
	set := 0
	for _, there := range []bool{it.Queue != nil, it.Put != nil, it.Delete != "", it.Key != nil, it.Use != nil} {
		if there {
			set++
		}
	}
	if set != 1 {
		return replication.Item{}, fmt.Errorf("exactly one of queue, put, delete, key and use is required; %d are there", set)
	}
	switch {
	case it.Queue != nil:
		u := &shortline.QueueUpdate{ID: it.Queue.ID, Length: it.Queue.Length, Delta: it.Queue.Delta}
		if at := it.Queue.ObservedAt; at != nil {
			if at.IsZero() { // to a QueueUpdate this would mean that there is none
				return replication.Item{}, invalid("observed_at", "the year 1 is not between 1970 and 2200")
			}
			u.ObservedAt = *at
		}
		return replication.Item{Queue: u}, u.Validate()
	case it.Put != nil:
		it.Put.Normalize()
		return replication.Item{Put: it.Put}, it.Put.Validate()
	case it.Delete != "":
		_, err := shortline.ParseStoreID(string(it.Delete))
		return replication.Item{Delete: it.Delete}, err
	case it.Use != nil:
		_, err := shortline.ParseStoreID(string(it.Use.ID)) // the same letters, and no more of them
		return replication.Item{Use: &shortline.KeyUse{ID: it.Use.ID, At: it.Use.At}}, err
	}
	k := it.Key
	key := &shortline.Key{ID: k.ID, Name: k.Name, Scopes: k.Scopes, Stores: k.Stores, CreatedAt: k.CreatedAt, RevokedAt: k.RevokedAt, ExpiresAt: k.ExpiresAt}
	if _, err := shortline.ParseStoreID(string(k.ID)); err != nil { // the same letters, and no more of them
		return replication.Item{}, fmt.Errorf("key %w", err)
	}
	if err := decodeHash(&key.Hash, k.Hash); err != nil {
		return replication.Item{}, fmt.Errorf("key.hash: %w", err)
	}
	return replication.Item{Key: key}, key.Validate()
}

// encodeResult makes the line that answers the write of that place.
func encodeResult(write int, res replication.Result, token replication.Token) wireAnswer {
	out := wireAnswer{Write: write, Token: token.String(), At: res.At, Replayed: res.Replayed, Items: make([]wireResult, len(res.Items))}
	for i, item := range res.Items {
		out.Items[i] = wireResult{Status: item.Status, Rev: item.Rev, ServiceS: item.ServiceS}
		if q := item.Queue; q != nil {
			out.Items[i].Queue = &wireQueueResult{Length: q.Queue.Length, UpdatedAt: q.Queue.UpdatedAt, Rev: q.Queue.Rev,
				Applied: q.Applied, Reason: q.Reason, Clamped: q.Clamped}
		}
	}
	return out
}

// result is the inverse of encodeResult for a write of so many items.
func (a *wireAnswer) result(items int) (replication.Result, replication.Token, error) {
	token, err := replication.ParseToken(a.Token)
	if err != nil {
		return replication.Result{}, token, err
	}
	if a.Error == peerMismatch {
		return replication.Result{At: a.At, Err: replication.ErrIdempotencyMismatch}, token, nil
	}
	if len(a.Items) != items {
		return replication.Result{}, token, fmt.Errorf("%d results came for %d items", len(a.Items), items)
	}
	res := replication.Result{At: a.At, Replayed: a.Replayed, Items: make([]replication.ItemResult, items)}
	for i, item := range a.Items {
		res.Items[i] = replication.ItemResult{Status: item.Status, Rev: item.Rev, ServiceS: item.ServiceS}
		if q := item.Queue; q != nil {
			res.Items[i].Queue = &shortline.QueueResult{Queue: shortline.Queue{Length: q.Length, UpdatedAt: q.UpdatedAt, Rev: q.Rev},
				Applied: q.Applied, Reason: q.Reason, Clamped: q.Clamped}
		}
		// The handlers look into Queue without asking where the status says that it is there.
		if (item.Status == replication.StatusQueue) != (item.Queue != nil) || item.Status < replication.StatusCreated {
			return replication.Result{}, token, fmt.Errorf("result %d has status %d, which does not go with what else it has", i, item.Status)
		}
	}
	return res, token, nil
}
