package edge

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/shortline/shortline"
)

// The answers that write themselves write what encoding/json would.
func TestQueueAnswersAsText(t *testing.T) {
	now := time.Date(2026, 11, 30, 9, 0, 0, 0, time.UTC)
	var all QueuesAnswer
	for _, at := range []time.Time{now, now.Add(-90*time.Second - 120*time.Millisecond), time.Date(1970, 1, 1, 0, 0, 0, 1e6, time.UTC), now.Add(3 * time.Second)} {
		for _, length := range []int{0, 7, 1_000_000} {
			for _, reason := range []string{"", `older than "the" stored one <&>`} {
				a := QueueAnswer{QueueState: queueState("1001-a_b.c", shortline.Queue{Length: length, UpdatedAt: at}, true, 45.5, now), Applied: reason == "", Reason: reason, Clamped: length == 0}
				all.Results = append(all.Results, QueuesResult{ID: a.ID, Queue: &a})
			}
		}
	}
	never := QueueAnswer{QueueState: queueState("never", shortline.Queue{}, false, 0, now), Reason: "x"}
	problem := asAPIError(storeNotFound("gone")).problem()
	all.Results = append(all.Results, QueuesResult{ID: "never", Queue: &never}, QueuesResult{ID: "gone<", Error: &problem})
	for _, r := range all.Results {
		if r.Queue == nil {
			continue
		}
		want, err := json.Marshal(r.Queue)
		if err != nil {
			t.Fatal(err)
		}
		if got := r.Queue.appendTo(nil); string(got) != string(want) {
			t.Errorf("a queue is\n%s, want\n%s", got, want)
		}
	}
	for _, a := range []QueuesAnswer{all, {Results: []QueuesResult{}}} {
		want, err := json.Marshal(a)
		if err != nil {
			t.Fatal(err)
		}
		if got := a.appendTo(nil); string(got) != string(want) {
			t.Errorf("the answer is\n%s, want\n%s", got, want)
		}
	}
}
