package main

import (
	"cmp"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path"
	"runtime/debug"
	"strings"
	"time"

	spdxjson "github.com/spdx/tools-golang/json"
	"github.com/spdx/tools-golang/spdx/v2/common"
	spdx "github.com/spdx/tools-golang/spdx/v2/v2_3"
)

// writeSBOM writes an SPDX 2.3 document that names every module which the Go linker says is in the binary.
func (r release) writeSBOM(out io.Writer, binary string) error {
	info, err := buildinfo.ReadFile(binary)
	if err != nil {
		return fmt.Errorf("read build information: %w", err)
	}
	content, err := os.ReadFile(binary)
	if err != nil {
		return fmt.Errorf("read binary: %w", err)
	}
	if err := spdxjson.Write(r.sbom(info, sha256.Sum256(content)), out, spdxjson.Indent("  ")); err != nil {
		return fmt.Errorf("write SPDX document: %w", err)
	}
	return nil
}

// sbom is the document for a binary with this build information and content.
func (r release) sbom(info *debug.BuildInfo, sum [sha256.Size]byte) *spdx.Document {
	name := path.Base(info.Path)
	main := modulePackage(&debug.Module{Path: info.Path, Version: r.version})
	main.PackageName, main.PackageSPDXIdentifier, main.PrimaryPackagePurpose = name, "Package-main", "APPLICATION"
	main.PackageLicenseConcluded, main.PackageLicenseDeclared = "Apache-2.0", "Apache-2.0"
	main.PackageChecksums = []common.Checksum{{Algorithm: common.SHA256, Value: hex.EncodeToString(sum[:])}}
	doc := &spdx.Document{
		SPDXVersion: spdx.Version, DataLicense: spdx.DataLicense, SPDXIdentifier: "DOCUMENT", DocumentName: name + " " + r.version,
		// The content's own digest makes it unique and, unlike a random one, the same again.
		DocumentNamespace: "https://lastgasp.dev/spdx/" + name + "-" + hex.EncodeToString(sum[:]),
		CreationInfo: &spdx.CreationInfo{
			Created: r.created.Format(time.RFC3339), Creators: []common.Creator{{CreatorType: "Organization", Creator: "lastgasp developers"}},
		},
		Packages:      []*spdx.Package{main},
		Relationships: []*spdx.Relationship{relation("DOCUMENT", common.TypeRelationshipDescribe, main.PackageSPDXIdentifier)},
	}
	modules := append([]*debug.Module{{Path: "stdlib", Version: strings.TrimPrefix(info.GoVersion, "go")}}, info.Deps...)
	for i, m := range modules {
		if m.Replace != nil {
			m = m.Replace
		}
		p := modulePackage(m)
		p.PackageSPDXIdentifier = common.ElementID(fmt.Sprintf("Package-%d", i))
		doc.Packages = append(doc.Packages, p)
		doc.Relationships = append(doc.Relationships, relation(main.PackageSPDXIdentifier, common.TypeRelationshipContains, p.PackageSPDXIdentifier))
	}
	return doc
}

func modulePackage(m *debug.Module) *spdx.Package {
	p := &spdx.Package{
		PackageName: m.Path, PackageVersion: cmp.Or(m.Version, "unknown"), PackageDownloadLocation: "NOASSERTION", IsFilesAnalyzedTagPresent: true,
		PackageLicenseConcluded: "NOASSERTION", PackageLicenseDeclared: "NOASSERTION", PackageCopyrightText: "NOASSERTION",
		PackageExternalReferences: []*spdx.PackageExternalReference{{
			Category: common.CategoryPackageManager, RefType: common.TypePackageManagerPURL,
			Locator: "pkg:golang/" + m.Path + "@" + strings.ReplaceAll(m.Version, "+", "%2B"),
		}},
	}
	if m.Sum != "" { // a hash of hashes (golang.org/x/mod/sumdb/dirhash), and not one that SPDX has a name for
		p.PackageComment = "go.sum " + m.Sum
	}
	return p
}

func relation(a common.ElementID, kind string, b common.ElementID) *spdx.Relationship {
	return &spdx.Relationship{
		RefA: common.DocElementID{ElementRefID: a}, Relationship: kind, RefB: common.DocElementID{ElementRefID: b},
	}
}
