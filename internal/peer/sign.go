package peer

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Headers of requests between nodes. All of them are signed.
const (
	HeaderVersion   = "Shortline-Peer-Version" // "SPOKEN NEEDED"; in answers the first alone
	HeaderHop       = "Shortline-Peer-Hop"     // how many nodes have passed it on, with the sender
	HeaderTime      = "Shortline-Peer-Time"    // Unix time in milliseconds
	HeaderNonce     = "Shortline-Peer-Nonce"   // "SENDER COUNTER"
	HeaderDigest    = "Shortline-Peer-Digest"  // SHA-256 of the body
	HeaderSignature = "Shortline-Peer-Signature"
)

const (
	// MinKey is the fewest bytes that a cluster key may have.
	MinKey = 16
	// Skew is how far the clocks of two nodes may be apart.
	Skew = 30 * time.Second
)

// Keys are the secrets that nodes have in common: the first signs, all are accepted, so that they can be changed one node at a time. There
// is one outside of such changes.
type Keys []string

// Check returns ErrNoKey where there is none, or one that is too short.
func (k Keys) Check() error {
	if len(k) == 0 || slices.ContainsFunc(k, func(one string) bool { return len(one) < MinKey }) {
		return ErrNoKey
	}
	return nil
}

// Fits returns the key by which a signature is what sum makes of it, and false if there is none.
func (k Keys) Fits(signature []byte, sum func(key []byte) []byte) (key []byte, ok bool) {
	for _, one := range k {
		if hmac.Equal(signature, sum([]byte(one))) {
			return []byte(one), true
		}
	}
	return nil, false
}

// ErrNoKey says that nodes were to talk to each other without a secret in common.
var ErrNoKey = fmt.Errorf("--cluster-key is missing or shorter than %d bytes; give every node of the cluster the same random one", MinKey)

// Signer signs requests to other nodes. Its nonces are a random name and a counter, so that a receiver can tell a replay
// with a window for each sender instead of a list of everything it has seen.
type Signer struct {
	key    []byte
	sender string
	count  atomic.Uint64
}

// NewSigner makes a Signer with a name of its own. The error is ErrNoKey.
func NewSigner(keys Keys) (*Signer, error) {
	if err := keys.Check(); err != nil {
		return nil, err
	}
	var name [8]byte
	_, _ = rand.Read(name[:]) // never returns an error
	return &Signer{key: []byte(keys[0]), sender: hex.EncodeToString(name[:])}, nil
}

// Sign sets the headers of a request whose body is given.
func (s *Signer) Sign(r *http.Request, body []byte, hop int, now time.Time) {
	digest := sha256.Sum256(body)
	h := r.Header
	h.Set(HeaderVersion, fmt.Sprintf("%d %d", Version, Needs))
	h.Set(HeaderHop, strconv.Itoa(hop))
	h.Set(HeaderTime, strconv.FormatInt(now.UnixMilli(), 10))
	h.Set(HeaderNonce, s.sender+" "+strconv.FormatUint(s.count.Add(1), 10))
	h.Set(HeaderDigest, hex.EncodeToString(digest[:]))
	h.Set(HeaderSignature, hex.EncodeToString(MAC(s.key, r)))
}

// MAC covers everything that a receiver acts on. Each part goes in with its length, so that no two requests are alike.
func MAC(key []byte, r *http.Request) []byte {
	sum := hmac.New(sha256.New, key)
	for _, part := range []string{"shortline peer request", r.Method, r.URL.RequestURI(), r.Header.Get(HeaderVersion), r.Header.Get(HeaderHop),
		r.Header.Get(HeaderTime), r.Header.Get(HeaderNonce), r.Header.Get(HeaderDigest)} {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(part)))
		sum.Write(n[:])
		sum.Write([]byte(part))
	}
	return sum.Sum(nil)
}

// Request is what the headers of a request say, once they are known to be from a node of the cluster.
type Request struct {
	Version, Hop int
	Digest       [sha256.Size]byte
}

// Verifier checks the headers of requests from other nodes, before any of the body is read.
type Verifier struct {
	keys    Keys
	now     func() time.Time
	replays replayGuard
}

// NewVerifier makes a Verifier of requests signed with one of the keys. now is nil for time.Now. The error is ErrNoKey.
func NewVerifier(keys Keys, now func() time.Time) (*Verifier, error) {
	if err := keys.Check(); err != nil {
		return nil, err
	}
	if now == nil {
		now = time.Now
	}
	return &Verifier{keys: keys, now: now}, nil
}

// Verify returns what the headers say, or the refusal.
func (v *Verifier) Verify(r *http.Request) (Request, *Refusal) {
	var req Request
	got, err := hex.DecodeString(r.Header.Get(HeaderSignature))
	if _, ok := v.keys.Fits(got, func(key []byte) []byte { return MAC(key, r) }); err != nil || !ok {
		return req, &Refusal{Unauthorized, "the signature does not fit; --cluster-key must be the same on every node of the cluster"}
	}
	bad := func(name string) (Request, *Refusal) {
		return req, &Refusal{Malformed, "the header " + name + " cannot be read"}
	}
	ms, err := strconv.ParseInt(r.Header.Get(HeaderTime), 10, 64)
	if err != nil {
		return bad(HeaderTime)
	}
	now := v.now()
	if skew := now.Sub(time.UnixMilli(ms)); skew > Skew || skew < -Skew {
		return req, &Refusal{Skewed, fmt.Sprintf("this node's clock is %v ahead of the sender's; at most %v either way is allowed, set the clocks by NTP",
			skew.Round(time.Millisecond), Skew)}
	}
	var needs int
	if req.Version, needs, err = twoNumbers(r.Header.Get(HeaderVersion)); err != nil {
		return bad(HeaderVersion)
	}
	if needs > Version {
		return req, &Refusal{TooNew, fmt.Sprintf("the sender needs version %d between nodes and this node speaks %d; upgrade this node", needs, Version)}
	}
	if req.Hop, err = strconv.Atoi(r.Header.Get(HeaderHop)); err != nil {
		return bad(HeaderHop)
	}
	if req.Hop != 1 {
		return req, &Refusal{Loop, fmt.Sprintf("this is hop %d; a write is passed on once and never again", req.Hop)}
	}
	if n, err := hex.Decode(req.Digest[:], []byte(r.Header.Get(HeaderDigest))); err != nil || n != len(req.Digest) {
		return bad(HeaderDigest)
	}
	sender, text, _ := strings.Cut(r.Header.Get(HeaderNonce), " ")
	count, err := strconv.ParseUint(text, 10, 64)
	if err != nil || len(sender) != 16 {
		return bad(HeaderNonce)
	}
	switch err := v.replays.admit(sender, count, now); {
	case errors.Is(err, errManySenders):
		return req, &Refusal{Overloaded, err.Error()}
	case err != nil:
		return req, &Refusal{Replayed, err.Error()}
	}
	return req, nil
}

func twoNumbers(text string) (a, b int, err error) {
	first, second, _ := strings.Cut(text, " ")
	a, errA := strconv.Atoi(first)
	b, errB := strconv.Atoi(second)
	return a, b, errors.Join(errA, errB)
}

const (
	replayWindow     = 8192
	maxReplaySenders = 4096
	// replayMemory is how long a sender is remembered: its messages carry times of up to Skew after they were seen, and
	// are too old by themselves Skew after that.
	replayMemory = 2*Skew + time.Second
)

var (
	errReplay      = errors.New("this request was here before, or is far behind later ones of its sender; send it again with a new nonce")
	errManySenders = fmt.Errorf("more than %d senders in %v; is a node restarting in a loop?", maxReplaySenders, replayMemory)
)

// replayGuard remembers which nonces it has seen: a bit each, for the latest of each sender. It takes 1 KiB a sender.
type replayGuard struct {
	mu      sync.Mutex
	senders map[string]*replaySender // guarded by mu
}

type replaySender struct {
	top  uint64 // the greatest counter seen
	seen [replayWindow / 64]uint64
	last time.Time
}

// admit returns nil once for each counter of a sender.
func (g *replayGuard) admit(sender string, count uint64, now time.Time) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.senders[sender]
	if s == nil {
		if len(g.senders) >= maxReplaySenders {
			for name, old := range g.senders {
				if now.Sub(old.last) > replayMemory {
					delete(g.senders, name)
				}
			}
			if len(g.senders) >= maxReplaySenders {
				return errManySenders
			}
		}
		if g.senders == nil {
			g.senders = map[string]*replaySender{}
		}
		s = &replaySender{top: count}
		g.senders[sender] = s
	}
	if s.top >= replayWindow && count <= s.top-replayWindow {
		return errReplay
	}
	if count > s.top {
		if count-s.top >= replayWindow {
			s.seen = [replayWindow / 64]uint64{}
		} else {
			for c := s.top + 1; c <= count; c++ {
				s.seen[c%replayWindow/64] &^= 1 << (c % 64)
			}
		}
		s.top = count
	}
	word, bit := &s.seen[count%replayWindow/64], uint64(1)<<(count%64)
	if *word&bit != 0 {
		return errReplay
	}
	*word |= bit
	s.last = now
	return nil
}
