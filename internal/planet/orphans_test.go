package planet

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sync/errgroup"
)

// family is what a parent started.
type family struct {
	PIDs    []int // all processes of the servers
	Guards  []int
	Folders []string
}

// parent starts one of each, prints the family, and waits to be killed. It exits at once if told to.
func parent(what string) int {
	ctx, cancel := context.WithTimeout(context.Background(), long)
	defer cancel()
	var primary, standby *Postgres
	var cluster *RedisCluster
	var single *Redis
	var g errgroup.Group
	g.Go(func() (err error) {
		if primary, err = StartPostgres(ctx, PostgresConfig{NoFsync: true}); err == nil {
			standby, err = primary.Standby(ctx, "eu", PostgresConfig{NoFsync: true})
		}
		return err
	})
	g.Go(func() (err error) { cluster, err = StartRedis(ctx, RedisConfig{}); return err })
	g.Go(func() (err error) { single, err = StartRedisSingle(ctx, RedisConfig{}); return err })
	if err := g.Wait(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if what == "paused" {
		for _, pause := range []func() error{standby.Pause, single.Pause, func() error { return cluster.Pause(1) }} {
			if err := pause(); err != nil {
				fmt.Fprintln(os.Stderr, err)
				return 1
			}
		}
	}
	var f family
	for _, p := range []*process{primary.current(), standby.current(), single.current(), cluster.nodes[0].current(), cluster.nodes[1].current(), cluster.nodes[2].current()} {
		tree, err := p.tree()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		for _, e := range tree {
			f.PIDs = append(f.PIDs, e.pid)
		}
	}
	for _, g := range []*guard{primary.guard, standby.guard, single.guard, cluster.base.guard} {
		f.Guards = append(f.Guards, g.proc.pid)
	}
	f.Folders = []string{primary.dir, primary.sockets, standby.dir, standby.sockets, single.dir, cluster.base.dir}
	if err := json.NewEncoder(os.Stdout).Encode(f); err != nil {
		return 1
	}
	if what == "exit" {
		return 0
	}
	select {}
}

// alive tells whether a process is there and has not ended.
func alive(t *testing.T, pids []int) (left []int) {
	t.Helper()
	all, err := processes()
	check(t, err)
	for _, e := range all {
		for _, pid := range pids {
			if e.pid == pid && e.state != 'Z' && e.state != 'X' {
				left = append(left, pid)
			}
		}
	}
	return left
}

// Whatever becomes of the process that started them, no server and no folder stays behind.
func TestOrphans(t *testing.T) {
	t.Parallel()
	Need(t)
	self, err := os.Executable()
	check(t, err)
	for _, tc := range []struct {
		name      string
		guardless bool // the guards are killed first; the folders stay then
	}{{"killed", false}, {"paused", false}, {"exit", false}, {"guards killed", true}} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.guardless && runtime.GOOS != "linux" {
				t.Skip("here the guards are all there is")
			}
			cmd := exec.Command(self)
			cmd.Env = append(os.Environ(), "SHORTLINE_TEST_PARENT="+tc.name)
			cmd.Stderr = os.Stderr
			out, err := cmd.StdoutPipe()
			check(t, err)
			check(t, cmd.Start())
			line, err := bufio.NewReader(out).ReadString('\n')
			var f family
			if err == nil {
				err = json.Unmarshal([]byte(line), &f)
			}
			if err == nil && len(f.PIDs) < 12 {
				err = fmt.Errorf("only %d processes", len(f.PIDs))
			}
			if tc.guardless {
				for _, pid := range f.Guards {
					_ = syscall.Kill(pid, syscall.SIGKILL)
				}
			}
			if tc.name != "exit" {
				_ = cmd.Process.Kill()
			}
			_ = cmd.Wait()
			check(t, err)
			var left []int
			defer func() { t.Logf("left: %v", left) }()
			eventually(t, "all processes have ended", func() bool { left = alive(t, append(f.PIDs, f.Guards...)); return len(left) == 0 })
			for _, dir := range f.Folders {
				if exists(dir) != tc.guardless {
					t.Errorf("%s: exists is %v", dir, exists(dir))
				}
				if !strings.Contains(dir, "shortline-") {
					t.Fatalf("not one of ours: %s", dir)
				}
				check(t, os.RemoveAll(dir))
			}
		})
	}
}
