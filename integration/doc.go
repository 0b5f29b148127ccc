// Package integration holds the tests that look at whole builds from outside:
// what a CI job does with Cooper's image, what a build needs and leaves behind,
// and what RUN can't reach. Whether images are right is the matter of package
// confirm; what the tests need around them is in package machine.
package integration
