package edge

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/internal/peer"
	"github.com/shortline/shortline/replication"
)

var testClusterKeys = peer.Keys{"a cluster key of a test"}

// recorder is a Writer in memory that keeps idempotency keys as a store does.
type recorder struct {
	before func(ctx context.Context, w replication.Write) error // nothing is written where it fails
	// keyless forgets idempotency keys: the mutant that tests of exactly-once have to notice.
	keyless bool

	mu      sync.Mutex
	kept    map[string]replication.Result // guarded by mu
	applied []string                      // guarded by mu: the stores, in order
	xid     uint64                        // guarded by mu
}

func (r *recorder) Submit(ctx context.Context, w replication.Write) (replication.Result, replication.Token, error) {
	if r.before != nil {
		if err := r.before(ctx, w); err != nil {
			return replication.Result{}, replication.Token{}, err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	key := fmt.Sprint("none ", r.xid)
	if k := w.Idempotency; k != nil {
		key = k.Scope + "\x00" + k.Key
	}
	if res, ok := r.kept[key]; ok && !r.keyless {
		res.Replayed = true
		return res, replication.Token{Epoch: 1, XID: r.xid}, nil
	}
	r.xid++
	res := replication.Result{At: time.UnixMilli(int64(r.xid)).UTC(), Items: make([]replication.ItemResult, len(w.Items))}
	for i := range w.Items {
		r.applied = append(r.applied, w.Items[i].Subject())
		res.Items[i] = replication.ItemResult{Status: replication.StatusDeleted, Rev: r.xid}
		if u := w.Items[i].Queue; u != nil {
			q := u.Apply(time.UnixMilli(int64(r.xid)), nil)
			res.Items[i] = replication.ItemResult{Status: replication.StatusQueue, Queue: &q}
		}
	}
	if r.kept == nil {
		r.kept = map[string]replication.Result{}
	}
	r.kept[key] = res
	return res, replication.Token{Epoch: 1, XID: r.xid, LSN: 7}, nil
}

func (r *recorder) count(store string) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.applied {
		if s == store || store == "" {
			n++
		}
	}
	return n
}

func primaryPeer(t testing.TB, w Writer, setups ...func(*PeerConfig)) *Peer {
	t.Helper()
	cfg := PeerConfig{Region: "eu", ClusterKeys: testClusterKeys, Writer: w, Primary: func() (bool, uint64) { return true, 3 }}
	for _, s := range setups {
		s(&cfg)
	}
	p, err := NewPeer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// servePeer runs a Peer on a real listener and returns its address.
func servePeer(t testing.TB, p *Peer) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	runPart(t, func(ctx context.Context) error { return p.Run(ctx, l) })
	return l.Addr().String()
}

// runPart starts something with a Run and stops it at the end of the test.
func runPart(t testing.TB, run func(context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run ended with %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

func deltaWrite(store shortline.StoreID, delta int) replication.Write {
	return replication.Write{Items: []replication.Item{{Queue: &shortline.QueueUpdate{ID: store, Delta: &delta}}}}
}

// requestBody is that of a request with the writes.
func requestBody(t testing.TB, writes ...replication.Write) []byte {
	t.Helper()
	var body []byte
	for i, w := range writes {
		if w.Idempotency == nil {
			w.Idempotency = &replication.Idempotency{Scope: "test", Key: strconv.Itoa(i), TTL: time.Minute}
		}
		line, err := encodeWrite(&w)
		if err != nil {
			t.Fatal(err)
		}
		body = appendLine(body, line, time.Second)
	}
	return body
}

func signedRequest(t testing.TB, body []byte, now time.Time) *http.Request {
	t.Helper()
	s, err := peer.NewSigner(testClusterKeys)
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest(http.MethodPost, "http://peer"+peerWritesPath, bytes.NewReader(body))
	s.Sign(r, body, 1, now)
	return r
}

func refusal(t testing.TB, p *Peer, r *http.Request) (int, peer.Refusal) {
	t.Helper()
	rec := httptest.NewRecorder()
	p.Handler().ServeHTTP(rec, r)
	var why peer.Refusal
	if rec.Code != http.StatusOK {
		if err := json.Unmarshal(rec.Body.Bytes(), &why); err != nil {
			t.Fatalf("%d %q: %v", rec.Code, rec.Body, err)
		}
	}
	return rec.Code, why
}

func TestPeerNeedsAClusterKey(t *testing.T) {
	for _, key := range []string{"", "short"} {
		if _, err := NewPeer(PeerConfig{ClusterKeys: peer.Keys{key}}); !errors.Is(err, peer.ErrNoKey) {
			t.Errorf("NewPeer with the key %q: %v", key, err)
		}
		if _, err := NewForwarder(ForwarderConfig{ClusterKeys: peer.Keys{key}}); !errors.Is(err, peer.ErrNoKey) {
			t.Errorf("NewForwarder with the key %q: %v", key, err)
		}
	}
}

func TestPeerRefusesWholeRequests(t *testing.T) {
	now := time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)
	good := requestBody(t, deltaWrite("a", 1), deltaWrite("b", 1))
	type header struct{ name, value string }
	resign := func(r *http.Request, h header) {
		r.Header.Set(h.name, h.value)
		r.Header.Set(peer.HeaderSignature, hexMAC(r))
	}
	tests := []struct {
		name   string
		body   []byte
		change func(r *http.Request)
		kind   peerError
		detail string
	}{
		{"no signature", good, func(r *http.Request) { r.Header.Del(peer.HeaderSignature) }, peerUnauthorized, "--cluster-key"},
		{"another key", good, func(r *http.Request) {
			other, _ := peer.NewSigner(peer.Keys{"another cluster key"})
			other.Sign(r, good, 1, now)
		}, peerUnauthorized, "--cluster-key"},
		{"another time", good, func(r *http.Request) { r.Header.Set(peer.HeaderTime, "5") }, peerUnauthorized, "signature"},
		{"another hop", good, func(r *http.Request) { r.Header.Set(peer.HeaderHop, "0") }, peerUnauthorized, "signature"},
		{"another path", good, func(r *http.Request) { r.URL.RawQuery = "x=1" }, peerUnauthorized, "signature"},
		{"another body", good, func(r *http.Request) {
			r.Body = io.NopCloser(strings.NewReader(strings.Replace(string(good), `"delta":1`, `"delta":2`, 1)))
		}, peerUnauthorized, "not the one that was signed"},
		{"a clock behind", good, func(r *http.Request) {
			resign(r, header{peer.HeaderTime, strconv.FormatInt(now.Add(-31*time.Second).UnixMilli(), 10)})
		}, peerSkewed, "31s ahead"},
		{"a clock ahead", good, func(r *http.Request) {
			resign(r, header{peer.HeaderTime, strconv.FormatInt(now.Add(31*time.Second).UnixMilli(), 10)})
		}, peerSkewed, "-31s ahead"},
		{"a second hop", good, func(r *http.Request) { resign(r, header{peer.HeaderHop, "2"}) }, peerLoop, "hop 2"},
		{"needs more", good, func(r *http.Request) { resign(r, header{peer.HeaderVersion, fmt.Sprintf("%d %[1]d", peer.Version+1)}) }, peerTooNew, "upgrade"},
		{"no nonce", good, func(r *http.Request) { resign(r, header{peer.HeaderNonce, ""}) }, peerMalformed, "Nonce"},
		{"truncated", good, func(r *http.Request) { r.Body = io.NopCloser(bytes.NewReader(good[:len(good)-9])) }, peerMalformed, "ended before"},
		{"no length", good, func(r *http.Request) { r.ContentLength = -1 }, peerMalformed, "Content-Length"},
		{"oversized", good, func(r *http.Request) { r.ContentLength = maxPeerBytes + 1 }, peerTooLarge, "at most"},
		{"empty", nil, nil, peerMalformed, "empty"},
		{"garbage after a good write", append(bytes.Clone(good), "what?"...), nil, peerMalformed, "write 2"},
		{"cut in the middle of a write", good[:len(good)-9], nil, peerMalformed, "write 1"},
		{"null", []byte("null"), nil, peerMalformed, "null"},
		{"an unknown field", []byte(strings.Replace(string(good), `"delta"`, `"dleta"`, 1)), nil, peerMalformed, "dleta"},
		{"too many writes", bytes.Repeat([]byte("{}"), maxPeerWrites+1), nil, peerTooLarge, "fewer"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			w := new(recorder)
			p := primaryPeer(t, w, func(c *PeerConfig) { c.Now = func() time.Time { return now } })
			r := signedRequest(t, test.body, now)
			if test.change != nil {
				test.change(r)
			}
			code, why := refusal(t, p, r)
			if why.Kind != test.kind || !strings.Contains(why.Detail, test.detail) || code != peerStatus(test.kind) {
				t.Errorf("answered %d %+v, want %s with %q", code, why, test.kind, test.detail)
			}
			if n := w.count(""); n != 0 {
				t.Errorf("%d items were applied", n)
			}
			if code, why := refusal(t, p, signedRequest(t, good, now)); code != http.StatusOK || !p.bytes.TryAcquire(p.cfg.MaxBytes) {
				t.Errorf("a good request afterwards: %d %+v, or bytes were not given back", code, why)
			}
		})
	}
}

func hexMAC(r *http.Request) string {
	const digits = "0123456789abcdef"
	var b strings.Builder
	for _, c := range peer.MAC([]byte(testClusterKeys[0]), r) {
		b.WriteByte(digits[c>>4])
		b.WriteByte(digits[c&15])
	}
	return b.String()
}

func TestPeerRefusesReplays(t *testing.T) {
	now := time.Now()
	w := new(recorder)
	p := primaryPeer(t, w, func(c *PeerConfig) { c.Now = func() time.Time { return now } })
	body := requestBody(t, deltaWrite("a", 1))
	r := signedRequest(t, body, now)
	if code, why := refusal(t, p, r); code != http.StatusOK {
		t.Fatalf("%d %+v", code, why)
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	if code, why := refusal(t, p, r); why.Kind != peerReplayed {
		t.Fatalf("the same request again: %d %+v", code, why)
	}
	now = now.Add(peer.Skew + time.Millisecond)
	if code, why := refusal(t, p, r); why.Kind != peerSkewed {
		t.Fatalf("the same request much later: %d %+v", code, why)
	}
}

// A write that is not acceptable fails alone, and what may not be written is refused as the public API refuses it.
func TestPeerJudgesEachWriteAlone(t *testing.T) {
	seven := 7
	tooMany := make([]replication.Item, maxPeerWriteItems+1)
	for i := range tooMany {
		tooMany[i].Delete = "x"
	}
	one := []replication.Item{{Delete: "x"}}
	idem := func(scope, key string, ttl time.Duration) *replication.Idempotency {
		return &replication.Idempotency{Scope: scope, Key: key, TTL: ttl}
	}
	bad := []replication.Write{
		{Items: []replication.Item{{Queue: &shortline.QueueUpdate{ID: "bad id", Length: &seven}}}},
		{Items: []replication.Item{{Queue: &shortline.QueueUpdate{ID: "a", Length: &seven, Delta: &seven}}}},
		{Items: []replication.Item{{Put: &shortline.Store{ID: "a", Name: "no such latitude", Lat: 91}}}},
		{Items: []replication.Item{{Delete: "a/b"}}},
		{Items: []replication.Item{{Key: &shortline.Key{ID: "k", Name: "no scopes"}}}},
		{Items: []replication.Item{{Use: &shortline.KeyUse{ID: "a key"}}}},
		{Items: []replication.Item{{Delete: "a", Queue: &shortline.QueueUpdate{ID: "a", Length: &seven}}}},
		{Items: []replication.Item{{}}},
		{Items: []replication.Item{{Delete: "good"}, {}}},
		{},
		{Items: tooMany},
		{Items: one, Idempotency: idem("", "k", time.Minute)},
		{Items: one, Idempotency: idem("s", "", time.Minute)},
		{Items: one, Idempotency: idem("s", "k k", time.Minute)},
		{Items: one, Idempotency: idem("s", "k", maxPeerTTL+time.Second)},
	}
	writes := append(bad, deltaWrite("good", 2))
	w := new(recorder)
	rec := httptest.NewRecorder()
	primaryPeer(t, w).Handler().ServeHTTP(rec, signedRequest(t, requestBody(t, writes...), time.Now()))
	dec := json.NewDecoder(rec.Body)
	for range writes {
		var a wireAnswer
		if err := dec.Decode(&a); err != nil {
			t.Fatal(err)
		}
		if a.Write == len(bad) {
			if res, token, err := a.result(1); err != nil || res.Items[0].Queue.Queue.Length != 2 || token.XID != 1 {
				t.Errorf("the good write: %+v %+v %v", res, token, err)
			}
		} else if a.Error != peerInvalid || a.Detail == "" {
			t.Errorf("bad write %d: %+v", a.Write, a)
		}
	}
	if n := w.count(""); n != 1 {
		t.Errorf("%d items were applied, want 1", n)
	}
}

func TestPeerIgnoresWhatANewerNodeAdds(t *testing.T) {
	w := new(recorder)
	body := []byte(strings.Replace(string(requestBody(t, deltaWrite("a", 1))), `"delta":1`, `"delta":1,"mood":"new"`, 1))
	r := signedRequest(t, body, time.Now())
	r.Header.Set(peer.HeaderVersion, strconv.Itoa(peer.Version+1)+" 1")
	r.Header.Set(peer.HeaderSignature, hexMAC(r))
	if code, why := refusal(t, primaryPeer(t, w), r); code != http.StatusOK || w.count("a") != 1 {
		t.Errorf("%d %+v", code, why)
	}
}

func TestPeerStatus(t *testing.T) {
	p := primaryPeer(t, new(recorder), func(c *PeerConfig) { c.Applied = func() string { return "token" } })
	s, _ := peer.NewSigner(testClusterKeys)
	r := httptest.NewRequest(http.MethodGet, "http://peer"+peerStatusPath, nil)
	if code, why := refusal(t, p, r); why.Kind != peerUnauthorized {
		t.Errorf("unsigned: %d %+v", code, why)
	}
	s.Sign(r, nil, 1, time.Now())
	rec := httptest.NewRecorder()
	p.Handler().ServeHTTP(rec, r)
	var got PeerStatus
	if err := json.Unmarshal(rec.Body.Bytes(), &got); err != nil || got != (PeerStatus{Version: peer.Version, Region: "eu", Primary: true, Epoch: 3, Token: "token"}) {
		t.Errorf("%s %v", rec.Body, err)
	}
}

// The listener speaks nothing but HTTP/2, so a client of another protocol is cut off.
func TestPeerRefusesHTTP1(t *testing.T) {
	addr := servePeer(t, primaryPeer(t, new(recorder)))
	tr := new(http.Transport)
	defer tr.CloseIdleConnections()
	res, err := (&http.Client{Transport: tr}).Get("http://" + addr + peerStatusPath)
	if err == nil {
		_ = res.Body.Close()
		if res.StatusCode < 400 {
			t.Errorf("answered %s", res.Status)
		}
	}
}

func FuzzPeerDecode(f *testing.F) {
	f.Add([]byte(`{"timeout_ms":5,"idempotency":{"scope":"s","key":"k","hash":"`+strings.Repeat("0", 64)+`","ttl_ms":5},"items":[{"delete":"a"}]}`), false)
	f.Add(requestBody(f, deltaWrite("a", 1), replication.Write{Items: []replication.Item{{Put: &shortline.Store{ID: "a", Name: "A"}}}}), true)
	f.Add(requestBody(f, replication.Write{Items: []replication.Item{{Use: &shortline.KeyUse{ID: "k", At: time.Unix(3600, 0)}}}}), false)
	f.Add([]byte(`{"timeout_ms":-9223372036854775808}`), true)
	f.Add([]byte(`[]`), false)
	f.Fuzz(func(t *testing.T, body []byte, lenient bool) {
		writes, err := decodeWrites(body, lenient)
		if err != nil && writes != nil {
			t.Fatal("an error, and writes to apply all the same")
		}
		for _, in := range writes {
			if in.timeout < 0 || in.timeout > maxPeerTimeout {
				t.Fatalf("timeout %v", in.timeout)
			}
			if in.fault != nil {
				if len(in.write.Items) != 0 {
					t.Fatal("a fault, and items to apply all the same")
				}
				continue
			}
			if in.write.Idempotency == nil || len(in.write.Items) == 0 {
				t.Fatalf("%+v has no key or no items", in.write)
			}
			line, err := encodeWrite(&in.write) // what is accepted survives another round
			if err != nil {
				t.Fatal(err)
			}
			again, err := decodeWrites(appendLine(nil, line, time.Second), false)
			if err != nil || len(again) != 1 || again[0].fault != nil {
				t.Fatalf("%s does not come back: %v %+v", line, err, again)
			}
		}
	})
}
