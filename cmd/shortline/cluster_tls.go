package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/pflag"

	"github.com/shortline/shortline/internal/pki"
)

// identitySettings say how a process of a deployment shows others that it belongs to it, beside the cluster key.
type identitySettings struct {
	ca, cert, key string
	insecure      bool
}

func (s *identitySettings) bind(f *pflag.FlagSet) {
	f.StringVar(&s.ca, "cluster-tls-ca", "", "`file` of the certificates of the deployment's authority (ca.pem of \"shortline ca\"): nodes then speak TLS 1.3 to each other, with certificates on both sides; the three files are read again when they change")
	f.StringVar(&s.cert, "cluster-tls-cert", "", "`file` of this node's certificate")
	f.StringVar(&s.key, "cluster-tls-key", "", "`file` of its private key")
}

// bindInsecure adds the way out, for what listens.
func (s *identitySettings) bindInsecure(f *pflag.FlagSet) {
	f.BoolVar(&s.insecure, "insecure", false, "let listeners for other nodes be reached from other machines without TLS or without a key: for a network where everybody may be trusted")
}

func (s *identitySettings) on() bool { return s.ca != "" || s.cert != "" || s.key != "" }

func (s *identitySettings) validate() error {
	if s.on() && (s.ca == "" || s.cert == "" || s.key == "") {
		return errors.New("--cluster-tls-ca, --cluster-tls-cert and --cluster-tls-key go together; make the files with: shortline ca")
	}
	return nil
}

// refuseOpen is about a listener for other nodes: beyond loopback it must be secured unless --insecure is said.
func (s *identitySettings) refuseOpen(flag, addr string, secured bool, remedy string) error {
	if addr == "" || secured || s.insecure || onlyLoopback(addr) {
		return nil
	}
	return fmt.Errorf("--%s %s can be reached from other machines, and %s; or say --insecure where everybody in the network may be trusted", flag, addr, remedy)
}

const needsTLS = "what it says is not encrypted: give --cluster-tls-ca, --cluster-tls-cert and --cluster-tls-key, made with \"shortline ca\""

// onlyLoopback tells whether an address to listen on is reached from this machine alone. Of a name that is not localhost it is not known.
func onlyLoopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.Unmap().IsLoopback()
}

// load reads the certificate; nil where there is none to be used.
func (s *identitySettings) load(deployment, region string, log *slog.Logger, r prometheus.Registerer) (*pki.Identity, error) {
	if !s.on() {
		return nil, nil
	}
	id, err := pki.Load(pki.Files{CA: s.ca, Cert: s.cert, Key: s.key}, deployment, region, log)
	if err != nil {
		return nil, fmt.Errorf("--cluster-tls-cert: %w", err)
	}
	if r != nil {
		r.MustRegister(expiry("cluster", id.Expires))
	}
	warnExpiry(log, s.cert, id.Expires())
	return id, nil
}

// expiry tells monitoring when a certificate ends.
func expiry(use string, expires func() time.Time) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "shortline_certificate_expiry_timestamp_seconds",
		Help: "When the certificate in use ends, by what it is for.", ConstLabels: prometheus.Labels{"use": use}}, func() float64 { return float64(expires().Unix()) })
}

func warnExpiry(log *slog.Logger, file string, end time.Time) {
	if left := time.Until(end); left < 30*24*time.Hour {
		log.Warn("a certificate ends soon", "file", file, "end", end, "days", int(left.Hours()/24))
	}
}
