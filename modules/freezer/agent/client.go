package agent

import (
	"fmt"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// Client opens the API of the node's cluster: by a kubeconfig file, or by the Pod's own service account.
func Client(kubeconfig string) (kubernetes.Interface, error) {
	var config *rest.Config
	var err error
	if kubeconfig == "" {
		config, err = rest.InClusterConfig()
	} else {
		config, err = clientcmd.BuildConfigFromFlags("", kubeconfig)
	}
	if err != nil {
		return nil, fmt.Errorf("the cluster's API: %w", err)
	}
	config.UserAgent = "isthmus-agent"
	return kubernetes.NewForConfig(config)
}
