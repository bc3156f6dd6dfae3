package rediscache

import (
	"context"
	"fmt"
	"strings"

	"github.com/redis/go-redis/v9"
)

// Facts are what a node of a Redis Cluster tells of itself to somebody who looks for what is wrong with it.
type Facts struct {
	Version   string
	Cluster   bool   // it is in cluster mode
	State     string // of the cluster: "ok"
	MaxMemory string // "0": no limit
	Policy    string // what it does at the limit
	// Fault is why it cannot be used, nil if it can.
	Fault error
}

// Inspect asks one node. The error is that it does not answer.
func Inspect(ctx context.Context, cfg Config, addr string) (f Facts, err error) {
	cfg = cfg.withDefaults()
	info, err := infoOf(ctx, cfg, addr)
	if err != nil {
		return f, fmt.Errorf("ask the Redis at %s: %w", addr, err)
	}
	fields := infoFields(info)
	f = Facts{Version: fields["redis_version"], Cluster: fields["cluster_enabled"] == "1", MaxMemory: fields["maxmemory"], Policy: fields["maxmemory_policy"], Fault: judgeInfo(addr, info)}
	client := redis.NewClient(&redis.Options{Addr: addr, Username: cfg.Username, Password: cfg.Password, TLSConfig: cfg.TLS, PoolSize: 1, MaxRetries: -1,
		DialTimeout: cfg.StartTimeout / 4, ReadTimeout: cfg.StartTimeout / 4, ContextTimeoutEnabled: true, DisableIdentity: true, MaintNotificationsConfig: noMaintenance})
	defer func() { _ = client.Close() }()
	if text, err := client.ClusterInfo(ctx).Result(); err == nil {
		f.State = infoFields(text)["cluster_state"]
	}
	return f, nil
}

// infoFields reads what INFO and CLUSTER INFO answer.
func infoFields(text string) map[string]string {
	fields := map[string]string{}
	for line := range strings.Lines(text) {
		if name, v, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			fields[name] = v
		}
	}
	return fields
}
