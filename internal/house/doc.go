// Package house holds the rules of the house as tests: who may import whom, which names are not taken, and what of our
// dependencies is not to be used. There is nothing in it but tests.
//
// It promises that a change which bends the structure described in docs/architecture.md fails `make test` with a
// message that names the file, the rule and the way out. It must not know what any package does.
package house
