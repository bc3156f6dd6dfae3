package peer

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/shortline/shortline/internal/pki"
	"github.com/shortline/shortline/internal/span"
)

// maxCallBytes bounds both bodies of a Call.
const maxCallBytes = 4 << 20

// Client calls other nodes.
type Client struct {
	signer    *Signer
	transport *http.Transport
	scheme    string
}

// NewClient makes a Client that signs with the first of the keys and shows the identity (nil: it speaks without TLS). The error is ErrNoKey.
func NewClient(keys Keys, id *pki.Identity) (*Client, error) {
	s, err := NewSigner(keys)
	if err != nil {
		return nil, err
	}
	return &Client{signer: s, transport: NewTransport(id), scheme: Scheme(id)}, nil
}

// Call posts in as JSON to a path at addr ("host:port") and decodes the answer into out, nil where it is of no interest.
// What the other end refused is a *Refusal; with any other error it may or may not have been done. The context must
// have a deadline.
func (c *Client) Call(ctx context.Context, addr, path string, in, out any) error {
	if _, ok := ctx.Deadline(); !ok {
		return fmt.Errorf("call %s at %s: the context has no deadline", path, addr)
	}
	body, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("call %s at %s: %w", path, addr, err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.scheme+addr+path, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("call %s at %s: %w", path, addr, err)
	}
	req.Header.Set("Content-Type", "application/json")
	c.signer.Sign(req, body, 1, time.Now())
	req, s := Outgoing(req, []trace.Span{span.Of(ctx)})
	res, err := c.transport.RoundTrip(req)
	span.End(s, err)
	if err != nil {
		return fmt.Errorf("call %s at %s: %w", path, addr, err)
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(res.Body, maxCallBytes))
	if err != nil {
		return fmt.Errorf("call %s at %s: read the answer: %w", path, addr, err)
	}
	if res.StatusCode != http.StatusOK {
		why := new(Refusal)
		if res.Header.Get(HeaderVersion) == "" || json.Unmarshal(text, why) != nil || why.Kind == "" {
			return fmt.Errorf("call %s at %s: answered %s", path, addr, res.Status)
		}
		return fmt.Errorf("call %s at %s: %w", path, addr, why)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(text, out); err != nil {
		return fmt.Errorf("call %s at %s: read the answer: %w", path, addr, err)
	}
	return nil
}

// Close drops the connections that are idle.
func (c *Client) Close() { c.transport.CloseIdleConnections() }

// Handle serves one path of a receiver: it verifies the request, decodes its body, and answers with what do returns, as
// JSON. An error that is a *Refusal is told as it is, any other as Failed with its text. A body with fields that are not known is refused
// from a sender of this version or an older one.
func Handle[In, Out any](v *Verifier, do func(context.Context, In) (Out, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(HeaderVersion, strconv.Itoa(Version))
		w.Header().Set("Content-Type", "application/json")
		in, why := decode[In](v, w, r)
		if why != nil {
			refuse(w, why)
			return
		}
		out, err := do(r.Context(), in)
		if err != nil {
			if !errors.As(err, &why) {
				why = &Refusal{Failed, err.Error()}
			}
			refuse(w, why)
			return
		}
		_ = json.NewEncoder(w).Encode(out) // a caller that is gone has given up by itself
	})
}

func refuse(w http.ResponseWriter, why *Refusal) {
	w.WriteHeader(why.Kind.Status())
	_ = json.NewEncoder(w).Encode(why)
}

func decode[In any](v *Verifier, w http.ResponseWriter, r *http.Request) (in In, why *Refusal) {
	if r.Method != http.MethodPost {
		return in, &Refusal{Malformed, "only POST is known here"}
	}
	req, why := v.Verify(r)
	if why != nil {
		return in, why
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxCallBytes))
	if err != nil {
		return in, &Refusal{TooLarge, "the body could not be read whole: " + err.Error()}
	}
	if sha256.Sum256(body) != req.Digest {
		return in, &Refusal{Unauthorized, "the body is not the one that was signed"}
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	if req.Version <= Version {
		dec.DisallowUnknownFields()
	}
	if err := dec.Decode(&in); err != nil {
		return in, &Refusal{Malformed, err.Error()}
	}
	return in, nil
}
