// Package client is the Go client of Shortline's HTTP API: the command line, nodes that forward, and tests use it.
//
// It promises that every call has a deadline and a bounded number of attempts, that nothing is sent twice which is not
// safe to send twice, that one session never sees the world go backwards even when its calls go to several regions, and
// that no answer fills the memory. It knows the API as the contract writes it and the domain types; it must not know
// anything of how a server works.
package client

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Config says how to reach a service. Only Server is required.
type Config struct {
	// Server is the base URL of the public API, "http://127.0.0.1:8080".
	Server string
	// AdminServer is the base URL of the admin API; empty where no key is managed.
	AdminServer string
	// Key is an API key in its secret form; empty sends none.
	Key string
	// Session carries the newest token from call to call. Clients of several regions may share one; nil makes a new one.
	Session *Session
	// HTTPClient sends the requests; nil takes one with sensible limits. Its Timeout should be zero, for a large import
	// takes as long as it takes.
	HTTPClient *http.Client
	// UserAgent is "shortline-client" where it is empty.
	UserAgent string
	// Timeout bounds each attempt of a call, and for an import the time without any progress. Zero is 15 s, which is
	// longer than a server holds a write during a failover.
	Timeout time.Duration
	// Attempts bounds how often a call is sent. Zero is 4.
	Attempts int
	// MaxAnswerBytes bounds an answer after decompression. Zero is 8 MiB.
	MaxAnswerBytes int64
	// Log gets one line at Debug for each attempt that is repeated; nil gets none.
	Log *slog.Logger
}

const (
	defaultTimeout        = 15 * time.Second
	defaultAttempts       = 4
	defaultMaxAnswerBytes = 8 << 20
)

// Validate reports every fault of the configuration at once.
func (c Config) Validate() error {
	var faults []error
	if err := checkBaseURL(c.Server); err != nil {
		faults = append(faults, fmt.Errorf("server: %w", err))
	}
	if c.AdminServer != "" {
		if err := checkBaseURL(c.AdminServer); err != nil {
			faults = append(faults, fmt.Errorf("admin server: %w", err))
		}
	}
	if strings.ContainsFunc(c.Key, func(r rune) bool { return r <= ' ' || r > '~' }) {
		faults = append(faults, errors.New("key: contains spaces or characters that no key has"))
	}
	if c.Timeout < 0 || c.Attempts < 0 || c.MaxAnswerBytes < 0 {
		faults = append(faults, errors.New("timeout, attempts and answer size must not be negative"))
	}
	return errors.Join(faults...)
}

func checkBaseURL(s string) error {
	u, err := url.Parse(s)
	switch {
	case s == "":
		return errors.New("is required, for example http://127.0.0.1:8080")
	case err != nil:
		return fmt.Errorf("%q is not a URL: %w", s, errors.Unwrap(err))
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return fmt.Errorf("%q is not an http:// or https:// URL such as http://127.0.0.1:8080", s)
	case u.RawQuery != "" || u.Fragment != "" || u.User != nil:
		return fmt.Errorf("%q must not have a user, a query or a fragment", u.Redacted())
	}
	return nil
}

// Client calls one service. It is safe for concurrent use, and keeps idle connections only.
type Client struct {
	cfg           Config
	server, admin string // without a slash at the end
	retry         retryPolicy
}

// New makes a client. It opens no connection.
func New(cfg Config) (*Client, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg.UserAgent = cmp.Or(cfg.UserAgent, "shortline-client")
	cfg.Timeout = cmp.Or(cfg.Timeout, defaultTimeout)
	cfg.Attempts = cmp.Or(cfg.Attempts, defaultAttempts)
	cfg.MaxAnswerBytes = cmp.Or(cfg.MaxAnswerBytes, defaultMaxAnswerBytes)
	if cfg.Session == nil {
		cfg.Session = &Session{}
	}
	if cfg.HTTPClient == nil {
		cfg.HTTPClient = &http.Client{Transport: newTransport()}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Client{
		cfg:    cfg,
		server: strings.TrimRight(cfg.Server, "/"),
		admin:  strings.TrimRight(cfg.AdminServer, "/"),
		retry:  retryPolicy{attempts: cfg.Attempts, base: 100 * time.Millisecond, most: 5 * time.Second, patience: 10 * time.Second},
	}, nil
}

// Session returns the session that the client's calls belong to.
func (c *Client) Session() *Session { return c.cfg.Session }

func newTransport() *http.Transport {
	return &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
		ForceAttemptHTTP2:     true,
		MaxIdleConns:          64,
		MaxIdleConnsPerHost:   16,
		IdleConnTimeout:       60 * time.Second,
		TLSHandshakeTimeout:   5 * time.Second,
		ExpectContinueTimeout: time.Second,
	}
}
