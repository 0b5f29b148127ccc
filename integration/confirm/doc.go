// Package confirm asks BuildKit whether Cooper is right.
//
// A case is a txtar file in testdata/confirm: a Dockerfile, a build context,
// and a file named "case" with directives (see [ParseCase]). Both builders
// build it, each result is read into a [Picture], and [Compare] lists every
// difference between the two: success, media types, configuration, history,
// and the layers entry by entry and byte by byte. A difference that is meant to
// be stands in the case with its reason; any other fails the test, and so does
// an accepted difference that is no longer there.
//
// Pictures hold nothing that changes from one build to the next: a time within
// the build is "now", and a base image's layer is called by that image's name.
// So BuildKit's can be kept in testdata/oracle, for computers on which BuildKit
// can't run; the test's -record flag renews them.
package confirm
