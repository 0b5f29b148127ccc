// Package machine is everything that the integration tests need around an
// image builder: a registry with base images, a BuildKit, a Docker engine, and
// the executor under test.
//
// A [Machine] starts each of them when it is first asked for, on a free
// loopback port and in a private directory, and Close ends them by their
// process ids and removes the directory. They also end when the process that
// started them dies, since each asks the kernel for a signal at that moment.
// What can't be started on this computer is reported as a *Missing, which tests
// turn into a skip with its reason.
//
//	process.go   starting, watching and ending one program
//	machine.go   the Machine: directory, executor, order of the end
//	registry.go  the registry and pushing to it
//	buildkit.go  BuildKit, the oracle
//	engine.go    the Docker engine, containers, Cooper's own image
//	images.go    base images from Debian, Node and busybox
//	crafted.go   base images that exist for what is odd about them
package machine
