package apiserver

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestPaths asks for what is not served, in ways that could be read as something else.
func TestPaths(t *testing.T) {
	s := stands(t)
	must(s.CoreV1().Secrets("default").Create(t.Context(), secret("word"), metav1.CreateOptions{}))(t)
	for _, c := range []struct {
		method, path string
		code         int
	}{
		{"GET", "/api/v1/namespaces/default/secrets/word", 200},
		{"GET", "/api/v1/namespaces/default/secrets/word/", 200},
		{"GET", "/api/v1/watch/namespaces/default/secrets/word?timeoutSeconds=1", 200},
		{"GET", "/api/v1/secrets", 200},
		{"HEAD", "/api/v1/namespaces/default/secrets/word", 200},
		{"GET", "/api/v1/namespaces/default", 200},
		{"GET", "/healthz", 200},
		{"GET", "/api/v1/namespaces//secrets/word", 404},
		{"GET", "/api/v1/namespaces//secrets", 404},
		{"GET", "/api/v1/namespaces/x/../default/secrets/word", 404},
		{"GET", "/api/v1/namespaces/./secrets", 404},
		{"GET", "/api/v1/namespaces/default%2Fsecrets/word", 404},
		{"GET", "/api/v1/namespaces/default/secrets/%2E%2E/word", 404},
		{"GET", "//api/v1/secrets", 404},
		{"GET", "/api/v1//secrets", 404},
		{"GET", "/api/v1/namespaces/default/secrets/word/log", 404},
		{"GET", "/api/v1/namespaces/default/secrets/word/status/more", 404},
		{"GET", "/api/v1/namespaces/default/nodes", 404},
		{"GET", "/api/v1/secrets/word", 400},
		{"GET", "/api/v2/secrets", 404},
		{"GET", "/apis/v1/secrets", 404},
		{"GET", "/apis/apps/v1/secrets", 404},
		{"GET", "/apis/apps/v1beta1/deployments", 404},
		{"GET", "/api/v1/namespaces/default/none", 404},
		{"GET", "/apis/none/v1/things", 404},
		{"GET", "/nothing", 404},
		{"GET", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", 200},
		{"GET", "/api/v1/watch", 404},
		{"POST", "/api/v1/secrets", 400},
		{"POST", "/api/v1/namespaces/default/secrets/word", 405},
		{"PUT", "/api/v1/namespaces/default/secrets", 405},
		{"PATCH", "/api/v1/namespaces/default/secrets", 405},
		{"POST", "/api/v1/nodes", 405},
		{"DELETE", "/api/v1/nodes/west-1", 405},
		{"DELETE", "/api/v1/namespaces", 405},
		{"DELETE", "/api/v1/secrets", 400},
		{"PUT", "/api/v1/namespaces/default/events/x", 405},
		{"PUT", "/api/v1/namespaces/default/events/x/status", 404},
		{"DELETE", "/apis/apps/v1/namespaces/default/replicasets/x", 405},
		{"PUT", "/apis/apps/v1/namespaces/default/deployments/x/status", 405},
		{"DELETE", "/apis/apps/v1/namespaces/default/deployments/x/scale", 405},
		{"OPTIONS", "/api/v1/secrets", 405},
		{"TRACE", "/api/v1/secrets", 405},
		{"GET", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", 405},
		{"GET", "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", 405},
		{"GET", "/apis/authentication.k8s.io/v1/selfsubjectreviews", 405},
		{"POST", "/apis/authentication.k8s.io/v1/tokenreviews", 404},
		{"DELETE", "/api/v1/namespaces/default", 403},
		{"DELETE", "/api/v1/namespaces/none", 404},
	} {
		code, body := s.ask(t, c.method, c.path, "", "")
		if code != c.code {
			t.Errorf("%s %s: %d %s, want %d", c.method, c.path, code, body, c.code)
		}
		var status metav1.Status
		if code >= 400 && (json.Unmarshal([]byte(body), &status) != nil || status.Kind != "Status" || int(status.Code) != code || status.Message == "") {
			t.Errorf("%s %s is refused by %s", c.method, c.path, body)
		}
	}
}

// TestBodies sends what is too large, broken, or something else.
func TestBodies(t *testing.T) {
	s := stands(t)
	const maps = "/api/v1/namespaces/default/configmaps"
	for _, c := range []struct {
		what, method, path, content, body string
		code                              int
	}{
		{"nothing", "POST", maps, "application/json", "", 400},
		{"broken", "POST", maps, "application/json", `{"metadata":`, 400},
		{"null", "POST", maps, "application/json", `null`, 422},
		{"a list", "POST", maps, "application/json", `[]`, 400},
		{"another kind", "POST", maps, "application/json", `{"kind":"Secret","apiVersion":"v1","metadata":{"name":"x"}}`, 400},
		{"an unknown kind", "POST", maps, "application/json", `{"kind":"Thing","apiVersion":"things/v9","metadata":{"name":"x"}}`, 400},
		{"a wrong type", "POST", maps, "application/json", `{"metadata":{"name":7}}`, 400},
		{"an unknown form", "POST", maps, "text/html", `{}`, 415},
		{"a broken form", "POST", maps, "application/json; =", `{}`, 415},
		{"broken protobuf", "POST", maps, "application/vnd.kubernetes.protobuf", "k8s\x00\xff\xff\xff\xff", 400},
		{"no protobuf", "POST", maps, "application/vnd.kubernetes.protobuf", "{}", 400},
		{"too much", "POST", maps, "application/json", `{"metadata":{"name":"x"},"data":{"a":"` + strings.Repeat("x", bodyLimit) + `"}}`, 413},
		{"too much for a ConfigMap", "POST", maps, "application/json", `{"metadata":{"name":"x"},"data":{"a":"` + strings.Repeat("x", 2<<20) + `"}}`, 422},
		{"deep", "POST", maps, "application/json", strings.Repeat(`{"metadata":`, 20000), 400},
		{"deep YAML", "POST", maps, "application/yaml", strings.Repeat(`[`, 20000), 400},
		{"YAML that grows", "POST", maps, "application/yaml", bomb(), 400},
		{"another namespace", "POST", maps, "application/json", `{"metadata":{"name":"x","namespace":"other"}}`, 400},
		{"a bad name", "POST", maps, "application/json", `{"metadata":{"name":"../x"}}`, 422},
		{"a bad key", "POST", maps, "application/json", `{"metadata":{"name":"x"},"data":{"../../etc":"x"}}`, 422},
		{"a time out of range", "POST", "/apis/apps/v1/namespaces/default/deployments", "application/json",
			`{"metadata":{"name":"x"},"spec":{"selector":{"matchLabels":{"a":"b"}},"template":{"metadata":{"labels":{"a":"b"},"creationTimestamp":"9999-12-31T23:59:59-23:59"},"spec":{"containers":[{"name":"a","image":"b"}]}}}}`, 201},
		{"an unknown namespace", "POST", "/api/v1/namespaces/none/configmaps", "application/json", `{"metadata":{"name":"x"}}`, 404},
		{"of an old version", "POST", maps, "application/json", `{"metadata":{"name":"x","resourceVersion":"1"}}`, 400},
		{"removal of something else", "DELETE", maps + "/x", "application/json", `{"kind":"ConfigMap","apiVersion":"v1"}`, 400},
		{"removal in the past", "DELETE", maps + "/x", "application/json", `{"gracePeriodSeconds":-1}`, 400},
		{"a bad option", "DELETE", maps + "/x?gracePeriodSeconds=soon", "application/json", ``, 400},
		{"a bad limit", "GET", maps + "?limit=many", "", ``, 400},
	} {
		code, body := s.ask(t, c.method, c.path, c.content, c.body)
		if code != c.code {
			t.Errorf("%s: %d %.300s, want %d", c.what, code, body, c.code)
		}
	}
}

// bomb is a short YAML of a very long value.
func bomb() string {
	b := &strings.Builder{}
	b.WriteString("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n")
	for i := range 9 {
		b.WriteString(strings.NewReplacer("N", string(rune('1'+i)), "P", string(rune('0'+i))).Replace("aN: &aN [*aP,*aP,*aP,*aP,*aP,*aP,*aP,*aP,*aP,*aP]\n"))
	}
	return b.String()
}

// FuzzPath asks by any path, method and query; nothing panics, and what is not served is a Status.
func FuzzPath(f *testing.F) {
	for _, seed := range []string{"/api/v1/namespaces/default/pods/web/log?follow=true", "/apis/apps/v1/deployments?watch=1&resourceVersion=5", "/api//v1/namespaces//x",
		"/api/v1/watch/pods", "/apis/apps/v1/namespaces/default/deployments/web/scale", "/api/v1/namespaces/a%2fb/status", "/openapi/v3", "/apis", "/",
		"/api/v1/pods?labelSelector=a%20in%20(b)&fieldSelector=status.phase%21%3DRunning&limit=5&continue=abc", "/api/v1/nodes?timeoutSeconds=99999999999999"} {
		for _, method := range []string{"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"} {
			f.Add(method, seed, "application/json")
		}
	}
	api := New(Config{Cluster: "west", Orchestrator: newFakeOrchestrator()})
	f.Cleanup(api.Close)
	f.Fuzz(func(t *testing.T, method, target, accept string) {
		u, err := url.ParseRequestURI(target)
		if err != nil || u.Scheme != "" {
			return
		}
		query := u.Query()
		query.Set("timeoutSeconds", "1")
		query.Del("follow")
		u.RawQuery = query.Encode()
		r, err := http.NewRequestWithContext(canceledSoon(t), method, u.String(), strings.NewReader("{}"))
		if err != nil {
			return
		}
		r.Header.Set("Accept", accept)
		w := httptest.NewRecorder()
		api.ServeHTTP(w, r)
		if w.Code >= 500 && w.Code != http.StatusNotImplemented && r.Context().Err() == nil {
			t.Errorf("%s %s: %d %s", method, target, w.Code, w.Body)
		}
	})
}
