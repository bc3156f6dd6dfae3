// Package edge is the HTTP node: it answers from the memory that the change feed keeps up to date, hands writes to the
// batcher, and says what it does in an OpenAPI document.
//
// It promises that nearby answers are exact, that a node which has started goes on answering reads from memory whatever
// else is down, that bad input is named field by field, and that an answer never claims a write that is not durable. It
// must not know which database it runs on: stores reach it through the contract of package replication.
package edge
