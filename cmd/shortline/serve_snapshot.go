package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/shortline/shortline/replication"
)

// Files in the data folder of a node whose stores are in PostgreSQL.
const (
	snapshotFile   = "stores.snapshot" // all rows and keys, to start from while the database is down
	deploymentFile = "deployment.id"   // of which database that is
)

// deployed is a store that knows which database it is.
type deployed interface {
	Deployment(ctx context.Context) (string, error)
}

// identify returns the id of the node's database: by its own account, else as it was when it last answered; "" where neither is
// known.
func (n *node) identify(ctx context.Context) (string, error) {
	store, ok := n.store.(deployed)
	if !ok {
		return "", nil
	}
	path := filepath.Join(n.s.data, deploymentFile)
	kept, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	known := strings.TrimSpace(string(kept))
	id, err := store.Deployment(ctx)
	if err != nil {
		return known, nil // whoever needs the database says what is the matter
	}
	if id != known {
		if known != "" {
			n.log.Warn("this is another database than the data folder was used with before; its local snapshot is not used", "before", known, "now", id)
		}
		err = writeSecret(path, id)
	}
	return id, err
}

// fallback is the local snapshot to start from while the database is down.
func (n *node) fallback() replication.Fallback {
	if !n.s.localSnapshot || n.deployment == "" {
		return nil
	}
	return replication.FileFallback(filepath.Join(n.s.data, snapshotFile), n.deployment)
}

// newKeeper makes what saves the local snapshot; nil where none is to be kept.
func (n *node) newKeeper(r prometheus.Registerer) *replication.SnapshotKeeper {
	if !n.s.localSnapshot || n.deployment == "" {
		return nil
	}
	return replication.NewSnapshotKeeper(n.store, replication.SnapshotKeeperConfig{
		Path: filepath.Join(n.s.data, snapshotFile), Save: replication.SaveConfig{Deployment: n.deployment, Lineage: n.control.lineage},
		Log: n.log, Registerer: r})
}
