package agent

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/shortline/shortline/regions"
)

// remembered is what an agent must know after its own death.
type remembered struct {
	Region regions.ID    `json:"region"`
	System string        `json:"system,omitempty"` // the server's identity, "" until it was seen
	Order  regions.Order `json:"order"`            // the highest command seen
	// Role is what the server was last commanded to be; RoleRejoin while it is made a standby. Epoch is that of the primary that
	// it is, is being made, or follows.
	Role     regions.Role `json:"role"`
	Epoch    uint64       `json:"epoch"`
	Upstream regions.ID   `json:"upstream,omitempty"`
	// Promoted is the last promotion that was begun here. With a Fork it is complete.
	Promoted *regions.Promotion `json:"promoted,omitempty"`
	// Confirmed says that a primary may take writes; it is taken back before each start.
	Confirmed bool         `json:"confirmed,omitempty"`
	Sync      []regions.ID `json:"sync"`
	Rejoin    *rejoin      `json:"rejoin,omitempty"`
}

// rejoin is a rejoin under way, so that it goes on after a crash of the agent.
type rejoin struct {
	Primary regions.ID  `json:"primary"`
	Epoch   uint64      `json:"epoch"`
	Fork    regions.LSN `json:"fork"`
	// Copy says that only a base backup will do.
	Copy bool `json:"copy,omitempty"`
	// Rewinding says that pg_rewind was started and has not ended well: the folder is of use to nothing but another rewind.
	Rewinding bool `json:"rewinding,omitempty"`
	// Saved says that the export is done; Exported is its file, empty where nothing was lost.
	Saved    bool   `json:"saved,omitempty"`
	Exported string `json:"exported,omitempty"`
	Lost     int    `json:"lost,omitempty"`
}

// memory keeps it in a file. Its methods may be called from several goroutines.
type memory struct {
	path    string
	mu      sync.Mutex // held by update
	now     atomic.Pointer[remembered]
	written []byte // what the file holds, as far as it was written here; guarded by mu
	lost    bool   // of mutantForget
}

// openMemory reads the file, or begins without one. A file of another region is refused.
func openMemory(path string, region regions.ID, m mutant) (*memory, error) {
	mem := &memory{path: path, lost: m == mutantForget}
	r := &remembered{Region: region}
	text, err := os.ReadFile(path)
	switch {
	case mem.lost && err == nil:
		err = json.Unmarshal(text, r)
		r.Order = regions.Order{}
	case errors.Is(err, fs.ErrNotExist):
		err = nil
	case err == nil:
		err = json.Unmarshal(text, r)
	}
	if err != nil {
		return nil, fmt.Errorf("read what the agent remembers in %s: %w", path, err)
	}
	if r.Region != region {
		return nil, fmt.Errorf("%s is of the agent of %s, and this one is of %s: name another folder", path, r.Region, region)
	}
	mem.now.Store(r)
	return mem, nil
}

// get returns what is remembered; it must not be changed.
func (m *memory) get() *remembered { return m.now.Load() }

// update changes a copy and keeps it. When it returns nil, that is on disk; else nothing has changed.
func (m *memory) update(change func(*remembered)) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := *m.get()
	change(&r)
	text, err := json.MarshalIndent(&r, "", " ")
	if err != nil {
		return err
	}
	if bytes.Equal(text, m.written) {
		return nil // on a busy disk each write costs a pause
	}
	if err := writeSynced(m.path, append(text, '\n'), 0o600); err != nil {
		return fmt.Errorf("remember in %s: %w", m.path, err)
	}
	m.written = text
	m.now.Store(&r)
	return nil
}

// writeSynced replaces a file as a whole; it is on disk when this returns nil.
func writeSynced(path string, text []byte, mode os.FileMode) error {
	tmp := path + ".new"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err == nil {
		err = syncFolder(filepath.Dir(path))
	}
	return err
}

// syncFolder makes names in a folder durable.
func syncFolder(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }()
	return d.Sync()
}

// admit refuses an order that is older than one seen before, and keeps a newer one. The caller holds Agent.busy.
func (m *memory) admit(o regions.Order, mu mutant) error {
	seen := m.get().Order
	if o.Less(seen) && mu != mutantNoOrder {
		return fmt.Errorf("order %s after %s: %w", o, seen, regions.ErrOldOrder)
	}
	if o == seen || o.Less(seen) {
		return nil
	}
	return m.update(func(r *remembered) { r.Order = o })
}
