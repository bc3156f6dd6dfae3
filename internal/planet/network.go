package planet

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"

	"github.com/shortline/shortline/regions"
)

// Traffic is a kind of what goes between two regions.
type Traffic uint8

// What a Drop is about.
const (
	Everything   Traffic = iota // also what nobody thought of
	DatabaseLink                // to and from PostgreSQL
	ButDatabase                 // everything but that
)

// network is a network namespace for each region and one in the middle, which routes between them and this process. What is dropped
// is dropped in the middle, by rules: the regions notice nothing but silence.
//
// The namespaces have no names. Once this process and all that it started have ended they are gone, with their links and rules.
type network struct {
	subnet string // its first three numbers, and a dot
	middle *namespace
	sites  map[regions.ID]*site

	mu      sync.Mutex
	dropped []string // guarded by mu: the rules that drop, as ip names them
}

// site is where the processes of a region run.
type site struct {
	space *namespace // nil: with this process
	host  string     // the address of all its servers
	block string     // of addresses, which nobody else has; "" on loopback
}

// home is where servers run that need no network of their own.
var home = &site{host: loopback}

var errNotSeparated = errors.New("the regions have no networks of their own: see Options.Separate")

// Separable returns nil if each region of a planet can have a network of its own here; else it says what that needs.
func Separable() error {
	n, err := newNetwork(nil)
	if err == nil {
		err = n.middle.ip("rule add pref 10 from 198.18.0.1 to 198.18.0.2 ipproto tcp dport 1 blackhole")
	}
	n.close()
	if err != nil {
		return fmt.Errorf("regions cannot be separated here, which takes root on Linux and iproute2 (apt-get install iproute2): %w", err)
	}
	return nil
}

// NeedSeparable is Need for tests in which regions have networks of their own. It skips them where that cannot be, always.
func NeedSeparable(t TB) {
	t.Helper()
	Need(t)
	need(t, Separable(), false, os.Stderr)
}

// newNetwork makes the networks of regions. It is to be closed also where it failed.
func newNetwork(ids []regions.ID) (n *network, err error) {
	n = &network{sites: map[regions.ID]*site{}}
	if n.middle, err = newNamespace(); err != nil {
		return n, err
	}
	if err := n.middle.inside(func() error { return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0) }); err != nil {
		return n, err
	}
	if err := n.connect(); err != nil {
		return n, err
	}
	for i, id := range ids {
		s := &site{host: fmt.Sprintf("%s%d", n.subnet, 16*i+18), block: fmt.Sprintf("%s%d/28", n.subnet, 16*i+16)}
		n.sites[id] = s
		if s.space, err = newNamespace(); err != nil {
			return n, err
		}
		gate := fmt.Sprintf("%s%d", n.subnet, 16*i+17)
		err := n.middle.ip(fmt.Sprintf("link add region%d type veth peer name middle netns /proc/self/fd/3\naddr add %s/28 dev region%d\nlink set dev region%d up", i, gate, i, i), s.space)
		if err == nil {
			err = s.space.ip(fmt.Sprintf("addr add %s/28 dev middle\nlink set dev middle up\nroute add default via %s", s.host, gate))
		}
		if err != nil {
			return n, fmt.Errorf("connect region %s: %w", id, err)
		}
	}
	return n, nil
}

// connect finds addresses that are free among those that are for tests of networks (RFC 2544), and leads this machine's way to them into the middle.
func (n *network) connect() (err error) {
	for range 20 {
		n.subnet = fmt.Sprintf("198.%d.%d.", 18+rand.IntN(2), rand.IntN(256))
		link := fmt.Sprintf("slp%08x", rand.Uint32())
		err = (*namespace)(nil).ip(fmt.Sprintf("link add %[1]s type veth peer name outside netns /proc/self/fd/3\naddr add %[2]s2/28 dev %[1]s\nlink set dev %[1]s up", link, n.subnet), n.middle)
		if err == nil {
			err = n.middle.ip(fmt.Sprintf("addr add %s1/28 dev outside\nlink set dev outside up", n.subnet))
		}
		if err != nil {
			return err
		}
		if err = (*namespace)(nil).ip(fmt.Sprintf("route add %[1]s0/24 via %[1]s1", n.subnet)); err == nil { // it fails where somebody else has it
			return nil
		}
		if err := (*namespace)(nil).ip("link del " + link); err != nil {
			return err
		}
	}
	return err
}

// site is where a region's processes run; that of everything without a network.
func (n *network) site(id regions.ID) *site {
	if n == nil {
		return home
	}
	return n.sites[id]
}

// drop lets nothing through from one region to another. ports are those of PostgreSQL in the two.
func (n *network) drop(from, to regions.ID, what Traffic, ports [2]int) error {
	way := fmt.Sprintf("from %s to %s", n.sites[from].block, n.sites[to].block)
	links := []string{fmt.Sprintf("%s ipproto tcp sport %d", way, ports[0]), fmt.Sprintf("%s ipproto tcp dport %d", way, ports[1])}
	var rules []string
	switch what {
	case Everything:
		rules = []string{"pref 10 " + way + " blackhole"}
	case DatabaseLink:
		rules = []string{"pref 11 " + links[0] + " blackhole", "pref 11 " + links[1] + " blackhole"}
	case ButDatabase:
		rules = []string{"pref 12 " + links[0] + " lookup main", "pref 12 " + links[1] + " lookup main", "pref 13 " + way + " blackhole"}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, r := range rules {
		if err := n.middle.ip("rule add " + r); err != nil {
			return fmt.Errorf("drop what goes from %s to %s: %w", from, to, err)
		}
		n.dropped = append(n.dropped, r)
	}
	return nil
}

// heal ends all drops.
func (n *network) heal() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.dropped) == 0 {
		return nil
	}
	err := n.middle.ip("rule del " + strings.Join(n.dropped, "\nrule del "))
	n.dropped = nil
	return err
}

// close lets go of the namespaces.
func (n *network) close() {
	if n == nil {
		return
	}
	for _, s := range n.sites {
		s.space.close()
	}
	n.middle.close()
}

// namespace is a network namespace; nil is this process' own.
type namespace struct{ file *os.File }

func (n *namespace) close() {
	if n != nil {
		_ = n.file.Close()
	}
}

// ip runs commands of the program ip, one a line, in the namespace. Files of others are /proc/self/fd/3 and so on.
func (n *namespace) ip(commands string, others ...*namespace) error {
	var said bytes.Buffer
	cmd := exec.Command("ip", "-batch", "-")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(commands+"\n"), &said, &said
	for _, o := range others {
		cmd.ExtraFiles = append(cmd.ExtraFiles, o.file)
	}
	if err := n.inside(cmd.Run); err != nil {
		return fmt.Errorf("ip: %w: %s", err, strings.TrimSpace(said.String()))
	}
	return nil
}
