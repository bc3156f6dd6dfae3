package control

import (
	"errors"
	"io"
	"net"
	"testing"

	"github.com/shortline/shortline/internal/peer"
)

// Voters whose keys are a step of a change apart take each other in, whoever calls; those without one in common do not.
func TestHandshakeWhileKeysChange(t *testing.T) {
	const old, next = "the old key of the cluster", "the new key of the cluster"
	steps := []peer.Keys{{old}, {old, next}, {next, old}, {next}}
	meet := func(caller, answerer peer.Keys) (calls, answers error) {
		a, b := net.Pipe()
		done := make(chan error)
		go func() {
			_, err := io.ReadFull(b, make([]byte, len(magic)))
			if err == nil {
				_, err = answer(b, answerer, func(hello) verdict { return verdict{} })
			}
			done <- err
		}()
		_, calls = call(a, caller, hello{Cluster: "test"})
		_ = a.Close()
		answers = <-done
		_ = b.Close()
		return calls, answers
	}
	for i, caller := range steps {
		for j, answerer := range steps {
			calls, answers := meet(caller, answerer)
			switch {
			case i-j <= 1 && j-i <= 1:
				if calls != nil || answers != nil {
					t.Errorf("step %d calls step %d: %v, %v", i, j, calls, answers)
				}
			case i == 0 && j == 3, i == 3 && j == 0:
				if !errors.Is(calls, ErrOutsider) || answers == nil {
					t.Errorf("step %d calls step %d: %v, %v", i, j, calls, answers)
				}
			}
		}
	}
}
