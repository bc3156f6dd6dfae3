package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/shortline/shortline/replication/postgres"
)

const configCheckHelp = `Read the settings as "shortline serve" (or "shortline db") would and say what is
wrong with them, without starting anything.

Settings are looked for where the command itself looks: flags after "--", then
SHORTLINE_* variables, then the file of --config. Unknown settings, values that
cannot be read and settings that contradict each other are faults. Addresses that
do not answer, variables that no command knows and secrets that others can read
are warnings.

The exit code is 0 where the command would start, 1 where it would refuse, and 2
for a mistake in this command line.`

func newConfigCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "config", Short: "look at settings"}
	var output string
	check := &cobra.Command{
		Use: "check [serve|db] [-- FLAGS]", Short: "say what is wrong with the settings of serve or db", Long: configCheckHelp,
		Example: "  shortline config check --config /etc/shortline/serve.yaml\n  shortline config check db --config /etc/shortline/db.yaml\n  shortline config check serve -- --listen :8080 --region eu-west",
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := a.subject(cmd, args, output)
			if err != nil {
				return err
			}
			found := s.read(a)
			if found.count(fail) == 0 {
				s.reach(cmd.Context(), &found)
			}
			return a.tell(found, output)
		},
	}
	outputFlag(check.Flags(), &output)
	cmd.AddCommand(check)
	return cmd
}

// subject is the command whose settings are looked at, with its settings once they are read.
type subject struct {
	name   string
	flags  []string // its flags as given
	config string
	serve  serveSettings
	db     dbSettings
}

// subject takes apart what "config check" and "doctor" are given.
func (a *app) subject(cmd *cobra.Command, args []string, output string) (*subject, error) {
	if err := checkOutput(cmd, output); err != nil {
		return nil, err
	}
	s := &subject{name: "serve", config: cmd.Flags().Lookup("config").Value.String()}
	if s.config == "" {
		s.config = a.getenv(envName("config"))
	}
	if dash := cmd.ArgsLenAtDash(); dash >= 0 {
		args, s.flags = args[:dash], args[dash:]
	}
	switch {
	case len(args) == 0:
	case len(args) == 1 && (args[0] == "serve" || args[0] == "db"):
		s.name = args[0]
	default:
		return nil, usagef(cmd, "%q is not serve or db; flags of theirs come after --", strings.Join(args, " "))
	}
	return s, nil
}

// read reads and checks the settings as the command itself does.
func (s *subject) read(a *app) (found findings) {
	root := newRootCommand(a)
	for _, c := range root.Commands() {
		if c.Name() == s.name {
			root.RemoveCommand(c)
		}
	}
	cmd := serveCommand(a, &s.serve)
	if s.name == "db" {
		cmd = dbCommand(a, &s.db)
	}
	root.AddCommand(cmd)
	faults := func(check string, err error) {
		for line := range strings.SplitSeq(err.Error(), "; ") {
			found.add(check, fail, "shortline "+s.name+" --help tells what it may be", "%s", line)
		}
	}
	args := s.flags
	if s.config != "" {
		args = append([]string{"--config", s.config}, args...)
	}
	if err := cmd.ParseFlags(args); err != nil {
		faults("flags", err)
		return found
	}
	if left := cmd.Flags().Args(); len(left) > 0 {
		faults("flags", fmt.Errorf("%q is not a flag", left[0]))
	}
	if err := a.loadSettings(cmd); err != nil {
		faults("settings", err)
		return found
	}
	s.serve.getenv = a.getenv
	err := error(nil)
	if s.name == "db" {
		err = s.db.complete()
	} else {
		err = s.serve.validate()
	}
	if err != nil {
		faults("settings", err)
	}
	n := 0
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if f.Changed && f.Name != "config" {
			n++
		}
	})
	if len(found) == 0 {
		found.add("settings", fine, "", "shortline %s would take them; %d are not as by default", s.name, n)
	}
	found = append(found, a.strayVariables(root)...)
	found = append(found, s.openSecrets(cmd)...)
	return found
}

// strayVariables are variables named like settings that no command has.
func (a *app) strayVariables(root *cobra.Command) (found findings) {
	known := map[string]string{}
	eachFlag(root, func(f *pflag.Flag) { known[envName(f.Name)] = f.Name })
	names := make([]string, 0, len(known))
	for name := range known {
		names = append(names, strings.ToLower(name))
	}
	slices.Sort(names)
	environ := a.environ
	if environ == nil {
		environ = os.Environ
	}
	for _, v := range environ() {
		name, _, _ := strings.Cut(v, "=")
		if !strings.HasPrefix(name, "SHORTLINE_") || known[name] != "" || strings.HasPrefix(name, "SHORTLINE_TEST_") || name == "SHORTLINE_REQUIRE_SERVERS" {
			continue
		}
		fix := "remove it"
		if near := nearest(strings.ReplaceAll(name, "_", "-"), dashed(names)); near != "" {
			fix = "did you mean " + strings.ToUpper(strings.ReplaceAll(near, "-", "_")) + "?"
		}
		found.add("environment", warn, fix, "%s is set and is no setting", name)
	}
	return found
}

func dashed(names []string) []string {
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = strings.ReplaceAll(n, "_", "-")
	}
	return out
}

// secretFlags are settings that nobody else should read.
var secretFlags = []string{"postgres", "postgres-replica", "postgres-owner", "cluster-key", "gossip-key", "redis-password", "db-password", "db-writer-dsn"}

// openSecrets tells of secrets on the command line, and in a settings file that everybody may read.
func (s *subject) openSecrets(cmd *cobra.Command) (found findings) {
	onLine := cmd.Flags().Lookup // what the line itself has is found by its text
	for _, name := range secretFlags {
		if onLine(name) == nil {
			continue
		}
		if slices.ContainsFunc(s.flags, func(arg string) bool { return arg == "--"+name || strings.HasPrefix(arg, "--"+name+"=") }) {
			found.add("secrets", warn, "set "+envName(name)+" instead, or a line in a file that only the service may read", "--%s on a command line is seen by every user of the machine", name)
		}
	}
	if s.config == "" {
		return found
	}
	info, err := os.Stat(s.config)
	if err != nil || info.Mode()&0o044 == 0 {
		return found
	}
	text, err := os.ReadFile(s.config)
	if err != nil {
		return found
	}
	for line := range strings.Lines(string(text)) {
		if name, _, ok := strings.Cut(line, ":"); ok && slices.Contains(secretFlags, strings.TrimSpace(name)) {
			found.add("secrets", warn, "chmod 600 "+shellQuote(s.config), "%s has %s and is readable for others", s.config, strings.TrimSpace(name))
			return found
		}
	}
	return found
}

// far is an address that a process will want to reach.
type far struct{ setting, addr string }

// addresses are those in the settings. Of UDP nothing can be said from here.
func (s *subject) addresses() (out []far) {
	add := func(setting string, addrs ...string) {
		for _, a := range addrs {
			if a != "" {
				out = append(out, far{setting, a})
			}
		}
	}
	pairs := func(setting string, m map[string]string) {
		for _, addr := range m {
			add(setting, addr)
		}
	}
	if s.name == "db" {
		pairs("db-peer", s.db.peers)
		add("db-writer-dsn", postgres.AddrOf(s.db.writerDSN))
	} else {
		c := &s.serve
		add("postgres", postgres.AddrOf(c.postgres))
		add("postgres-replica", postgres.AddrOf(c.replica))
		add("redis", c.redis.addrs...)
		add("forward-to", c.forwardTo...)
		add("join", c.join...)
		pairs("control-voters", c.controlVoters)
		pairs("db-agents", c.dbAgents)
		if u, err := url.Parse(c.endpoint); err == nil && u.Host != "" {
			add("otlp-endpoint", u.Host)
		}
	}
	slices.SortFunc(out, func(a, b far) int { return strings.Compare(a.setting+a.addr, b.setting+b.addr) })
	return slices.Compact(out)
}

// reachWithin bounds one attempt to reach an address.
const reachWithin = 2 * time.Second

// reach says which addresses answer. One that does not is a warning: it may be started later.
func (s *subject) reach(ctx context.Context, found *findings) {
	all := s.addresses()
	errs := make([]error, len(all))
	var tries sync.WaitGroup
	for i, f := range all {
		tries.Go(func() {
			try, cancel := context.WithTimeout(ctx, reachWithin)
			defer cancel()
			conn, err := new(net.Dialer).DialContext(try, "tcp", f.addr)
			if err == nil {
				_ = conn.Close()
			}
			errs[i] = err
		})
	}
	tries.Wait()
	for i, f := range all {
		var dns *net.DNSError
		switch {
		case errs[i] == nil:
			found.add("reach --"+f.setting, fine, "", "%s answers", f.addr)
		case errors.As(errs[i], &dns):
			found.add("reach --"+f.setting, warn, "correct the name, or the machine's resolver", "%s: the name %s is not known", f.addr, dns.Name)
		default:
			found.add("reach --"+f.setting, warn, "start what listens there, open the network, or correct the address", "%s does not answer: %v", f.addr, errors.Unwrap(errs[i]))
		}
	}
}
