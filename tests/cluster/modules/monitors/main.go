// Monitors decodes objects of the Prometheus operator, a JSON list on standard input, into that operator's own types. A
// field that they do not have, or have by another spelling, ends it with a line for each object that has one.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"os"

	v1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	v1alpha1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1alpha1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kjson "sigs.k8s.io/json"
)

// types has what an object of each kind is decoded into.
var types = map[metav1.TypeMeta]func() any{
	{APIVersion: "monitoring.coreos.com/v1", Kind: "PrometheusRule"}:     func() any { return &v1.PrometheusRule{} },
	{APIVersion: "monitoring.coreos.com/v1", Kind: "ServiceMonitor"}:     func() any { return &v1.ServiceMonitor{} },
	{APIVersion: "monitoring.coreos.com/v1alpha1", Kind: "ScrapeConfig"}: func() any { return &v1alpha1.ScrapeConfig{} },
}

func main() {
	log.SetFlags(0)
	var objects []json.RawMessage
	if err := json.NewDecoder(os.Stdin).Decode(&objects); err != nil {
		log.Fatal(err)
	}
	var refused []error
	for _, object := range objects {
		refused = append(refused, check(object))
	}
	if err := errors.Join(refused...); err != nil {
		log.Fatal(err)
	}
}

// check is what the API server does with a field that a kind does not have, where it is asked to be strict.
func check(object []byte) error {
	var about metav1.PartialObjectMetadata
	if err := json.Unmarshal(object, &about); err != nil {
		return err
	}
	empty, known := types[about.TypeMeta]
	if !known {
		return fmt.Errorf("%s %s: no kind of the Prometheus operator", about.Kind, about.APIVersion)
	}
	strict, err := kjson.UnmarshalStrict(object, empty())
	if err := errors.Join(append(strict, err)...); err != nil {
		return fmt.Errorf("%s %s: %w", about.Kind, about.Name, err)
	}
	return nil
}
