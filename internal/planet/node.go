package planet

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/shortline/shortline/regions"
)

// Node is one `shortline serve`. Its methods may be called from several goroutines.
type Node struct {
	program
	planet  *Planet
	region  *Region
	number  int // within the region, from 1
	dir     string
	api     *reservation
	admin   *reservation
	cluster *reservation
	gossip  *reservation
	control *reservation // nil where the node is no voter
}

// nodeStop is how long a node may take to end before it is killed: it lets requests finish for 3 s.
const nodeStop = 15 * time.Second

func (p *Planet) newNode(r *Region, number int) (*Node, error) {
	n := &Node{planet: p, region: r, number: number}
	n.name, n.guard, n.death = fmt.Sprintf("%s-%d", r.ID, number), p.guard, syscall.SIGKILL
	n.out = newOutput(n.name, p.out)
	n.out.each = n.heard
	n.dir = filepath.Join(p.dir, string(r.ID), fmt.Sprintf("node-%d", number))
	if err := os.MkdirAll(filepath.Dir(n.dir), 0o755); err != nil { // the servers' account goes through it
		return nil, err
	}
	if err := os.Mkdir(n.dir, 0o700); err != nil {
		return nil, err
	}
	site := p.network.site(r.ID)
	n.space = site.space
	ports, err := reserve(site, 5)
	if err != nil {
		return nil, err
	}
	p.reserved = append(p.reserved, ports...)
	n.api, n.admin, n.cluster, n.gossip = ports[0], ports[1], ports[2], ports[3]
	if number == 1 {
		n.control = ports[4]
	}
	// All nodes take up one key; the first to start stores it.
	return n, os.WriteFile(filepath.Join(n.dir, "admin.key"), []byte(p.key+"\n"), 0o600)
}

// Name is the node's: its region and its number.
func (n *Node) Name() string { return n.name }

// API and Admin are the base URLs of the node's two ports. They stay the same over a restart.
func (n *Node) API() string { return "http://" + n.api.addr() }

// Admin is the base URL of the admin port.
func (n *Node) Admin() string { return "http://" + n.admin.addr() }

// Internal are the addresses at which the node listens for others of the deployment, by the flag: cluster-listen, gossip-listen and, for a
// voter, control-listen.
func (n *Node) Internal() map[string]string {
	all := map[string]string{"cluster-listen": n.cluster.addr(), "gossip-listen": n.gossip.addr()}
	if n.control != nil {
		all["control-listen"] = n.control.addr()
	}
	return all
}

// heard looks for the ready line, and drops the hints that a node has for whoever started it by hand.
func (n *Node) heard(line string) (show bool) {
	n.program.heard(line)
	return line != "" && !strings.HasPrefix(line, "  ")
}

// start starts the node and returns when it serves.
func (n *Node) start(ctx context.Context) error {
	settings, err := n.planet.nodeSettings(n)
	if err != nil {
		return err
	}
	cmd := n.planet.command(settings.args, settings.env...)
	cmd.Dir = n.dir
	return n.run(ctx, cmd)
}

// Restart stops the node if it runs and starts it with the same addresses and folder. It returns when the node serves.
func (n *Node) Restart(ctx context.Context) error {
	if err := n.Stop(); err != nil {
		return err
	}
	return n.Start(ctx)
}

// Start starts a node that does not run, and returns when it serves.
func (n *Node) Start(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, n.planet.o.Timeout, fmt.Errorf("not ready after %v", n.planet.o.Timeout))
	defer cancel()
	return n.start(ctx)
}

// Stop ends the node as an operator does. It can be started again.
func (n *Node) Stop() error { return n.end(syscall.SIGTERM, nodeStop) }

// nodeSettings are how a node is told what to do: secrets in the environment, where other users cannot read them.
type nodeSettings struct{ args, env []string }

// nodeSettings is the one place that knows the flags of `shortline serve`.
func (p *Planet) nodeSettings(n *Node) (nodeSettings, error) {
	if n.region.ID == witnessID {
		return p.witnessSettings(n)
	}
	home, db := p.Region(p.first()), n.region.Postgres
	s := nodeSettings{
		args: []string{"serve", "--region", string(n.region.ID), "--data", n.dir, "--node-name", n.name,
			"--listen", n.api.addr(), "--admin-listen", n.admin.addr(), "--cluster-listen", n.cluster.addr(), "--gossip-listen", n.gossip.addr(),
			"--region-point", fmt.Sprintf("%g,%g", n.region.At.Lat, n.region.At.Lng),
			"--redis", strings.Join(n.region.Redis.Addrs(), ","), "--shutdown-timeout", "3s"},
		env: []string{"SHORTLINE_POSTGRES=" + db.DSN("shortline_writer", database), "SHORTLINE_POSTGRES_OWNER=" + db.DSN("shortline_owner", database)},
	}
	identity, err := p.identity(n.region.ID, n.name)
	if err != nil {
		return nodeSettings{}, err
	}
	s.args = append(s.args, identity...)
	var seeds []string
	for _, r := range p.regions {
		seeds = append(seeds, r.Nodes[0].gossip.addr())
	}
	s.args = append(s.args, "--join", strings.Join(seeds, ","))
	if err := p.manyRegions(n, &s); err != nil {
		return nodeSettings{}, err
	}
	if p.network != nil { // callers do not come from loopback, which no limit counts
		s.args = append(s.args, "--rate-limit-address", "-1", "--max-connections-per-address", "-1")
	}
	s.args = append(s.args, p.o.NodeArgs...)
	if p.o.Demo && n == home.Nodes[0] {
		s.args = append(s.args, "--demo")
	}
	return s, nil
}

// manyRegions adds how a node takes part in what several regions agree on, with the addresses at which its region reaches the others.
func (p *Planet) manyRegions(n *Node, s *nodeSettings) error {
	if len(p.regions) == 1 {
		return nil
	}
	voters, agents, places, reach := []string{}, []string{}, []string{}, []string{}
	via := func(to regions.ID, target string) (addr string, err error) {
		return p.links.via(n.region.ID, to, target)
	}
	for _, r := range p.regions {
		places = append(places, fmt.Sprintf("%s=%g/%g", r.ID, r.At.Lat, r.At.Lng))
		voter, err := via(r.ID, r.Nodes[0].control.addr())
		if err != nil {
			return err
		}
		agent, err := via(r.ID, r.Postgres.agent.addr())
		if err != nil {
			return err
		}
		voters, agents = append(voters, string(r.ID)+"="+voter), append(agents, string(r.ID)+"="+agent)
		for _, other := range r.Nodes {
			if r == n.region {
				break
			}
			addr, err := via(r.ID, other.cluster.addr())
			if err != nil {
				return err
			}
			api, err := via(r.ID, other.api.addr())
			if err != nil {
				return err
			}
			reach = append(reach, other.cluster.addr()+"="+addr, other.api.addr()+"="+api)
		}
	}
	if w := p.witness; w != nil {
		addr, err := via(witnessID, w.control.addr())
		if err != nil {
			return err
		}
		voters = append(voters, string(witnessID)+"="+addr)
	}
	s.args = append(s.args, "--control-voters", strings.Join(voters, ","), "--db-agents", strings.Join(agents, ","), "--places", strings.Join(places, ","))
	if len(reach) > 0 {
		s.args = append(s.args, "--reach", strings.Join(reach, ","))
	}
	if n.control != nil {
		s.args = append(s.args, "--control-listen", n.control.addr())
	}
	if p.o.Async {
		s.args = append(s.args, "--async")
	}
	return nil
}

// witnessSettings are those of a voter without data.
func (p *Planet) witnessSettings(n *Node) (nodeSettings, error) {
	s := nodeSettings{args: []string{"serve", "--witness", "--region", string(witnessID), "--data", n.dir, "--node-name", n.name, "--admin-listen", n.admin.addr()}}
	identity, err := p.identity(witnessID, n.name)
	if err != nil {
		return nodeSettings{}, err
	}
	s.args = append(s.args, identity...)
	return s, p.manyRegions(n, &s)
}

// command is a command line of the program, with what all processes have in their environment.
func (p *Planet) command(args []string, env ...string) *exec.Cmd {
	p.mu.Lock()
	defer p.mu.Unlock()
	cmd := exec.Command(p.o.Program, args...)
	cmd.Env = append(append(append(cleanEnv(), env...), "SHORTLINE_CLUSTER_KEY="+p.clusterKey), p.o.Env...)
	return cmd
}

// Change makes nodes and agents that are started from now on run another program ("": the same), with more in the environment and another
// cluster key ("": the same), which may be several with commas.
func (p *Planet) Change(program, clusterKey string, env ...string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.o.Program, p.clusterKey = cmp.Or(program, p.o.Program), cmp.Or(clusterKey, p.clusterKey)
	p.o.Env = append(slices.Clone(p.o.Env), env...)
}

// cleanEnv is the environment without settings of Shortline: the caller's own are none of a node's business.
func cleanEnv() []string {
	return slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "SHORTLINE_") || strings.HasPrefix(v, "PG") || strings.HasPrefix(v, "NOTIFY_SOCKET=")
	})
}
