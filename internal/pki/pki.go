// Package pki makes the certificates that nodes, database agents and controllers of one deployment show each other, and
// holds them to it: mutual TLS 1.3, where both ends have a certificate of the deployment's authority with the deployment's name in it.
//
// It promises that a certificate of another authority, of another deployment, or out of its time gets nowhere, and that files are read
// again when they change. It knows nothing of what is said over the connections.
package pki

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// Name is who a certificate is for. It stands in the certificate as the URI spiffe://DEPLOYMENT/REGION/NODE.
type Name struct{ Deployment, Region, Node string }

const scheme = "spiffe"

// URI is how the name is written.
func (n Name) URI() *url.URL {
	return &url.URL{Scheme: scheme, Host: strings.ToLower(n.Deployment), Path: "/" + n.Region + "/" + n.Node}
}

// String is the URI's text.
func (n Name) String() string { return n.URI().String() }

func (n Name) check() error {
	if n.Deployment == "" || n.Region == "" || n.Node == "" || strings.Contains(n.Region, "/") {
		return fmt.Errorf("%q is no name such as us-east/node-1", n.Region+"/"+n.Node)
	}
	return nil
}

// NameOf reads the name in a certificate.
func NameOf(c *x509.Certificate) (Name, error) {
	for _, u := range c.URIs {
		region, node, ok := strings.Cut(strings.TrimPrefix(u.Path, "/"), "/")
		if u.Scheme == scheme && ok && region != "" && node != "" {
			return Name{u.Host, region, node}, nil
		}
	}
	return Name{}, errors.New("the certificate has no name of the form spiffe://DEPLOYMENT/REGION/NODE among its URIs")
}
