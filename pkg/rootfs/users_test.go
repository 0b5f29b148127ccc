package rootfs

import (
	"fmt"
	"io"
	"strings"
	"testing"
)

func userTree(t *testing.T) *Tree {
	tree := NewTree()
	put := func(name, data string) {
		open := func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(data)), nil }
		if err := tree.Put(Entry{Path: name, Size: int64(len(data))}, open); err != nil {
			t.Fatal(err)
		}
	}
	put("real/passwd", "root:x:0:0:root:/root:/bin/sh\n# comment\napp:x:1000:1001::/home/app:/bin/sh\nnohome:x:1002:1002:::\n+::::::\n77:x:78:79::/n:\n")
	put("real/group", "root:x:0:\napp:x:1001:\nwheel:x:10:app,root\naudio:x:63:app\n")
	for name, target := range map[string]string{"etc/passwd": "/real/passwd", "etc/group": "../real/group"} {
		if err := tree.Put(Entry{Path: name, Kind: Symlink, Target: target}, nil); err != nil {
			t.Fatal(err)
		}
	}
	return tree
}

func TestLookupUser(t *testing.T) {
	with, without := userTree(t), NewTree()
	for _, tt := range []struct {
		spec          string
		want, without string
	}{
		{"", "{0 0 [10] /root}", "{0 0 [] /}"},
		{"0", "{0 0 [10] /root}", "{0 0 [] /}"},
		{"root", "{0 0 [10] /root}", "error"},
		{"app", "{1000 1001 [10 63] /home/app}", "error"},
		{"1000", "{1000 1001 [10 63] /home/app}", "{1000 0 [] /}"},
		{"app:wheel", "{1000 10 [] /home/app}", "error"},
		{"app:5", "{1000 5 [] /home/app}", "error"},
		{"1000:wheel", "{1000 10 [] /home/app}", "error"},
		{"1000:5", "{1000 5 [] /home/app}", "{1000 5 [] /}"},
		{"root:root", "{0 0 [] /root}", "{0 0 [] /}"},
		{"4242", "{4242 0 [] /}", "{4242 0 [] /}"},
		{"nohome", "{1002 1002 [] /}", "error"},
		{"77", "{77 0 [] /}", "{77 0 [] /}"},
		{"nobody", "error", "error"},
		{"app:nogroup", "error", "error"},
		{"99999999999", "error", "error"},
	} {
		for i, r := range []Reader{with, without} {
			got := "error"
			if u, err := LookupUser(r, tt.spec); err == nil {
				got = fmt.Sprint(u)
			}
			if want := []string{tt.want, tt.without}[i]; got != want {
				t.Errorf("%q (%d): %s, want %s", tt.spec, i, got, want)
			}
		}
	}
}

func TestLookupOwner(t *testing.T) {
	with, without := userTree(t), NewTree()
	for _, tt := range []struct{ spec, want, without string }{
		{"app", "1000:1001", "0:0"},
		{"app:", "1000:1001", "0:0"},
		{"app:wheel", "1000:10", "0:0"},
		{"app:7", "1000:7", "0:7"},
		{"5", "5:5", "5:5"},
		{"5:", "5:5", "5:5"},
		{"5:6", "5:6", "5:6"},
		{"5:wheel", "5:10", "5:5"},
		{"5:nogroup", "5:5", "5:5"},
		{":wheel", "0:10", "0:0"},
		{":9", "0:9", "0:9"},
		{"root", "0:0", "0:0"},
		{"root:9", "0:9", "0:9"},
		{"5:root", "5:0", "5:0"},
		{"nobody", "0:0", "0:0"},
		{"nobody:wheel", "0:10", "0:0"},
		{"4294967295", "0:0", "0:0"},
		{"-1", "4294967295:4294967295", "4294967295:4294967295"},
	} {
		for i, r := range []Reader{with, without} {
			uid, gid, err := LookupOwner(r, tt.spec)
			if got, want := fmt.Sprintf("%d:%d", uid, gid), []string{tt.want, tt.without}[i]; got != want || err != nil {
				t.Errorf("%q (%d): %s, %v, want %s", tt.spec, i, got, err, want)
			}
		}
	}
	loop := NewTree()
	if err := loop.Put(Entry{Path: "etc/passwd", Kind: Symlink, Target: "passwd"}, nil); err != nil {
		t.Fatal(err)
	}
	if _, _, err := LookupOwner(loop, "app"); err == nil {
		t.Error("a loop of links is not reported")
	}
}
