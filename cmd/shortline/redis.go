package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"

	"github.com/spf13/pflag"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/internal/pki"
	"github.com/shortline/shortline/replication/rediscache"
)

// redisSettings say where the Redis Cluster of the region is and how it is spoken to.
type redisSettings struct {
	addrs          []string
	user, password string
	tls            bool
	ca, cert, key  string
}

func (s *redisSettings) bind(f *pflag.FlagSet) {
	f.StringSliceVar(&s.addrs, "redis", nil, "`addresses` of some nodes of a Redis Cluster that caches store details for the region")
	f.StringVar(&s.user, "redis-user", "", "`name` to log in to Redis with; default: its default user")
	f.StringVar(&s.password, "redis-password", "", "`password` of Redis; better set as SHORTLINE_REDIS_PASSWORD")
	f.BoolVar(&s.tls, "redis-tls", false, "speak TLS to Redis; its certificates must be of the addresses that it announces")
	f.StringVar(&s.ca, "redis-tls-ca", "", "`file` of the certificates that Redis is known by; default: those of the system")
	f.StringVar(&s.cert, "redis-tls-cert", "", "`file` of this node's certificate, where Redis asks for one; read again when it changes")
	f.StringVar(&s.key, "redis-tls-key", "", "`file` of its private key")
}

func (s *redisSettings) validate() error {
	var faults []error
	for _, addr := range s.addrs {
		if _, _, err := net.SplitHostPort(addr); err != nil {
			faults = append(faults, fmt.Errorf("--redis %q is not an address such as 10.0.0.5:6379", addr))
		}
	}
	if (s.cert == "") != (s.key == "") {
		faults = append(faults, errors.New("--redis-tls-cert and --redis-tls-key go together"))
	}
	if !s.tls && s.ca+s.cert+s.key != "" {
		faults = append(faults, errors.New("--redis-tls-ca and --redis-tls-cert are of no use without --redis-tls"))
	}
	return errors.Join(faults...)
}

// config is what the cache needs to reach Redis.
func (s *redisSettings) config(deployment string, log *slog.Logger) (rediscache.Config, error) {
	cfg := rediscache.Config{Addrs: s.addrs, Username: s.user, Password: s.password, Deployment: shortline.StoreID(deployment), Log: log}
	if !s.tls {
		return cfg, nil
	}
	cfg.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	if s.ca != "" {
		roots, err := readRoots("redis-tls-ca", s.ca)
		if err != nil {
			return cfg, err
		}
		cfg.TLS.RootCAs = roots
	}
	if s.cert != "" {
		pair, err := pki.LoadServerPair(s.cert, s.key, log)
		if err != nil {
			return cfg, fmt.Errorf("--redis-tls-cert: %w", err)
		}
		cfg.TLS.GetClientCertificate = pair.GetClientCertificate
	}
	return cfg, nil
}

// readRoots reads the certificates of authorities from the file that a flag names.
func readRoots(flag, path string) (*x509.CertPool, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("--%s: %w", flag, err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("--%s: %s has no certificate in PEM form", flag, path)
	}
	return roots, nil
}
