"""Jobs on this machine, where there is no Kubernetes to run them."""
