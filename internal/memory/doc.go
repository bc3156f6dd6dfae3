// Package memory makes random reads of some hundred megabytes quicker, where the system and the processor know how: with
// huge pages, so that the processor need not walk page tables, and by fetching ahead, so that it does not wait. And it keeps the collector from running more often than it has to.
//
// It promises that nothing but speed depends on it. It must not know what the memory is for.
package memory

// Block is how many bytes a PrefetchBlock is about.
const Block = 256
