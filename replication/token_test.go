package replication_test

import (
	"encoding/base64"
	"errors"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/shortline/shortline/replication"
)

// randomNumber is as often small as large: the length of a uvarint is what matters.
func randomNumber(rng *rand.Rand) uint64 { return rng.Uint64() >> rng.IntN(65) }

func randomToken(rng *rand.Rand) replication.Token {
	return replication.Token{Epoch: randomNumber(rng), XID: randomNumber(rng), LSN: randomNumber(rng)}
}

func TestTokenRoundTrip(t *testing.T) {
	tokens := []replication.Token{{}, {Epoch: 1, XID: 1}, {Epoch: math.MaxUint64, XID: math.MaxUint64, LSN: math.MaxUint64}}
	rng := rand.New(rand.NewPCG(1, 2))
	for range 10_000 {
		tokens = append(tokens, randomToken(rng))
	}
	for _, want := range tokens {
		text := want.String()
		got, err := replication.ParseToken(text)
		if err != nil || got != want {
			t.Fatalf("ParseToken(%q) = %+v, %v; want %+v", text, got, err, want)
		}
		if strings.ContainsAny(text, "+/= \r\n\"\\,;") {
			t.Fatalf("%q cannot stand in a header or a URL as it is", text)
		}
	}
}

func TestParseTokenRefuses(t *testing.T) {
	encode := func(b ...byte) string { return base64.RawURLEncoding.EncodeToString(b) }
	good := replication.Token{Epoch: 3, XID: 700, LSN: 1 << 40}.String()
	for name, text := range map[string]string{
		"nothing":                       "",
		"a number":                      "17",
		"no base64":                     "?",
		"the other alphabet":            "AQMD+/8",
		"padding":                       good + "==",
		"a line break":                  good[:4] + "\n" + good[4:],
		"space around it":               " " + good,
		"two of them":                   good + "," + good,
		"cut off":                       good[:len(good)-2],
		"more behind it":                encode(1, 3, 7, 9, 0),
		"another version":               encode(2, 3, 7, 9),
		"a version and no more":         encode(1),
		"one field missing":             encode(1, 3, 7),
		"an endless uvarint":            encode(1, 3, 0x80),
		"a uvarint past 64 bits":        encode(1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 1, 1),
		"stray bits at the end":         "AQMHCR", // AQMHCQ with a bit set that stands for nothing
		"a number with a needless byte": encode(1, 0x83, 0, 7, 9),
		"very long":                     strings.Repeat("A", 1<<20),
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := replication.ParseToken(text); !errors.Is(err, replication.ErrBadToken) || got != (replication.Token{}) {
				t.Errorf("ParseToken = %+v, %v; want nothing and ErrBadToken", got, err)
			}
		})
	}
}

// The longest token must be within what ParseToken looks at.
func TestLongestTokenIsParsed(t *testing.T) {
	longest := replication.Token{Epoch: math.MaxUint64, XID: math.MaxUint64, LSN: math.MaxUint64}
	if n := len(longest.String()); n > 64 {
		t.Errorf("the longest token has %d bytes, more than ParseToken takes", n)
	}
}

func FuzzParseToken(f *testing.F) {
	f.Add("")
	f.Add("AQMHCQ")
	f.Add(replication.Token{Epoch: 1, XID: 2, LSN: 3}.String())
	f.Add(replication.Token{Epoch: math.MaxUint64, XID: math.MaxUint64, LSN: math.MaxUint64}.String())
	f.Fuzz(func(t *testing.T, text string) {
		token, err := replication.ParseToken(text)
		if err != nil {
			if !errors.Is(err, replication.ErrBadToken) || token != (replication.Token{}) {
				t.Fatalf("ParseToken(%q) = %+v, %v", text, token, err)
			}
			return
		}
		again, err := replication.ParseToken(token.String())
		if err != nil || again != token || token.String() != text {
			t.Fatalf("%q is %+v, whose own text %q is %+v, %v", text, token, token.String(), again, err)
		}
	})
}

func TestTokenOrder(t *testing.T) {
	ascending := []replication.Token{
		{}, {XID: 1}, {XID: math.MaxUint64}, {Epoch: 1}, {Epoch: 1, XID: 5}, {Epoch: 1, XID: 6}, {Epoch: 2, XID: 1}, {Epoch: math.MaxUint64},
	}
	for i, a := range ascending {
		for j, b := range ascending {
			if got := a.Less(b); got != (i < j) {
				t.Errorf("%+v.Less(%+v) = %v", a, b, got)
			}
			if got := replication.Max(a, b); got != ascending[max(i, j)] {
				t.Errorf("Max(%+v, %+v) = %+v", a, b, got)
			}
		}
	}
	low, high := replication.Token{Epoch: 1, XID: 5, LSN: 10}, replication.Token{Epoch: 1, XID: 5, LSN: 20}
	if low.Less(high) || high.Less(low) {
		t.Error("the log position takes part in the order")
	}
}

func TestTokenOrderIsStrict(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range 10_000 {
		// Few values, so that equal parts are common.
		a := replication.Token{Epoch: rng.Uint64N(3), XID: rng.Uint64N(3)}
		b := replication.Token{Epoch: rng.Uint64N(3), XID: rng.Uint64N(3)}
		c := replication.Token{Epoch: rng.Uint64N(3), XID: rng.Uint64N(3)}
		if a.Less(a) || a.Less(b) && b.Less(a) || !a.Less(b) && !b.Less(a) && a != b || a.Less(b) && b.Less(c) && !a.Less(c) {
			t.Fatalf("%+v, %+v and %+v are in no strict order", a, b, c)
		}
		if m := replication.Max(a, b); m.Less(a) || m.Less(b) || m != a && m != b {
			t.Fatalf("Max(%+v, %+v) = %+v", a, b, m)
		}
	}
}
