package manifest

import (
	"fmt"

	"github.com/isthmus-mesh/isthmus/modules/state/etcd/endpoint"
)

// StateHome is where a gateway keeps its state.
type StateHome string

// The homes.
const (
	StateFile       StateHome = "file"
	StateKubernetes StateHome = "kubernetes"
	StateEtcd       StateHome = "etcd"
)

// State says where a gateway keeps its state. Only the part of its home may be written.
type State struct {
	Home       StateHome           `yaml:"home" values:"file|kubernetes|etcd" default:"file" doc:"file is stateDir. Replicas of a gateway share one of the others."`
	Kubernetes StateKubernetesHome `yaml:"kubernetes" doc:"The Kubernetes cluster that keeps the state. Only with home kubernetes."`
	Etcd       StateEtcdHome       `yaml:"etcd" doc:"The etcd that keeps the state. Only with home etcd."`
}

// StateKubernetesHome is a Kubernetes cluster that keeps state.
type StateKubernetesHome struct {
	Kubeconfig string `yaml:"kubeconfig" format:"path" doc:"A kubeconfig file. Left out, the pod's own service account."`
	Context    string `yaml:"context" doc:"A context of the kubeconfig. Left out, its current one."`
	Namespace  string `yaml:"namespace" format:"label" doc:"The namespace of the objects. Left out, the pod's own, or that of the context."`
}

// StateEtcdHome is an etcd that keeps state.
type StateEtcdHome struct {
	Endpoints    []string `yaml:"endpoints" format:"etcd" doc:"The members. Needed with home etcd."`
	Prefix       string   `yaml:"prefix" format:"path" default:"/isthmus" doc:"What all keys begin with; the gateway's name follows."`
	CA           string   `yaml:"ca" format:"path" doc:"A PEM file of the authority of the members' certificates. Left out, the system's."`
	Certificate  string   `yaml:"certificate" format:"path" doc:"A PEM file of the client certificate, where the members want one. It is read again for each connection."`
	Key          string   `yaml:"key" format:"path" doc:"A PEM file of its key."`
	Username     string   `yaml:"username" doc:"A user of etcd's own authentication."`
	PasswordFile string   `yaml:"passwordFile" format:"path" doc:"A file that holds the user's password."`
}

func checkEtcd(text string) []problem {
	if err := endpoint.Check(text); err != nil {
		return wrong("%v", err)
	}
	return nil
}

// validateState holds the home against what is written of it.
func validateState(g *Gateway, issues *Issues) {
	s := &g.Spec.State
	for _, home := range []StateHome{StateKubernetes, StateEtcd} {
		path := "spec.state." + string(home)
		if _, written := g.fields[path]; written && home != s.Home && s.Home != "" {
			issues.add(g.At(path), path, "the state's home is %s", s.Home)
		}
	}
	if s.Home != StateEtcd {
		s.Etcd = StateEtcdHome{} // its defaults mean nothing here
		return
	}
	if len(s.Etcd.Endpoints) == 0 {
		issues.add(g.At("spec.state.etcd"), "spec.state.etcd.endpoints", "is required with home etcd: https://host:port")
	}
	for _, pair := range [][2]string{{"certificate", "key"}, {"username", "passwordFile"}} {
		first, second := "spec.state.etcd."+pair[0], "spec.state.etcd."+pair[1]
		_, hasFirst := g.fields[first]
		_, hasSecond := g.fields[second]
		if hasFirst != hasSecond {
			if hasFirst {
				first, second = second, first
			}
			issues.add(g.At(second), second, "%s", fmt.Sprintf("needs %s beside it", first))
		}
	}
}
