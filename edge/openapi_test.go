package edge_test

import (
	"net/http"
	"testing"
)

func TestDocumentIsValid(t *testing.T) {
	n := newTestNode(t)
	doc := readDocument(t, n)
	if ok, errs := doc.valid(); !ok {
		t.Errorf("the document is not valid: %v", explain("document", errs))
	}
	n.get(t, "/v1/nearby?lat=1&lng=2").want(t, http.StatusOK)
}
