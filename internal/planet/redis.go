package planet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
)

// RedisConfig sets up a RedisCluster or a single Redis. The zero value works.
type RedisConfig struct {
	// Name stands before each line of output, with the node's number (redis).
	Name string
	// Dir is made, or must be empty, and is removed by Stop ("": a temporary folder). Keep leaves it there.
	Dir  string
	Keep bool
	// Masters of the cluster (3), and Replicas of each.
	Masters, Replicas int
	// Settings win over those that the package chooses, which keep nothing on disk.
	Settings map[string]string
	// TLS makes the servers of a cluster speak TLS on a second port, see Redis.TLSAddr, and to each other; who connects there must show a
	// certificate (nil: they do not).
	TLS *RedisTLS
	// Output gets every line that the servers print, prefixed, one Write a line (nil: nobody). It must bear calls from
	// several goroutines if other servers have it too.
	Output io.Writer
	// Timeout bounds a start, however long the context has (1 minute).
	Timeout time.Duration

	guard *guard // shared, of the caller's (nil: one of its own), who has told it about Dir
	site  *site  // where the servers run (nil: on loopback)
}

// RedisTLS are the files of the servers' certificate, which is of loopback, of its key, and of the authority that everybody's is from.
type RedisTLS struct{ CA, Cert, Key string }

func (c RedisConfig) withDefaults() RedisConfig {
	c.Name = cmp.Or(c.Name, "redis")
	c.Masters = cmp.Or(c.Masters, 3)
	c.site = cmp.Or(c.site, home)
	c.Timeout = cmp.Or(c.Timeout, defaultTimeout)
	c.Output = serial(c.Output)
	return c
}

func (c RedisConfig) limit(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, c.Timeout, fmt.Errorf("not ready after %v", c.Timeout))
}

// Redis is one Redis server on loopback. Its methods may be called from several goroutines.
type Redis struct {
	server
	cfg     RedisConfig
	program string
	dir     string
	cluster bool
	port    int
	busPort int
	tlsPort int
	client  *redis.Client
	alone   *redisBase // if it is in no cluster
}

// StartRedisSingle starts one Redis that is not in cluster mode. It returns when the server answers.
func StartRedisSingle(ctx context.Context, cfg RedisConfig) (*Redis, error) {
	cfg = cfg.withDefaults()
	base, err := newRedisBase(cfg)
	if err != nil {
		return nil, fmt.Errorf("start Redis %s: %w", cfg.Name, err)
	}
	r := base.node(cfg.Name, base.dir, false)
	r.alone = base
	ctx, cancel := cfg.limit(ctx)
	defer cancel()
	if err := r.first(ctx); err != nil {
		r.Kill()
		_ = r.Stop()
		return nil, fmt.Errorf("start Redis %s: %w", cfg.Name, err)
	}
	return r, nil
}

// redisBase is what the nodes of a cluster share.
type redisBase struct {
	cfg     RedisConfig
	program string
	dir     string
	guard   *guard
	cleaned sync.Once
}

func newRedisBase(cfg RedisConfig) (*redisBase, error) {
	if err := checkName(cfg.Name); err != nil {
		return nil, err
	}
	program, err := findRedis()
	if err != nil {
		return nil, err
	}
	dir, err := makeFolder(cfg.Dir)
	if err != nil {
		return nil, err
	}
	var folders []string
	if !cfg.Keep {
		folders = []string{dir}
	}
	g := cfg.guard
	if g == nil {
		if g, err = startGuard(folders...); err != nil {
			return nil, errors.Join(err, os.RemoveAll(dir))
		}
	}
	return &redisBase{cfg: cfg, program: program, dir: dir, guard: g}, nil
}

func (b *redisBase) node(name, dir string, cluster bool) *Redis {
	r := &Redis{cfg: b.cfg, program: b.program, dir: dir, cluster: cluster}
	r.name, r.out, r.guard, r.death, r.space = name, newOutput(name, b.cfg.Output), b.guard, syscall.SIGKILL, b.cfg.site.space
	return r
}

func (b *redisBase) cleanUp() error {
	var err error
	b.cleaned.Do(func() {
		if !b.cfg.Keep {
			err = os.RemoveAll(b.dir)
		}
		if b.cfg.guard == nil {
			b.guard.dismiss()
		}
	})
	return err
}

// first starts the server for the first time, on ports that it finds.
func (r *Redis) first(ctx context.Context) error {
	if err := os.MkdirAll(r.dir, 0o755); err != nil {
		return err
	}
	for try := 1; ; try++ {
		ports, err := freePorts(3)
		if err != nil {
			return err
		}
		r.port, r.busPort, r.tlsPort = ports[0], ports[1], ports[2]
		if err = r.start(ctx); err == nil {
			break
		}
		if try == 5 || r.Running() || !strings.Contains(err.Error(), "Address already in use") {
			return err
		}
	}
	r.client = newRedisClient(r.Addr())
	return nil
}

func newRedisClient(addr string) *redis.Client {
	return redis.NewClient(&redis.Options{Addr: addr, PoolSize: 2, MaxRetries: -1, DialerRetries: 1, DialTimeout: time.Second, ReadTimeout: 5 * time.Second, DisableIdentity: true})
}

// start starts the server on its ports and returns when it answers.
func (r *Redis) start(ctx context.Context) error {
	proc, err := r.launch(exec.Command(r.program, r.args()...))
	if err != nil {
		return err
	}
	if err := await(ctx, proc.exited, r.answers); err != nil {
		return fmt.Errorf("wait until %s answers: %w%s", r.name, err, r.out.last())
	}
	return nil
}

func (r *Redis) args() []string {
	all := map[string]string{
		"port":      strconv.Itoa(r.port),
		"bind":      r.cfg.site.host,
		"dir":       r.dir,
		"daemonize": "no",
		"save":      "",
		"loglevel":  "notice",
		// A replica need not wait for others to be sent the same copy.
		"repl-diskless-sync-delay": "0",
	}
	if r.cluster {
		maps.Copy(all, map[string]string{
			"cluster-enabled":      "yes",
			"cluster-port":         strconv.Itoa(r.busPort), // so that the usual port+10000 need not be free
			"cluster-config-file":  "nodes.conf",
			"cluster-node-timeout": "3000",
			"cluster-announce-ip":  r.cfg.site.host,
		})
	}
	if s := r.cfg.TLS; s != nil {
		maps.Copy(all, map[string]string{
			"tls-port": strconv.Itoa(r.tlsPort), "tls-cert-file": s.Cert, "tls-key-file": s.Key, "tls-ca-cert-file": s.CA,
			"tls-cluster": "yes", "tls-replication": "yes",
		})
	}
	if r.cfg.site != home {
		all["protected-mode"] = "no" // nobody else is in that network
	}
	maps.Copy(all, r.cfg.Settings)
	var args []string
	for _, name := range slices.Sorted(maps.Keys(all)) {
		args = append(args, "--"+name, all[name])
	}
	return args
}

// answers sends an inline PING. It uses no client, which would log each attempt that fails.
func (r *Redis) answers(ctx context.Context) error {
	conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", r.Addr())
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	if _, err := io.WriteString(conn, "PING\r\n"); err != nil {
		return err
	}
	reply := make([]byte, 64)
	n, err := conn.Read(reply)
	if err != nil {
		return err
	}
	// A password set by the caller is none of our business.
	if text := string(reply[:n]); !strings.HasPrefix(text, "+PONG") && !strings.HasPrefix(text, "-NOAUTH") {
		return errors.New(strings.TrimSpace(text))
	}
	return nil
}

// Addr is the server's address. It stays the same over a restart.
func (r *Redis) Addr() string { return r.cfg.site.address(r.port) }

// TLSAddr is where the server speaks TLS, if it does.
func (r *Redis) TLSAddr() string { return r.cfg.site.address(r.tlsPort) }

// Restart stops the server if it runs and starts it on the same ports, empty. It returns when the server answers.
func (r *Redis) Restart(ctx context.Context) error {
	ctx, cancel := r.cfg.limit(ctx)
	defer cancel()
	if err := r.shutDown(); err != nil {
		return err
	}
	return r.start(ctx)
}

func (r *Redis) shutDown() error { return r.end(syscall.SIGTERM, 10*time.Second) }

// Stop ends the server and removes its folder unless it is to be kept. It may be called again. A cluster stops its servers
// itself.
func (r *Redis) Stop() error {
	if r.alone == nil {
		return fmt.Errorf("stop %s: it is part of a cluster", r.name)
	}
	err := r.shutDown()
	if r.client != nil {
		_ = r.client.Close()
	}
	return errors.Join(err, r.alone.cleanUp())
}

func nodeDir(root string, i int) string { return filepath.Join(root, strconv.Itoa(i)) }
