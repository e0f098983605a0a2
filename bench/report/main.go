// Command report turns the raw output in results/ into what is measured in the
// README and OPERATING.md, between marks, and the plot beside it. Run it in the
// folder bench.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
)

const (
	readme    = "../README.md"
	operating = "../OPERATING.md"
	plot      = "ratios.svg"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "report:", err)
		os.Exit(1)
	}
}

func run() error {
	files, err := build()
	if err != nil {
		return err
	}
	for name, content := range files {
		if err := os.WriteFile(name, content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// build makes the documents and the plot, by the names of their files.
func build() (map[string][]byte, error) {
	text, svg, err := speed()
	if err != nil {
		return nil, err
	}
	output, err := os.ReadFile("results/stores.txt")
	if err != nil {
		return nil, err
	}
	stores, err := operatingTables(string(output))
	if err != nil {
		return nil, fmt.Errorf("results/stores.txt: %w", err)
	}
	files := map[string][]byte{plot: []byte(svg)}
	for name, parts := range map[string]map[string]string{readme: {"measured": text}, operating: stores} {
		content, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		for mark, text := range parts {
			if content, err = replace(content, mark, text); err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
		}
		files[name] = content
	}
	return files, nil
}

// speed makes the README's part and the plot.
func speed() (text, svg string, err error) {
	r := results{}
	for _, file := range []string{"results/default.txt", "results/jsonv2.txt"} {
		data, err := os.ReadFile(file)
		if err != nil {
			return "", "", err
		}
		if err := r.add(string(data)); err != nil {
			return "", "", fmt.Errorf("%s: %w", file, err)
		}
	}
	defer func() {
		switch v := recover().(type) {
		case nil:
		case missing:
			err = fmt.Errorf("the results lack %s", string(v))
		default:
			panic(v)
		}
	}()
	return tables(r), draw(r), nil
}

// replace puts text between the two marks of that name.
func replace(old []byte, mark, text string) ([]byte, error) {
	begin, end := "<!-- "+mark+": begin -->\n", "<!-- "+mark+": end -->\n"
	before, rest, ok := bytes.Cut(old, []byte(begin))
	_, after, ok2 := bytes.Cut(rest, []byte(end))
	if !ok || !ok2 {
		return nil, fmt.Errorf("the marks of %q are not there", mark)
	}
	return slices.Concat(before, []byte(begin), []byte(text), []byte(end), after), nil
}

// results are the medians over the counts, one for each build, by benchmark and
// unit: "Interleaved/Verify/ES256 sessiontoken/floor".
type results map[string][]float64

type missing string

// add reads the output of one build.
func (r results) add(output string) error {
	all := map[string][]float64{}
	for line := range strings.Lines(output) {
		fields := strings.Fields(line)
		if len(fields) < 4 || !strings.HasPrefix(fields[0], "Benchmark") {
			continue
		}
		name := strings.TrimPrefix(fields[0], "Benchmark")
		if i := strings.LastIndexByte(name, '-'); i > 0 { // of GOMAXPROCS
			if _, err := strconv.Atoi(name[i+1:]); err == nil {
				name = name[:i]
			}
		}
		for i := 2; i+1 < len(fields); i += 2 {
			v, err := strconv.ParseFloat(fields[i], 64)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			key := name + " " + fields[i+1]
			all[key] = append(all[key], v)
		}
	}
	if len(all) == 0 {
		return errors.New("no benchmark in it")
	}
	for key, values := range all {
		slices.Sort(values)
		r[key] = append(r[key], (values[(len(values)-1)/2]+values[len(values)/2])/2)
	}
	return nil
}

func (r results) has(key string) bool { return len(r[key]) == 2 }

// least and most are over the builds.
func (r results) least(key string) float64 {
	if !r.has(key) {
		panic(missing(key))
	}
	return slices.Min(r[key])
}

func (r results) most(key string) float64 {
	if !r.has(key) {
		panic(missing(key))
	}
	return slices.Max(r[key])
}

// cost is of something of which less is better: the worse of the builds for us,
// the better one for everybody else.
func (r results) cost(name, key string) float64 {
	if strings.HasPrefix(name, us) {
		return r.most(key)
	}
	return r.least(key)
}

// gain is the same for something of which more is better.
func (r results) gain(name, key string) float64 {
	if strings.HasPrefix(name, us) {
		return r.least(key)
	}
	return r.most(key)
}
