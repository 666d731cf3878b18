package lab

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseMirror(t *testing.T) {
	tests := []struct {
		name    string
		targets string
		want    mirror
	}{
		{
			name: "a container image of bookworm",
			targets: `Debian|Debian|main|http://mirror.example/debian/
Debian|Debian|main|http://mirror.example/debian/
Debian|Debian-Security|main|http://mirror.example/debian-security/
`,
			want: mirror{main: "http://mirror.example/debian/", security: "http://mirror.example/debian-security/"},
		},
		{
			name: "a vendor before Debian, and Debian's other components",
			targets: `Vendor|vendor|main|https://vendor.example/apt/
Debian|Debian|contrib|http://elsewhere.example/debian/
Debian|Debian|main|http://mirror.example/debian/
`,
			want: mirror{main: "http://mirror.example/debian/"},
		},
		{
			name:    "before the first update nothing is known but the address",
			targets: "||main|http://mirror.example/debian/\n",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := parseMirror(tt.targets)
			if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(mirror{})); diff != "" {
				t.Errorf("mirror (-want +got):\n%s", diff)
			}
		})
	}
}

func TestMirrorSources(t *testing.T) {
	m := mirror{main: "http://mirror.example/debian/", security: "http://mirror.example/debian-security/"}
	tests := []struct {
		suite string
		want  string
	}{
		{
			suite: "trixie",
			want: `deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://mirror.example/debian/ trixie main
deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://mirror.example/debian-security/ trixie-security main
`,
		},
		{
			suite: "trixie-backports",
			want: `deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://mirror.example/debian/ trixie-backports main
`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.suite, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, m.sources(tt.suite)); diff != "" {
				t.Errorf("sources.list (-want +got):\n%s", diff)
			}
		})
	}
}

func TestParsePackage(t *testing.T) {
	const stanzas = `Package: linux-headers-6.12.117+deb13-cloud-amd64
Source: linux
Version: 6.12.117-1
Architecture: amd64
Depends: linux-base (>= 4.12~), linux-image-6.12.117+deb13-cloud-amd64 (= 6.12.117-1) | linux-image-6.12.117+deb13-cloud-amd64-unsigned (= 6.12.117-1), gcc-14:amd64
Description: Header files
 Version: not this one

Package: linux-headers-6.12.117+deb13-cloud-amd64
Version: 6.12.107-1
`
	want := debPackage{
		version: "6.12.117-1",
		depends: []string{"linux-base", "linux-image-6.12.117+deb13-cloud-amd64", "gcc-14"},
	}
	if diff := cmp.Diff(want, parsePackage(stanzas), cmp.AllowUnexported(debPackage{})); diff != "" {
		t.Errorf("package (-want +got):\n%s", diff)
	}
}

func TestPackagesOfAKernel(t *testing.T) {
	tests := []struct {
		dependency    string
		image, header bool
	}{
		{dependency: "linux-image-6.1.0-56-cloud-amd64", image: true},
		{dependency: "linux-binary-7.3.4+deb13-cloud-amd64", image: true},
		{dependency: "linux-modules-7.3.4+deb13-cloud-amd64", image: true},
		{dependency: "linux-base-7.3.4+deb13-cloud-amd64", image: true},
		{dependency: "linux-headers-7.3.4+deb13-cloud-amd64", header: true},
		{dependency: "linux-headers-7.3.4+deb13-common", header: true},
		{dependency: "linux-kbuild-7.3.4+deb13", header: true},
		{dependency: "linux-compiler-gcc-12-x86", header: true},
		{dependency: "linux-base"},
		{dependency: "linux-initramfs-tool"},
		{dependency: "gcc-14"},
	}
	for _, tt := range tests {
		if got := imagePackages.MatchString(tt.dependency); got != tt.image {
			t.Errorf("%s is part of the image: %v, want %v", tt.dependency, got, tt.image)
		}
		if got := headerPackages.MatchString(tt.dependency); got != tt.header {
			t.Errorf("%s is part of the headers: %v, want %v", tt.dependency, got, tt.header)
		}
	}
}
