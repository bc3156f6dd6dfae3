package control

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/shortline/shortline/internal/peer"
	"github.com/shortline/shortline/internal/pki"
	"github.com/shortline/shortline/regions"
)

// Config says which node of which cluster this is.
type Config struct {
	// Cluster is the deployment's name: data and nodes of another are refused.
	Cluster string
	Region  regions.ID
	Node    string // of the node, for logs and the lease
	// Voters are the addresses of the control ports, one a region. Every voter lists the same regions.
	Voters map[regions.ID]string
	// Voter says that this node is its region's voter. The others follow.
	Voter bool
	// Dir is the folder that the control state is kept in, made where it is missing.
	Dir string
	// ClusterKeys are the secrets that all nodes have.
	ClusterKeys peer.Keys
	// Identity, where set, is shown and asked for on every connection; those without it are refused. A voter's is of its region.
	Identity *pki.Identity

	// Heartbeat is after how long without a leader a voter asks for votes (1 s), Election for how long it asks (1 s), LeaderLease
	// after how long without a majority a leader gives up (0.5 s). Below that, ordinary distances and busy machines look like failures.
	Heartbeat, Election, LeaderLease time.Duration
	// SnapshotEvery is how many entries of the log a snapshot covers (4096).
	SnapshotEvery uint64

	Clock      func() time.Duration  // nil: Boottime
	Log        *slog.Logger          // nil: none
	Registerer prometheus.Registerer // nil: none
}

func (c Config) withDefaults() Config {
	set := func(d *time.Duration, to time.Duration) {
		if *d == 0 {
			*d = to
		}
	}
	set(&c.Heartbeat, time.Second)
	set(&c.Election, c.Heartbeat)
	set(&c.LeaderLease, c.Heartbeat/2)
	if c.SnapshotEvery == 0 {
		c.SnapshotEvery = 4096
	}
	if c.Clock == nil {
		c.Clock = Boottime
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Registerer == nil {
		c.Registerer = prometheus.NewRegistry()
	}
	return c
}

// Validate reports every fault.
func (c Config) Validate() error {
	var faults []error
	if c.Cluster == "" || c.Node == "" || c.Dir == "" {
		faults = append(faults, errors.New("control needs the names of the cluster and of the node, and a folder"))
	}
	if _, err := regions.ParseID(string(c.Region)); err != nil {
		faults = append(faults, err)
	}
	if err := c.ClusterKeys.Check(); err != nil {
		faults = append(faults, err)
	}
	if len(c.Voters) == 0 {
		faults = append(faults, errors.New("control needs the addresses of the voters"))
	}
	if _, ok := c.Voters[c.Region]; c.Voter && !ok {
		faults = append(faults, fmt.Errorf("this node is to be the voter of %s, and none of the voters is of that region", c.Region))
	}
	for _, id := range sorted(c.Voters) {
		if _, err := regions.ParseID(string(id)); err != nil {
			faults = append(faults, err)
		}
		if _, _, err := net.SplitHostPort(c.Voters[id]); err != nil {
			faults = append(faults, fmt.Errorf("the voter %s has the address %q, which is not one such as 10.0.0.5:8083", id, c.Voters[id]))
		}
	}
	return errors.Join(faults...)
}

// sorted returns the regions of a map in order, so that whoever walks through it does so alike every time.
func sorted[V any](m map[regions.ID]V) []regions.ID {
	ids := make([]regions.ID, 0, len(m))
	for id := range m {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}
