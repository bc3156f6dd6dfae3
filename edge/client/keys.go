package client

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/shortline/shortline"
)

// Key is an API key without its secret.
type Key struct {
	ID        shortline.KeyID     `json:"id"`
	Name      string              `json:"name"`
	Scopes    []shortline.Scope   `json:"scopes"`
	Stores    []shortline.StoreID `json:"stores,omitempty"` // empty: all
	CreatedAt time.Time           `json:"created_at"`
	RevokedAt *time.Time          `json:"revoked_at,omitempty"`
	ExpiresAt *time.Time          `json:"expires_at,omitempty"`
	// LastUsedAt is the hour in which the key was last used; nil: never, as far as is known.
	LastUsedAt *time.Time `json:"last_used_at,omitempty"`
}

// KeySpec describes a key to create.
type KeySpec struct {
	Name   string              `json:"name"`
	Scopes []shortline.Scope   `json:"scopes"`
	Stores []shortline.StoreID `json:"stores,omitempty"`
	// ExpiresAt is when the key ends by itself; nil: never.
	ExpiresAt *time.Time `json:"expires_at,omitempty"`
}

// KeyAnswer is one key.
type KeyAnswer struct {
	Answer `json:"-"`
	Key
	// Secret is the key itself; only CreateKey has it, and nobody can show it again.
	Secret string `json:"key,omitempty"`
}

// KeysAnswer is every key, revoked ones too.
type KeysAnswer struct {
	Answer `json:"-"`
	Keys   []Key `json:"keys"`
}

// CreateKey makes an API key. It is sent once, save where the server was not reached at all: after an UnreachableError
// there may be a key that nobody knows, which Keys shows.
func (c *Client) CreateKey(ctx context.Context, spec KeySpec) (*KeyAnswer, error) {
	body, err := json.Marshal(spec)
	if err != nil {
		return nil, fmt.Errorf("key %s: %w", spec.Name, err)
	}
	out := &KeyAnswer{}
	out.Answer, _, err = c.do(ctx, call{admin: true, method: http.MethodPost, path: "/admin/v1/keys", body: body, contentType: "application/json"}, out)
	if err != nil {
		return nil, err
	}
	return out, nil
}

// RotateKey makes a successor of a key, which ends after the overlap. Like CreateKey it is sent once. An unknown id is shortline.ErrNotFound.
func (c *Client) RotateKey(ctx context.Context, id shortline.KeyID, overlap time.Duration) (*KeyAnswer, error) {
	out := &KeyAnswer{}
	var err error
	out.Answer, _, err = c.do(ctx, call{admin: true, method: http.MethodPost, path: "/admin/v1/keys/" + url.PathEscape(string(id)) + "/rotate",
		body: fmt.Appendf(nil, `{"overlap_s":%d}`, int(overlap.Seconds())), contentType: "application/json"}, out)
	if err != nil {
		return nil, err
	}
	return out, nil
}

// Keys returns every key there is.
func (c *Client) Keys(ctx context.Context) (*KeysAnswer, error) {
	out := &KeysAnswer{}
	var err error
	out.Answer, _, err = c.do(ctx, call{admin: true, method: http.MethodGet, path: "/admin/v1/keys", repeatable: true}, out)
	if err != nil {
		return nil, err
	}
	return out, nil
}

// RevokeKey ends a key for good. An unknown id is shortline.ErrNotFound.
func (c *Client) RevokeKey(ctx context.Context, id shortline.KeyID) (*KeyAnswer, error) {
	out := &KeyAnswer{}
	var err error
	out.Answer, _, err = c.do(ctx, call{admin: true, method: http.MethodDelete, path: "/admin/v1/keys/" + url.PathEscape(string(id)), repeatable: true}, out)
	if err != nil {
		return nil, err
	}
	return out, nil
}
