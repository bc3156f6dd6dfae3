package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/replication"
)

// keyStore is what ensureAdminKey needs of the store.
type keyStore interface {
	Keys(ctx context.Context) ([]shortline.Key, error)
	Commit(ctx context.Context, writes []replication.Write) ([]replication.Result, replication.Token, error)
}

// ensureAdminKey makes the first admin key of a store that has no keys at all, and returns its secret form; "" where there
// were keys. The key is on disk, in a file of mode 0600, before it is valid: a crash in between leaves a file whose key the
// next start takes up, never a valid key that nobody knows.
func ensureAdminKey(ctx context.Context, store keyStore, dir string) (string, error) {
	keys, err := store.Keys(ctx)
	if err != nil {
		return "", fmt.Errorf("look for API keys: %w", err)
	}
	if len(keys) > 0 {
		return "", nil
	}
	path := filepath.Join(dir, adminKeyFile)
	key, secret, err := shortline.NewKey("first admin key", []shortline.Scope{shortline.ScopeAdmin}, nil, time.Now())
	if err != nil {
		return "", err
	}
	left, err := os.ReadFile(path)
	switch {
	case err == nil:
		secret = strings.TrimSpace(string(left))
		if key.ID, key.Hash, err = shortline.ParseKey(secret); err != nil {
			return "", fmt.Errorf("%s holds something else than an API key; move it away and start again", path)
		}
		if err := os.Chmod(path, 0o600); err != nil {
			return "", fmt.Errorf("protect the admin key: %w", err)
		}
	case errors.Is(err, fs.ErrNotExist):
		if err := writeSecret(path, secret); err != nil {
			return "", fmt.Errorf("keep the admin key in %s: %w", path, err)
		}
	default:
		return "", fmt.Errorf("read the admin key: %w", err)
	}
	if _, _, err := store.Commit(ctx, []replication.Write{{Items: []replication.Item{{Key: &key}}}}); err != nil {
		return "", fmt.Errorf("store the admin key: %w", err)
	}
	return secret, nil
}

// writeSecret writes a file that only its owner can read, whole or not at all.
func writeSecret(path, secret string) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".admin.key-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	_, err = f.WriteString(secret + "\n")
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
