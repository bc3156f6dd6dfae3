package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
)

// readGossipKeys reads the file of --gossip-key-file: a key a line, empty lines and those that begin with # left out.
func readGossipKeys(path string) ([]string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("--gossip-key-file: %w", err)
	}
	var keys []string
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			keys = append(keys, line)
		}
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("--gossip-key-file: %s has no key; make one with: openssl rand -hex 32", path)
	}
	return keys, nil
}

// secrets are the keys for gossip in the order of their use: of the file, else of the flags, else the cluster keys.
func (s *serveSettings) secrets() ([]string, error) {
	switch {
	case s.gossipKeyFile != "":
		return readGossipKeys(s.gossipKeyFile)
	case len(s.gossipKeys) > 0:
		return s.gossipKeys, nil
	}
	return s.clusterKeys, nil
}

// followGossipKeys takes the keys of --gossip-key-file into use whenever it changes, until ctx ends. A file that cannot be used leaves those
// before in force.
func (n *node) followGossipKeys(ctx context.Context, every time.Duration) error {
	if n.s.gossipKeyFile == "" {
		return nil
	}
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	last, _ := n.s.secrets()
	said := ""
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		keys, err := n.s.secrets()
		if err == nil && strings.Join(keys, "\n") != strings.Join(last, "\n") {
			if err = n.gossip.SetKeys(keys); err == nil {
				last = keys
				n.log.Info("the keys of gossip were changed", "keys", len(keys))
			}
		}
		said = n.complain(said, err)
	}
}

// complain logs an error once, and returns what was said.
func (n *node) complain(said string, err error) string {
	now := ""
	if err != nil {
		now = err.Error()
	}
	if now != "" && now != said {
		n.log.Error("the file of --gossip-key-file cannot be used; the keys before stay in force", "err", err)
	}
	return now
}

var errTwoGossipKeys = errors.New("--gossip-key and --gossip-key-file are two ways to say the same; give one of them")
