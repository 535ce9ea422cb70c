"""Penstock's Kubernetes resources: types, conditions, CRDs and admission."""

GROUP = "penstock.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
