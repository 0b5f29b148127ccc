package main

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/rogpeppe/go-internal/testscript"
)

const hostArch = runtime.GOARCH

// cmdInspect reads an image with another tool's code and prints what it is:
//
//	inspect docker-tar FILE | oci DIR | oci-tar FILE | ref REFERENCE
func cmdInspect(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: inspect KIND PLACE")
	}
	img, err := openImage(ts, args[0], args[1])
	ts.Check(err)
	ts.Check(describeImage(ts.Stdout(), img, args[0] != "docker-tar"))
}

func openImage(ts *testscript.TestScript, kind, place string) (v1.Image, error) {
	switch kind {
	case "docker-tar":
		return tarball.ImageFromPath(ts.MkAbs(place), nil)
	case "oci-tar":
		dir := ts.MkAbs(place + ".unpacked")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
		if err := ts.Exec("tar", "-C", dir, "-xf", ts.MkAbs(place)); err != nil {
			return nil, err
		}
		return firstImage(dir)
	case "oci":
		return firstImage(ts.MkAbs(place))
	case "ref":
		ref, err := name.ParseReference(place, name.Insecure)
		if err != nil {
			return nil, err
		}
		return remote.Image(ref)
	}
	return nil, fmt.Errorf("unknown kind %s", kind)
}

func firstImage(dir string) (v1.Image, error) {
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		return nil, err
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return nil, err
	}
	if len(manifest.Manifests) == 0 {
		return nil, errors.New("no image in " + dir)
	}
	return index.Image(manifest.Manifests[0].Digest)
}

// describeImage prints media types, where the image's form has them, the
// configuration, and the files of each layer.
func describeImage(w io.Writer, img v1.Image, media bool) error {
	manifest, err := img.Manifest()
	if err != nil {
		return err
	}
	config, err := img.ConfigFile()
	if err != nil {
		return err
	}
	if media {
		fmt.Fprintf(w, "manifest %s\nconfig %s\n", manifest.MediaType, manifest.Config.MediaType)
	}
	for _, e := range config.Config.Env {
		fmt.Fprintf(w, "env %s\n", e)
	}
	for _, k := range slices.Sorted(maps.Keys(config.Config.Labels)) {
		fmt.Fprintf(w, "label %s=%s\n", k, config.Config.Labels[k])
	}
	if len(config.Config.Cmd) > 0 {
		fmt.Fprintf(w, "cmd %q\n", config.Config.Cmd)
	}
	layers, err := img.Layers()
	if err != nil {
		return err
	}
	for i, l := range layers {
		if media {
			fmt.Fprintf(w, "layer %s\n", manifest.Layers[i].MediaType)
		} else {
			fmt.Fprintln(w, "layer")
		}
		if err := describeLayer(w, l); err != nil {
			return err
		}
	}
	return nil
}

func describeLayer(w io.Writer, l v1.Layer) error {
	r, err := l.Uncompressed()
	if err != nil {
		return err
	}
	defer r.Close()
	for t := tar.NewReader(r); ; {
		h, err := t.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "  %s %04o %d:%d %s", kindOf(h.Typeflag), h.Mode, h.Uid, h.Gid, h.Name)
		switch {
		case h.Linkname != "":
			fmt.Fprintf(w, " -> %s", h.Linkname)
		case h.Typeflag == tar.TypeReg && h.Size <= 80 && filepath.Ext(path.Base(h.Name)) != ".bin":
			text, err := io.ReadAll(t)
			if err != nil {
				return err
			}
			fmt.Fprintf(w, " %q", text)
		}
		fmt.Fprintln(w)
	}
}

func kindOf(flag byte) string {
	switch flag {
	case tar.TypeDir:
		return "d"
	case tar.TypeSymlink:
		return "l"
	case tar.TypeLink:
		return "h"
	case tar.TypeReg:
		return "f"
	}
	return string(flag)
}
