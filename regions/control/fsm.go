package control

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/shortline/shortline/regions"
)

// kept is the form in which the state is kept on disk: in snapshots, in a node's folder, in backups.
type kept struct {
	Format      int           `json:"format"`
	Cluster     string        `json:"cluster"`
	Incarnation uint64        `json:"incarnation"`
	Index       uint64        `json:"index"` // of the last change other than a renewal
	State       regions.State `json:"state"`
}

const keptFormat = 1

// ledger is the state machine that raft drives.
type ledger struct {
	clock func() time.Duration
	// changed is told of the state after each entry that changed it; renewal says that nothing but the lease did.
	changed func(k kept, renewal bool)

	mu      sync.Mutex
	kept    kept                     // guarded by mu
	renewed map[string]time.Duration // when each holder's last renewal was applied here, by the clock; guarded by mu
	since   time.Duration            // renewals that are not in renewed were not applied after that; guarded by mu
}

// Apply is part of raft.FSM. It returns nil or a *regions.RefusedError.
func (l *ledger) Apply(entry *raft.Log) any {
	if entry.Type != raft.LogCommand {
		return nil
	}
	var c regions.Command
	if err := json.Unmarshal(entry.Data, &c); err != nil {
		return &regions.RefusedError{Rule: regions.RuleInvalid, Detail: "the command cannot be read: " + err.Error()}
	}
	l.mu.Lock()
	next, why := regions.Apply(l.kept.State, c)
	if why != nil {
		l.mu.Unlock()
		return why
	}
	l.kept.State = next
	if l.kept.Incarnation == 0 {
		l.kept.Incarnation = 1
	}
	if c.Renew != nil {
		l.renewed[c.Renew.Node] = l.clock()
	} else {
		l.kept.Index = entry.Index
	}
	if len(l.renewed) > 2*len(next.Lease.Holders)+16 {
		l.forgetLocked()
	}
	k := l.kept
	l.mu.Unlock()
	l.changed(k, c.Renew != nil)
	return nil
}

// lastRenewal is when a node's renewal was last applied here, "" for any: never before its holder noted the time.
func (l *ledger) lastRenewal(node string) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	last := l.since
	for holder, at := range l.renewed {
		if node == "" || node == holder {
			last = max(last, at)
		}
	}
	return last
}

// forgetLocked drops the times of those that hold nothing any more.
func (l *ledger) forgetLocked() {
	maps.DeleteFunc(l.renewed, func(node string, at time.Duration) bool {
		if _, holds := l.kept.State.Lease.Holders[node]; holds {
			return false
		}
		l.since = max(l.since, at)
		return true
	})
}

func (l *ledger) get() kept {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.kept
}

// Snapshot is part of raft.FSM. A State never changes, so it costs nothing.
func (l *ledger) Snapshot() (raft.FSMSnapshot, error) { return snapshot(l.get()), nil }

// Restore is part of raft.FSM.
func (l *ledger) Restore(r io.ReadCloser) error {
	defer func() { _ = r.Close() }()
	k, err := readKept(r)
	if err != nil {
		return err
	}
	l.mu.Lock()
	l.kept = k
	l.since = l.clock() // the renewals in it are older
	clear(l.renewed)
	l.mu.Unlock()
	l.changed(k, false)
	return nil
}

// readKept reads what was kept, and checks that it is of a form that is known.
func readKept(r io.Reader) (k kept, err error) {
	if err := json.NewDecoder(r).Decode(&k); err != nil {
		return k, fmt.Errorf("read the control state: %w", err)
	}
	if k.Format != keptFormat {
		return k, fmt.Errorf("the control state is of format %d, this version knows %d", k.Format, keptFormat)
	}
	return k, nil
}

type snapshot kept

// Persist is part of raft.FSMSnapshot.
func (s snapshot) Persist(sink raft.SnapshotSink) error {
	s.Format = keptFormat
	if err := json.NewEncoder(sink).Encode(kept(s)); err != nil {
		_ = sink.Cancel()
		return err
	}
	return sink.Close()
}

// Release is part of raft.FSMSnapshot.
func (snapshot) Release() {}
