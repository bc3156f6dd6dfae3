//go:build !linux

package planet

import "errors"

var errOnlyLinux = errors.New("only Linux has network namespaces")

func newNamespace() (*namespace, error) { return nil, errOnlyLinux }

func (n *namespace) enter() error { return errOnlyLinux }

func (n *namespace) inside(do func() error) error {
	if n == nil {
		return do()
	}
	return errOnlyLinux
}
