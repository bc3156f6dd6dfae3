package gossip

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/shortline/shortline/internal/peer"
	"github.com/shortline/shortline/regions"
)

// Config sets up Gossip. Listen, Cluster, Region and Status are required; for all else zero works.
type Config struct {
	// Cluster is the name of the deployment; nodes of another one are refused.
	Cluster string
	// Listen is the "host:port" to listen on, by UDP and TCP. Port 0 takes a free one.
	Listen string
	// Advertise is the "host:port" that other nodes reach it at, where it is not Listen.
	Advertise string
	// Seeds are "host:port" of nodes to find the others by. They are asked again and again as long as the node runs.
	Seeds []string
	// Keys are secrets of 16 bytes or more: what is sent is encrypted with the first, what was encrypted with any is accepted.
	// None: nothing is encrypted.
	Keys []string

	Region regions.ID
	// Name tells the node from others; default: the region and the advertised address.
	Name string
	// Status tells what this node is like just now. It is asked about once a second and must not block. Name, Region and Spill
	// are filled in here.
	Status func() regions.NodeStatus
	// State tells what the control plane agreed on, nil while that is not known. It is asked whenever a view is made and must not
	// block. nil: there is no control plane.
	State func() *regions.State

	// Rejoin is how often seeds and lost nodes are tried at least; half as long at best, by chance (10 s).
	Rejoin time.Duration
	// Silence is after what time a node that does not tell of itself counts as unfit (30 s).
	Silence time.Duration
	// Forget is after what time a dead node is no longer shown (24 h); one that left is gone after a minute.
	Forget time.Duration

	Log        *slog.Logger
	Registerer prometheus.Registerer

	transport memberlist.NodeAwareTransport // for tests
	quick     bool                          // for tests: times of one machine
}

// Validate reports every fault of c at once.
func (c *Config) Validate() error {
	var faults []error
	if c.Cluster == "" || len(c.Cluster) > 64 {
		faults = append(faults, fmt.Errorf("the name of the deployment %q must have 1 to 64 bytes", c.Cluster))
	}
	if _, err := regions.ParseID(string(c.Region)); err != nil {
		faults = append(faults, err)
	}
	for name, addr := range map[string]string{"listen": c.Listen, "advertise": c.Advertise} {
		if _, _, err := splitAddr(addr); err != nil && (addr != "" || name == "listen") {
			faults = append(faults, fmt.Errorf("%s address %q: %w", name, addr, err))
		}
	}
	for _, s := range c.Seeds {
		if _, port, err := splitAddr(s); err != nil || port == 0 {
			faults = append(faults, fmt.Errorf("seed %q is not an address such as 10.0.0.5:7946", s))
		}
	}
	for i, k := range c.Keys {
		if len(k) < peer.MinKey {
			faults = append(faults, fmt.Errorf("gossip key %d is shorter than %d bytes", i+1, peer.MinKey))
		}
	}
	if c.Status == nil {
		faults = append(faults, errors.New("gossip needs Status"))
	}
	if len(c.Name) > maxName {
		faults = append(faults, fmt.Errorf("the node's name has more than %d bytes", maxName))
	}
	return errors.Join(faults...)
}

func splitAddr(addr string) (host string, port int, err error) {
	host, text, err := net.SplitHostPort(addr)
	if err != nil {
		return "", 0, errors.New("is not host:port")
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return "", 0, fmt.Errorf("%q is not a port", text)
	}
	return host, int(n), nil
}

func (c *Config) defaults() {
	if c.Rejoin == 0 {
		c.Rejoin = 10 * time.Second
	}
	if c.Silence == 0 {
		c.Silence = 30 * time.Second
	}
	if c.Forget == 0 {
		c.Forget = 24 * time.Hour
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.State == nil {
		c.State = func() *regions.State { return nil }
	}
}

// deriveKey makes the key of the packets of one secret: of this use and this deployment alone.
func deriveKey(cluster, secret string) []byte {
	sum := sha256.Sum256([]byte("shortline gossip key\x00" + strconv.Itoa(len(cluster)) + "\x00" + cluster + "\x00" + secret))
	return sum[:]
}

// memberlistConfig is tuned for round trips of up to a quarter of a second: a death is seen by all in about five seconds.
// Shorter times bring false alarms under load. See docs/decisions/0041-gossip.md.
func (g *Gossip) memberlistConfig() (*memberlist.Config, error) {
	c := &g.cfg
	mc := memberlist.DefaultWANConfig()
	mc.Name = g.name
	mc.Label = "shortline/" + c.Cluster
	mc.ProbeInterval, mc.ProbeTimeout = 700*time.Millisecond, 300*time.Millisecond
	mc.SuspicionMult, mc.SuspicionMaxTimeoutMult = 4, 2
	mc.GossipInterval, mc.GossipNodes = 200*time.Millisecond, 4
	mc.PushPullInterval = 15 * time.Second
	mc.TCPTimeout = 3 * time.Second
	mc.DeadNodeReclaimTime = 10 * time.Second // a node that comes back at another address keeps its name
	mc.RequireNodeNames = false
	if c.quick {
		mc.ProbeInterval, mc.ProbeTimeout, mc.GossipInterval = 200*time.Millisecond, 100*time.Millisecond, 20*time.Millisecond
		mc.PushPullInterval, mc.DeadNodeReclaimTime = time.Second, time.Second
	}
	mc.Delegate, mc.Events, mc.Alive, mc.Merge, mc.Ping, mc.Conflict = g, g, g, g, g, g
	mc.Keyring = g.keyring
	mc.LogOutput = logWriter{g}
	host, port, err := splitAddr(c.Listen)
	if err != nil {
		return nil, fmt.Errorf("listen address %q: %w", c.Listen, err)
	}
	bind, err := resolve(host)
	if err != nil {
		return nil, fmt.Errorf("listen address %q: %w", c.Listen, err)
	}
	mc.BindAddr, mc.BindPort, mc.AdvertisePort = bind.String(), port, port
	if c.Advertise != "" {
		host, port, err := splitAddr(c.Advertise)
		if err != nil {
			return nil, fmt.Errorf("advertise address %q: %w", c.Advertise, err)
		}
		ip, err := resolve(host)
		if err != nil {
			return nil, fmt.Errorf("advertise address %q: %w", c.Advertise, err)
		}
		if ip.IsUnspecified() {
			return nil, fmt.Errorf("advertise address %q: other nodes cannot reach it there", c.Advertise)
		}
		mc.AdvertiseAddr, mc.AdvertisePort = ip.String(), port
	}
	if c.transport != nil {
		mc.Transport = c.transport
	}
	return mc, nil
}

// resolve reads an IP address, or looks a name up. An empty host is every address.
func resolve(host string) (netip.Addr, error) {
	if host == "" {
		return netip.IPv4Unspecified(), nil
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.Unmap(), nil
	}
	ips, err := net.LookupIP(host)
	if err != nil {
		return netip.Addr{}, err
	}
	ip, _ := netip.AddrFromSlice(ips[0])
	return ip.Unmap(), nil
}
