package main

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/shortline/shortline/replication/postgres"
	"github.com/shortline/shortline/replication/rediscache"
)

const doctorHelp = `Look at this machine and at the servers that "shortline serve" (or "shortline db")
would use, and say what is wrong and how to mend it: limits of the kernel, the
clock, disks, ports, PostgreSQL, Redis, certificates and names.

Settings are read as by "shortline config check". Nothing is changed. A node that
runs may be looked at as well.

The exit code is 0 without a FAIL, 1 with one, and 2 for a mistake in this command line.`

func newDoctorCommand(a *app) *cobra.Command {
	var output, admin string
	cmd := &cobra.Command{
		Use: "doctor [serve|db] [-- FLAGS]", Short: "find out what is wrong with a machine, and how to mend it", Long: doctorHelp,
		Example: "  shortline doctor\n  shortline doctor --config /etc/shortline/serve.yaml\n  shortline doctor db -- --db-dir /var/lib/shortline-db",
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := a.subject(cmd, args, output)
			if err != nil {
				return err
			}
			return a.tell(a.examine(cmd.Context(), s, admin), output)
		},
	}
	outputFlag(cmd.Flags(), &output)
	cmd.Flags().StringVar(&admin, "admin-server", "", "`URL` of the admin port of a node that runs, to compare clocks with")
	return cmd
}

// lookWithin bounds all that is asked of one server.
const lookWithin = 10 * time.Second

// examine does all checks. What depends on settings is left out where these cannot be read.
func (a *app) examine(ctx context.Context, s *subject, admin string) findings {
	found := s.read(a)
	readable := found.count(fail) == 0
	judgeFiles(&found, openFiles())
	judgeKernel(&found, kernelLimits())
	clock(&found)
	if admin != "" {
		compareClock(ctx, &found, admin)
	}
	if !readable {
		return found
	}
	s.folders(&found)
	s.ports(ctx, &found)
	s.certificates(&found, time.Now())
	s.names(ctx, &found)
	s.reach(ctx, &found)
	if s.name == "db" {
		return found
	}
	c := &s.serve
	for _, server := range []struct{ setting, dsn string }{{"postgres", c.postgres}, {"postgres-replica", c.replica}} {
		if server.dsn == "" {
			continue
		}
		look, cancel := context.WithTimeout(ctx, lookWithin)
		facts, err := postgres.Inspect(look, server.dsn)
		cancel()
		if err != nil {
			found.add(server.setting, fail, "start PostgreSQL, or correct --"+server.setting, "%v", err)
			continue
		}
		judgePostgres(&found, server.setting, facts, c.conns)
	}
	cache, err := c.redis.config(c.deployment, slog.New(slog.DiscardHandler))
	if err != nil {
		found.add("redis", fail, "correct the files of --redis-tls-ca, --redis-tls-cert and --redis-tls-key", "%v", err)
		return found
	}
	for _, addr := range c.redis.addrs {
		look, cancel := context.WithTimeout(ctx, lookWithin)
		facts, err := rediscache.Inspect(look, cache, addr)
		cancel()
		if err != nil {
			found.add("redis "+addr, warn, "start Redis, or correct --redis; nodes go on without it and read from PostgreSQL", "%v", err)
			continue
		}
		judgeRedis(&found, addr, facts)
	}
	return found
}

// compareClock compares this machine's clock with that of another by the Date of an answer, which has whole seconds.
func compareClock(ctx context.Context, found *findings, admin string) {
	ctx, cancel := context.WithTimeout(ctx, reachWithin)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, admin+"/livez", nil)
	if err != nil {
		found.add("clock", warn, "--admin-server is a URL such as http://10.1.0.5:8081", "%v", err)
		return
	}
	sent := time.Now()
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		found.add("clock", warn, "is the node running?", "%s was not asked: %v", admin, err)
		return
	}
	_ = res.Body.Close()
	there, err := http.ParseTime(res.Header.Get("Date"))
	if err != nil {
		found.add("clock", warn, "is this a node of Shortline?", "%s does not say what time it is", admin)
		return
	}
	judgeClock(found, "that of "+admin, there.Add(time.Second/2).Sub(sent.Add(time.Since(sent)/2)), time.Second)
}
