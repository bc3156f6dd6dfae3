package planet

import (
	"os"
	"path/filepath"
	"time"

	"github.com/shortline/shortline/internal/pki"
	"github.com/shortline/shortline/regions"
)

// deployment is the name of every planet's.
const deployment = "planet"

// identity makes a certificate for one process, anew at each start, and returns the flags that name it.
func (p *Planet) identity(region regions.ID, name string) ([]string, error) {
	dir := filepath.Join(p.dir, "ca")
	cert, key, err := p.authority.Issue(pki.Name{Region: string(region), Node: name}, 30*24*time.Hour, time.Now())
	if err != nil {
		return nil, err
	}
	base := filepath.Join(dir, name)
	for path, text := range map[string][]byte{base + ".pem": cert, base + ".key": key} {
		if err := os.WriteFile(path, text, 0o600); err != nil { // not synced: nothing of it is needed after a crash
			return nil, err
		}
	}
	return []string{"--deployment", deployment, "--cluster-tls-ca", filepath.Join(dir, pki.BundleFile), "--cluster-tls-cert", base + ".pem", "--cluster-tls-key", base + ".key"}, nil
}

// Identity makes a certificate of this planet for somebody else who takes part.
func (p *Planet) Identity(region regions.ID, name string) (pki.Files, error) {
	_, err := p.identity(region, name)
	base := filepath.Join(p.dir, "ca", name)
	return pki.Files{CA: filepath.Join(p.dir, "ca", pki.BundleFile), Cert: base + ".pem", Key: base + ".key"}, err
}

// ClusterKey is the secret that all processes of the planet have.
func (p *Planet) ClusterKey() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.clusterKey
}

// Secrets are all that must be seen nowhere: keys and passwords.
func (p *Planet) Secrets() []string {
	key, _ := os.ReadFile(filepath.Join(p.dir, "ca", "ca.key"))
	return []string{p.key, p.ClusterKey(), p.password, string(key)}
}
