package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/x509"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

var testRelease = release{
	program: programs()["lastgasp-listener"],
	version: "1.2.3~rc1+4.gabc", commit: "0123456789ab", created: time.Unix(1_700_000_000, 0).UTC(), licences: []byte("licences"),
}

// archive writes an archive of two small binaries and returns its file.
func archive(t *testing.T, r release) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "oci.tar")
	err := r.writeArchive(out, []platform{{"amd64", []byte("binary for amd64")}, {"arm64", []byte("binary for arm64")}})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// unpack unpacks an archive and returns the index of its one image.
func unpack(t *testing.T, name string) (tag string, index v1.ImageIndex) {
	t.Helper()
	dir := t.TempDir()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for file, body := range untar(t, bytes.NewReader(data)) {
		path := filepath.Join(dir, file)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, body.body, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	all, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := all.IndexManifest()
	if err != nil || len(manifest.Manifests) != 1 {
		t.Fatalf("%d images in the archive, want 1: %v", len(manifest.Manifests), err)
	}
	index, err = all.ImageIndex(manifest.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	return manifest.Manifests[0].Annotations["org.opencontainers.image.ref.name"], index
}

// untar returns the files of a tar archive by name, without its directories.
func untar(t *testing.T, in io.Reader) map[string]file {
	t.Helper()
	files := map[string]file{}
	for r := tar.NewReader(in); ; {
		h, err := r.Next()
		if err == io.EOF {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			files[h.Name] = file{h.Name, body, h.Mode, h.Uid}
		}
		if !h.ModTime.Equal(testRelease.created) || h.Uname != "" || h.Gname != "" {
			t.Errorf("%s: made %s by %q: the archive tells where it was made", h.Name, h.ModTime, h.Uname)
		}
	}
}

func TestArchive(t *testing.T) {
	tag, index := unpack(t, archive(t, testRelease))
	if want := "1.2.3-rc1-4.gabc"; tag != want {
		t.Errorf("tag %q, want %q", tag, want)
	}
	if err := validate.Index(index); err != nil {
		t.Errorf("by go-containerregistry: %v", err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	var platforms []string
	for _, m := range manifest.Manifests {
		platforms = append(platforms, m.Platform.String())
		img, err := index.Image(m.Digest)
		if err != nil {
			t.Fatal(err)
		}
		config, err := img.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		if config.Platform().String() != m.Platform.String() {
			t.Errorf("config of %s is for %s", m.Platform, config.Platform())
		}
		want := v1.Config{
			User: "65532:65532", Entrypoint: []string{"/usr/bin/lastgasp-listener"}, Cmd: []string{"run"}, Env: []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"},
			ExposedPorts: map[string]struct{}{"6666/udp": {}, "9666/tcp": {}}, WorkingDir: "/", Labels: testRelease.labels(),
		}
		if diff := cmp.Diff(want, config.Config); diff != "" {
			t.Errorf("config of %s (-want +got):\n%s", m.Platform, diff)
		}
		for _, label := range []string{"version", "revision", "created", "source", "licenses"} {
			if config.Config.Labels["org.opencontainers.image."+label] == "" {
				t.Errorf("no label %s", label)
			}
		}
		layers, err := img.Layers()
		if err != nil || len(layers) != 1 {
			t.Fatalf("%d layers, want 1: %v", len(layers), err)
		}
		in, err := layers[0].Uncompressed()
		if err != nil {
			t.Fatal(err)
		}
		files := untar(t, in)
		if got := files["usr/bin/lastgasp-listener"]; string(got.body) != "binary for "+m.Platform.Architecture || got.mode != 0o755 {
			t.Errorf("%s has the binary %q, mode %o", m.Platform, got.body, got.mode)
		}
		if !x509.NewCertPool().AppendCertsFromPEM(files["etc/ssl/certs/ca-certificates.crt"].body) {
			t.Error("no certificate authorities")
		}
		if n := bytes.Count(files["etc/ssl/certs/ca-certificates.crt"].body, []byte("BEGIN CERTIFICATE")); n < 100 {
			t.Errorf("%d certificate authorities, want Mozilla's, more than 100", n)
		}
	}
	if diff := cmp.Diff([]string{"linux/amd64", "linux/arm64"}, platforms); diff != "" {
		t.Errorf("platforms (-want +got):\n%s", diff)
	}
}

// The configurator is root, and listens nowhere.
func TestArchiveOfTheConfigurator(t *testing.T) {
	r := testRelease
	r.program = programs()["lastgasp-configurator"]
	_, index := unpack(t, archive(t, r))
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	img, err := index.Image(manifest.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	want := v1.Config{
		User: "0:0", Entrypoint: []string{"/usr/bin/lastgasp-configurator"}, Cmd: []string{"watch"},
		Env: []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}, WorkingDir: "/", Labels: r.labels(),
	}
	if diff := cmp.Diff(want, config.Config); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestArchiveIsReproducible(t *testing.T) {
	read := func(r release) []byte {
		data, err := os.ReadFile(archive(t, r))
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	one, two := read(testRelease), read(testRelease)
	if !bytes.Equal(one, two) {
		t.Error("two archives of the same binaries differ")
	}
	later := testRelease
	later.version = "1.2.4"
	if bytes.Equal(one, read(later)) {
		t.Error("archives of two versions do not differ")
	}
}

// The test's own binary has build information as ours have.
func TestSBOM(t *testing.T) {
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var one, two bytes.Buffer
	for _, out := range []io.Writer{&one, &two} {
		if err := testRelease.writeSBOM(out, binary); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(one.Bytes(), two.Bytes()) {
		t.Error("two documents for one binary differ")
	}
	doc := readSPDX(t, &one)
	found := map[string]string{}
	for _, p := range doc.Packages {
		found[p.PackageName] = p.PackageVersion
	}
	for name, version := range map[string]string{
		"image": testRelease.version, "stdlib": strings.TrimPrefix(runtime.Version(), "go"),
		"github.com/google/go-containerregistry": "v0.22.1", "github.com/spdx/tools-golang": "v0.5.7",
	} {
		if found[name] != version {
			t.Errorf("%s is %q, want %q", name, found[name], version)
		}
	}
	if len(doc.Relationships) != len(doc.Packages) {
		t.Errorf("%d relationships for %d packages", len(doc.Relationships), len(doc.Packages))
	}
}

func TestMistakes(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty.gz")
	f, err := os.Create(empty)
	if err != nil {
		t.Fatal(err)
	}
	if err := gzip.NewWriter(f).Close(); err != nil {
		t.Fatal(err)
	}
	common := []string{"--version=1", "--created=1", "--program=lastgasp-listener"}
	for _, tt := range []struct {
		name string
		args []string
		want string
	}{
		{"nothing", nil, "write archive or sbom"},
		{"unknown", append([]string{"push"}, common...), `unknown command "push"; write archive or sbom`},
		{"no version", []string{"sbom", "x"}, "--version and --created are needed"},
		{
			"unknown program", []string{"archive", "--version=1", "--created=1", "--program=x"},
			`--program "x" has no image; write lastgasp-listener or lastgasp-configurator`,
		},
		{"no binary", append([]string{"archive", "--licences", empty}, common...), "no binary is named"},
		{"no architecture", append(append([]string{"archive", "--licences", empty}, common...), "x"), `"x" is not ARCHITECTURE=BINARY`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := run(tt.args); err == nil || err.Error() != tt.want {
				t.Errorf("%v, want %s", err, tt.want)
			}
		})
	}
}
