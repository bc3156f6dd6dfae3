package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/shortline/shortline/regions"
)

// Files of a control folder, beside raft's own.
const (
	stateFile    = "state.json" // what this node knew last
	voterFile    = "voter.json" // whose voter this is
	raftFile     = "raft.db"
	snapshotsDir = "snapshots"
)

// voterState says whose folder it is.
type voterState struct {
	Cluster string     `json:"cluster"`
	Region  regions.ID `json:"region"`
	// Rejoining says that the voter lost what it had agreed to, and neither votes nor leads until it has caught up.
	Rejoining bool `json:"rejoining,omitempty"`
}

// keeper keeps the last known state in the node's folder.
type keeper struct {
	dir string

	mu     sync.Mutex
	kept   kept        // as in the file; guarded by mu
	cached *voterState // as in the file, nil if there is none; guarded by mu
}

// openKeeper reads the folder and refuses one of another cluster or region.
func openKeeper(cfg Config) (*keeper, error) {
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the control folder: %w", err)
	}
	k := &keeper{dir: cfg.Dir}
	text, err := os.ReadFile(filepath.Join(cfg.Dir, stateFile))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		k.kept.Cluster = cfg.Cluster
	case err != nil:
		return nil, fmt.Errorf("read the control state: %w", err)
	default:
		if k.kept, err = readKept(bytes.NewReader(text)); err != nil {
			return nil, fmt.Errorf("%w; it is in %s", err, cfg.Dir)
		}
	}
	var v voterState
	switch found, err := readJSON(filepath.Join(cfg.Dir, voterFile), &v); {
	case err != nil:
		return nil, fmt.Errorf("read whose voter this is: %w", err)
	case found:
		k.cached = &v
	}
	switch {
	case k.kept.Cluster != cfg.Cluster:
		return nil, fmt.Errorf("the control folder %s is of the cluster %q, this node of %q; give it a folder of its own", cfg.Dir, k.kept.Cluster, cfg.Cluster)
	case k.cached != nil && k.cached.Cluster != cfg.Cluster:
		return nil, fmt.Errorf("the control folder %s is of the cluster %q, this node of %q; give it a folder of its own", cfg.Dir, k.cached.Cluster, cfg.Cluster)
	case k.cached != nil && k.cached.Region != cfg.Region:
		return nil, fmt.Errorf("the control folder %s is that of the voter of %s, this node is of %s; give it a folder of its own", cfg.Dir, k.cached.Region, cfg.Region)
	}
	return k, nil
}

func (k *keeper) last() kept {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.kept
}

// voter returns whose voter the folder is of; nil: of none.
func (k *keeper) voter() *voterState {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.cached
}

func (k *keeper) setVoter(v voterState) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := writeJSON(filepath.Join(k.dir, voterFile), v); err != nil {
		return fmt.Errorf("note whose voter this is: %w", err)
	}
	k.cached = &v
	return nil
}

// run writes each change of what n knows, until ctx ends; then what there is. A folder that cannot be written costs what the
// node would know after a restart before it hears of others, and nothing else.
func (k *keeper) run(ctx context.Context, n *Node) error {
	for {
		changed := n.Changed()
		if err := k.keep(n); err != nil {
			n.log.Error("keeping the control state", "err", err)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			if err := k.keep(n); err != nil {
				n.log.Error("keeping the control state", "err", err)
			}
			return nil
		}
	}
}

func (k *keeper) keep(n *Node) error {
	v := n.View()
	k.mu.Lock()
	defer k.mu.Unlock()
	if v.State.ClusterID == "" || v.Index == k.kept.Index && v.Incarnation == k.kept.Incarnation {
		return nil
	}
	next := kept{Format: keptFormat, Cluster: n.cfg.Cluster, Incarnation: v.Incarnation, Index: v.Index, State: v.State}
	if err := writeJSON(filepath.Join(k.dir, stateFile), next); err != nil {
		return err
	}
	k.kept = next
	return nil
}

func readJSON(path string, into any) (found bool, err error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, json.Unmarshal(text, into)
}

// writeJSON replaces a file whole, and returns once that is on disk.
func writeJSON(path string, v any) error {
	text, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	_, err = f.Write(append(text, '\n'))
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
