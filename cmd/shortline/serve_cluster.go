package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/pflag"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/edge"
	"github.com/shortline/shortline/internal/peer"
	"github.com/shortline/shortline/replication"
	"github.com/shortline/shortline/replication/rediscache"
)

// clusterSettings are what a node needs to work together with nodes of other regions.
type clusterSettings struct {
	clusterListen string
	clusterKeys   []string
	forwardTo     []string
	redis         redisSettings
	deployment    string
	identity      identitySettings
}

func bindClusterKey(f *pflag.FlagSet, keys *[]string) {
	f.StringSliceVar(keys, "cluster-key", nil, "`secret` that all nodes have, 16 bytes or more without a comma; of several the first is used and all are accepted, so that it can be changed; better set as SHORTLINE_CLUSTER_KEY")
}

func (s *clusterSettings) validate() error {
	var faults []error
	if (s.clusterListen != "" || len(s.forwardTo) > 0) && peer.Keys(s.clusterKeys).Check() != nil {
		faults = append(faults, errors.New("--cluster-listen and --forward-to need --cluster-key, a secret of 16 bytes or more that all nodes have; make one with: openssl rand -hex 32"))
	}
	if err := s.identity.validate(); err != nil {
		faults = append(faults, err)
	}
	if err := s.identity.refuseOpen("cluster-listen", s.clusterListen, s.identity.on(), needsTLS); err != nil {
		faults = append(faults, err)
	}
	if err := s.redis.validate(); err != nil {
		faults = append(faults, err)
	}
	for flag, addrs := range map[string][]string{"forward-to": s.forwardTo, "cluster-listen": {s.clusterListen}} {
		for _, addr := range addrs {
			if _, _, err := net.SplitHostPort(addr); err != nil && addr != "" {
				faults = append(faults, fmt.Errorf("--%s %q is not an address such as 10.0.0.5:8082", flag, addr))
			}
		}
	}
	if _, err := shortline.ParseStoreID(s.deployment); err != nil {
		faults = append(faults, fmt.Errorf("--deployment %q must be 1 to 64 letters, digits, '-', '_' or '.'", s.deployment))
	}
	return errors.Join(faults...)
}

// firstLineage is that of a database whose history never forked.
const firstLineage = 1

// followLineage tells the cache of forks, until ctx ends: values that were cached before one may be of writes that are lost. It waits
// until the region's database follows the new history, since what is read from it afterwards counts as of the new lineage.
func (n *node) followLineage(ctx context.Context) error {
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for {
		state, applied := n.control.plane.state(), n.feed.Applied()
		if state != nil && applied != nil && state.Epoch == state.PrimaryEpoch && applied.Token.Epoch >= state.PrimaryEpoch {
			n.cache.SetLineage(firstLineage + state.Generation)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// newCache puts Redis Cluster before the database, for details. It is nil where no Redis is named.
func (n *node) newCache(ctx context.Context, catalog *edge.Catalog, r prometheus.Registerer) (*rediscache.Cache, error) {
	s := n.s
	if len(s.redis.addrs) == 0 {
		return nil, nil
	}
	cfg, err := s.redis.config(s.deployment, n.log)
	if err != nil {
		return nil, err
	}
	cfg.Database, cfg.Lineage, cfg.CellOf, cfg.MinRev, cfg.Patient, cfg.Registerer = shortline.StoreID(n.deployment), firstLineage, catalog.CellOf, catalog.Rev, true, r
	cfg.DatabaseOf = func(ctx context.Context) (shortline.StoreID, error) {
		id, err := n.identify(ctx)
		return shortline.StoreID(id), err
	}
	return rediscache.New(ctx, cfg, n.store)
}

// rates are counted together by the nodes that share a Redis.
func (n *node) rates() edge.Sharer {
	if n.cache == nil {
		return nil // not a nil *Cache
	}
	return n.cache
}

// tap is the catalog with a second reader of its changes. That one comes first, for it must find the former places of stores.
type tap struct {
	*edge.Catalog
	apply func(changes []shortline.Change)
}

type tappedView struct {
	replication.View
	apply func(changes []shortline.Change)
}

// Begin is part of replication.Target.
func (t tap) Begin() replication.View { return tappedView{t.Catalog.Begin(), t.apply} }

// Install is part of replication.Target.
func (t tap) Install(v replication.View) { t.Catalog.Install(v.(tappedView).View) }

// Apply is part of replication.View.
func (v tappedView) Apply(changes []shortline.Change) {
	v.apply(changes)
	v.View.Apply(changes)
}
