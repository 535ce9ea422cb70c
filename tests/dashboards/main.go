// promeval evaluates PromQL with Prometheus' own engine, over what programs exported: no server, no clock.
//
// Standard input: {"scrapes": [{"seconds": 0, "labels": {"job": "…"}, "text": "…"}], "expressions": ["…"], "seconds": 60}.
// Standard output: for each expression {"error": "…", "series": [{"labels": {…}, "value": "1.5"}]}.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/textparse"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/tsdb"
)

type scrape struct {
	Seconds float64           `json:"seconds"`
	Labels  map[string]string `json:"labels"`
	Text    string            `json:"text"`
}

type task struct {
	Scrapes     []scrape `json:"scrapes"`
	Expressions []string `json:"expressions"`
	Seconds     float64  `json:"seconds"`
}

type series struct {
	Labels map[string]string `json:"labels"`
	Value  string            `json:"value"`
}

type result struct {
	Error  string   `json:"error,omitempty"`
	Series []series `json:"series"`
}

var start = time.Unix(1_700_000_000, 0)

func main() {
	if err := run(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(input io.Reader, output io.Writer) error {
	var given task
	if err := json.NewDecoder(input).Decode(&given); err != nil {
		return err
	}
	folder, err := os.MkdirTemp("", "promeval-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)
	store, err := tsdb.Open(folder, nil, nil, tsdb.DefaultOptions(), nil)
	if err != nil {
		return err
	}
	defer store.Close()
	for _, each := range given.Scrapes {
		if err := ingest(store, each); err != nil {
			return err
		}
	}
	engine := promql.NewEngine(promql.EngineOpts{MaxSamples: 1_000_000, Timeout: 10 * time.Second, LookbackDelta: 5 * time.Minute})
	results := make([]result, 0, len(given.Expressions))
	for _, expression := range given.Expressions {
		results = append(results, evaluate(engine, store, expression, at(given.Seconds)))
	}
	return json.NewEncoder(output).Encode(results)
}

func at(seconds float64) time.Time {
	return start.Add(time.Duration(seconds * float64(time.Second)))
}

func ingest(store *tsdb.DB, from scrape) error {
	parser, err := textparse.New([]byte(from.Text), "text/plain", labels.NewSymbolTable(), textparse.ParserOptions{})
	if err != nil {
		return err
	}
	appender := store.Appender(context.Background())
	for {
		entry, err := parser.Next()
		if errors.Is(err, io.EOF) {
			return appender.Commit()
		}
		if err != nil {
			return fmt.Errorf("what was exported is no Prometheus text: %w", err)
		}
		if entry != textparse.EntrySeries {
			continue
		}
		var found labels.Labels
		parser.Labels(&found)
		builder := labels.NewBuilder(found)
		for name, value := range from.Labels {
			builder.Set(name, value)
		}
		_, _, value := parser.Series()
		if _, err := appender.Append(0, builder.Labels(), at(from.Seconds).UnixMilli(), value); err != nil {
			return err
		}
	}
}

func evaluate(engine *promql.Engine, store *tsdb.DB, expression string, when time.Time) result {
	query, err := engine.NewInstantQuery(context.Background(), store, nil, expression, when)
	if err != nil {
		return result{Error: err.Error()}
	}
	defer query.Close()
	answer := query.Exec(context.Background())
	if answer.Err != nil {
		return result{Error: answer.Err.Error()}
	}
	found := result{Series: []series{}}
	vector, err := answer.Vector()
	if err != nil {
		return result{Error: err.Error()}
	}
	for _, sample := range vector {
		if !math.IsNaN(sample.F) {
			found.Series = append(found.Series, series{sample.Metric.Map(), fmt.Sprint(sample.F)})
		}
	}
	return found
}
