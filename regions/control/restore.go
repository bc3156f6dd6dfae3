package control

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/raft"

	"github.com/shortline/shortline/regions"
)

// Backup returns what the node of a folder knew last, in the form that Restore reads: within a second of all that was agreed
// on while it runs. The node may run or not.
func Backup(dir string) ([]byte, View, error) {
	text, err := os.ReadFile(filepath.Join(dir, stateFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, View{}, fmt.Errorf("%s has no control state: no node that knows of any kept it there", dir)
	}
	if err != nil {
		return nil, View{}, fmt.Errorf("read the control state: %w", err)
	}
	k, err := readKept(bytes.NewReader(text))
	return text, View{State: k.State, Index: k.Index, Incarnation: k.Incarnation}, err
}

// RestoreConfig says how a control plane goes on that has lost its majority for good.
type RestoreConfig struct {
	Cluster string
	// Dir is the control folder of the voter that goes on, Region its region. The node must not run.
	Dir    string
	Region regions.ID
	// From is a file with a backup; "": what the folder has itself, agreed on or not.
	From string
	// Primary is the region that is to be primary ("": the one of before), Epoch is at least the epoch that begins.
	Primary regions.ID
	Epoch   uint64
	By, Why string
	Now     time.Time
}

// Restore makes a folder that of the only voter, with the state of before in a new epoch. The other voters' nodes must have been
// stopped, and their control folders be emptied before they start again: they are taken in as new ones then. What was in the
// folder is kept in a folder below it, which is returned. Nodes and voters that still have the old state are refused from then on.
func Restore(cfg RestoreConfig) (before, after View, aside string, err error) {
	log := raftLog(Config{}.withDefaults().Log)
	base, term, err := cfg.base(log)
	if err != nil {
		return before, after, "", err
	}
	before = View{State: base.State, Index: base.Index, Incarnation: base.Incarnation}
	switch {
	case base.State.ClusterID == "":
		return before, after, "", errors.New("there is no control state to go on from; name a backup")
	case base.Cluster != cfg.Cluster:
		return before, after, "", fmt.Errorf("the control state is that of the cluster %q, not of %q", base.Cluster, cfg.Cluster)
	}
	if _, ok := base.State.Regions[cfg.Region]; !ok {
		return before, after, "", fmt.Errorf("the control state knows of no region %s", cfg.Region)
	}
	next, why := regions.Apply(base.State, regions.Command{At: cfg.Now, By: cfg.By, Why: cfg.Why, Restore: &regions.Restore{Primary: cfg.Primary, Epoch: cfg.Epoch}})
	if why != nil {
		return before, after, "", why
	}
	base.Format, base.State, base.Incarnation = keptFormat, next, max(base.Incarnation, 1)+1
	base.Index++
	after = View{State: next, Index: base.Index, Incarnation: base.Incarnation}
	if aside, err = setAside(cfg.Dir, cfg.Now); err != nil {
		return before, after, aside, err
	}
	return before, after, aside, cfg.write(base, term+1, log)
}

// base finds the newest state there is to go on from, and a term that is not below any that a voter with it has seen.
func (cfg RestoreConfig) base(log hclogger) (kept, uint64, error) {
	c := raft.DefaultConfig()
	c.Logger = log
	var own kept
	var term uint64
	var whose voterState
	if _, err := readJSON(filepath.Join(cfg.Dir, voterFile), &whose); err != nil {
		return own, 0, fmt.Errorf("read whose voter this is: %w", err)
	}
	if _, err := os.Stat(filepath.Join(cfg.Dir, raftFile)); err == nil {
		store, snaps, err := openStores(cfg.Dir, c)
		if err != nil {
			return own, 0, err
		}
		defer func() { _ = store.Close() }()
		if own, term, err = replay(store, store, snaps, whose.Cluster); err != nil {
			return own, 0, err
		}
	}
	if cfg.From != "" {
		text, err := os.ReadFile(cfg.From)
		if err != nil {
			return own, 0, fmt.Errorf("read the backup: %w", err)
		}
		from, err := readKept(bytes.NewReader(text))
		from.Incarnation = max(from.Incarnation, own.Incarnation)
		from.Index = max(from.Index, own.Index)
		return from, term, err
	}
	text, known, err := Backup(cfg.Dir)
	if err == nil && known.newer(View{Index: own.Index + 1, Incarnation: own.Incarnation}) {
		own, err = readKept(bytes.NewReader(text))
		return own, term, err
	}
	return own, term, nil // without a state of its own there may be a log all the same
}

// replay reads a voter's snapshot and its whole log, as if all of that had been agreed on.
func replay(logs raft.LogStore, stable raft.StableStore, snaps raft.SnapshotStore, cluster string) (kept, uint64, error) {
	l := &ledger{clock: Boottime, renewed: map[string]time.Duration{}, changed: func(kept, bool) {}}
	l.kept.Cluster = cluster
	var index, term uint64
	list, err := snaps.List()
	if err != nil {
		return kept{}, 0, fmt.Errorf("list the control snapshots: %w", err)
	}
	if len(list) > 0 {
		meta, r, err := snaps.Open(list[0].ID)
		if err != nil {
			return kept{}, 0, fmt.Errorf("open a control snapshot: %w", err)
		}
		if err := l.Restore(r); err != nil {
			return kept{}, 0, err
		}
		index, term = meta.Index, meta.Term
	}
	last, err := logs.LastIndex()
	if err != nil {
		return kept{}, 0, fmt.Errorf("read the control log: %w", err)
	}
	for i := index + 1; i <= last; i++ {
		var entry raft.Log
		if err := logs.GetLog(i, &entry); err != nil {
			return kept{}, 0, fmt.Errorf("read the control log at %d: %w", i, err)
		}
		term = max(term, entry.Term)
		_ = l.Apply(&entry) // what was refused then is refused now
	}
	if t, err := stable.GetUint64([]byte("CurrentTerm")); err == nil {
		term = max(term, t)
	}
	k := l.get()
	k.Index = max(k.Index, last, index)
	return k, term, nil
}

// setAside moves all that a control folder has into a new one below it.
func setAside(dir string, now time.Time) (string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("read the control folder: %w", err)
	}
	aside := filepath.Join(dir, "before-restore-"+now.UTC().Format("20060102-150405"))
	if err := os.MkdirAll(aside, 0o700); err != nil {
		return "", fmt.Errorf("make a folder for what was there: %w", err)
	}
	for _, e := range entries {
		switch e.Name() {
		case stateFile, voterFile, raftFile, snapshotsDir:
			if err := os.Rename(filepath.Join(dir, e.Name()), filepath.Join(aside, e.Name())); err != nil {
				return aside, fmt.Errorf("set aside what was there: %w", err)
			}
		}
	}
	return aside, syncDir(dir)
}

// write makes the folder that of the only voter. The voter's own file comes last: without it nothing else counts.
func (cfg RestoreConfig) write(k kept, term uint64, log hclogger) error {
	c := raft.DefaultConfig()
	c.Logger = log
	store, snaps, err := openStores(cfg.Dir, c)
	if err != nil {
		return err
	}
	defer func() { _ = store.Close() }()
	if err := store.SetUint64([]byte("CurrentTerm"), term); err != nil {
		return fmt.Errorf("write the term: %w", err)
	}
	_, nowhere := raft.NewInmemTransport("")
	sole := raft.Configuration{Servers: []raft.Server{{ID: raft.ServerID(cfg.Region), Address: raft.ServerAddress(cfg.Region), Suffrage: raft.Voter}}}
	sink, err := snaps.Create(raft.SnapshotVersionMax, k.Index, term, sole, 1, nowhere)
	if err != nil {
		return fmt.Errorf("write the control state: %w", err)
	}
	if err := snapshot(k).Persist(sink); err != nil {
		return fmt.Errorf("write the control state: %w", err)
	}
	return errors.Join(writeJSON(filepath.Join(cfg.Dir, stateFile), k), writeJSON(filepath.Join(cfg.Dir, voterFile), voterState{Cluster: cfg.Cluster, Region: cfg.Region}))
}
