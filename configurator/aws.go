package configurator

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"slices"
	"sync"

	"github.com/lastgasp/lastgasp/configurator/configfs"
	"github.com/lastgasp/lastgasp/configurator/ec2"
	"github.com/lastgasp/lastgasp/configurator/endpoint"
	"github.com/lastgasp/lastgasp/configurator/machine"
	"github.com/lastgasp/lastgasp/configurator/nexthop"
)

// instanceOnce asks the metadata service at most once, when it is needed. A pass can do without the answer, so it does not
// wait long.
func (c *Configurator) instanceOnce(ctx context.Context) func() (ec2.Instance, error) {
	return sync.OnceValues(func() (ec2.Instance, error) {
		ctx, cancel := context.WithTimeout(ctx, optionalTimeout)
		defer cancel()
		return c.Instance(ctx)
	})
}

// idOf is the instance's id alone. If the metadata service does not answer it is the one of the last pass.
func idOf(instance func() (ec2.Instance, error), before *machine.State) func() (string, error) {
	return func() (string, error) {
		i, err := instance()
		if err != nil && before != nil && before.Identity.Instance != "" {
			return before.Identity.Instance, nil
		}
		return i.ID, err
	}
}

// zone is this node's availability zone id, asked for only if the list has zones to compare it with.
func (c *Configurator) zone(list []endpoint.Endpoint, instance func() (ec2.Instance, error), before *machine.State) string {
	if !c.Root.OnEC2() || !slices.ContainsFunc(list, func(e endpoint.Endpoint) bool { return e.Zone != "" }) {
		return ""
	}
	i, err := instance()
	switch {
	case err == nil:
		return i.ZoneID
	case before != nil && before.Zone != "":
		return before.Zone
	}
	c.Log.Warn("zone unknown, choosing listeners regardless of it", "err", err)
	return ""
}

// query is what the queries for all hops of a pass have in common. On EC2 the network drops packets whose source is not on the
// interface, so only addresses that the metadata service lists are allowed. If it does not answer, what is armed says
// which they are; with nothing armed any will have to do.
func (c *Configurator) query(instance func() (ec2.Instance, error), present []configfs.State) nexthop.Query {
	if !c.Root.OnEC2() {
		return nexthop.Query{}
	}
	i, err := instance()
	if err != nil {
		var q nexthop.Query
		for _, st := range present {
			if st.Enabled {
				q.Sources, q.Prefer = append(q.Sources, st.LocalIP), st.Device
			}
		}
		if len(q.Sources) == 0 {
			c.Log.Warn("interfaces unknown, sending from whatever address the route has", "err", err)
		}
		return q
	}
	allowed, prefer := sources(i.Interfaces, c.Root.DeviceOf)
	return nexthop.Query{Sources: allowed, Prefer: prefer}
}

// place is what the templates in parameter names stand for here. Off EC2 the usual variable names the region.
func (c *Configurator) place(ctx context.Context) (endpoint.Place, error) {
	p := endpoint.Place{Region: os.Getenv("AWS_REGION"), Cluster: c.Config.Cluster}
	if !c.Root.OnEC2() {
		if p.Region == "" {
			return p, errors.New("the region is unknown, this is not an EC2 instance; set AWS_REGION")
		}
		return p, nil
	}
	i, err := c.Instance(ctx)
	if err != nil {
		return p, err
	}
	p.Region, p.ZoneID = i.Region, i.ZoneID
	return p, nil
}

// zoneOf is this node's availability zone by name and by id.
func (c *Configurator) zoneOf(ctx context.Context) (name, id string, err error) {
	if !c.Root.OnEC2() {
		return "", "", errors.New("this is not an EC2 instance")
	}
	i, err := c.instanceOnce(ctx)()
	return i.ZoneName, i.ZoneID, err
}

// sources returns the addresses a datagram may leave with, the best first, and the device to prefer. In a VPC a source
// that is not on the interface is dropped by the network, and the primary interface's first address is the one that
// Kubernetes knows the node by.
func sources(interfaces []ec2.Interface, deviceOf func(mac string) string) (allowed []netip.Addr, prefer string) {
	for _, i := range interfaces {
		if i.Primary {
			allowed, prefer = slices.Concat(i.Addrs, allowed), deviceOf(i.MAC.String())
		} else {
			allowed = append(allowed, i.Addrs...)
		}
	}
	return allowed, prefer
}
