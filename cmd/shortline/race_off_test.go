//go:build !race

package main

// raceEnabled makes slow tests smaller under the race detector.
const raceEnabled = false
