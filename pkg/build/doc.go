// Package build turns a Dockerfile into an image.
//
// [Build] is the whole program: it reads the context and the Dockerfile, plans
// which stages the target needs, resolves their base images, checks that this
// machine can do everything the plan asks for, builds the stages, assembles
// the image and writes it where it should go. Nothing that only fails late is
// left unchecked, and nothing that nobody needs is done: a stage that the
// target does not need is not built, one without RUN is never unpacked, and a
// layer that is not part of the image is never made.
//
// A program that uses this package calls run.Init at the start of main, since
// RUN starts its commands through a child of the same program:
//
//	func main() {
//		run.Init()
//		result, err := build.Build(ctx, build.Options{
//			Context: ".",
//			NoPush:  true,
//			TarPath: "image.tar",
//		})
//		…
//	}
//
// As an ordinary user it also calls namespace.Enter, which lets the program go
// on in a user namespace of its own.
//
// Build may be called several times at once, except with the inplace
// isolation, which takes over the root file system. When its context ends it
// stops at once, ends the processes it has started, and takes its files away.
// Output files appear under their final names only when they are complete.
package build
