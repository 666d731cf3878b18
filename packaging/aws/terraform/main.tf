# lastgasp on AWS: where nodes find their listeners, the reload of every node when that changes, and the security group.
# The same as ../cloudformation.yaml.

terraform {
  required_version = ">= 1.5"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.0"
    }
  }
}

data "aws_caller_identity" "this" {}
data "aws_partition" "this" {}
data "aws_region" "this" {}

locals {
  region = data.aws_region.this.id
  here   = "${local.region}:${data.aws_caller_identity.this.account_id}"
  ssm    = "arn:${data.aws_partition.this.partition}:ssm:${local.here}"
}

# A String and not a SecureString: an address is not secret, and booting must not depend on KMS. The node validates it, too.
resource "aws_ssm_parameter" "endpoint" {
  count           = var.listener_endpoint == "" ? 0 : 1
  name            = "/lastgasp/${var.cluster_name}/endpoint"
  description     = "Where this cluster's nodes find lastgasp-listener."
  type            = "String"
  value           = var.listener_endpoint
  allowed_pattern = "^[A-Za-z0-9.:\\[\\]-]+:[0-9]+(,[A-Za-z0-9.:\\[\\]-]+:[0-9]+)*$"
}

# For the nodes' role.
resource "aws_iam_policy" "node" {
  name_prefix = "lastgasp-node-"
  description = "lastgasp-configurator reads where its listeners are."
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect   = "Allow"
      Action   = "ssm:GetParameters"
      Resource = "${local.ssm}:parameter/lastgasp/${var.cluster_name}/*"
    }]
  })
}

# For the listeners' role, if they announce themselves. They read the value before they replace it.
resource "aws_iam_policy" "announce" {
  count       = var.listener_endpoint == "" ? 1 : 0
  name_prefix = "lastgasp-announce-"
  description = "lastgasp-listener writes where it is."
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect   = "Allow"
      Action   = ["ssm:GetParameters", "ssm:PutParameter"]
      Resource = "${local.ssm}:parameter/lastgasp/${var.cluster_name}/*"
    }]
  })
}

# For the listeners' role. Only instances whose tag names this cluster.
resource "aws_iam_policy" "after_panic" {
  count       = contains(["reboot", "terminate"], var.after_panic) ? 1 : 0
  name_prefix = "lastgasp-after-panic-"
  description = "lastgasp-listener reboots or terminates nodes whose panic is on record."
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = var.after_panic == "reboot" ? "ec2:RebootInstances" : "ec2:TerminateInstances"
      Resource  = "arn:${data.aws_partition.this.partition}:ec2:${local.here}:instance/*"
      Condition = { StringEquals = { "aws:ResourceTag/lastgasp" = var.cluster_name } }
    }]
  })
}

# For the listeners' role. Only Auto Scaling groups whose tag names this cluster.
resource "aws_iam_policy" "unhealthy" {
  count       = var.after_panic == "unhealthy" ? 1 : 0
  name_prefix = "lastgasp-unhealthy-"
  description = "lastgasp-listener has nodes replaced whose panic is on record."
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "autoscaling:SetInstanceHealth"
      Resource  = "arn:${data.aws_partition.this.partition}:autoscaling:${local.here}:autoScalingGroup:*:autoScalingGroupName/*"
      Condition = { StringEquals = { "aws:ResourceTag/lastgasp" = var.cluster_name } }
    }]
  })
}

# For the listeners' role. The first two take no resources. A console is read of instances of this cluster only: it may show
# what should not be shown.
resource "aws_iam_policy" "fate" {
  count       = var.fate ? 1 : 0
  name_prefix = "lastgasp-fate-"
  description = "lastgasp-listener asks how instances ended."
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Effect   = "Allow"
        Action   = ["ec2:DescribeInstances", "ec2:DescribeInstanceStatus"]
        Resource = "*"
      },
      {
        Effect    = "Allow"
        Action    = "ec2:GetConsoleOutput"
        Resource  = "arn:${data.aws_partition.this.partition}:ec2:${local.here}:instance/*"
        Condition = { StringEquals = { "aws:ResourceTag/lastgasp" = var.cluster_name } }
      },
    ]
  })
}

# The right to send this document is the right to reload, and nothing else.
resource "aws_ssm_document" "reload" {
  name            = "lastgasp-reload-${var.cluster_name}"
  document_type   = "Command"
  document_format = "YAML"
  target_type     = "/AWS::EC2::Instance"
  content = yamlencode({
    schemaVersion = "2.2"
    description   = "Looks the listeners up anew, arms them, and fails if one does not acknowledge."
    mainSteps = [{
      name   = "reload"
      action = "aws:runShellScript"
      inputs = {
        timeoutSeconds = "120"
        runCommand     = ["systemctl reload-or-restart lastgasp-configurator.service"]
      }
    }]
  })
}

# An EventBridge rule cannot set a command's MaxErrors. Its default is 0: the first node whose reload fails would stop all
# others. Hence this automation between the two.
resource "aws_ssm_document" "fleet" {
  name            = "lastgasp-reload-fleet-${var.cluster_name}"
  document_type   = "Automation"
  document_format = "YAML"
  content = yamlencode({
    schemaVersion = "0.3"
    description   = "Reloads lastgasp-configurator on every node whose tag lastgasp is the name of the cluster, 50 at a time (SSM answers 40 look-ups a second)."
    assumeRole    = aws_iam_role.fleet.arn
    mainSteps = [{
      name   = "reload"
      action = "aws:runCommand"
      inputs = {
        DocumentName   = aws_ssm_document.reload.name
        Targets        = [{ Key = "tag:lastgasp", Values = [var.cluster_name] }]
        MaxConcurrency = "50"
        MaxErrors      = "100%"
        TimeoutSeconds = 600
      }
    }]
  })
}

resource "aws_iam_role" "fleet" {
  name_prefix = "lastgasp-fleet-"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "ssm.amazonaws.com" }
      Action    = "sts:AssumeRole"
      Condition = { StringEquals = { "aws:SourceAccount" = data.aws_caller_identity.this.account_id } }
    }]
  })
}

resource "aws_iam_role_policy" "fleet" {
  name = "reload"
  role = aws_iam_role.fleet.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Effect   = "Allow"
        Action   = "ssm:SendCommand"
        Resource = "${local.ssm}:document/${aws_ssm_document.reload.name}"
      },
      {
        Effect    = "Allow"
        Action    = "ssm:SendCommand"
        Resource  = "arn:${data.aws_partition.this.partition}:ec2:${local.here}:instance/*"
        Condition = { StringEquals = { "ssm:resourceTag/lastgasp" = var.cluster_name } }
      },
      {
        Effect   = "Allow" # these take no resources
        Action   = ["ssm:DescribeInstanceInformation", "ssm:ListCommands", "ssm:ListCommandInvocations"]
        Resource = "*"
      },
    ]
  })
}

# AWS delivers these events only on a best-effort basis, so lastgasp-configurator-watch also looks about once an hour.
resource "aws_cloudwatch_event_rule" "endpoint_changed" {
  name_prefix = "lastgasp-endpoint-changed-"
  description = "A parameter of this cluster names other listeners."
  event_pattern = jsonencode({
    source      = ["aws.ssm"]
    detail-type = ["Parameter Store Change"]
    detail = {
      name      = [{ prefix = "/lastgasp/${var.cluster_name}/" }]
      operation = ["Create", "Update", "LabelParameterVersion"]
    }
  })
}

resource "aws_cloudwatch_event_target" "reload" {
  rule     = aws_cloudwatch_event_rule.endpoint_changed.name
  arn      = "${local.ssm}:automation-definition/${aws_ssm_document.fleet.name}:$DEFAULT"
  role_arn = aws_iam_role.rule.arn
  retry_policy {
    maximum_event_age_in_seconds = 3600
    maximum_retry_attempts       = 20
  }
}

resource "aws_iam_role" "rule" {
  name_prefix = "lastgasp-rule-"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "events.amazonaws.com" }
      Action    = "sts:AssumeRole"
      Condition = { StringEquals = { "aws:SourceAccount" = data.aws_caller_identity.this.account_id } }
    }]
  })
}

resource "aws_iam_role_policy" "rule" {
  name = "start"
  role = aws_iam_role.rule.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Effect   = "Allow"
        Action   = "ssm:StartAutomationExecution"
        Resource = "${local.ssm}:automation-definition/${aws_ssm_document.fleet.name}:*"
      },
      {
        Effect    = "Allow"
        Action    = "iam:PassRole"
        Resource  = aws_iam_role.fleet.arn
        Condition = { StringEquals = { "iam:PassedToService" = "ssm.amazonaws.com" } }
      },
    ]
  })
}

resource "aws_security_group" "listener" {
  name_prefix = "lastgasp-listener-"
  description = "lastgasp-listener"
  vpc_id      = var.vpc_id
  ingress {
    description     = "netconsole, canaries"
    protocol        = "udp"
    from_port       = 6666
    to_port         = 6666
    security_groups = [var.node_security_group_id]
  }
  ingress {
    description = "probes and metrics"
    protocol    = "tcp"
    from_port   = 9666
    to_port     = 9666
    cidr_blocks = [var.health_check_cidr]
  }
  # Terraform removes AWS's default rule, which allows everything outbound. A listener outside the cluster needs the API server.
  egress {
    protocol    = "-1"
    from_port   = 0
    to_port     = 0
    cidr_blocks = ["0.0.0.0/0"]
  }
}

output "node_policy_arn" {
  description = "Attach it to the nodes' role."
  value       = aws_iam_policy.node.arn
}

output "announce_policy_arn" {
  description = "Attach it to the listeners' role; null if this module writes the parameter."
  value       = one(aws_iam_policy.announce[*].arn)
}

output "unhealthy_policy_arn" {
  description = "Attach it to the listeners' role; null unless after_panic is unhealthy."
  value       = one(aws_iam_policy.unhealthy[*].arn)
}

output "after_panic_policy_arn" {
  description = "Attach it to the listeners' role; null unless after_panic is reboot or terminate."
  value       = one(aws_iam_policy.after_panic[*].arn)
}

output "fate_policy_arn" {
  description = "Attach it to the listeners' role; null if fate is false."
  value       = one(aws_iam_policy.fate[*].arn)
}

output "listener_security_group_id" {
  value = aws_security_group.listener.id
}
