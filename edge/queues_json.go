package edge

import (
	"strconv"
	"time"
)

// jsonText is an answer that can write itself: encoding/json reads through again what a value has written.
type jsonText interface{ appendTo([]byte) []byte }

// appendTo appends the answer as encoding/json would, for a request may have a thousand of them.
func (a *QueueAnswer) appendTo(b []byte) []byte {
	b = append(append(append(b, `{"id":"`...), a.ID...), '"') // an id needs no escapes
	if a.Length == nil {
		b = append(b, `,"length":null,"wait_s":null,"wait_high_s":null,"updated_at":null,"age_s":null`...)
	} else {
		b = strconv.AppendInt(append(b, `,"length":`...), int64(*a.Length), 10)
		b = strconv.AppendInt(append(b, `,"wait_s":`...), int64(*a.WaitS), 10)
		b = strconv.AppendInt(append(b, `,"wait_high_s":`...), int64(*a.WaitHighS), 10)
		b = a.UpdatedAt.AppendFormat(append(b, `,"updated_at":"`...), time.RFC3339Nano)
		b = strconv.AppendInt(append(b, `","age_s":`...), *a.AgeS, 10)
	}
	b = strconv.AppendBool(append(b, `,"applied":`...), a.Applied)
	if a.Reason != "" {
		b = appendJSON(append(b, `,"reason":`...), a.Reason)
	}
	return append(strconv.AppendBool(append(b, `,"clamped":`...), a.Clamped), '}')
}

func (a *QueuesAnswer) appendTo(b []byte) []byte {
	b = append(b, `{"results":[`...)
	for i := range a.Results {
		if i > 0 {
			b = append(b, ',')
		}
		if r := &a.Results[i]; r.Queue != nil {
			b = r.Queue.appendTo(b)
		} else {
			b = appendJSON(b, r)
		}
	}
	return append(b, "]}"...)
}
