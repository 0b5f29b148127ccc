// Command bench measures Cooper beside BuildKit and buildah: wall time and peak
// memory of whole builds, in turn in one run on one machine.
//
//	go run . [-n RUNS] [-only WORKLOAD,…] [-builders NAME,…] [-write]
//
// Each build starts cold, in a new file system: BuildKit with a daemon of its
// own, buildah with new storage, Cooper with nothing kept. The base images come
// from a registry on loopback, and the image goes into a tar with compressed
// layers.
// Rounds go through all builders before the next one begins, so what else the
// machine does meets all of them. Times are for comparing within a table, not
// between tables.
//
//	workloads.go  the builds
//	builders.go   the programs that do them
//	ground.go     the file system, registry and daemons that one build gets
//	peak.go       the most memory that a process has held
//	report.go     medians, ratios and the table
package main
