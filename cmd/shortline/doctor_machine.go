package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// files are the limits of open files of this process.
type files struct {
	soft, hard uint64
	err        error
}

func openFiles() (f files) {
	var l syscall.Rlimit
	f.err = syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l)
	f.soft, f.hard = uint64(l.Cur), uint64(l.Max)
	return f
}

// judgeFiles tells how many connections fit. Go raises the soft limit to the hard one by itself.
func judgeFiles(found *findings, f files) {
	switch {
	case f.err != nil:
		found.add("open files", warn, "look with: ulimit -Hn", "the limit cannot be read: %v", f.err)
	case f.hard < 4096:
		found.add("open files", fail, "LimitNOFILE=1048576 in the systemd unit, or ulimit -Hn", "%d at most; a node needs some hundred, and one for each connection", f.hard)
	case f.hard < 100_000:
		found.add("open files", warn, "LimitNOFILE=1048576 in the systemd unit for more live connections", "%d at most, which is room for about %d live connections", f.hard, f.hard/5*4)
	default:
		found.add("open files", fine, "", "%d at most, which is room for about %d live connections", f.hard, f.hard/5*4)
	}
}

// kernelLimit is one of Linux' settings with the least that is good.
type kernelLimit struct {
	name   string
	have   int64
	wanted int64
	why    string
}

func judgeKernel(found *findings, limits []kernelLimit) {
	for _, l := range limits {
		v := fine
		if l.have < l.wanted {
			v = warn
		}
		found.add("kernel", v, fmt.Sprintf("sysctl -w %s=%d, and the same in /etc/sysctl.d", l.name, l.wanted), "%s is %d%s", l.name, l.have, l.why)
	}
}

// Room on a disk below which the doctor warns, and below which a start makes no sense.
const (
	littleRoom = 5 << 30
	noRoom     = 512 << 20
)

// folders looks at the folders that the process writes to.
func (s *subject) folders(found *findings) {
	dirs := map[string]string{"data": s.serve.data}
	if s.name == "db" {
		dirs = map[string]string{"db-dir": s.db.cfg.Dir, "db-data": s.db.cfg.Data}
	}
	for setting, dir := range dirs {
		if dir == "" {
			continue
		}
		there := existing(dir)
		var disk syscall.Statfs_t
		if err := syscall.Statfs(there, &disk); err != nil {
			found.add("disk --"+setting, fail, "name another folder with --"+setting, "%s: %v", there, err)
			continue
		}
		free, all := float64(disk.Bavail)*float64(disk.Bsize), float64(disk.Blocks)*float64(disk.Bsize)
		v := fine
		switch {
		case free < noRoom:
			v = fail
		case free < littleRoom || free < all/10:
			v = warn
		}
		found.add("disk --"+setting, v, "make room, or name a folder on another disk with --"+setting, "%s has %.1f of %.1f GiB free", there, free/(1<<30), all/(1<<30))
		if err := writable(there); err != nil {
			found.add("disk --"+setting, fail, "chown it to the user that runs shortline", "%s cannot be written: %v", there, err)
		}
	}
}

// existing is the folder itself, or the nearest above it that there is.
func existing(dir string) string {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return dir
	}
	for abs != filepath.Dir(abs) {
		if _, err := os.Stat(abs); err == nil {
			return abs
		}
		abs = filepath.Dir(abs)
	}
	return abs
}

func writable(dir string) error {
	f, err := os.CreateTemp(dir, ".shortline-doctor-*")
	if err != nil {
		return err
	}
	_ = f.Close()
	return os.Remove(f.Name())
}

// ports tries the addresses to listen on.
func (s *subject) ports(ctx context.Context, found *findings) {
	listeners := []far{{"listen", s.serve.listen}, {"http-listen", s.serve.publicTLS.http}, {"admin-listen", s.serve.admin}, {"cluster-listen", s.serve.clusterListen}, {"control-listen", s.serve.controlListen},
		{"gossip-listen", s.serve.gossipListen}, {"dns-listen", s.serve.dns.Listen}}
	if s.name == "db" {
		listeners = []far{{"postgres-listen", s.db.cfg.Listen}, {"agent-listen", s.db.listen}, {"agent-metrics-listen", s.db.metrics}}
	}
	for _, l := range listeners {
		if l.addr == "" {
			continue
		}
		check := "port --" + l.setting
		probe, err := listen(l.setting, l.addr)
		if err == nil {
			_ = probe.Close()
			found.add(check, fine, "", "%s is free", l.addr)
			continue
		}
		if l.setting == "admin-listen" && aliveAt(ctx, l.addr) {
			found.add(check, fine, "", "a node of Shortline runs at %s", l.addr)
			continue
		}
		found.add(check, warn, "if it is not this node that runs already: ss -ltnp tells what it is", "%v", err)
	}
}

// aliveAt tells whether an admin port answers there.
func aliveAt(ctx context.Context, addr string) bool {
	ctx, cancel := context.WithTimeout(ctx, reachWithin)
	defer cancel()
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	if host == "" || net.ParseIP(host).IsUnspecified() {
		host = "127.0.0.1"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(host, port)+"/livez", nil)
	if err != nil {
		return false
	}
	res, err := (&http.Client{Timeout: time.Second}).Do(req)
	if err != nil {
		return false
	}
	_ = res.Body.Close()
	return res.Header.Get("Shortline-Region") != ""
}
