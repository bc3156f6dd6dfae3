package shortline

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Scope is something that an API key may do.
type Scope string

// The scopes.
const (
	ScopeQueueWrite  Scope = "queue:write"  // report queues, of all stores or of those that the key names
	ScopeStoresWrite Scope = "stores:write" // create, change, delete and import stores
	ScopeRead        Scope = "read"         // read, where reads need a key
	ScopeAdmin       Scope = "admin"        // everything, and the operator's verbs
)

// Scopes lists every scope there is.
func Scopes() []Scope { return []Scope{ScopeQueueWrite, ScopeStoresWrite, ScopeRead, ScopeAdmin} }

// KeyID is the public part of an API key; it may be shown and logged.
type KeyID string

// Key is an API key as it is stored: the secret itself is not in it, only its hash.
type Key struct {
	ID     KeyID   `json:"id"`
	Name   string  `json:"name"`
	Scopes []Scope `json:"scopes"`
	// Stores limits ScopeQueueWrite to these; empty means all.
	Stores []StoreID `json:"stores,omitempty"`
	// Hash is the SHA-256 of the secret. The secret has 160 random bits, so that a slow hash would add nothing.
	Hash      [sha256.Size]byte `json:"-"`
	CreatedAt time.Time         `json:"created_at"`
	RevokedAt *time.Time        `json:"revoked_at,omitempty"`
	// ExpiresAt is when the key ends by itself; nil: never.
	ExpiresAt *time.Time `json:"expires_at,omitempty"`
	// LastUsedAt is when the key was last used, to the hour; nil: never, as far as is known.
	LastUsedAt *time.Time `json:"last_used_at,omitempty"`
	Rev        uint64     `json:"-"`
}

// KeyUse says that a key was used at a time.
type KeyUse struct {
	ID KeyID
	At time.Time
}

// Follow makes k a later state of old, whatever k was made of: what was revoked stays so, an end only comes nearer, and the newest use counts.
// So a change that was made of an older state, or that comes late, opens no door again.
func (k *Key) Follow(old *Key) {
	if old.RevokedAt != nil {
		k.RevokedAt = old.RevokedAt
	}
	if old.ExpiresAt != nil && (k.ExpiresAt == nil || old.ExpiresAt.Before(*k.ExpiresAt)) {
		k.ExpiresAt = old.ExpiresAt
	}
	if old.LastUsedAt != nil && (k.LastUsedAt == nil || old.LastUsedAt.After(*k.LastUsedAt)) {
		k.LastUsedAt = old.LastUsedAt
	}
}

// ErrBadKey says that a text is not an API key at all.
var ErrBadKey = errors.New(`not an API key; a key looks like "sl_ID_SECRET"`)

const keyAlphabet = "abcdefghijkmnpqrstuvwxyz23456789"

var keyEncoding = base32.NewEncoding(keyAlphabet).WithPadding(base32.NoPadding)

// NewKey makes an API key and returns it with its secret form "sl_ID_SECRET", which is shown once and kept nowhere.
func NewKey(name string, scopes []Scope, stores []StoreID, now time.Time) (Key, string, error) {
	k := Key{Name: strings.TrimSpace(name), Scopes: slices.Clone(scopes), Stores: slices.Clone(stores), CreatedAt: now.UTC().Truncate(time.Second)}
	slices.Sort(k.Scopes)
	k.Scopes = slices.Compact(k.Scopes)
	slices.Sort(k.Stores)
	k.Stores = slices.Compact(k.Stores)
	var random [30]byte
	_, _ = rand.Read(random[:]) // crypto/rand.Read never returns an error; it ends the program where the system has no entropy
	k.ID = KeyID(keyEncoding.EncodeToString(random[:10]))
	secret := keyEncoding.EncodeToString(random[10:])
	k.Hash = sha256.Sum256([]byte(secret))
	return k, "sl_" + string(k.ID) + "_" + secret, k.Validate()
}

// ParseKey splits a key's secret form into its public id and the hash of its secret. The error is ErrBadKey.
func ParseKey(text string) (KeyID, [sha256.Size]byte, error) {
	var none [sha256.Size]byte
	rest, ok := strings.CutPrefix(text, "sl_")
	if !ok {
		return "", none, ErrBadKey
	}
	id, secret, ok := strings.Cut(rest, "_")
	if !ok || len(id) != 16 || len(secret) != 32 || strings.Trim(id+secret, keyAlphabet) != "" {
		return "", none, ErrBadKey
	}
	return KeyID(id), sha256.Sum256([]byte(secret)), nil
}

// Matches tells in constant time whether the hash is that of the key's secret, and that the key is not revoked.
func (k *Key) Matches(hash [sha256.Size]byte) bool {
	return subtle.ConstantTimeCompare(k.Hash[:], hash[:]) == 1 && k.RevokedAt == nil
}

// Ended tells whether the key is revoked or has expired.
func (k *Key) Ended(now time.Time) bool {
	return k.RevokedAt != nil || k.ExpiresAt != nil && !now.Before(*k.ExpiresAt)
}

// Allows tells whether the key has the scope; admin has every one.
func (k *Key) Allows(s Scope) bool {
	return slices.Contains(k.Scopes, s) || slices.Contains(k.Scopes, ScopeAdmin)
}

// AllowsQueue tells whether the key may report the queue of the store.
func (k *Key) AllowsQueue(id StoreID) bool {
	if slices.Contains(k.Scopes, ScopeAdmin) {
		return true
	}
	return slices.Contains(k.Scopes, ScopeQueueWrite) && (len(k.Stores) == 0 || slices.Contains(k.Stores, id))
}

// Validate reports every fault of k as one *InvalidError, or nil.
func (k *Key) Validate() error {
	var f faults
	if k.Name == "" {
		f.add("name", "is required; say who or what the key is for")
	}
	f.text("name", k.Name, MaxNameBytes)
	if len(k.Scopes) == 0 {
		f.add("scopes", "at least one of %s is required", scopeList())
	}
	for i, s := range k.Scopes {
		if !slices.Contains(Scopes(), s) {
			f.add(fmt.Sprintf("scopes[%d]", i), "%q is not a scope; there are %s", s, scopeList())
		}
	}
	if len(k.Stores) > 1000 {
		f.add("stores", "names %d stores, at most 1000 are allowed", len(k.Stores))
	}
	if len(k.Stores) > 0 && !slices.Contains(k.Scopes, ScopeQueueWrite) {
		f.add("stores", "limits queue:write, which the key does not have")
	}
	for i, id := range k.Stores {
		if d := storeIDFault(string(id)); d != "" {
			f.add(fmt.Sprintf("stores[%d]", i), "%s", d)
		}
	}
	return f.err()
}

func scopeList() string {
	var names []string
	for _, s := range Scopes() {
		names = append(names, string(s))
	}
	return strings.Join(names, ", ")
}
