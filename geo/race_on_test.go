//go:build race

package geo

// raceOn tells that the race detector makes everything some ten times slower.
const raceOn = true
