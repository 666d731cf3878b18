package main

import (
	"archive/tar"
	"bytes"
	"encoding/pem"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// program is what an image runs, and as whom. A user is a number because the kubelet cannot prove that a name is not root's
// (runAsNonRoot).
type program struct {
	name, description string
	user              int
	command           []string
	ports             []string
}

// programs are those that have an image. The listener's user is the one of packaging/kubernetes/base/deployment.yaml; the
// configurator writes to the kernel, and is root.
func programs() map[string]program {
	return map[string]program{
		"lastgasp-listener": {
			"lastgasp-listener", "Hears kernels die, and tells Kubernetes why", 65532, []string{"run"}, []string{"6666/udp", "9666/tcp"},
		},
		"lastgasp-configurator": {
			"lastgasp-configurator", "Arms netconsole so that a node is heard when its kernel panics", 0, []string{"watch"}, nil,
		},
	}
}

func (p program) path() string { return "/usr/bin/" + p.name }

// release is what an archive or an SPDX document says about where it comes from.
type release struct {
	program         program
	version, commit string
	created         time.Time
	licences        []byte // gzip
}

// platform is the program for one architecture, in Go's spelling, which is also OCI's.
type platform struct {
	arch   string
	binary []byte
}

// file is one entry of a tar archive, a directory if its name ends in a slash.
type file struct {
	name  string
	body  []byte
	mode  int64
	owner int
}

// writeArchive writes an OCI image layout with an index of all platforms as a tar archive.
func (r release) writeArchive(out string, all []platform) error {
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, p := range all {
		img, err := r.image(p)
		if err != nil {
			return fmt.Errorf("make image for %s: %w", p.arch, err)
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add:        img,
			Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: p.arch}},
		})
	}
	index = mutate.Annotations(index, r.labels()).(v1.ImageIndex)

	dir, err := os.MkdirTemp("", "image-")
	if err != nil {
		return fmt.Errorf("create layout: %w", err)
	}
	defer os.RemoveAll(dir)
	path, err := layout.Write(dir, empty.Index)
	if err != nil {
		return fmt.Errorf("write layout: %w", err)
	}
	name := layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": r.tag()})
	if err := path.AppendIndex(index, name); err != nil {
		return fmt.Errorf("write layout: %w", err)
	}
	var archive bytes.Buffer
	if err := r.pack(&archive, dir); err != nil {
		return fmt.Errorf("pack layout: %w", err)
	}
	if err := os.WriteFile(out, archive.Bytes(), 0o644); err != nil {
		return fmt.Errorf("write archive: %w", err)
	}
	return nil
}

// tag is the version as a tag, which cannot hold every character that a version can.
func (r release) tag() string { return strings.NewReplacer("+", "-", "~", "-").Replace(r.version) }

func (r release) labels() map[string]string {
	return map[string]string{
		"org.opencontainers.image.title":       r.program.name,
		"org.opencontainers.image.description": r.program.description,
		"org.opencontainers.image.url":         "https://github.com/lastgasp/lastgasp",
		"org.opencontainers.image.source":      "https://github.com/lastgasp/lastgasp",
		"org.opencontainers.image.licenses":    "Apache-2.0",
		"org.opencontainers.image.version":     r.version,
		"org.opencontainers.image.revision":    r.commit,
		"org.opencontainers.image.created":     r.created.Format(time.RFC3339),
	}
}

// image is one layer on nothing: the binary, and what it needs to find around it.
func (r release) image(p platform) (v1.Image, error) {
	user, doc := r.program.user, "usr/share/doc/"+r.program.name+"/"
	accounts := []file{
		{name: "etc/group", body: []byte("root:x:0:\n"), mode: 0o644},
		{name: "etc/passwd", body: []byte("root:x:0:0::/:/\n"), mode: 0o644},
	}
	if user != 0 {
		accounts[0].body = fmt.Appendf(nil, "lastgasp:x:%d:\n", user)
		accounts[1].body = fmt.Appendf(nil, "lastgasp:x:%d:%d::/var/lib/lastgasp:/\n", user, user)
	}
	var content bytes.Buffer
	if err := r.write(&content, slices.Concat([]file{{name: "etc/", mode: 0o755}}, accounts, []file{
		{name: "etc/ssl/", mode: 0o755},
		{name: "etc/ssl/certs/", mode: 0o755},
		{name: "etc/ssl/certs/ca-certificates.crt", body: roots(), mode: 0o644}, // for AWS; Go looks here
		{name: "tmp/", mode: 0o1777},
		{name: "usr/", mode: 0o755},
		{name: "usr/bin/", mode: 0o755},
		{name: r.program.path()[1:], body: p.binary, mode: 0o755},
		{name: "usr/share/", mode: 0o755},
		{name: "usr/share/doc/", mode: 0o755},
		{name: doc, mode: 0o755},
		{name: doc + "third-party-licences.gz", body: r.licences, mode: 0o644},
		{name: "var/", mode: 0o755},
		{name: "var/lib/", mode: 0o755},
		{name: "var/lib/lastgasp/", mode: 0o750, owner: user}, // the listener's records, where there is no cluster
	})); err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(content.Bytes())), nil
	}, tarball.WithMediaType(types.OCILayer), tarball.WithCompressedCaching)
	if err != nil {
		return nil, err
	}
	base := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	img, err := mutate.Append(base, mutate.Addendum{
		Layer: layer, History: v1.History{Created: v1.Time{Time: r.created}, CreatedBy: "make image"},
	})
	if err != nil {
		return nil, err
	}
	config, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Created = "linux", p.arch, v1.Time{Time: r.created}
	config.Config = v1.Config{
		User:       fmt.Sprintf("%d:%d", user, user),
		Entrypoint: []string{r.program.path()},
		Cmd:        r.program.command,
		Env:        []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}, // the configurator runs the host's modprobe
		WorkingDir: "/",
		Labels:     r.labels(),
	}
	for _, port := range r.program.ports {
		if config.Config.ExposedPorts == nil {
			config.Config.ExposedPorts = map[string]struct{}{}
		}
		config.Config.ExposedPorts[port] = struct{}{}
	}
	return mutate.ConfigFile(img, config)
}

// roots are the certificate authorities of Mozilla's store, those left out that it trusts with reservations which a PEM file
// cannot express.
func roots() []byte {
	var out bytes.Buffer
	for root := range bundle.Roots() {
		if root.Constraint == nil {
			_ = pem.Encode(&out, &pem.Block{Type: "CERTIFICATE", Bytes: root.Certificate}) // a Buffer takes everything
		}
	}
	return out.Bytes()
}

// pack writes the files below dir as a tar archive, in lexical order.
func (r release) pack(out io.Writer, dir string) error {
	var files []file
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			files = append(files, file{name: name + "/", mode: 0o755})
			return nil
		}
		body, err := os.ReadFile(path)
		files = append(files, file{name: name, body: body, mode: 0o644})
		return err
	})
	if err != nil {
		return err
	}
	return r.write(out, files)
}

// write writes files as a tar archive that tells nothing of the machine it was made on.
func (r release) write(out io.Writer, files []file) error {
	w := tar.NewWriter(out)
	for _, f := range files {
		h := &tar.Header{
			Typeflag: tar.TypeReg, Name: f.name, Size: int64(len(f.body)), Mode: f.mode, Uid: f.owner, Gid: f.owner, ModTime: r.created,
		}
		if strings.HasSuffix(f.name, "/") {
			h.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(h); err != nil {
			return err
		}
		if _, err := w.Write(f.body); err != nil {
			return err
		}
	}
	return w.Close()
}
