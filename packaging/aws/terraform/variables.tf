variable "cluster_name" {
  type        = string
  description = "Name of the cluster (cluster in listener.yaml and on the nodes). Use the module once for each cluster."
  validation {
    condition     = can(regex("^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$", var.cluster_name))
    error_message = "cluster_name must be up to 100 letters, digits, dots, hyphens and underscores, starting with a letter or digit."
  }
}

variable "listener_endpoint" {
  type        = string
  default     = ""
  description = "Listeners as host:port, separated by commas. If empty, the listeners write the parameter themselves (announce.ssm)."
  validation {
    condition     = can(regex("^([A-Za-z0-9.:\\[\\]-]+:[0-9]+(,[A-Za-z0-9.:\\[\\]-]+:[0-9]+)*)?$", var.listener_endpoint))
    error_message = "listener_endpoint is not host:port; write it like 10.0.2.10:6666 or [fd00::10]:6666."
  }
}

variable "vpc_id" {
  type = string
}

variable "node_security_group_id" {
  type        = string
  description = "The nodes' security group, in the same Region (references do not cross Regions)."
}

variable "health_check_cidr" {
  type        = string
  description = "Network of the load balancer's health checks and of Prometheus, which may reach TCP 9666."
}

variable "after_panic" {
  type        = string
  default     = "none"
  description = "What the listener may do with the instance of a node that has panicked (ec2.afterPanic): none, reboot, terminate or unhealthy."
  validation {
    condition     = contains(["none", "reboot", "terminate", "unhealthy"], var.after_panic)
    error_message = "after_panic must be none, reboot, terminate or unhealthy."
  }
}

variable "fate" {
  type        = bool
  default     = false
  description = "Whether the listener may ask EC2 how an instance ended, and read its console (cloud.fate)."
}
