package main

import (
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/shortline/shortline"
	"github.com/shortline/shortline/edge/client"
)

// otlpReceiver is a collector that keeps what it gets.
type otlpReceiver struct {
	*httptest.Server
	mu    sync.Mutex
	spans []receivedSpan // guarded by mu
}

type receivedSpan struct {
	node string
	*otlp.Span
}

func newOTLPReceiver(t *testing.T) *otlpReceiver {
	t.Helper()
	r := new(otlpReceiver)
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(req.Body)
		var in collector.ExportTraceServiceRequest
		if err == nil {
			err = proto.Unmarshal(body, &in)
		}
		if err != nil || req.URL.Path != "/v1/traces" {
			http.Error(w, fmt.Sprint(req.URL.Path, err), http.StatusBadRequest)
			return
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, rs := range in.GetResourceSpans() {
			node := ""
			for _, a := range rs.GetResource().GetAttributes() {
				if a.GetKey() == "service.instance.id" {
					node = a.GetValue().GetStringValue()
				}
			}
			for _, ss := range rs.GetScopeSpans() {
				for _, s := range ss.GetSpans() {
					r.spans = append(r.spans, receivedSpan{node, s})
				}
			}
		}
	}))
	t.Cleanup(r.Close)
	return r
}

// trace returns the spans of the trace that has a request with that id at its door.
func (r *otlpReceiver) trace(request string) (of []receivedSpan) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var id []byte
	for _, s := range r.spans {
		for _, a := range s.GetAttributes() {
			if a.GetKey() == "shortline.request_id" && a.GetValue().GetStringValue() == request {
				id = s.GetTraceId()
			}
		}
	}
	for _, s := range r.spans {
		if id != nil && string(s.GetTraceId()) == string(id) {
			of = append(of, s)
		}
	}
	return of
}

// tree draws spans below each other, children in order of their beginning.
func tree(spans []receivedSpan) string {
	slices.SortStableFunc(spans, func(a, b receivedSpan) int { return int(int64(a.GetStartTimeUnixNano() - b.GetStartTimeUnixNano())) })
	known := map[string]bool{}
	for _, s := range spans {
		known[string(s.GetSpanId())] = true
	}
	var b strings.Builder
	var draw func(parent string, depth int)
	draw = func(parent string, depth int) {
		for _, s := range spans {
			above := string(s.GetParentSpanId())
			if above == parent || parent == "" && !known[above] {
				fmt.Fprintf(&b, "%s%s @%s\n", strings.Repeat("  ", depth), s.GetName(), s.node)
				draw(string(s.GetSpanId()), depth+1)
			}
		}
	}
	draw("", 0)
	return b.String()
}

// A trace of one write from ap-southeast shows every hop: the request there, the wait in the forwarder's batch, the request to
// a node of the primary region, the wait in its batch and the commit, and that the node waited until its own memory had the
// change, and who applied it.
func (w *world) testTrace(r *otlpReceiver) {
	want := `POST /v1/stores/:id/queue @ap-southeast-1
  forward @ap-southeast-1
    POST /internal/v1/writes @ap-southeast-1
      POST /internal/v1/writes @us-east-1
        forwarded write @us-east-1
          write in a batch @us-east-1
            commit @us-east-1
  wait for the feed @ap-southeast-1
    apply changes @ap-southeast-1
`
	var got string
	var spans []receivedSpan
	for attempt := range 10 { // a node whose memory had the change before the answer came did not have to wait for it
		request := fmt.Sprintf("traced-write-%d", attempt)
		w.tracedWrite(request, attempt)
		w.eventually("the commit's span has come", func() bool {
			spans = r.trace(request)
			return strings.Contains(tree(spans), "commit @")
		})
		end := time.Now().Add(2 * time.Second)
		for got = tree(spans); got != want && time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
			spans = r.trace(request)
			got = tree(spans)
		}
		if got == want {
			break
		}
	}
	if got != want {
		w.Fatalf("the trace is\n%swant\n%s", got, want)
	}
	for _, s := range spans {
		if s.GetName() == "POST /v1/stores/:id/queue" && (len(s.GetLinks()) != 1 || hex.EncodeToString(s.GetLinks()[0].GetTraceId()) != strangerTrace) {
			w.Errorf("the caller's trace is not linked to: %v", s.GetLinks())
		}
	}
}

// strangerTrace is a trace of somebody who is not trusted: one of our own begins, with a link to it.
const strangerTrace = "0af7651916cd43dd8448eb211c80319c"

func (w *world) tracedWrite(request string, length int) {
	w.Helper()
	far := w.Region("ap-southeast").Nodes[0]
	req, err := http.NewRequestWithContext(w.deadline(), http.MethodPost, far.API()+"/v1/stores/"+string(w.stores[2])+"/queue", strings.NewReader(fmt.Sprintf(`{"length": %d}`, length)))
	w.check(err)
	req.Header.Set("Authorization", "Bearer "+w.AdminKey())
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-Request-Id", request)
	req.Header.Set("Traceparent", "00-"+strangerTrace+"-b7ad6b7169203331-01")
	res, err := w.http.Do(req)
	w.check(err)
	w.check(res.Body.Close())
	if res.StatusCode != http.StatusOK {
		w.Fatalf("the write: %s", res.Status)
	}
}

// Writes that share a transaction are linked to it, each from its own trace.
func (w *world) testTracedBatch(r *otlpReceiver) {
	near := w.Region("us-east").Nodes[0]
	var writers sync.WaitGroup
	for i := range 40 {
		writers.Go(func() {
			_, err := w.client(near, new(client.Session)).SetQueue(w.Context(), shortline.QueueUpdate{ID: w.stores[3], Length: &i}, client.WriteOptions{})
			if err != nil {
				w.Error(err)
			}
		})
	}
	writers.Wait()
	w.eventually("a commit is linked to several writes, and they to it", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, commit := range r.spans {
			if commit.GetName() != "commit" || len(commit.GetLinks()) == 0 {
				continue
			}
			member := commit.GetLinks()[0]
			for _, s := range r.spans {
				if string(s.GetSpanId()) == string(member.GetSpanId()) {
					return s.GetName() == "write in a batch" && len(s.GetLinks()) == 1 && string(s.GetLinks()[0].GetSpanId()) == string(commit.GetSpanId())
				}
			}
		}
		return false
	})
}
