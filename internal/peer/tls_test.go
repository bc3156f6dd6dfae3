package peer

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/shortline/shortline/internal/pki"
)

// member makes an identity of an authority.
func member(t *testing.T, ca *pki.Authority, deployment string) *pki.Identity {
	t.Helper()
	cert, key, err := ca.Issue(pki.Name{Region: "us", Node: "n"}, time.Hour, time.Now())
	f := pki.Files{CA: filepath.Join(t.TempDir(), "ca.pem")}
	f.Cert, f.Key = f.CA+".cert", f.CA+".key"
	for path, text := range map[string][]byte{f.CA: ca.Trusted(), f.Cert: cert, f.Key: key} {
		err = errors.Join(err, pki.WriteFile(path, text))
	}
	if err != nil {
		t.Fatal(err)
	}
	id, err := pki.Load(f, deployment, "", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestCallOverTLS(t *testing.T) {
	authority := func(deployment string) *pki.Authority {
		ca, err := pki.Init(filepath.Join(t.TempDir(), "ca"), deployment, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		return ca
	}
	ours := authority("shop")
	v, err := NewVerifier(Keys{testKey}, nil)
	if err != nil {
		t.Fatal(err)
	}
	acted := 0
	mux := http.NewServeMux()
	mux.Handle("/hello", Handle(v, func(_ context.Context, q question) (answer, error) {
		acted++
		return answer{"hello " + q.Name}, nil
	}))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(mux, 10*time.Second, slog.New(slog.DiscardHandler))
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(Listen(l, member(t, ours, "shop"))) }()
	defer func() { _ = s.Close(); <-done }()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	call := func(key string, id *pki.Identity) error {
		c, err := NewClient(Keys{key}, id)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		var a answer
		return c.Call(ctx, l.Addr().String(), "/hello", question{"you"}, &a)
	}
	if err := call(testKey, member(t, ours, "shop")); err != nil || acted != 1 {
		t.Fatal(err, acted)
	}
	var why *Refusal
	if err := call("another key of some length", member(t, ours, "shop")); !errors.As(err, &why) || why.Kind != Unauthorized {
		t.Errorf("the certificate without the key: %v", err)
	}
	if err := call(testKey, nil); err == nil || errors.As(err, &why) && why.Kind != Unauthorized {
		t.Errorf("the key without a certificate: %v", err)
	}
	// The caller's own check comes first here; what the server thinks of it is in the tests of pki.
	if err := call(testKey, member(t, authority("shop"), "shop")); err == nil || !NeverSent(err) {
		t.Errorf("a certificate of another authority: %v", err)
	}
	// Where the refusal comes while the request is being written, the broken connection may be all that is seen of it, and the outcome
	// counts as unknown.
	for range 50 {
		if err = call(testKey, refusedByOthers(t, ours)); err == nil || NeverSent(err) {
			break
		}
	}
	if err == nil || !NeverSent(err) {
		t.Errorf("a certificate that only the server refuses: %v", err)
	}
	if acted != 1 {
		t.Errorf("%d calls were acted on", acted)
	}
}

// refusedByOthers trusts the authority and shows a certificate of another one.
func refusedByOthers(t *testing.T, trusted *pki.Authority) *pki.Identity {
	t.Helper()
	dir := t.TempDir()
	other, err := pki.Init(filepath.Join(dir, "ca"), "shop", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	cert, key, err := other.Issue(pki.Name{Region: "us", Node: "n"}, time.Hour, time.Now())
	f := pki.Files{CA: filepath.Join(dir, "ca.pem"), Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem")}
	both := append(append([]byte(nil), trusted.Trusted()...), other.Trusted()...)
	for path, text := range map[string][]byte{f.CA: both, f.Cert: cert, f.Key: key} {
		err = errors.Join(err, pki.WriteFile(path, text))
	}
	if err != nil {
		t.Fatal(err)
	}
	id, err := pki.Load(f, "shop", "", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return id
}
