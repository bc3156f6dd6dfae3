package edge

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Headers of requests between nodes. All of them are signed.
const (
	headerPeerVersion   = "Shortline-Peer-Version" // "SPOKEN NEEDED"; in answers the first alone
	headerPeerHop       = "Shortline-Peer-Hop"     // how many nodes have passed it on, with the sender
	headerPeerTime      = "Shortline-Peer-Time"    // Unix time in milliseconds
	headerPeerNonce     = "Shortline-Peer-Nonce"   // "SENDER COUNTER"
	headerPeerDigest    = "Shortline-Peer-Digest"  // SHA-256 of the body
	headerPeerSignature = "Shortline-Peer-Signature"
)

const (
	// minClusterKey is the fewest bytes that a cluster key may have.
	minClusterKey = 16
	// peerSkew is how far the clocks of two nodes may be apart.
	peerSkew = 30 * time.Second
)

// ErrNoClusterKey says that nodes were to talk to each other without a secret in common.
var ErrNoClusterKey = fmt.Errorf("--cluster-key is missing or shorter than %d bytes; give every node of the cluster the same random one", minClusterKey)

// signer signs requests to other nodes. Its nonces are a random name and a counter, so that a receiver can tell a replay
// with a window for each sender instead of a list of everything it has seen.
type signer struct {
	key    []byte
	sender string
	count  atomic.Uint64
}

func newSigner(key string) (*signer, error) {
	if len(key) < minClusterKey {
		return nil, ErrNoClusterKey
	}
	var name [8]byte
	_, _ = rand.Read(name[:]) // never returns an error
	return &signer{key: []byte(key), sender: hex.EncodeToString(name[:])}, nil
}

// sign sets the headers of a request whose body is given.
func (s *signer) sign(r *http.Request, body []byte, hop int, now time.Time) {
	digest := sha256.Sum256(body)
	h := r.Header
	h.Set(headerPeerVersion, fmt.Sprintf("%d %d", peerVersion, peerNeeds))
	h.Set(headerPeerHop, strconv.Itoa(hop))
	h.Set(headerPeerTime, strconv.FormatInt(now.UnixMilli(), 10))
	h.Set(headerPeerNonce, s.sender+" "+strconv.FormatUint(s.count.Add(1), 10))
	h.Set(headerPeerDigest, hex.EncodeToString(digest[:]))
	h.Set(headerPeerSignature, hex.EncodeToString(peerMAC(s.key, r)))
}

// peerMAC covers everything that a receiver acts on. Each part goes in with its length, so that no two requests are alike.
func peerMAC(key []byte, r *http.Request) []byte {
	mac := hmac.New(sha256.New, key)
	for _, part := range []string{"shortline peer request", r.Method, r.URL.RequestURI(), r.Header.Get(headerPeerVersion), r.Header.Get(headerPeerHop),
		r.Header.Get(headerPeerTime), r.Header.Get(headerPeerNonce), r.Header.Get(headerPeerDigest)} {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(part)))
		mac.Write(n[:])
		mac.Write([]byte(part))
	}
	return mac.Sum(nil)
}

// peerRequest is what the headers of a request say, once they are known to be from a node of the cluster.
type peerRequest struct {
	version, hop int
	digest       [sha256.Size]byte
}

// verifier checks the headers of requests from other nodes, before any of the body is read.
type verifier struct {
	key     []byte
	now     func() time.Time
	replays replayGuard
}

// verify returns what the headers say, or the refusal.
func (v *verifier) verify(r *http.Request) (peerRequest, *peerRefusal) {
	var req peerRequest
	got, err := hex.DecodeString(r.Header.Get(headerPeerSignature))
	if err != nil || !hmac.Equal(got, peerMAC(v.key, r)) {
		return req, &peerRefusal{peerUnauthorized, "the signature does not fit; --cluster-key must be the same on every node of the cluster"}
	}
	bad := func(name string) (peerRequest, *peerRefusal) {
		return req, &peerRefusal{peerMalformed, "the header " + name + " cannot be read"}
	}
	ms, err := strconv.ParseInt(r.Header.Get(headerPeerTime), 10, 64)
	if err != nil {
		return bad(headerPeerTime)
	}
	now := v.now()
	if skew := now.Sub(time.UnixMilli(ms)); skew > peerSkew || skew < -peerSkew {
		return req, &peerRefusal{peerSkewed, fmt.Sprintf("this node's clock is %v ahead of the sender's; at most %v either way is allowed, set the clocks by NTP",
			skew.Round(time.Millisecond), peerSkew)}
	}
	var needs int
	if req.version, needs, err = twoNumbers(r.Header.Get(headerPeerVersion)); err != nil {
		return bad(headerPeerVersion)
	}
	if needs > peerVersion {
		return req, &peerRefusal{peerTooNew, fmt.Sprintf("the sender needs version %d between nodes and this node speaks %d; upgrade this node", needs, peerVersion)}
	}
	if req.hop, err = strconv.Atoi(r.Header.Get(headerPeerHop)); err != nil {
		return bad(headerPeerHop)
	}
	if req.hop != 1 {
		return req, &peerRefusal{peerLoop, fmt.Sprintf("this is hop %d; a write is passed on once and never again", req.hop)}
	}
	if decodeHash(&req.digest, r.Header.Get(headerPeerDigest)) != nil {
		return bad(headerPeerDigest)
	}
	sender, text, _ := strings.Cut(r.Header.Get(headerPeerNonce), " ")
	count, err := strconv.ParseUint(text, 10, 64)
	if err != nil || len(sender) != 16 {
		return bad(headerPeerNonce)
	}
	switch err := v.replays.admit(sender, count, now); {
	case errors.Is(err, errManySenders):
		return req, &peerRefusal{peerOverloaded, err.Error()}
	case err != nil:
		return req, &peerRefusal{peerReplayed, err.Error()}
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
	// replayMemory is how long a sender is remembered: its messages carry times of up to peerSkew after they were seen, and
	// are too old by themselves peerSkew after that.
	replayMemory = 2*peerSkew + time.Second
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
