package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/pflag"
	"golang.org/x/sync/errgroup"

	"github.com/shortline/shortline/edge"
	"github.com/shortline/shortline/geo"
	"github.com/shortline/shortline/internal/peer"
	"github.com/shortline/shortline/internal/pki"
	"github.com/shortline/shortline/regions"
	"github.com/shortline/shortline/regions/agent"
	"github.com/shortline/shortline/regions/control"
	"github.com/shortline/shortline/regions/failover"
	"github.com/shortline/shortline/regions/gossip"
	"github.com/shortline/shortline/replication"
)

// regionsSettings are what a node needs to take part in a deployment of several regions.
type regionsSettings struct {
	controlListen string
	controlVoters map[string]string
	dbAgents      map[string]string
	places        map[string]string
	reach         map[string]string
	leaseTTL      time.Duration
	leaseEvery    time.Duration
	async         bool
	witness       bool
	operateSettings
}

func (s *regionsSettings) flags(f *pflag.FlagSet) {
	s.operateSettings.bind(f)
	f.StringToStringVar(&s.controlVoters, "control-voters", nil, "`region=address` of the voter of each region, the same on every node: several regions then agree on which of them takes writes")
	f.StringVar(&s.controlListen, "control-listen", "", "`address` at which this node is the voter of its region")
	f.StringToStringVar(&s.dbAgents, "db-agents", nil, "`region=address` of each region's database agent")
	f.StringToStringVar(&s.places, "places", nil, "`region=LAT/LNG` of regions that are not known by their names, such as lab=39.04/-77.49; looked at only when a cluster of regions is set up")
	f.StringToStringVar(&s.reach, "reach", nil, "`address=address` for other nodes' cluster and API addresses that are reached from here at another one, through a proxy or a translation of addresses")
	f.DurationVar(&s.leaseTTL, "lease-ttl", 1500*time.Millisecond, "how long this node may acknowledge writes after it last asked whether it may; a failover waits at least as long")
	f.DurationVar(&s.leaseEvery, "lease-every", 400*time.Millisecond, "how often it asks")
	f.BoolVar(&s.async, "async", false, "acknowledge writes before another region has them; looked at only when a cluster of regions is set up")
	f.BoolVar(&s.witness, "witness", false, "be a voter and nothing else: for two regions, so that losing one leaves a majority")
}

// on tells whether there are several regions that agree on a primary.
func (s *regionsSettings) on() bool { return len(s.controlVoters) > 0 }

func (s *serveSettings) validateRegions() error {
	r := &s.regionsSettings
	if !r.on() {
		if r.controlListen != "" || r.witness {
			return errors.New("--control-listen and --witness need --control-voters, the voters of all regions")
		}
		return nil
	}
	var faults []error
	if len(s.forwardTo) > 0 {
		faults = append(faults, errors.New("--forward-to names a primary region that never changes; leave it out with --control-voters"))
	}
	if r.witness && r.controlListen == "" {
		faults = append(faults, errors.New("--witness needs --control-listen, the address at which it is a voter"))
	}
	if !r.witness && (s.postgres == "" || s.clusterListen == "") {
		faults = append(faults, errors.New("--control-voters needs --postgres, the region's own server, and --cluster-listen, where other regions reach this node"))
	}
	if err := s.identity.refuseOpen("control-listen", r.controlListen, s.identity.on(), needsTLS); err != nil {
		faults = append(faults, err)
	}
	for _, flag := range []map[string]string{r.dbAgents, r.places} {
		for id := range flag {
			if _, err := regions.ParseID(id); err != nil {
				faults = append(faults, err)
			}
		}
	}
	for id, addr := range r.dbAgents {
		if _, _, err := net.SplitHostPort(addr); err != nil {
			faults = append(faults, fmt.Errorf("--db-agents %s=%s is not an address such as 10.0.0.5:8083", id, addr))
		}
	}
	for id, at := range r.places {
		if _, err := parsePoint(at); err != nil {
			faults = append(faults, fmt.Errorf("--places %s=%s: %w", id, at, err))
		}
	}
	cfg := s.controlConfig()
	if err := cfg.Validate(); err != nil {
		faults = append(faults, err)
	}
	if err := s.leaseConfig().Validate(); err != nil {
		faults = append(faults, err)
	}
	return errors.Join(faults...)
}

func parsePoint(text string) (geo.Point, error) {
	var p geo.Point
	if n, err := fmt.Sscanf(text+"\n", "%g/%g\n", &p.Lat, &p.Lng); err != nil || n != 2 || !p.Valid() {
		return p, errors.New("is no place such as 39.04/-77.49")
	}
	return p, nil
}

// nodeName is this node's, unique in the deployment and the same after a restart.
func (s *serveSettings) name() string {
	if s.nodeName != "" {
		return s.nodeName
	}
	host, port, _ := net.SplitHostPort(cmp.Or(s.clusterListen, s.controlListen))
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		if name, err := os.Hostname(); err == nil {
			host = name
		}
	}
	if port == "" { // a node alone
		return s.edge.Region + "/" + host
	}
	return s.edge.Region + "/" + net.JoinHostPort(host, port)
}

func (s *serveSettings) controlConfig() control.Config {
	voters := make(map[regions.ID]string, len(s.controlVoters))
	for id, addr := range s.controlVoters {
		voters[regions.ID(id)] = addr
	}
	return control.Config{Cluster: s.deployment, Region: s.region(), Node: s.name(), Voters: voters, Voter: s.controlListen != "",
		Dir: filepath.Join(s.data, "control"), ClusterKeys: s.clusterKeys}
}

func (s *serveSettings) leaseConfig() control.LeaseConfig {
	return control.LeaseConfig{Region: s.region(), Node: s.name(), TTL: s.leaseTTL, Every: s.leaseEvery}
}

// plane is this node's part in what the regions agree on.
type plane struct {
	s          *serveSettings
	log        *slog.Logger
	node       *control.Node
	lease      *control.Lease       // nil on a witness
	controller *failover.Controller // nil where this node is no voter
	operating  operating
	client     *peer.Client
	listener   net.Listener // nil where this node is no voter

	stop  context.CancelFunc // set by start
	ended chan struct{}      // closed when what start began is over
	err   error              // of what start began; read after ended
}

// newPlane makes the parts and opens the control port.
func (s *serveSettings) newPlane(id *pki.Identity, log *slog.Logger, r prometheus.Registerer) (*plane, error) {
	p := &plane{s: s, log: log}
	cfg := s.controlConfig()
	cfg.Identity, cfg.Log, cfg.Registerer = id, log, r
	var err error
	if p.node, err = control.New(cfg); err != nil {
		return nil, err
	}
	if p.client, err = peer.NewClient(s.clusterKeys, id); err != nil {
		return nil, err
	}
	if !s.witness {
		lease := s.leaseConfig()
		lease.Log, lease.Registerer = log, r
		if p.lease, err = control.NewLease(lease, p.node); err != nil {
			return nil, err
		}
	}
	if !cfg.Voter {
		p.openDesk()
		return p, nil
	}
	err = p.newController(failover.Config{Self: cfg.Node, Policy: regions.Policy{TTL: s.leaseTTL}},
		failover.Deps{Control: p.node, Database: p.database, Log: log, Metrics: r})
	if err != nil {
		return nil, err
	}
	p.openDesk()
	p.listener, err = listen("control-listen", s.controlListen)
	return p, err
}

// start lets run begin, before the database is opened: a voter is needed whether its region's database works or not. Whoever
// calls it calls close, which joins it.
func (p *plane) start(ctx context.Context) {
	ctx, p.stop = context.WithCancel(context.WithoutCancel(ctx))
	p.ended = make(chan struct{})
	go func() {
		defer close(p.ended)
		p.err = p.run(ctx)
	}()
}

// wait returns when what start began is over: after ctx has ended, or because it died.
func (p *plane) wait(ctx context.Context) error {
	select {
	case <-p.ended:
	case <-ctx.Done():
		p.stop()
		<-p.ended
	}
	return p.err
}

// known waits until the regions have agreed on anything, which they did long ago unless they are new. It returns early when
// ctx ends.
func (p *plane) known(ctx context.Context) {
	for {
		changed := p.node.Changed()
		if p.node.State().ClusterID != "" {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// close ends what start began, and frees what it would have taken over.
func (p *plane) close() {
	if p.ended != nil {
		p.stop()
		<-p.ended
	}
	if p.listener != nil {
		_ = p.listener.Close()
	}
	p.client.Close()
}

func (p *plane) database(id regions.ID, r regions.RegionState) regions.Database {
	return agent.NewClient(cmp.Or(p.s.dbAgents[string(id)], r.Agent), p.client)
}

// run takes part until ctx ends: then the lease is given back, the leadership handed over, and only after that does it leave.
// Whoever acknowledges writes must have stopped before.
func (p *plane) run(ctx context.Context) error {
	group, alive := errgroup.WithContext(context.WithoutCancel(ctx))
	agreeing, stopAgreeing := context.WithCancel(alive)
	defer stopAgreeing()
	acting, stopActing := context.WithCancel(alive)
	defer context.AfterFunc(ctx, stopActing)()
	defer stopActing()
	group.Go(func() error { return p.node.Run(agreeing, p.listener) })
	if p.controller != nil {
		group.Go(func() error { return p.controller.Run(acting) })
		group.Go(func() error { return p.setUp(acting) })
	}
	group.Go(func() error {
		defer stopAgreeing()
		if p.lease == nil {
			<-acting.Done()
			return nil
		}
		return p.lease.Run(acting)
	})
	return group.Wait()
}

// Check is part of replication.Gate: whether this node may acknowledge writes, and in which epoch.
func (p *plane) Check() (epoch uint64, err error) {
	if epoch, err = p.lease.Check(); err != nil {
		return 0, fmt.Errorf("%w: %w", replication.ErrNotPrimary, err)
	}
	return epoch, nil
}

// leaseWait bounds how long a write waits for a lease that is on its way.
const leaseWait = time.Second

// awaitLease returns when this node may acknowledge writes, or it makes no sense to wait for that: right after its region has become
// primary it has asked for the lease already, and whoever is sent away comes back later than the lease.
func (p *plane) awaitLease(ctx context.Context) {
	if p.lease == nil {
		return
	}
	var timer *time.Timer
	for {
		given, changed := p.lease.Given(), p.node.Changed()
		if _, err := p.lease.Check(); err == nil {
			return
		}
		if region, _, ok := p.Primary(); !ok || region != p.s.region() {
			return
		}
		if timer == nil {
			timer = time.NewTimer(leaseWait)
			defer timer.Stop()
		}
		select {
		case <-given:
		case <-changed:
		case <-timer.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// Primary is part of edge.Directory.
func (p *plane) Primary() (regions.ID, uint64, bool) {
	s := p.node.State()
	return s.Primary, s.PrimaryEpoch, s.TakesWrites(s.Primary, s.PrimaryEpoch)
}

// state is what the regions agreed on, nil before they have.
func (p *plane) state() *regions.State {
	s := p.node.State()
	if s.ClusterID == "" {
		return nil
	}
	return &s
}

// directory tells where the primary is and who is there: the first by what is agreed on, the second by gossip.
type directory struct {
	*plane
	gossip *gossip.Gossip // nil: none; set before anything runs

	mu      sync.Mutex
	changed chan struct{} // closed and replaced at each change; guarded by mu
}

// Nodes is part of edge.Directory.
func (d *directory) Nodes(id regions.ID) []edge.PeerNode {
	if d.gossip == nil {
		return nil
	}
	place := d.gossip.View().Place(id)
	if place == nil {
		return nil
	}
	var nodes []edge.PeerNode
	for _, n := range place.Nodes {
		if n.Cluster != "" && n.Health != regions.Stopping {
			nodes = append(nodes, edge.PeerNode{Name: n.Name, Addr: cmp.Or(d.s.reach[n.Cluster], n.Cluster)})
		}
	}
	return nodes
}

// Changed is part of edge.Directory.
func (d *directory) Changed() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.changed
}

// run makes one channel of two kinds of changes, until ctx ends.
func (d *directory) run(ctx context.Context) error {
	for {
		agreed := d.node.Changed()
		var seen <-chan struct{}
		if d.gossip != nil {
			seen = d.gossip.Changed() // closed at the next change: it is asked for anew each time
		}
		d.mu.Lock()
		close(d.changed)
		d.changed = make(chan struct{})
		d.mu.Unlock()
		select {
		case <-agreed:
			if d.gossip != nil {
				d.gossip.Refresh() // routing and what the others hear of this node do not wait for the next second
			}
		case <-seen:
		case <-ctx.Done():
			return nil
		}
	}
}

// forks are the lineages that are known, as the store's readers need them.
func (p *plane) forks() replication.Forks {
	s := p.node.State()
	out := make(replication.Forks, len(s.Lineage))
	for i, f := range s.Lineage {
		out[i] = replication.Lineage{Epoch: f.Epoch, Fork: uint64(f.Fork)}
		if f.Same || f.Fork == 0 {
			out[i].Fork = replication.NoFork
		}
	}
	return out
}

// wired is what the node's other parts need of the plane.
func (p *plane) wired() wiring {
	return wiring{directory: &directory{plane: p, changed: make(chan struct{})}, roams: true, ownDatabase: true, gate: p, plane: p, state: p.state,
		lineage: func() replication.Lineage { return p.forks().Lineage() },
		forkOf:  func(epoch uint64) (uint64, bool) { return p.forks().ForkOf(epoch) }}
}

// setUp brings the state into being, once, at whoever leads a control plane that has none: which region is the primary, its
// database says. It waits until every agent has answered, so that two primaries are found out. After that it brings in regions that
// the settings name and nobody knows, drained.
func (p *plane) setUp(ctx context.Context) error {
	for said := ""; ctx.Err() == nil; {
		if s := p.state(); s != nil {
			p.bringIn(ctx, s)
			select {
			case <-ctx.Done():
			case <-time.After(2 * time.Second):
			}
			continue
		}
		if _, ok := p.node.Leading(); ok && len(p.s.dbAgents) > 0 {
			why := ""
			if b, err := p.firstState(ctx); err != nil {
				why = err.Error()
			} else {
				call, cancel := context.WithTimeout(ctx, 5*time.Second)
				err = p.node.Propose(call, regions.Command{At: time.Now().UTC(), By: p.s.name(), Why: "first start", Bootstrap: b})
				cancel()
				if err != nil {
					why = err.Error()
				}
			}
			if why != "" && why != said && ctx.Err() == nil {
				said = why
				p.log.Warn("the regions are not set up yet", "err", why)
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(200 * time.Millisecond):
		}
	}
	return nil
}

// bringIn adds the regions that the settings name and the state lacks, if this node leads: an operator has put them into service
// once their nodes and databases run.
func (p *plane) bringIn(ctx context.Context, s *regions.State) {
	if _, leads := p.node.Leading(); !leads {
		return
	}
	for _, r := range p.s.named() {
		if _, known := s.Regions[r.ID]; known {
			continue
		}
		call, cancel := context.WithTimeout(ctx, 5*time.Second)
		err := p.node.Propose(call, regions.Command{At: time.Now().UTC(), By: p.s.name(), Why: "named by --control-voters or --db-agents", Region: &regions.Change{Region: r.ID, Add: &r}})
		cancel()
		if err != nil {
			p.log.Warn("a region that is new is not brought in yet", "region", r.ID, "err", err)
		} else {
			p.log.Info("a region was brought in, drained; put it into service with shortline region undrain", "region", r.ID)
		}
	}
}

// named are the regions of the settings, in order of their names.
func (s *serveSettings) named() []regions.Region {
	names := make([]string, 0, len(s.controlVoters))
	for name := range s.controlVoters {
		names = append(names, name)
	}
	for name := range s.dbAgents {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	all := make([]regions.Region, len(names))
	for i, name := range names {
		r := regions.Region{ID: regions.ID(name), Agent: s.dbAgents[name], Witness: s.dbAgents[name] == ""}
		r.Point, _ = regions.KnownPoint(r.ID)
		if at, ok := s.places[name]; ok {
			r.Point, _ = parsePoint(at) // checked with the settings
		}
		all[i] = r
	}
	return all
}

func (p *plane) firstState(ctx context.Context) (*regions.Bootstrap, error) {
	var id [8]byte
	_, _ = rand.Read(id[:]) // never returns an error
	b := &regions.Bootstrap{Cluster: p.s.deployment, ClusterID: hex.EncodeToString(id[:]), Async: p.s.async, Regions: p.s.named()}
	var faults []string
	for _, r := range b.Regions {
		name := r.ID
		if r.Witness {
			continue
		}
		call, cancel := context.WithTimeout(ctx, 2*time.Second)
		st, err := agent.NewClient(r.Agent, p.client).Status(call)
		cancel()
		switch {
		case err != nil:
			faults = append(faults, fmt.Sprintf("the agent of %s: %v", name, err))
		case st.Role == regions.RolePrimary && b.Primary != "":
			return nil, fmt.Errorf("the databases of %s and of %s are both primaries; make one a copy of the other", b.Primary, name)
		case st.Role == regions.RolePrimary:
			b.Primary, b.Epoch, b.Timeline, b.Position = r.ID, max(st.Epoch, 1), st.Timeline, st.Position
		case st.Role != regions.RoleStandby:
			faults = append(faults, fmt.Sprintf("the database of %s is %s", name, st.Role))
		}
	}
	if b.Primary == "" && len(faults) == 0 {
		faults = append(faults, "none of the databases is a primary")
	}
	if len(faults) > 0 {
		return nil, errors.New(strings.Join(faults, "; "))
	}
	return b, nil
}

// checks are what readiness is made of beside the edge's own.
func (n *node) checks() map[string]func() error {
	if n.control.plane == nil {
		return nil
	}
	return map[string]func() error{"control": n.control.plane.node.Check}
}
