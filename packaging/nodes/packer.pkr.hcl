# An AMI with lastgasp-configurator in it: packer init . && packer build -var base='debian-13-amd64-*' -var owner=136693071363 \
#   -var package=../../dist/lastgasp-configurator_VERSION_amd64.deb packer.pkr.hcl
#
# Each instance is armed from its user-data (cloud-init/). The image keeps nothing of the machine that built it: installing starts
# nothing, and `cloud-init clean` removes what a run would have left.
packer {
  required_plugins {
    amazon = {
      source  = "github.com/hashicorp/amazon"
      version = ">= 1.3"
    }
  }
}

variable "base" {
  type        = string
  description = "name of the AMI to start from, with wildcards; its kernel must have netconsole (README.md)"
}

variable "owner" {
  type        = string
  description = "account that publishes it: 136693071363 is Debian, 099720109477 Canonical, 309956199498 Red Hat"
}

variable "package" {
  type        = string
  description = "deb or rpm that `make package` wrote, for the AMI's architecture"
}

variable "user" {
  type    = string
  default = "admin" # ubuntu, ec2-user
}

variable "instance_type" {
  type    = string
  default = "t3.small" # t4g.small for arm64
}

source "amazon-ebs" "node" {
  ami_name      = "lastgasp-node-{{timestamp}}"
  instance_type = var.instance_type
  ssh_username  = var.user
  source_ami_filter {
    filters     = { name = var.base, virtualization-type = "hvm", root-device-type = "ebs" }
    owners      = [var.owner]
    most_recent = true
  }
  metadata_options {
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }
  tags = { lastgasp = "installed" } # cloud-init/karpenter-ec2nodeclass.yaml selects by it
}

build {
  sources = ["source.amazon-ebs.node"]

  provisioner "file" {
    source      = var.package
    destination = "/tmp/${basename(var.package)}"
  }

  provisioner "shell" {
    inline = [
      "sudo modprobe --dry-run netconsole", # fails on a kernel that cannot be heard
      "case ${var.package} in *.deb) sudo dpkg --install /tmp/${basename(var.package)} ;; *) sudo rpm --install /tmp/${basename(var.package)} ;; esac",
      "rm /tmp/${basename(var.package)}",
      "sudo systemctl enable lastgasp-configurator lastgasp-configurator-watch lastgasp-farewell",
      "sudo cloud-init clean --logs --machine-id || sudo cloud-init clean --logs",
    ]
  }
}
