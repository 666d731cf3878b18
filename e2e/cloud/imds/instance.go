// Package imds is a stand-in for the metadata service of an EC2 instance that speaks the real protocol: tokens by PUT,
// folders and their listings, dated versions, and all the ways in which it may refuse or be late. The SDK's client and
// cloud-init's Ec2 datasource cannot tell it from the original.
package imds

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Instance is what the service returns. A fact that the original returns in several places has one field here, so that the
// identity document and the metadata never disagree.
type Instance struct {
	ID       string // i-…
	Type     string // such as m7i.large
	Image    string // ami-…
	Account  string // twelve digits
	Region   string
	ZoneName string // availability zone, such as eu-west-1b
	ZoneID   string // the same for all accounts, such as euw1-az1
	Hostname string
	Started  time.Time

	Interfaces []Interface // the primary one first; at least one, with an IPv4 address
	UserData   []byte      // nil: none, which is a 404
	// Notices are what EC2 has announced, by path below meta-data, such as spot/instance-action. All others are 404s.
	Notices map[string]string
}

// Interface is an elastic network interface.
type Interface struct {
	MAC  net.HardwareAddr
	IPv4 []netip.Addr // private addresses, the primary one first
	IPv6 []netip.Addr
	// Subnet4 and Subnet6 are what the addresses belong to. An interface with IPv6 addresses has both.
	Subnet4, Subnet6 netip.Prefix
}

// tree is everything there is to read, by path below a version. Folders are not in it: they follow from the paths.
func (i Instance) tree() map[string]string {
	primary := i.Interfaces[0]
	t := map[string]string{
		"meta-data/ami-id":                         i.Image,
		"meta-data/ami-launch-index":               "0",
		"meta-data/hostname":                       i.Hostname,
		"meta-data/instance-action":                "none",
		"meta-data/instance-id":                    i.ID,
		"meta-data/instance-life-cycle":            "on-demand",
		"meta-data/instance-type":                  i.Type,
		"meta-data/local-hostname":                 i.Hostname,
		"meta-data/local-ipv4":                     primary.IPv4[0].String(),
		"meta-data/mac":                            primary.MAC.String(),
		"meta-data/placement/availability-zone":    i.ZoneName,
		"meta-data/placement/availability-zone-id": i.ZoneID,
		"meta-data/placement/region":               i.Region,
		"meta-data/reservation-id":                 "r-" + strings.TrimPrefix(i.ID, "i-"),
		"meta-data/services/domain":                "amazonaws.com",
		"meta-data/services/partition":             "aws",
		"dynamic/instance-identity/document":       i.document(),
	}
	for path, text := range i.Notices {
		t["meta-data/"+path] = text
	}
	if i.UserData != nil {
		t["user-data"] = string(i.UserData)
	}
	for n, eni := range i.Interfaces {
		folder := "meta-data/network/interfaces/macs/" + eni.MAC.String() + "/"
		t[folder+"device-number"] = strconv.Itoa(n)
		t[folder+"interface-id"] = "eni-" + strings.ReplaceAll(eni.MAC.String(), ":", "")
		t[folder+"local-hostname"] = i.Hostname
		t[folder+"local-ipv4s"] = lines(eni.IPv4)
		t[folder+"mac"] = eni.MAC.String()
		t[folder+"owner-id"] = i.Account
		t[folder+"subnet-ipv4-cidr-block"] = eni.Subnet4.Masked().String()
		if len(eni.IPv6) > 0 {
			t[folder+"ipv6s"] = lines(eni.IPv6)
			t[folder+"subnet-ipv6-cidr-blocks"] = eni.Subnet6.Masked().String()
		}
	}
	return t
}

// document is the instance identity document, without the signature that stands beside it on EC2.
func (i Instance) document() string {
	text, err := json.MarshalIndent(struct {
		Account      string    `json:"accountId"`
		Architecture string    `json:"architecture"`
		Zone         string    `json:"availabilityZone"`
		Image        string    `json:"imageId"`
		ID           string    `json:"instanceId"`
		Type         string    `json:"instanceType"`
		Started      time.Time `json:"pendingTime"`
		PrivateIP    string    `json:"privateIp"`
		Region       string    `json:"region"`
		Version      string    `json:"version"`
	}{
		i.Account, "x86_64", i.ZoneName, i.Image, i.ID, i.Type, i.Started.UTC().Truncate(time.Second),
		i.Interfaces[0].IPv4[0].String(), i.Region, "2017-09-30",
	}, "", "  ")
	if err != nil {
		panic(err) // a year beyond 9999: the caller's mistake
	}
	return string(text)
}

// Credentials are those of the instance's role.
type Credentials struct {
	Role                          string
	AccessKeyID, SecretKey, Token string
	Expires                       time.Time
}

// entries returns the role's part of the tree.
func (c Credentials) entries(account string) (map[string]string, error) {
	document, err := json.Marshal(map[string]string{
		"Code": "Success", "Type": "AWS-HMAC", "LastUpdated": c.Expires.Add(-6 * time.Hour).UTC().Format(time.RFC3339),
		"AccessKeyId": c.AccessKeyID, "SecretAccessKey": c.SecretKey, "Token": c.Token,
		"Expiration": c.Expires.UTC().Format(time.RFC3339),
	})
	if err != nil {
		return nil, err
	}
	return map[string]string{
		"meta-data/iam/info": fmt.Sprintf(`{"Code":"Success","InstanceProfileArn":"arn:aws:iam::%s:instance-profile/%s"}`,
			account, c.Role),
		"meta-data/iam/security-credentials/" + c.Role: string(document),
	}, nil
}

func lines(addrs []netip.Addr) string {
	var list []string
	for _, a := range addrs {
		list = append(list, a.String())
	}
	return strings.Join(list, "\n")
}
