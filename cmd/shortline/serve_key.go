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
	"github.com/shortline/shortline/edge"
	"github.com/shortline/shortline/replication"
)

// firstKey makes the first admin key of a deployment that has no keys at all, and shows it. A node outside the primary region
// makes none: keys come to it with everything else.
func (n *node) firstKey(ctx context.Context) error {
	if primary, _ := n.primary(); !primary {
		return nil
	}
	keys, err := n.store.Keys(ctx)
	if err != nil {
		n.log.Warn("whether there are API keys cannot be told; none is made", "err", err)
		return nil
	}
	if len(keys) > 0 {
		// Another node may have made one a moment ago. Whoever is told that this node is ready must find it valid here.
		bounded, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		if newest, err := n.feed.Ahead(bounded); err == nil {
			_ = n.feed.Wait(bounded, newest)
		}
		return nil
	}
	secret, token, err := makeAdminKey(ctx, n.router, n.s.data)
	if err != nil {
		return err
	}
	if err := n.feed.Wait(ctx, token); err != nil {
		return nil // stopped meanwhile
	}
	_, err = fmt.Fprintf(n.app.stderr, "\n  admin key: %s\n  It is shown this once and kept in %s; make more with: shortline keys create\n\n", secret, filepath.Join(n.s.data, adminKeyFile))
	return err
}

// makeAdminKey makes an admin key and returns its secret form. The key is on disk, in a file of mode 0600, before it is valid:
// a crash in between leaves a file whose key the next start takes up, never a valid key that nobody knows.
func makeAdminKey(ctx context.Context, writer edge.Writer, dir string) (string, replication.Token, error) {
	var none replication.Token
	path := filepath.Join(dir, adminKeyFile)
	key, secret, err := shortline.NewKey("first admin key", []shortline.Scope{shortline.ScopeAdmin}, nil, time.Now())
	if err != nil {
		return "", none, err
	}
	left, err := os.ReadFile(path)
	switch {
	case err == nil:
		secret = strings.TrimSpace(string(left))
		if key.ID, key.Hash, err = shortline.ParseKey(secret); err != nil {
			return "", none, fmt.Errorf("%s holds something else than an API key; move it away and start again", path)
		}
		if err := os.Chmod(path, 0o600); err != nil {
			return "", none, fmt.Errorf("protect the admin key: %w", err)
		}
	case errors.Is(err, fs.ErrNotExist):
		if err := writeSecret(path, secret); err != nil {
			return "", none, fmt.Errorf("keep the admin key in %s: %w", path, err)
		}
	default:
		return "", none, fmt.Errorf("read the admin key: %w", err)
	}
	_, token, err := writer.Submit(ctx, replication.Write{Items: []replication.Item{{Key: &key}}})
	if err != nil {
		return "", none, fmt.Errorf("store the admin key: %w", err)
	}
	return secret, token, nil
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
