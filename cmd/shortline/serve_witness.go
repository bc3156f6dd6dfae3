package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"
)

// serveWitness runs a voter that has no stores, until ctx ends. Its admin port has what monitoring asks for.
func (a *app) serveWitness(ctx context.Context, s *serveSettings, log *slog.Logger) error {
	registry := a.newRegistry(s.edge.Region, s.name(), log)
	admin, err := listen("admin-listen", s.admin)
	if err != nil {
		return err
	}
	defer func() { _ = admin.Close() }()
	id, err := s.identity.load(s.deployment, s.edge.Region, log, registry)
	if err != nil {
		return err
	}
	p, err := s.newPlane(id, log, registry)
	if err != nil {
		return err
	}
	defer p.close()
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\n") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := p.node.Check(); err != nil {
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = fmt.Fprintf(w, "control: %v\n", err)
			return
		}
		_, _ = io.WriteString(w, "control: ok\n")
	})
	group, alive := errgroup.WithContext(ctx)
	serveUntil(alive, group, &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}, admin)
	group.Go(func() error { return p.run(alive) })
	log.Info("ready", "witness", s.edge.Region, "control", p.listener.Addr().String(), "admin", "http://"+dialable(admin.Addr()))
	if _, err := fmt.Fprintln(a.stdout, "ready "+p.listener.Addr().String()); err != nil {
		return fmt.Errorf("print the ready line: %w", err)
	}
	err = group.Wait()
	log.Info("stopped")
	return err
}
