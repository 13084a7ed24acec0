package adapter

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/modules"
	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// denying is a policy that says to the admin why it denies, by names that no caller hears.
type denying struct{ modules.Policy }

func (denying) Foresee(modules.Subject, neutral.Verb, neutral.Object) modules.Judgement {
	return modules.Judgement{Reason: "nothing allows it", Detail: errors.New("policy hidden-name")}
}

// asking is an API whose callers ask one thing of themselves.
type asking struct {
	told  string
	asker dialect.Asker
}

func (*asking) Reviews(neutral.Operation) bool { return true }

func (a *asking) Review(_ neutral.Operation, _ dialect.Request, asker dialect.Asker) (dialect.Response, error) {
	leave := asker.May(neutral.Operation{Verb: neutral.Create, Object: neutral.Object{Kind: neutral.KindWorkload}})
	if leave.Allowed || leave.Open {
		leave.Why = "allowed"
	}
	a.told, a.asker = leave.Why, asker
	return dialect.Response{Status: http.StatusCreated}, nil
}

// TestReviewTellsNoPolicy tells a caller that it may not do something, and not which policies there are.
func TestReviewTellsNoPolicy(t *testing.T) {
	t.Parallel()
	b := NewBridge(BridgeConfig{Module: New(Config{Dialects: Dialects, Policy: func() modules.Policy { return denying{} }}), BodyLimit: 1 << 10})
	defer b.Close()
	api := &asking{}
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", strings.NewReader("{}"))
	req := &modules.Request{Peer: modules.Peer{Name: "east"}, Caller: "ci", Groups: ",builders,devs"}
	if err := b.review(httptest.NewRecorder(), r, req, api, admission{dialect: Dialects[1]}); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(api.told, "nothing allows it") || strings.Contains(api.told, "hidden-name") {
		t.Errorf("told %q", api.told)
	}
	if a := api.asker; a.Peer != "east" || a.Caller != "ci" || !slices.Equal(a.Groups, []string{"builders", "devs"}) || a.Whole {
		t.Errorf("%+v asks", a)
	}
}
