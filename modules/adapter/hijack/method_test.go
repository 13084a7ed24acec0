package hijack_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/modules/adapter/hijack/hijacktest"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/xds/names"
)

// TestServeKeepsTheMethod holds that an engine is asked what policy was asked: a peer that may list must not create by
// calling its list a session.
func TestServeKeepsTheMethod(t *testing.T) {
	t.Parallel()
	asked := make(chan string, 8)
	client, url := bridge(t, hijacktest.Engine(t, func(c hijacktest.Connection) {
		asked <- c.Request.Method + " " + c.Request.RequestURI + " " + c.Request.Header.Get("Authorization")
		c.Answer(http.StatusNotFound, "application/json", "{}")
	}))
	for _, method := range []string{http.MethodGet, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodPost} {
		r, err := http.NewRequestWithContext(t.Context(), method, url+"/services/create", strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set(names.HeaderSession, "tcp")
		r.Header.Set(names.HeaderSessionBody, "2")
		r.Header.Set("Authorization", "Bearer the-callers-own")
		answer, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = answer.Body.Close()
		if method == http.MethodPost {
			if got := <-asked; answer.StatusCode != http.StatusNotFound || got != "POST /services/create " {
				t.Errorf("POST: status %d, the engine was asked %q", answer.StatusCode, got)
			}
			continue
		}
		if answer.StatusCode != fault.Invalid.Status() || len(asked) > 0 {
			t.Errorf("%s: status %d, the engine was asked %d times", method, answer.StatusCode, len(asked))
		}
	}
}
