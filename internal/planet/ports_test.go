package planet

import (
	"sync"
	"testing"
)

// Servers that are started side by side are never told the same port.
func TestFreePortsAreGivenOnce(t *testing.T) {
	var mu sync.Mutex
	seen := map[int]bool{}
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			ports, err := freePorts(40) // 2,000 of 18,000: by chance some hundred would come twice
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			for _, port := range ports {
				if seen[port] {
					t.Errorf("port %d is given twice", port)
				}
				seen[port] = true
			}
		})
	}
	all.Wait()
}
