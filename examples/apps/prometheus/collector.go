package main

import (
	"expvar"
	"maps"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

// source is an Authority or a Remote, which have the metrics of all their parts;
// or a Verifier, an Issuer, a remote.Keys, a Ring, a List, a Manager or a
// Sessions: their names differ, so that a collector takes one of each. Two of a
// kind, for two audiences say, are two collectors, each registered through a
// [prometheus.WrapRegistererWith] that gives it a label.
type source interface{ Metrics() map[string]float64 }

// collector shows sources to Prometheus.
type collector []source

// Describe names what the sources have, which never changes: a name that is
// there twice is refused when the collector is registered.
func (c collector) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, ch) }

// Collect reads the sources, which answer from memory.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	for _, s := range c {
		for name, value := range s.Metrics() {
			kind := prometheus.GaugeValue
			if strings.HasSuffix(name, "_total") {
				kind = prometheus.CounterValue
			}
			desc := prometheus.NewDesc("sessiontoken_"+name, "See Metrics in the package documentation.", nil, nil)
			ch <- prometheus.MustNewConstMetric(desc, kind, value)
		}
	}
}

// publish shows sources under /debug/vars, without Prometheus.
func publish(name string, sources ...source) {
	expvar.Publish(name, expvar.Func(func() any {
		all := map[string]float64{}
		for _, s := range sources {
			maps.Copy(all, s.Metrics())
		}
		return all
	}))
}
